//! An invite service with codes of limited uses, which counts holds, as the example in examples/settings/invites.yaml asks.

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
    /// How often a code was hold_requests for.
    hold_requests: usize,
    /// By Idempotency-Key, the code and the hold: two requests with the same key have one hold.
    holds: BTreeMap<String, (String, String)>,
    confirmed: BTreeSet<String>,
}

/// A service with the codes `gold`, `silver`, `canary-invite` and `invite-…`. Any other path is a receiver of deliveries.
pub struct FakeInvites {
    address: SocketAddr,
    state: Data<Mutex<InviteState>>,
}

impl FakeInvites {
    /// With so many uses of each code.
    pub fn with_uses(uses: usize) -> Self {
        let state = Data::new(Mutex::new(InviteState {
            uses,
            ..InviteState::default()
        }));
        let address = super::serve::serve(&state, serve);
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing can be held while it is down.
    pub fn set_down(&self, is_down: bool) {
        self.state.lock().expect("a lock").is_down = is_down;
    }

    /// The Idempotency-Keys of what is held.
    pub fn idempotency_keys(&self) -> Vec<String> {
        let state = self.state.lock().expect("a lock");
        state.holds.keys().cloned().collect()
    }

    /// How often a code was hold_requests for.
    pub fn hold_requests(&self) -> usize {
        self.state.lock().expect("a lock").hold_requests
    }

    /// The same for one code.
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

    /// How many are held, and how many of those are used up for good.
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
