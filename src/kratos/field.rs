//! The path of a trait: `traits.email`, also written `#/traits/email`.

use serde_json::{Map, Value};

/// The path of one trait. At least one name follows `traits`, and no name is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    text: String,
    names: Vec<String>,
}

/// The reason why a text is not a [`Field`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not start with `traits.`.
    #[error("`{0}` is not a trait; a field is written `traits.vat_number`")]
    NotATrait(String),
    /// A name in the text is empty, or has a character that a form cannot name.
    #[error("`{0}` has a name that is empty or not made of letters, digits, `_` and `-`")]
    BadName(String),
    /// A number has a leading zero, so it is no index of a list.
    #[error("`{0}` has a number with a leading zero, which is no index")]
    BadIndex(String),
}

impl Field {
    /// Parses `traits.company.vat_number`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let Some(path) = text.strip_prefix("traits.") else {
            return Err(Error::NotATrait(text.to_owned()));
        };
        let usable = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|character| character.is_alphanumeric() || "_-".contains(character))
        };
        if path.split('.').any(has_leading_zero) {
            return Err(Error::BadIndex(text.to_owned()));
        }
        if path.split('.').all(usable) {
            let names = text.split('.').map(ToOwned::to_owned).collect();
            Ok(Self {
                text: text.to_owned(),
                names,
            })
        } else {
            Err(Error::BadName(text.to_owned()))
        }
    }

    /// Returns the name of the form's node for this field: `traits.vat_number`.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.text
    }

    /// Returns the field as Kratos expects it in `instance_ptr`: `#/traits/vat_number`.
    #[must_use]
    pub fn pointer(&self) -> String {
        format!("#/{}", self.text.replace('.', "/"))
    }

    /// Returns whether the field and the path are equal, or one contains the other.
    #[must_use]
    pub fn meets(&self, path: &[String]) -> bool {
        self.names.iter().zip(path).all(|(one, other)| one == other)
    }

    /// Returns the field's value in an identity, or `None` if the value is missing or null.
    ///
    /// The identity can be the current or the previous one. In a list, a number is the index of an entry:
    /// `traits.emails.0`.
    #[must_use]
    pub fn value_in<'a>(&self, identity: &'a Value) -> Option<&'a Value> {
        let mut names = self.names.iter();
        names
            .try_fold(identity, |value, name| step(value, name))
            .filter(|value| !value.is_null())
    }

    /// Returns the field's value, or `None` if the value is missing, null or absent ([`is_absent`]).
    #[must_use]
    pub fn present_in<'a>(&self, identity: &'a Value) -> Option<&'a Value> {
        self.value_in(identity).filter(|value| !is_absent(value))
    }

    /// Replaces the field's value in an identity. Returns `false` without a change if the path leads to a missing entry of a
    /// list, or through a value without parts.
    pub fn put_into(&self, identity: &mut Value, value: Value) -> bool {
        let mut names = self.names.iter();
        let place = names.try_fold(&mut *identity, |value, name| match value {
            Value::Array(list) => list.get_mut(index(name)?),
            Value::Object(members) => Some(members.entry(name.clone()).or_insert(Value::Null)),
            Value::Null => {
                *value = Value::Object(Map::new());
                Some(&mut value[name])
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        });
        place.map(|place| *place = value).is_some()
    }

    /// Returns the names of the path, `traits` first.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// Returns the part of a value under one name of a path. In a list, a number is the index of an entry.
#[must_use]
pub fn step<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Array(list) => list.get(index(name)?),
        other => other.get(name),
    }
}

/// Returns whether a name is a number that is no index: `01`.
#[must_use]
pub fn has_leading_zero(name: &str) -> bool {
    name.len() > 1 && name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the name of a path as an index: `0`, `12`, but not `01` or `+1`.
#[must_use]
pub fn index(name: &str) -> Option<usize> {
    let is_plain = name == "0" || !name.starts_with(['0', '+']);
    name.parse().ok().filter(|_| is_plain)
}

/// Returns whether a field with this value counts as empty.
///
/// These values are absent: null, an empty list or object, and a text without visible characters.
#[must_use]
pub fn is_absent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text
            .chars()
            .all(|character| character.is_whitespace() || has_no_width(character)),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns whether a character is a control character, or one that programs may ignore (Unicode's
/// `Default_Ignorable_Code_Point`): zero-width spaces and joiners, direction marks, variation selectors, fillers.
fn has_no_width(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

impl std::fmt::Display for Field {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_path_below_traits_is_a_field() {
        for good in ["traits.email", "traits.company.vat-number", "traits.ünit_1"] {
            assert!(Field::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "email",
            "traits",
            "traits.",
            "traits..a",
            "traits.a b",
            "metadata_public.a",
            "traits.a/b",
        ] {
            assert!(Field::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_field_has_a_node_name_a_pointer_and_a_value_in_an_identity() {
        let field = Field::parse("traits.company.vat").unwrap();
        assert_eq!(field.node_name(), "traits.company.vat");
        assert_eq!(field.pointer(), "#/traits/company/vat");
        let identity = json!({"traits": {"company": {"vat": "DE1"}}});
        assert_eq!(field.value_in(&identity), Some(&json!("DE1")));
        assert_eq!(
            field.value_in(&json!({"traits": {"company": {"vat": null}}})),
            None
        );
        assert_eq!(field.value_in(&json!({"traits": null})), None);
    }

    #[test]
    fn a_number_is_an_index_in_lists_only() {
        let identity = json!({"traits": {"emails": ["a@example.org", ""], "map": {"0": "by name"}, "text": "abc"}});
        for (field, expected) in [
            ("traits.emails.0", Some(json!("a@example.org"))),
            ("traits.emails.2", None),
            ("traits.emails.x", None),
            ("traits.map.0", Some(json!("by name"))),
            ("traits.text.0", None),
        ] {
            let parsed = Field::parse(field).unwrap();
            assert_eq!(parsed.value_in(&identity), expected.as_ref(), "{field}");
        }
        let empty = Field::parse("traits.emails.1").unwrap();
        assert_eq!(empty.value_in(&identity), Some(&json!("")));
        assert_eq!(empty.present_in(&identity), None);
    }

    #[test]
    fn a_value_is_put_where_the_field_is_read() {
        let identity = json!({"traits": {"emails": ["a"], "company": {"vat": "1"}, "text": "x", "none": null}});
        for (field, is_put) in [
            ("traits.emails.0", true),
            ("traits.company.vat", true),
            ("traits.company.name", true),
            ("traits.new.part", true),
            ("traits.none.part", true),
            ("traits.emails.1", false),
            ("traits.emails.x", false),
            ("traits.text.part", false),
        ] {
            let (field, mut changed) = (Field::parse(field).unwrap(), identity.clone());
            assert_eq!(
                field.put_into(&mut changed, json!({"a": 1})),
                is_put,
                "{field}"
            );
            let expected = is_put
                .then(|| json!({"a": 1}))
                .or(field.value_in(&identity).cloned());
            assert_eq!(field.value_in(&changed), expected.as_ref(), "{field}");
        }
    }

    #[test]
    fn a_text_without_visible_characters_is_absent() {
        for absent in [
            json!(null),
            json!([]),
            json!({}),
            json!(""),
            json!("  "),
            json!("\t\r\n"),
            json!("\u{a0}\u{2003}\u{3000}"),
            json!("\u{200b}"),
            json!("\u{200b} \u{feff}\u{2060}"),
            json!("\u{200d}\u{200e}\u{202e}"),
            json!("\u{3164}\u{115f}"),
            json!("\u{ad}\u{34f}\u{fe0f}"),
            json!("\u{0}\u{1}\u{85}"),
        ] {
            assert!(is_absent(&absent), "{absent}");
        }
        for present in [
            json!(0),
            json!(false),
            json!("0"),
            json!(" x "),
            json!("\u{200b}x"),
            json!("."),
            json!("\u{301}"),
            json!([""]),
            json!([null]),
            json!({"a": null}),
        ] {
            assert!(!is_absent(&present), "{present}");
        }
    }
}
