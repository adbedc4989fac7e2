//! Texts with a meaning: each kind has its own name in the schema.

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

text!(Text, "text", "A literal text.");
text!(Template, "template", "A text with `{expression}` in it.");
text!(Expression, "expression", "A CEL expression.");

/// A duration with a unit.
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

/// A whole number, or a text that expands to one (`${env:PORT}`).
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

/// A number, or a text that expands to one (`${env:RATE}`).
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
