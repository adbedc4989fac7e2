//! A fake invite service with a limited number of uses per code, as in examples/settings/invites.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

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
    address: SocketAddr,
    state: Data<Mutex<InviteState>>,
}

impl FakeInvites {
    /// Starts a service with this number of uses for each code.
    pub fn with_uses(uses: usize) -> Self {
        let state = Data::new(Mutex::new(InviteState {
            uses,
            ..InviteState::default()
        }));
        let address = super::serve::serve(&state, serve);
        Self { address, state }
    }

    /// Changes the number of uses for each code.
    pub fn set_uses(&self, uses: usize) {
        self.state.lock().expect("a lock").uses = uses;
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes every hold fail with 503, or stops that.
    pub fn set_down(&self, is_down: bool) {
        self.state.lock().expect("a lock").is_down = is_down;
    }

    /// Returns the Idempotency-Key of each hold.
    pub fn idempotency_keys(&self) -> Vec<String> {
        let state = self.state.lock().expect("a lock");
        state.holds.keys().cloned().collect()
    }

    /// Returns the number of requests to hold an invite.
    pub fn hold_requests(&self) -> usize {
        self.state.lock().expect("a lock").hold_requests
    }

    /// Returns the number of holds of one code, and how many of them are confirmed.
    pub fn held_and_confirmed_of(&self, code: &str) -> (usize, usize) {
        let state = self.state.lock().expect("a lock");
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
        let state = self.state.lock().expect("a lock");
        (state.holds.len(), state.confirmed.len())
    }
}

async fn serve(request: HttpRequest, state: Data<Mutex<InviteState>>) -> HttpResponse {
    let mut state = state.lock().expect("a lock");
    let key = request.headers().get("Idempotency-Key");
    let key = key.and_then(|key| key.to_str().ok()).expect("a key");
    let path: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    match (request.method().as_str(), path.as_slice()) {
        ("POST", ["invites", code, "hold"]) => {
            state.hold_requests += 1;
            if state.is_down {
                return HttpResponse::ServiceUnavailable().finish();
            }
            if !is_known(code) {
                return HttpResponse::NotFound().finish();
            }
            let of_code = state.holds.values().filter(|(known, _)| known == code);
            if !state.holds.contains_key(key) && of_code.count() >= state.uses {
                return HttpResponse::Conflict().json(json!({"error": "used up"}));
            }
            let new = ((*code).to_owned(), format!("hold-{}", state.hold_requests));
            let (_, hold) = state.holds.entry(key.to_owned()).or_insert(new).clone();
            HttpResponse::Created().json(json!({"hold_id": hold}))
        }
        ("POST", ["holds", hold, "confirm"]) => {
            let hold = (*hold).to_owned();
            state.confirmed.insert(hold);
            HttpResponse::NoContent().finish()
        }
        ("DELETE", ["holds", hold]) => {
            state.holds.retain(|_, (_, known)| known != hold);
            HttpResponse::NoContent().finish()
        }
        _ => HttpResponse::NoContent().finish(),
    }
}

fn is_known(code: &str) -> bool {
    ["gold", "silver", "canary-invite"].contains(&code) || code.starts_with("invite-")
}
