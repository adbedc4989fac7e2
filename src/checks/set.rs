//! Computes what accepted checks write into the identity.

use serde_json::{Map, Value};

/// The maximum size of one value, in bytes of JSON. Kratos passes at most 64 KiB to a hook, and a stored value is
/// part of every later call.
pub const MAX_BYTES: usize = 16 * 1024;

/// Why a value was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The value is longer than [`MAX_BYTES`].
    #[error("the value is longer than {MAX_BYTES} bytes")]
    TooLarge,
    /// The field would not be an object; `traits` and `metadata_public` must stay objects.
    #[error("the field as a whole is not an object")]
    NoObject,
}

/// Collects the changes of an identity's fields.
#[derive(Debug)]
pub struct Changes<'a> {
    identity: &'a Value,
    changed: Map<String, Value>,
}

impl<'a> Changes<'a> {
    /// Starts without changes.
    #[must_use]
    pub fn to(identity: &'a Value) -> Self {
        Self {
            identity,
            changed: Map::new(),
        }
    }

    /// Writes `value` at `path` (`traits`, `company`, `name`). Objects are merged, nulls are skipped, and all else
    /// is replaced. A value that blocks the path (a text where an object should be) is replaced too.
    ///
    /// If the field as a whole would not be an object, or the value is too large, nothing changes and an error is
    /// returned.
    pub fn set(&mut self, path: &[String], value: Value) -> Result<(), Unfit> {
        let Some((root, rest)) = path.split_first() else {
            return Ok(());
        };
        let sent = self.identity.get(root).unwrap_or(&Value::Null);
        if value.to_string().len() > MAX_BYTES {
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

    /// Removes the value at `path`, and the objects around it that become empty. The field itself stays an object,
    /// because Kratos empties `metadata_public` for a `{}`.
    pub fn remove(&mut self, path: &[String]) {
        let Some((root, rest)) = path.split_first() else {
            return;
        };
        let before = self
            .changed
            .get(root)
            .or_else(|| self.identity.get(root))
            .unwrap_or(&Value::Null);
        let exists = rest
            .iter()
            .try_fold(before, |value, name| value.get(name))
            .is_some();
        if rest.is_empty() || !exists {
            return;
        }
        let mut after = before.clone();
        remove_in(&mut after, rest);
        self.changed.insert(root.clone(), after);
    }

    /// Returns the fields that differ from what Kratos sent. Each field is whole, because Kratos replaces whole fields.
    #[must_use]
    pub fn finish(mut self) -> Map<String, Value> {
        self.changed
            .retain(|root, value| self.identity.get(root).unwrap_or(&Value::Null) != value);
        self.changed
    }
}

fn remove_in(value: &mut Value, path: &[String]) {
    let (Value::Object(members), Some((name, rest))) = (value, path.split_first()) else {
        return;
    };
    if let Some(inner) = members.get_mut(name).filter(|_| !rest.is_empty()) {
        remove_in(inner, rest);
        if inner.as_object().is_none_or(|inner| !inner.is_empty()) {
            return;
        }
    }
    members.shift_remove(name);
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

/// Returns the value without its nulls; `None` if nothing is left of it.
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
    fn objects_that_become_empty_are_removed_with_their_last_value() {
        let identity = json!({
            "traits": {"company": "Muster AG"},
            "metadata_public": {"plan": "free", "company": {"name": {"short": "M", "long": "Muster"}, "vat": 1}, "list": [{"a": 1}], "none": null},
        });
        let cases = [
            (
                vec!["metadata_public.company.name.short"],
                json!({"plan": "free", "company": {"name": {"long": "Muster"}, "vat": 1}, "list": [{"a": 1}], "none": null}),
            ),
            (
                vec![
                    "metadata_public.company.name.short",
                    "metadata_public.company.name.long",
                ],
                json!({"plan": "free", "company": {"vat": 1}, "list": [{"a": 1}], "none": null}),
            ),
            (
                vec!["metadata_public.company", "metadata_public.list"],
                json!({"plan": "free", "none": null}),
            ),
            (
                vec![
                    "metadata_public.plan",
                    "metadata_public.company",
                    "metadata_public.list",
                    "metadata_public.none",
                ],
                json!({}),
            ),
        ];
        for (paths, expected) in cases {
            let mut changes = Changes::to(&identity);
            for at in &paths {
                changes.remove(&path(at));
            }
            assert_eq!(
                Value::Object(changes.finish()),
                json!({ "metadata_public": expected }),
                "{paths:?}"
            );
        }
        for nothing in [
            "metadata_public",
            "metadata_public.other",
            "metadata_public.plan.deeper",
            "metadata_public.list.0.a",
            "metadata_admin.a",
        ] {
            let mut changes = Changes::to(&identity);
            changes.remove(&path(nothing));
            assert!(changes.finish().is_empty(), "{nothing}");
        }
        let mut changes = Changes::to(&identity);
        changes.remove(&path("metadata_public.company"));
        changes
            .set(&path("metadata_public.company.name"), json!("New"))
            .unwrap();
        assert_eq!(
            changes.finish()["metadata_public"]["company"],
            json!({"name": "New"})
        );
    }

    #[test]
    fn values_that_do_not_fit_are_rejected() {
        let identity = json!({"traits": {"a": "text"}, "metadata_public": ["a list"]});
        for (at, value, expected) in [
            ("metadata_public.a", json!(1), Err(Unfit::NoObject)),
            ("traits", json!("text"), Err(Unfit::NoObject)),
            (
                "traits.b",
                json!("x".repeat(MAX_BYTES)),
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
