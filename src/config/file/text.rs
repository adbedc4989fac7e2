//! Texts that mean something: each kind has a name of its own in the schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;

macro_rules! text {
    ($name:ident, $format:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "format": $format})
            }
        }
    };
}

text!(Text, "text", "A text, taken as it is.");
text!(Template, "template", "A text with `{expression}` in it.");
text!(Expression, "expression", "A CEL expression.");

/// A time with a unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub Value);

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "duration-with-unit"})
    }
}

/// A whole number, or a text that gives one (`${env:PORT}`).
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Number(pub Value);

impl JsonSchema for Number {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"], "format": "number"})
    }
}

/// A number, whole or not, or a text that gives one (`${env:RATE}`).
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Decimal(pub Value);

impl JsonSchema for Decimal {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Decimal".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["number", "string"], "format": "number"})
    }
}
