//! Builds the JSON Patch (RFC 6902) for writes into an identity, with any existing values.

use serde::Serialize;
use serde_json::{Map, Value};

/// One operation of a patch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

impl Operation {
    /// Puts `value` at `path`, and replaces an existing value. The parent of `path` must exist.
    #[must_use]
    pub fn set(path: &[&str], value: Value) -> Self {
        Self {
            // For a member of an object, `add` also replaces.
            op: "add",
            path: pointer(path),
            value: Some(value),
        }
    }

    /// Removes the value at `path`. The value must exist.
    #[must_use]
    pub fn remove(path: &[&str]) -> Self {
        Self {
            op: "remove",
            path: pointer(path),
            value: None,
        }
    }
}

/// Returns the operation that removes the value at `path` of `identity`. `None` if there is no value.
#[must_use]
pub fn remove_operation(identity: &Value, path: &[&str]) -> Option<Operation> {
    let found = path.iter().try_fold(identity, |value, key| value.get(key));
    found.map(|_| Operation::remove(path))
}

/// Returns the patch that sets all of these values one after the other; `None` removes a value. The patch is empty if
/// the identity already has these values.
#[must_use]
pub fn diff<'a>(
    identity: &Value,
    fields: impl Iterator<Item = (Vec<&'a str>, Option<&'a Value>)>,
) -> Vec<Operation> {
    // The identity as changed until now. A second value then does not replace the object that the first value needed.
    let mut becoming = identity.clone();
    let mut operations = Vec::new();
    for (path, value) in fields {
        if let Some(value) = value {
            operations.extend(add(&becoming, &path, value));
            set(&mut becoming, &path, value);
        } else {
            operations.extend(remove_operation(&becoming, &path));
            remove_in(&mut becoming, &path);
        }
    }
    operations
}

fn set(becoming: &mut Value, path: &[&str], value: &Value) {
    let mut there = becoming;
    for key in path {
        if !there.is_object() {
            *there = Value::Object(Map::new());
        }
        there = &mut there[*key];
    }
    *there = value.clone();
}

fn remove_in(becoming: &mut Value, path: &[&str]) {
    let Some((last, way)) = path.split_last() else {
        return;
    };
    let there = way
        .iter()
        .try_fold(becoming, |there, key| there.get_mut(*key));
    if let Some(Value::Object(map)) = there {
        map.remove(*last);
    }
}

/// Returns the operation that puts `value` at `path` of `identity`. Missing objects on the path are created, and other
/// values on the path are replaced by objects. `None` if the value is there already.
#[must_use]
pub fn add(identity: &Value, path: &[&str], value: &Value) -> Option<Operation> {
    let mut there = identity;
    for (depth, key) in path.iter().enumerate() {
        match there.get(key) {
            Some(next) if depth + 1 == path.len() => {
                return (next != value).then(|| Operation::set(path, value.clone()));
            }
            Some(next @ Value::Object(_)) => there = next,
            _ => {
                let (way, rest) = path.split_at(depth + 1);
                return Some(Operation::set(way, within(rest, value.clone())));
            }
        }
    }
    None
}

/// Wraps the value in objects with these names.
fn within(path: &[&str], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| {
        Value::Object(Map::from_iter([((*key).to_owned(), inner)]))
    })
}

/// Returns the JSON Pointer (RFC 6901) of a path.
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
    fn a_value_is_added_whatever_the_identity_holds() {
        for (metadata, path, expected) in [
            // The existing metadata, the path, the operation.
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
                value: Some(value),
            });
            assert_eq!(add(&identity, &steps, &json!(7)), expected, "{identity}");
        }
    }

    #[test]
    fn several_values_of_one_patch_do_not_replace_each_other() {
        let identity = json!({"id": "i", "metadata_admin": null, "state": "active"});
        let (one, two, inactive) = (json!(1), json!(2), json!("inactive"));
        let fields = [
            (vec!["metadata_admin", "v", "one"], Some(&one)),
            (vec!["metadata_admin", "v", "two"], Some(&two)),
            (vec!["metadata_admin", "v", "none"], None),
            (vec!["metadata_admin", "v", "one"], None),
            (vec!["state"], Some(&inactive)),
        ];
        let operations = diff(&identity, fields.into_iter());
        assert_eq!(
            serde_json::to_value(&operations).unwrap(),
            json!([
                {"op": "add", "path": "/metadata_admin", "value": {"v": {"one": 1}}},
                {"op": "add", "path": "/metadata_admin/v/two", "value": 2},
                {"op": "remove", "path": "/metadata_admin/v/one"},
                {"op": "add", "path": "/state", "value": "inactive"},
            ])
        );
        assert!(
            diff(
                &identity,
                [(vec!["state"], Some(&json!("active")))].into_iter()
            )
            .is_empty()
        );
    }
}
