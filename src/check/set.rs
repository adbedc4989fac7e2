//! What accepted checks write into the identity.

use serde_json::{Map, Value};

/// The most that one value may take, as JSON. Kratos hands hooks at most 64 KiB in all, and what is stored once comes
/// back with every later call.
pub const MOST_BYTES: usize = 16 * 1024;

/// Why a value was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Longer than [`MOST_BYTES`].
    #[error("the value is longer than {MOST_BYTES} bytes")]
    TooLarge,
    /// `traits` and `metadata_public` are objects, and stay so.
    #[error("the field as a whole is no object")]
    NoObject,
}

/// The identity's fields as they are to be saved, changed step by step.
#[derive(Debug)]
pub struct Changes<'a> {
    identity: &'a Value,
    changed: Map<String, Value>,
}

impl<'a> Changes<'a> {
    /// None yet.
    #[must_use]
    pub fn to(identity: &'a Value) -> Self {
        Self {
            identity,
            changed: Map::new(),
        }
    }

    /// Puts `value` at `path` (`traits`, `company`, `name`): objects are merged, nulls skipped, all else
    /// is replaced. What stands in the way of the path (a text where an object should be) is replaced too.
    /// Leaves everything as it is, and says why, if the field as a whole would be no object, or too large.
    pub fn set(&mut self, path: &[String], value: Value) -> Result<(), Unfit> {
        let Some((root, rest)) = path.split_first() else {
            return Ok(());
        };
        let sent = self.identity.get(root).unwrap_or(&Value::Null);
        if value.to_string().len() > MOST_BYTES {
            return Err(Unfit::TooLarge);
        }
        if !(sent.is_null() || sent.is_object())
            || (rest.is_empty() && !value.is_object() && !value.is_null())
        {
            return Err(Unfit::NoObject);
        }
        let nested = rest.iter().rev().fold(value, |inner, name| {
            Value::Object(Map::from_iter([(name.clone(), inner)]))
        });
        if let Some(nested) = without_nulls(nested) {
            let target = self
                .changed
                .entry(root.clone())
                .or_insert_with(|| sent.clone());
            merge(target, nested);
        }
        Ok(())
    }

    /// What differs from what Kratos sent, each field whole, because Kratos replaces whole fields.
    #[must_use]
    pub fn finish(mut self) -> Map<String, Value> {
        self.changed
            .retain(|root, value| self.identity.get(root).unwrap_or(&Value::Null) != value);
        self.changed
    }
}

fn merge(target: &mut Value, value: Value) {
    match (target, value) {
        (Value::Object(target), Value::Object(members)) => {
            for (name, value) in members {
                merge(target.entry(name).or_insert(Value::Null), value);
            }
        }
        (target, value) => *target = value,
    }
}

/// The value without its nulls; `None` if nothing is left of it.
fn without_nulls(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(members) if !members.is_empty() => {
            let kept: Map<String, Value> = members
                .into_iter()
                .filter_map(|(name, value)| Some((name, without_nulls(value)?)))
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(ToOwned::to_owned).collect()
    }

    #[test]
    fn changes_are_merged_into_what_kratos_sent_and_returned_whole() {
        let identity = json!({
            "traits": {"email": "a@example.org", "company": {"name": "old", "vat": "DE1"}, "tags": ["a", "b"]},
            "metadata_public": null,
        });
        let cases = [
            (
                "traits.company.name",
                json!("new"),
                json!({"traits": {"email": "a@example.org", "company": {"name": "new", "vat": "DE1"}, "tags": ["a", "b"]}}),
            ),
            (
                "traits.company",
                json!({"city": "Bonn", "name": null}),
                json!({"traits": {"email": "a@example.org", "company": {"name": "old", "vat": "DE1", "city": "Bonn"}, "tags": ["a", "b"]}}),
            ),
            (
                "traits.tags",
                json!(["c"]),
                json!({"traits": {"email": "a@example.org", "company": {"name": "old", "vat": "DE1"}, "tags": ["c"]}}),
            ),
            (
                "metadata_public.a.b",
                json!(1),
                json!({"metadata_public": {"a": {"b": 1}}}),
            ),
            ("metadata_public.a", json!(null), json!({})),
            ("metadata_public", json!({"a": null}), json!({})),
            ("traits.email", json!("a@example.org"), json!({})),
            (
                "traits.email.part",
                json!(1),
                json!({"traits": {"email": {"part": 1}, "company": {"name": "old", "vat": "DE1"}, "tags": ["a", "b"]}}),
            ),
        ];
        for (at, value, expected) in cases {
            let mut changes = Changes::to(&identity);
            changes.set(&path(at), value).unwrap();
            assert_eq!(Value::Object(changes.finish()), expected, "{at}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let identity = json!({"traits": {"a": "text"}, "metadata_public": ["a list"]});
        for (at, value, expected) in [
            ("metadata_public.a", json!(1), Err(Unfit::NoObject)),
            ("traits", json!("text"), Err(Unfit::NoObject)),
            (
                "traits.b",
                json!("x".repeat(MOST_BYTES)),
                Err(Unfit::TooLarge),
            ),
            ("traits.a", json!({"b": null}), Ok(())),
            ("traits", json!(null), Ok(())),
        ] {
            let mut changes = Changes::to(&identity);
            assert_eq!(changes.set(&path(at), value), expected, "{at}");
            assert!(changes.finish().is_empty(), "{at}");
        }
    }
}
