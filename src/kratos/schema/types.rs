//! Sets of JSON types.

use serde_json::Value;

/// A set of JSON types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types(u8);

/// The types, each with its description. A number is a whole number or a fraction.
const DESCRIBED: [(Types, &str); 6] = [
    (Types::TEXT, "a text"),
    (Types::BOOLEAN, "`true` or `false`"),
    (Types::LIST, "a list"),
    (Types::OBJECT, "an object"),
    (Types::NUMBER, "a number"),
    (Types::WHOLE, "a whole number"),
];

impl Types {
    /// No type.
    pub const NONE: Self = Self(0);
    /// `string`
    pub const TEXT: Self = Self(1);
    /// `integer`
    pub const WHOLE: Self = Self(2);
    /// `number`
    pub const NUMBER: Self = Self(2 | 4);
    /// `boolean`
    pub const BOOLEAN: Self = Self(8);
    /// `array`
    pub const LIST: Self = Self(16);
    /// `object`
    pub const OBJECT: Self = Self(32);
    /// `null`
    pub const NULL: Self = Self(64);
    /// Every type, which is what a schema without a type allows.
    pub const ALL: Self = Self(127);

    const FRACTION: Self = Self(4);

    /// Returns the type of a value.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Number(number) if number.as_f64().is_some_and(|one| one.fract() == 0.0) => {
                Self::WHOLE
            }
            Value::Number(_) => Self::FRACTION,
            Value::String(_) => Self::TEXT,
            Value::Array(_) => Self::LIST,
            Value::Object(_) => Self::OBJECT,
        }
    }

    /// Returns the types that a schema's own `type`, `const` and `enum` allow.
    pub(super) fn of_schema(schema: &Value) -> Self {
        if schema == &Value::Bool(false) {
            return Self::NONE;
        }
        let named = match &schema["type"] {
            Value::String(one) => Self::named(one),
            Value::Array(several) => several
                .iter()
                .filter_map(Value::as_str)
                .map(Self::named)
                .fold(Self::NONE, Self::or),
            _ => Self::ALL,
        };
        let listed = schema["enum"].as_array().map(Vec::as_slice);
        let constant = schema.get("const").map(std::slice::from_ref);
        match listed.or(constant) {
            Some(values) => values
                .iter()
                .map(Self::of)
                .fold(Self::NONE, Self::or)
                .and(named),
            None => named,
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "string" => Self::TEXT,
            "integer" => Self::WHOLE,
            "number" => Self::NUMBER,
            "boolean" => Self::BOOLEAN,
            "array" => Self::LIST,
            "object" => Self::OBJECT,
            "null" => Self::NULL,
            _ => Self::ALL,
        }
    }

    /// Returns the types of both sets.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the types that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether all types of the other set are in this set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether one type is in both sets.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        self.and(other) != Self::NONE
    }

    /// Returns whether a schema gives a type.
    #[must_use]
    pub fn is_given(self) -> bool {
        self != Self::ALL
    }

    /// Returns the types without null.
    #[must_use]
    pub fn without_null(self) -> Self {
        Self(self.0 & !Self::NULL.0)
    }
}

impl std::fmt::Display for Types {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.without_null();
        let mut names = Vec::new();
        for (types, name) in DESCRIBED {
            if rest.contains(types) {
                names.push(name);
                rest = Self(rest.0 & !types.0);
            }
        }
        if names.is_empty() {
            names.push("null");
        }
        formatter.write_str(&names.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_allows_the_types_of_its_type_const_and_enum() {
        for (schema, expected, described) in [
            (json!({}), Types::ALL, None),
            (json!(true), Types::ALL, None),
            (json!(false), Types::NONE, None),
            (json!({"type": "string"}), Types::TEXT, Some("a text")),
            (
                json!({"type": ["string", "null"]}),
                Types::TEXT.or(Types::NULL),
                Some("a text"),
            ),
            (json!({"type": "number"}), Types::NUMBER, Some("a number")),
            (
                json!({"type": "integer"}),
                Types::WHOLE,
                Some("a whole number"),
            ),
            (json!({"enum": ["a", "b"]}), Types::TEXT, Some("a text")),
            (
                json!({"enum": ["a", 1]}),
                Types::TEXT.or(Types::WHOLE),
                Some("a text or a whole number"),
            ),
            (
                json!({"const": true}),
                Types::BOOLEAN,
                Some("`true` or `false`"),
            ),
            (json!({"const": null}), Types::NULL, Some("null")),
            (
                json!({"type": "string", "enum": ["a", null]}),
                Types::TEXT,
                Some("a text"),
            ),
            (
                json!({"type": ["array", "object"]}),
                Types::LIST.or(Types::OBJECT),
                Some("a list or an object"),
            ),
            (json!({"type": "unheard of"}), Types::ALL, None),
        ] {
            let found = Types::of_schema(&schema);
            assert_eq!(found, expected, "{schema}");
            if let Some(described) = described {
                assert_eq!(found.to_string(), described, "{schema}");
            }
        }
    }

    #[test]
    fn a_number_is_whole_or_a_fraction() {
        for (value, is_whole) in [(json!(1), true), (json!(2.0), true), (json!(1.5), false)] {
            assert!(Types::NUMBER.contains(Types::of(&value)), "{value}");
            assert_eq!(
                Types::WHOLE.contains(Types::of(&value)),
                is_whole,
                "{value}"
            );
        }
    }
}
