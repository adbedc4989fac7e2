//! The action of a delivery: what Vestibule does when the delivery is due.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::EvaluationContext;
use crate::model::identity_write::{index, same, set_at, value_at};
use crate::model::request::Request;

/// The action of a delivery. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Repeat the question of a deferred check.
    Recheck(Request),
    /// Write these fields into the identity, through Kratos's admin API.
    PatchIdentity(Vec<FieldWrite>),
    /// Write these fields, and write into these entries of lists.
    PatchEntries {
        /// Fields outside lists.
        fields: Vec<FieldWrite>,
        /// Entries of lists.
        entries: Vec<EntryWrite>,
    },
    /// End the deferral and the late refusal of a check that has accepted a saved change, unless the identity has other
    /// values again. The context holds the accepted values.
    EndAfterAcceptance,
    /// Enforce a late refusal: delete the sessions of the account, write these fields into the identity, and delete the
    /// sessions again.
    Enforce(Vec<FieldWrite>),
    /// Compensate a `take` whose answer was lost: repeat the request with the same `Idempotency-Key`, and release the
    /// reservation that the answer names.
    Compensate {
        /// The request whose answer was lost.
        take: Request,
        /// The `Idempotency-Key` of the request.
        key: String,
    },
    /// Take a reservation again if its account was found after its release, and then confirm it.
    Take {
        /// The request that takes the reservation.
        take: Request,
        /// The reservation that was released.
        released: Uuid,
    },
    /// Send a request to the subscription's service.
    Send(Request),
    /// Build the request of the subscription with the settings in force, and send it.
    Build(Box<Unbuilt>),
}

/// The event of a delivery whose request could not be built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unbuilt {
    /// Why the request could not be built, without values.
    pub reason: String,
    /// The parts of the event that the subscription reads.
    pub context: EvaluationContext,
}

/// The instruction to set values in an entry of a list, if the entry is still the entry of the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryWrite {
    /// The path of the entry: `["traits", "projects", "0"]`.
    pub path: Vec<String>,
    /// The entry in the event.
    pub entry: Value,
    /// The values to set, by their path within the entry. An empty path is the entry itself.
    pub values: Vec<(Vec<String>, Value)>,
}

impl EntryWrite {
    /// Returns the entry after the write. `None` if the identity has another entry at this place now.
    ///
    /// The values are set in the entry of the identity. Jsonnet rounds the numbers of the event.
    #[must_use]
    pub fn written_into(&self, identity: &Value) -> Option<Value> {
        let (name, list) = self.path.split_last()?;
        let list = value_at(identity, list)?.as_array()?;
        let current = list.get(index(name)?)?;
        let with_values = |entry: &Value| {
            let mut entry = entry.clone();
            for (path, value) in &self.values {
                if path.is_empty() {
                    entry = value.clone();
                } else {
                    set_at(&mut entry, path, Some(value));
                }
            }
            entry
        };
        // The answer to an earlier attempt may be lost.
        let is_known = same(current, &self.entry) || same(current, &with_values(&self.entry));
        is_known.then(|| with_values(current))
    }
}

/// The instruction to set or remove one field of an identity. The record of a done write is a
/// [`FieldChange`](crate::model::identity_write::FieldChange).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldWrite {
    /// The path of the value: `["metadata_admin", "crm_id"]`.
    pub path: Vec<String>,
    /// The value to set; `None` removes the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

impl From<Request> for Action {
    fn from(request: Request) -> Self {
        Self::Send(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::Method;
    use serde_json::json;

    #[test]
    fn an_action_is_stored_under_its_name() {
        let stored = json!({"send": {"method": "POST", "path": "/a", "headers": [], "body": null}});
        let request = Request {
            method: Method::Post,
            path: "/a".to_owned(),
            headers: Vec::new(),
            body: None,
        };
        let works = [
            Action::Send(request.clone()),
            Action::Recheck(request.clone()),
            Action::PatchIdentity(vec![FieldWrite {
                path: vec!["state".to_owned()],
                value: Some(json!("inactive")),
            }]),
            Action::PatchEntries {
                fields: Vec::new(),
                entries: vec![EntryWrite {
                    path: vec!["traits".to_owned(), "projects".to_owned(), "0".to_owned()],
                    entry: json!({"name": "a"}),
                    values: vec![(vec!["id".to_owned()], json!(7))],
                }],
            },
            Action::EndAfterAcceptance,
            Action::Build(Box::new(Unbuilt {
                reason: "no such key".to_owned(),
                context: EvaluationContext::default(),
            })),
            Action::Compensate {
                take: request.clone(),
                key: "k".to_owned(),
            },
            Action::Take {
                take: request,
                released: Uuid::from_u128(1),
            },
        ];
        assert_eq!(serde_json::to_value(&works[0]).unwrap(), stored);
        for work in works {
            let stored = serde_json::to_value(&work).unwrap();
            assert_eq!(serde_json::from_value::<Action>(stored).unwrap(), work);
        }
    }

    #[test]
    fn values_are_set_in_an_entry_that_is_still_the_entry_of_the_event() {
        let write = |path: &str| EntryWrite {
            path: vec!["traits".to_owned(), "projects".to_owned(), "0".to_owned()],
            entry: json!({"name": "a", "tags": ["x"]}),
            values: vec![(
                path.split('.')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
                json!("7"),
            )],
        };
        for (path, entry, expected) in [
            (
                "id",
                json!({"name": "a", "tags": ["x"]}),
                Some(json!({"name": "a", "tags": ["x"], "id": "7"})),
            ),
            (
                "crm.id",
                json!({"tags": ["x"], "name": "a"}),
                Some(json!({"tags": ["x"], "name": "a", "crm": {"id": "7"}})),
            ),
            (
                "tags.0",
                json!({"name": "a", "tags": ["x"]}),
                Some(json!({"name": "a", "tags": ["7"]})),
            ),
            ("", json!({"name": "a", "tags": ["x"]}), Some(json!("7"))),
            // The answer to an earlier attempt was lost.
            (
                "id",
                json!({"name": "a", "tags": ["x"], "id": "7"}),
                Some(json!({"name": "a", "tags": ["x"], "id": "7"})),
            ),
            // The visitor changed, removed or moved the entry.
            ("id", json!({"name": "b", "tags": ["x"]}), None),
            ("id", json!({"name": "a", "tags": []}), None),
            ("id", json!({"name": "a", "tags": ["x"], "id": "8"}), None),
            ("id", json!("a"), None),
            ("id", json!(null), None),
        ] {
            let identity = json!({"traits": {"projects": [entry, {"name": "b"}]}});
            assert_eq!(
                write(path).written_into(&identity),
                expected,
                "{path} {identity}"
            );
        }
        for traits in [
            json!({}),
            json!({"projects": []}),
            json!({"projects": {"0": {"name": "a", "tags": ["x"]}}}),
        ] {
            let identity = json!({"traits": traits});
            assert_eq!(write("id").written_into(&identity), None, "{identity}");
        }
    }
}
