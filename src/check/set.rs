//! What accepted checks write into the identity.

use serde_json::{Map, Value};

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
    pub fn set(&mut self, path: &[String], value: Value) {
        let Some((root, rest)) = path.split_first() else {
            return;
        };
        if value.is_null() {
            return;
        }
        let target = self
            .changed
            .entry(root.clone())
            .or_insert_with(|| self.identity.get(root).cloned().unwrap_or_default());
        let nested = rest.iter().rev().fold(value, |inner, name| {
            Value::Object(Map::from_iter([(name.clone(), inner)]))
        });
        merge(target, nested);
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
    match value {
        Value::Null => {}
        Value::Object(members) => {
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            if let Value::Object(target) = target {
                for (name, value) in members {
                    if !value.is_null() {
                        merge(target.entry(name).or_insert(Value::Null), value);
                    }
                }
            }
        }
        other => *target = other,
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
            (
                "metadata_public",
                json!({"a": null}),
                json!({"metadata_public": {}}),
            ),
            ("traits.email", json!("a@example.org"), json!({})),
            (
                "traits.email.part",
                json!(1),
                json!({"traits": {"email": {"part": 1}, "company": {"name": "old", "vat": "DE1"}, "tags": ["a", "b"]}}),
            ),
        ];
        for (at, value, expected) in cases {
            let mut changes = Changes::to(&identity);
            changes.set(&path(at), value);
            assert_eq!(Value::Object(changes.finish()), expected, "{at}");
        }
    }
}
