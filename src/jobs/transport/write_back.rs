//! Creates the deliveries that write values of a response into the identity.

use serde_json::Value;

use super::HttpTransport;
use crate::checks::deferred;
use crate::model::delivery::{
    Action, Claimed, EntryWrite, EvaluationContext, FieldWrite, NewDelivery, WriteBack,
};
use crate::model::identity_write::{index, part, value_at};

/// What one delivery writes.
#[derive(Default)]
struct Writes {
    fields: Vec<FieldWrite>,
    entries: Vec<EntryWrite>,
    /// Why nothing can be written.
    failed: Option<String>,
}

impl HttpTransport {
    /// Returns the delivery that writes values of the response into the identity.
    pub(super) fn write_back(
        &self,
        name: &str,
        delivery: &Claimed,
        response: &Value,
    ) -> Vec<NewDelivery> {
        let (Some(subscription), Some(context)) = (self.subscription(name), &delivery.context)
        else {
            return Vec::new();
        };
        let variables = context.variables(self.deps.rules.lists(), Some(response));
        let mut writes = Writes::default();
        for entry in &subscription.write_back {
            match entry.value.render(&variables) {
                Ok(Value::Null) => {}
                Ok(value) => writes.add(entry, value, context),
                Err(error) => writes.fail(entry, &error.to_string()),
            }
        }
        let Writes {
            fields,
            entries,
            failed,
        } = writes;
        if fields.is_empty() && entries.is_empty() && failed.is_none() {
            return Vec::new();
        }
        let now = self.deps.clock.now();
        let (id, key) = (delivery.identity_id, delivery.id.to_string());
        let mut new = deferred::identity_write(name, id, delivery.event, key, fields, now);
        if let Some(reason) = failed {
            // The delivery is stored with its error and listed. Nothing is written in part.
            new.action = Err(reason);
        } else if !entries.is_empty()
            && let Ok(Action::PatchIdentity(fields)) = new.action
        {
            new.action = Ok(Action::PatchEntries { fields, entries });
        }
        vec![new]
    }
}

impl Writes {
    fn fail(&mut self, entry: &WriteBack, reason: &str) {
        self.failed = Some(format!("`write_back.{}`: {reason}", entry.path.join(".")));
    }

    /// Adds a value. A path that leads into a list of the event changes one entry of the list.
    fn add(&mut self, entry: &WriteBack, value: Value, context: &EvaluationContext) {
        let null = Value::Null;
        let identity = context.identity.as_ref().unwrap_or(&null);
        let Some(length) = into_list(identity, &entry.path) else {
            self.fields.push(FieldWrite {
                path: entry.path.clone(),
                value: Some(value),
            });
            return;
        };
        let (path, rest) = entry.path.split_at(length);
        let there = value_at(identity, path);
        let Some(there) = there.filter(|there| rest.is_empty() || !is_scalar(there)) else {
            let path = path.join(".");
            return self.fail(
                entry,
                &format!("the identity of the event has no entry `{path}`"),
            );
        };
        let value = (rest.to_vec(), value);
        match self.entries.iter_mut().find(|one| one.path == path) {
            Some(known) => known.values.push(value),
            None => self.entries.push(EntryWrite {
                path: path.to_vec(),
                entry: there.clone(),
                values: vec![value],
            }),
        }
    }
}

/// Returns how many names of the path lead to an entry of the first list on its way. `None` if there is no list.
fn into_list(identity: &Value, path: &[String]) -> Option<usize> {
    let mut there = identity;
    for (at, name) in path.iter().enumerate() {
        if there.is_array() && index(name).is_some() {
            return Some(at + 1);
        }
        there = part(there, name)?;
    }
    None
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::JsonTemplate;
    use serde_json::json;

    fn writes(identity: &Value, paths: &[&str]) -> Writes {
        let context = EvaluationContext {
            identity: Some(identity.clone()),
            ..EvaluationContext::default()
        };
        let mut writes = Writes::default();
        for path in paths {
            let entry = WriteBack {
                path: path.split('.').map(ToOwned::to_owned).collect(),
                value: JsonTemplate::Null,
            };
            writes.add(&entry, json!(7), &context);
        }
        writes
    }

    #[test]
    fn a_path_into_a_list_of_the_event_changes_one_entry() {
        let identity = json!({
            "traits": {"projects": [{"name": "a"}, {"name": "b", "tags": ["x"]}], "years": {"2024": {}}, "tags": ["x"]},
        });
        for (paths, fields, entries) in [
            (
                vec!["traits.projects.0.id"],
                vec![],
                vec![("traits.projects.0", json!({"name": "a"}), vec!["id"])],
            ),
            (
                vec!["traits.projects.1.id", "traits.projects.1.crm.id"],
                vec![],
                vec![(
                    "traits.projects.1",
                    json!({"name": "b", "tags": ["x"]}),
                    vec!["id", "crm.id"],
                )],
            ),
            // The whole entry of the outer list must be as in the event.
            (
                vec!["traits.projects.1.tags.0"],
                vec![],
                vec![(
                    "traits.projects.1",
                    json!({"name": "b", "tags": ["x"]}),
                    vec!["tags.0"],
                )],
            ),
            (
                vec!["traits.tags.0"],
                vec![],
                vec![("traits.tags.0", json!("x"), vec![""])],
            ),
            // No list is on the way.
            (
                vec!["traits.years.2024.id"],
                vec!["traits.years.2024.id"],
                vec![],
            ),
            (vec!["traits.other.0.id"], vec!["traits.other.0.id"], vec![]),
            (
                vec!["metadata_admin.crm"],
                vec!["metadata_admin.crm"],
                vec![],
            ),
        ] {
            let writes = writes(&identity, &paths);
            assert_eq!(writes.failed, None, "{paths:?}");
            let found: Vec<String> = writes.fields.iter().map(|one| one.path.join(".")).collect();
            assert_eq!(found, fields, "{paths:?}");
            let found: Vec<(String, Value, Vec<String>)> = writes
                .entries
                .into_iter()
                .map(|one| {
                    let values = one.values.iter().map(|(path, _)| path.join("."));
                    (one.path.join("."), one.entry, values.collect())
                })
                .collect();
            let entries: Vec<(String, Value, Vec<String>)> = entries
                .into_iter()
                .map(|(path, entry, values)| {
                    let values = values.into_iter().map(ToOwned::to_owned).collect();
                    (path.to_owned(), entry, values)
                })
                .collect();
            assert_eq!(found, entries, "{paths:?}");
        }
    }

    #[test]
    fn a_path_to_an_entry_that_the_event_does_not_have_fails() {
        let identity = json!({"traits": {"projects": [{"name": "a"}], "tags": ["x"]}});
        for (path, entry) in [
            ("traits.projects.1.id", "traits.projects.1"),
            ("traits.projects.1", "traits.projects.1"),
            ("traits.tags.0.id", "traits.tags.0"),
            ("traits.tags.9", "traits.tags.9"),
        ] {
            let expected =
                format!("`write_back.{path}`: the identity of the event has no entry `{entry}`");
            assert_eq!(writes(&identity, &[path]).failed, Some(expected), "{path}");
        }
    }
}
