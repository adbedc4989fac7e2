//! JSON Patch (RFC 6902) for what is written back to an identity, whatever is there already.

use serde::Serialize;
use serde_json::{Map, Value};

/// One step of a patch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    path: String,
    value: Value,
}

impl Operation {
    /// Puts `value` at `path`, in place of what may be there. What `path` stands in must be there.
    #[must_use]
    pub fn put(path: &[&str], value: Value) -> Self {
        Self {
            // On a member of an object, `add` replaces as well.
            op: "add",
            path: pointer(path),
            value,
        }
    }
}

/// The patch that puts `value` at `path` of `identity`. What is missing on the way is made; what stands in the way and
/// is no object is replaced by one. `None` if it is there already.
#[must_use]
pub fn putting(identity: &Value, path: &[&str], value: &Value) -> Option<Operation> {
    let mut there = identity;
    for (depth, key) in path.iter().enumerate() {
        match there.get(key) {
            Some(next) if depth + 1 == path.len() => {
                return (next != value).then(|| Operation::put(path, value.clone()));
            }
            Some(next @ Value::Object(_)) => there = next,
            _ => {
                let (way, rest) = path.split_at(depth + 1);
                return Some(Operation::put(way, within(rest, value.clone())));
            }
        }
    }
    None
}

/// The value inside objects of these names.
fn within(path: &[&str], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| {
        Value::Object(Map::from_iter([((*key).to_owned(), inner)]))
    })
}

/// RFC 6901.
fn pointer(path: &[&str]) -> String {
    let steps = path
        .iter()
        .flat_map(|key| ["/".to_owned(), key.replace('~', "~0").replace('/', "~1")]);
    steps.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whatever_is_there_the_value_gets_to_its_place() {
        for (metadata, path, expected) in [
            // what is there, where to, the step
            (
                json!(null),
                "metadata_admin.crm",
                Some(("/metadata_admin", json!({"crm": 7}))),
            ),
            (
                json!({}),
                "metadata_admin.crm",
                Some(("/metadata_admin/crm", json!(7))),
            ),
            (
                json!({"crm": 1}),
                "metadata_admin.crm",
                Some(("/metadata_admin/crm", json!(7))),
            ),
            (json!({"crm": 7}), "metadata_admin.crm", None),
            (
                json!({"other": 1}),
                "metadata_admin.crm.id",
                Some(("/metadata_admin/crm", json!({"id": 7}))),
            ),
            (
                json!({"crm": "text"}),
                "metadata_admin.crm.id",
                Some(("/metadata_admin/crm", json!({"id": 7}))),
            ),
            (
                json!({"crm": {"id": 1, "name": "n"}}),
                "metadata_admin.crm.id",
                Some(("/metadata_admin/crm/id", json!(7))),
            ),
            (
                json!([1]),
                "metadata_admin.crm",
                Some(("/metadata_admin", json!({"crm": 7}))),
            ),
            (
                json!({"a/b~c": {}}),
                "metadata_admin.a/b~c.d",
                Some(("/metadata_admin/a~1b~0c/d", json!(7))),
            ),
        ] {
            let identity = json!({"id": "i", "metadata_admin": metadata});
            let steps: Vec<&str> = path.split('.').collect();
            let expected = expected.map(|(path, value)| Operation {
                op: "add",
                path: path.to_owned(),
                value,
            });
            assert_eq!(
                putting(&identity, &steps, &json!(7)),
                expected,
                "{identity}"
            );
        }
    }
}
