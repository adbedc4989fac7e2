//! Builds the JSON Patch (RFC 6902) for writes into an identity, with any existing values.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::delivery::FieldWrite;
use crate::model::identity_write::{index, part};

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

    /// Replaces the entry of a list at `path`. The entry must exist.
    #[must_use]
    pub fn replace(path: &[&str], value: Value) -> Self {
        Self {
            op: "replace",
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
    let (last, way) = path.split_last()?;
    let parent = way.iter().try_fold(identity, |value, key| part(value, key));
    // An entry of a list is not removed, because the later entries would move.
    let found = parent.and_then(Value::as_object)?.get(*last);
    found.map(|_| Operation::remove(path))
}

/// Returns the path of one of these fields up to a list into which it leads. The field has no instruction for an entry,
/// and would replace a list of the visitor.
#[must_use]
pub fn list_on_the_way(identity: &Value, fields: &[FieldWrite]) -> Option<String> {
    fields.iter().find_map(|field| {
        let mut there = identity;
        for (depth, name) in field.path.iter().enumerate() {
            if there.is_array() {
                let is_kept = field.path[0] == "traits" || index(name).is_some();
                return is_kept.then(|| field.path[..=depth].join("."));
            }
            there = there.get(name)?;
        }
        None
    })
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
        there = match there {
            Value::Array(list) => match index(key).and_then(|index| list.get_mut(index)) {
                Some(entry) => entry,
                None => return,
            },
            there => {
                if !there.is_object() {
                    *there = Value::Object(Map::new());
                }
                &mut there[*key]
            }
        };
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
/// values on the path are replaced by objects. `None` if the value is there already, or if a list has no such entry.
#[must_use]
pub fn add(identity: &Value, path: &[&str], value: &Value) -> Option<Operation> {
    let mut there = identity;
    for (depth, key) in path.iter().enumerate() {
        if let (Value::Array(list), Some(index)) = (there, index(key)) {
            there = list.get(index)?;
            if depth + 1 == path.len() {
                // `add` would insert another entry.
                return (there != value).then(|| Operation::replace(path, value.clone()));
            }
            continue;
        }
        match there.get(key) {
            Some(next) if depth + 1 == path.len() => {
                return (next != value).then(|| Operation::set(path, value.clone()));
            }
            Some(next @ (Value::Object(_) | Value::Array(_)))
                if next.is_object() || index(path[depth + 1]).is_some() =>
            {
                there = next;
            }
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

    #[test]
    fn an_entry_of_a_list_is_replaced_and_never_inserted_or_removed() {
        let identity = json!({"traits": {"projects": [{"name": "a"}, {"name": "b", "tags": ["x"]}], "tags": ["x"]}});
        let entry = json!({"name": "b", "id": 7});
        for (path, value, expected) in [
            (
                "traits.projects.1",
                &entry,
                Some(("replace", "/traits/projects/1", entry.clone())),
            ),
            (
                "traits.projects.1.tags.0",
                &json!("y"),
                Some(("replace", "/traits/projects/1/tags/0", json!("y"))),
            ),
            ("traits.tags.0", &json!("x"), None),
            ("traits.projects.2", &entry, None),
            ("traits.projects.7.id", &json!(7), None),
            (
                "traits.projects.0.id",
                &json!(7),
                Some(("add", "/traits/projects/0/id", json!(7))),
            ),
        ] {
            let steps: Vec<&str> = path.split('.').collect();
            let expected = expected.map(|(op, path, value)| Operation {
                op,
                path: path.to_owned(),
                value: Some(value),
            });
            assert_eq!(add(&identity, &steps, value), expected, "{path}");
        }
        assert_eq!(remove_operation(&identity, &["traits", "tags", "0"]), None);
    }

    #[test]
    fn a_field_that_leads_into_a_list_is_found() {
        let identity = json!({
            "traits": {"projects": [{"name": "a"}], "years": {"0": {}}}, "metadata_admin": [1],
            "metadata_public": {"list": [{}]},
        });
        for (path, expected) in [
            ("traits.projects.0.id", Some("traits.projects.0")),
            ("traits.projects.7", Some("traits.projects.7")),
            ("traits.projects.id", Some("traits.projects.id")),
            ("metadata_public.list.0.id", Some("metadata_public.list.0")),
            ("traits.projects", None),
            ("traits.years.0.id", None),
            ("traits.other.0", None),
            ("metadata_admin.crm", None),
        ] {
            let field = FieldWrite {
                path: path.split('.').map(ToOwned::to_owned).collect(),
                value: Some(json!(7)),
            };
            assert_eq!(
                list_on_the_way(&identity, &[field]).as_deref(),
                expected,
                "{path}"
            );
        }
    }
}
