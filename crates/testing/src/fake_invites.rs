//! A fake invite service with a limited number of uses per code, as in examples/settings/invites.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::fake_service::{FakeService, Received, Response};

#[derive(Default)]
struct InviteState {
    uses: usize,
    is_down: bool,
    /// The number of requests to hold an invite.
    hold_requests: usize,
    /// Code and hold by Idempotency-Key: two requests with the same key have one hold.
    holds: BTreeMap<String, (String, String)>,
    confirmed: BTreeSet<String>,
}

/// A service with the codes `gold`, `silver`, `canary-invite` and `invite-…`. Any other path accepts deliveries.
pub struct FakeInvites {
    service: FakeService,
    state: Arc<Mutex<InviteState>>,
}

impl FakeInvites {
    /// Starts a service with this number of uses for each code.
    pub fn with_uses(uses: usize) -> Self {
        let state = Arc::new(Mutex::new(InviteState {
            uses,
            ..InviteState::default()
        }));
        let shared = Arc::clone(&state);
        let service = FakeService::answering(move |call| {
            let (status, body) = shared.lock().expect("a lock").answer(call);
            answer(status, &body)
        });
        Self { service, state }
    }

    /// Changes the number of uses for each code.
    pub fn set_uses(&self, uses: usize) {
        self.state().uses = uses;
    }

    /// The base URL.
    pub fn url(&self) -> String {
        self.service.url()
    }

    /// Makes every hold fail with 503, or stops that.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// Returns the Idempotency-Key of each hold.
    pub fn idempotency_keys(&self) -> Vec<String> {
        self.state().holds.keys().cloned().collect()
    }

    /// Returns the number of requests to hold an invite.
    pub fn hold_requests(&self) -> usize {
        self.state().hold_requests
    }

    /// Returns the number of holds of one code, and how many of them are confirmed.
    pub fn held_and_confirmed_of(&self, code: &str) -> (usize, usize) {
        let state = self.state();
        let holds: Vec<&String> = state
            .holds
            .values()
            .filter(|(known, _)| known == code)
            .map(|(_, hold)| hold)
            .collect();
        let confirmed = holds.iter().filter(|hold| state.confirmed.contains(**hold));
        (holds.len(), confirmed.count())
    }

    /// Returns the number of holds, and how many of them are confirmed.
    pub fn held_and_confirmed(&self) -> (usize, usize) {
        let state = self.state();
        (state.holds.len(), state.confirmed.len())
    }

    fn state(&self) -> MutexGuard<'_, InviteState> {
        self.state.lock().expect("a lock")
    }
}

impl InviteState {
    fn answer(&mut self, call: &Received) -> (u16, Value) {
        let path: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        match (call.method.as_str(), path.as_slice()) {
            ("POST", ["invites", code, "hold"]) => {
                self.hold(code, call.idempotency_key().expect("a key"))
            }
            ("POST", ["holds", hold, "confirm"]) => {
                self.confirmed.insert((*hold).to_owned());
                (204, Value::Null)
            }
            ("DELETE", ["holds", hold]) => {
                self.holds.retain(|_, (_, known)| known != hold);
                (204, Value::Null)
            }
            _ => (204, Value::Null),
        }
    }

    fn hold(&mut self, code: &str, key: &str) -> (u16, Value) {
        self.hold_requests += 1;
        if self.is_down {
            return (503, Value::Null);
        }
        if !is_known(code) {
            return (404, Value::Null);
        }
        let of_code = self.holds.values().filter(|(known, _)| known == code);
        if !self.holds.contains_key(key) && of_code.count() >= self.uses {
            return (409, json!({"error": "used up"}));
        }
        let new = (code.to_owned(), format!("hold-{}", self.hold_requests));
        let (_, hold) = self.holds.entry(key.to_owned()).or_insert(new).clone();
        (201, json!({"hold_id": hold}))
    }
}

/// A response without a body for null.
fn answer(status: u16, body: &Value) -> Response {
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    (status, text, None)
}

fn is_known(code: &str) -> bool {
    ["gold", "silver", "canary-invite"].contains(&code) || code.starts_with("invite-")
}
