//! A yes, written down until it is known what became of it.

use std::borrow::Cow;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::delivery::Scene;
use crate::journal::{Clues, Deferred, Details, Entry};
use crate::kratos::{Flow, Hook, Identifiers, Payload};
use crate::verdict::Verdict;

/// How yeses are written down.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each follows from a setting of its own"
)]
#[derive(Clone, Debug)]
pub struct Journal {
    /// Whether accounts can be looked up; otherwise only what was deferred is written down.
    pub looks_up: bool,
    /// By which traits people sign in.
    pub identifiers: Identifiers,
    /// Whether sign-ups whose identifier is not told are given an `external_id`.
    pub use_external_id: bool,
    /// Whether somebody is told of sign-ups of which no account came.
    pub tells_of_failures: bool,
    /// Whether a delivery reads the flow.
    pub reads_flow: bool,
    /// Whether a delivery reads the person's request.
    pub reads_request: bool,
}

/// The methods whose identifier Kratos does not tell hooks.
const UNTOLD: [&str; 3] = ["oidc", "passkey", "webauthn"];

impl Journal {
    /// The `external_id` that a sign-up is to be given, so that it can be found again.
    #[must_use]
    pub fn external_id(&self, hook: &Hook, payload: &Payload) -> Option<String> {
        let has_one = payload
            .identity
            .as_ref()
            .is_some_and(|identity| identity["external_id"].is_string());
        let needs_one = self.use_external_id
            && hook.flow == Flow::Registration
            && UNTOLD.contains(&hook.method.as_str())
            && !has_one;
        needs_one.then(|| format!("vestibule:{}", payload.flow_id))
    }

    /// The entry for a yes. `None` if nothing would ever be done with it.
    #[must_use]
    pub fn entry(
        &self,
        hook: &Hook,
        payload: &Payload,
        verdict: &Verdict,
        deferred: Vec<Deferred>,
        now: Timestamp,
    ) -> Option<Entry> {
        let looked_up = self.looks_up && hook.flow == Flow::Registration;
        if !looked_up && deferred.is_empty() {
            return None;
        }
        let identity = as_saved(payload.identity.as_ref()?, verdict);
        let is_change = !payload.identity_id.is_nil();
        let clues = Clues {
            identifiers: if is_change {
                Vec::new()
            } else {
                self.identifiers.in_identity(&identity)
            },
            external_id: identity["external_id"].as_str().map(ToOwned::to_owned),
            identity_id: is_change.then_some(payload.identity_id),
        };
        // No more of a person is kept than somebody will ask for.
        let keeps_identity = self.tells_of_failures || is_change;
        let keeps_flow = self.reads_flow || !deferred.is_empty();
        let keeps_request = self.reads_request || !deferred.is_empty();
        Some(Entry {
            flow_id: payload.flow_id,
            flow: hook.flow,
            method: hook.method.clone(),
            asked_at: payload.asked_at().unwrap_or(now),
            opened_at: now,
            expires_at: payload.expires_at(now),
            looks: 0,
            details: Details {
                clues,
                scene: Scene {
                    identity: keeps_identity.then(|| identity.into_owned()),
                    previous: payload.previous.clone(),
                    flow: keeps_flow.then(|| payload.flow.clone()),
                    request: keeps_request.then(|| payload.request.clone()),
                    method: hook.method.clone(),
                    now,
                    ..Scene::default()
                },
                deferred,
            },
        })
    }
}

/// The identity as Kratos will save it.
fn as_saved<'a>(identity: &'a Value, verdict: &Verdict) -> Cow<'a, Value> {
    let Verdict::AdmitWith(changes) = verdict else {
        return Cow::Borrowed(identity);
    };
    let mut identity = identity.clone();
    if let Value::Object(identity) = &mut identity {
        identity.extend(changes.clone());
    }
    Cow::Owned(identity)
}
