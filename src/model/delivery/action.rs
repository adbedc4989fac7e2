//! The action of a delivery: what Vestibule does when the delivery is due.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::model::request::Request;

/// The action of a delivery. Stored as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Repeat the question of a deferred check.
    Recheck(Request),
    /// Write these fields into the identity, through Kratos's admin API.
    PatchIdentity(Vec<FieldWrite>),
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
            Action::EndAfterAcceptance,
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
}
