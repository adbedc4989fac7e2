//! Computes what accepted checks write into the identity.

use serde_json::{Map, Value};

use crate::kratos::field::{index, step};

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
    /// The path leads into a list, and the list has no such entry.
    #[error("the path leads to an entry of a list, and there is no such entry")]
    NoEntry,
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
    /// is replaced. A value that blocks the path (a text where an object should be) is replaced too. In a list, a number
    /// is the index of an entry (`traits`, `emails`, `0`), and the entry must exist.
    ///
    /// If the field as a whole would not be an object, the list has no such entry, or the value is too large, nothing
    /// changes and an error is returned.
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
        if let Some(value) = without_nulls(value) {
            let mut after = self.changed.get(root).unwrap_or(sent).clone();
            put(&mut after, rest, value, root == "traits")?;
            self.changed.insert(root.clone(), after);
        }
        Ok(())
    }

    /// Removes the value at `path`, and the objects around it that become empty. The field itself stays an object,
    /// because Kratos empties `metadata_public` for a `{}`. Entries of lists stay, so that no other entry moves: an entry
    /// at `path` becomes null.
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
            .try_fold(before, |value, name| step(value, name))
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

/// Writes `value` at `path` below `target`.
fn put(target: &mut Value, path: &[String], value: Value, is_in_traits: bool) -> Result<(), Unfit> {
    let Some((name, rest)) = path.split_first() else {
        merge(target, value);
        return Ok(());
    };
    let inner = match target {
        Value::Array(list) => index(name)
            .and_then(|index| list.get_mut(index))
            .ok_or(Unfit::NoEntry)?,
        Value::Object(members) => members.entry(name.clone()).or_insert(Value::Null),
        // Where the list of a trait is missing, Kratos would refuse an object in its place.
        _ if is_in_traits && index(name).is_some() => return Err(Unfit::NoEntry),
        blocking => {
            *blocking = Value::Object(Map::new());
            &mut blocking[name]
        }
    };
    put(inner, rest, value, is_in_traits)
}

fn remove_in(value: &mut Value, path: &[String]) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    let members = match value {
        Value::Object(members) => members,
        Value::Array(list) => {
            let entry = index(name).and_then(|index| list.get_mut(index));
            return match entry {
                Some(entry) if rest.is_empty() => *entry = Value::Null,
                Some(entry) => remove_in(entry, rest),
                None => {}
            };
        }
        _ => return,
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
            "metadata_public.list.1.a",
            "metadata_public.list.a",
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
    fn a_number_in_a_path_is_the_index_of_an_entry_where_the_value_is_a_list() {
        let identity = json!({
            "traits": {"emails": ["A@example.org", "b@example.org"], "projects": [{"name": "p", "tags": ["x"]}], "map": {"0": "by name"}, "text": "abc"},
            "metadata_public": {"list": [1, 2]},
        });
        let unchanged = json!({});
        let traits = |pointer: &str, value: Value| {
            let mut traits = identity["traits"].clone();
            *traits.pointer_mut(pointer).unwrap() = value;
            json!({ "traits": traits })
        };
        for (at, value, expected) in [
            (
                "traits.emails.0",
                json!("a@example.org"),
                Ok(traits("/emails/0", json!("a@example.org"))),
            ),
            (
                "traits.emails.1",
                json!({"a": 1}),
                Ok(traits("/emails/1", json!({"a": 1}))),
            ),
            (
                "traits.projects.0.name",
                json!("q"),
                Ok(traits("/projects/0/name", json!("q"))),
            ),
            (
                "traits.projects.0",
                json!({"id": 7}),
                Ok(traits(
                    "/projects/0",
                    json!({"name": "p", "tags": ["x"], "id": 7}),
                )),
            ),
            (
                "traits.projects.0.tags.0",
                json!("y"),
                Ok(traits("/projects/0/tags/0", json!("y"))),
            ),
            (
                "traits.map.0",
                json!("new"),
                Ok(traits("/map/0", json!("new"))),
            ),
            (
                "metadata_public.list.1",
                json!(3),
                Ok(json!({"metadata_public": {"list": [1, 3]}})),
            ),
            (
                "metadata_public.by_year.2026",
                json!(1),
                Ok(json!({"metadata_public": {"list": [1, 2], "by_year": {"2026": 1}}})),
            ),
            ("traits.emails.2", json!("c"), Err(Unfit::NoEntry)),
            ("traits.emails.00", json!("c"), Err(Unfit::NoEntry)),
            ("traits.emails.first", json!("c"), Err(Unfit::NoEntry)),
            ("traits.missing.0", json!("c"), Err(Unfit::NoEntry)),
            ("traits.text.0", json!("c"), Err(Unfit::NoEntry)),
            ("traits.projects.1.name", json!("c"), Err(Unfit::NoEntry)),
            ("metadata_public.list.x", json!(1), Err(Unfit::NoEntry)),
            ("traits.emails.0", json!(null), Ok(unchanged.clone())),
        ] {
            let mut changes = Changes::to(&identity);
            let result = changes.set(&path(at), value);
            let expected = expected.map_or_else(
                |unfit| (Err(unfit), unchanged.clone()),
                |changed| (Ok(()), changed),
            );
            assert_eq!((result, Value::Object(changes.finish())), expected, "{at}");
        }
    }

    #[test]
    fn entries_of_lists_stay_in_their_place_when_a_value_is_removed() {
        let identity = json!({"metadata_public": {"list": [{"a": 1}, {"a": 2, "b": 3}, "c"]}});
        for (at, expected) in [
            (
                "metadata_public.list.0.a",
                json!([{}, {"a": 2, "b": 3}, "c"]),
            ),
            ("metadata_public.list.1.a", json!([{"a": 1}, {"b": 3}, "c"])),
            (
                "metadata_public.list.2",
                json!([{"a": 1}, {"a": 2, "b": 3}, null]),
            ),
        ] {
            let mut changes = Changes::to(&identity);
            changes.remove(&path(at));
            let changed = json!({"metadata_public": {"list": expected}});
            assert_eq!(Value::Object(changes.finish()), changed, "{at}");
        }
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
