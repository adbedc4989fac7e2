//! Which part of the identity is meant: `traits.email`, also written `#/traits/email`.

use serde_json::Value;

/// A path to one trait. It has at least one name behind `traits`, and no empty one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    text: String,
    names: Vec<String>,
}

/// Why a text is not a [`Field`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not start with `traits.`.
    #[error("`{0}` is not a trait; a field is written `traits.vat_number`")]
    NotATrait(String),
    /// A name in it is empty, or has a character that a form cannot name.
    #[error("`{0}` has a name that is empty or not made of letters, digits, `_` and `-`")]
    BadName(String),
}

impl Field {
    /// Reads `traits.company.vat_number`.
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

    /// The name of the form's node for this field: `traits.vat_number`.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.text
    }

    /// The same as Kratos wants it in `instance_ptr`: `#/traits/vat_number`.
    #[must_use]
    pub fn pointer(&self) -> String {
        format!("#/{}", self.text.replace('.', "/"))
    }

    /// Whether one is the other, or within it.
    #[must_use]
    pub fn meets(&self, path: &[String]) -> bool {
        self.names.iter().zip(path).all(|(one, other)| one == other)
    }

    /// The value in an identity, or in what it was before; `None` if it is missing or null.
    #[must_use]
    pub fn value_in<'a>(&self, identity: &'a Value) -> Option<&'a Value> {
        self.names
            .iter()
            .try_fold(identity, |value, name| value.get(name))
            .filter(|value| !value.is_null())
    }
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
    fn only_traits_are_fields() {
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
    fn a_field_is_written_as_node_and_as_pointer_and_found_in_an_identity() {
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
}
