//! An invite service with codes of limited uses, which counts holds, as the example in examples/settings/invites.yaml asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

#[derive(Default)]
struct ReservationDeps {
    uses: usize,
    is_down: bool,
    /// How often a code was asked for.
    asked: usize,
    /// By Idempotency-Key, the code and the hold: two requests with the same key have one hold.
    holds: BTreeMap<String, (String, String)>,
    confirmed: BTreeSet<String>,
}

/// A service with the codes `gold`, `silver`, `canary-invite` and `invite-…`. Any other path is a receiver of deliveries.
pub struct Invites {
    address: SocketAddr,
    book: Data<Mutex<ReservationDeps>>,
}

impl Invites {
    /// With so many uses of each code.
    pub fn with_uses(uses: usize) -> Self {
        let book = Data::new(Mutex::new(ReservationDeps {
            uses,
            ..ReservationDeps::default()
        }));
        let address = super::serve::serve(&book, serve);
        Self { address, book }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing can be held while it is down.
    pub fn is_down(&self, is_down: bool) {
        self.book.lock().expect("a lock").is_down = is_down;
    }

    /// The Idempotency-Keys of what is held.
    pub fn keys(&self) -> Vec<String> {
        let book = self.book.lock().expect("a lock");
        book.holds.keys().cloned().collect()
    }

    /// How often a code was asked for.
    pub fn asked(&self) -> usize {
        self.book.lock().expect("a lock").asked
    }

    /// The same for one code.
    pub fn of_code(&self, code: &str) -> (usize, usize) {
        let book = self.book.lock().expect("a lock");
        let holds: Vec<&String> = book
            .holds
            .values()
            .filter(|(known, _)| known == code)
            .map(|(_, hold)| hold)
            .collect();
        let confirmed = holds.iter().filter(|hold| book.confirmed.contains(**hold));
        (holds.len(), confirmed.count())
    }

    /// How many are held, and how many of those are used up for good.
    pub fn held_and_confirmed(&self) -> (usize, usize) {
        let book = self.book.lock().expect("a lock");
        (book.holds.len(), book.confirmed.len())
    }
}

async fn serve(request: HttpRequest, book: Data<Mutex<ReservationDeps>>) -> HttpResponse {
    let mut book = book.lock().expect("a lock");
    let key = request.headers().get("Idempotency-Key");
    let key = key.and_then(|key| key.to_str().ok()).expect("a key");
    let path: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    match (request.method().as_str(), path.as_slice()) {
        ("POST", ["invites", code, "hold"]) => {
            book.asked += 1;
            if book.is_down {
                return HttpResponse::ServiceUnavailable().finish();
            }
            if !is_known(code) {
                return HttpResponse::NotFound().finish();
            }
            let of_code = book.holds.values().filter(|(known, _)| known == code);
            if !book.holds.contains_key(key) && of_code.count() >= book.uses {
                return HttpResponse::Conflict().json(json!({"error": "used up"}));
            }
            let new = ((*code).to_owned(), format!("hold-{}", book.asked));
            let (_, hold) = book.holds.entry(key.to_owned()).or_insert(new).clone();
            HttpResponse::Created().json(json!({"hold_id": hold}))
        }
        ("POST", ["holds", hold, "confirm"]) => {
            let hold = (*hold).to_owned();
            book.confirmed.insert(hold);
            HttpResponse::NoContent().finish()
        }
        ("DELETE", ["holds", hold]) => {
            book.holds.retain(|_, (_, known)| known != hold);
            HttpResponse::NoContent().finish()
        }
        _ => HttpResponse::NoContent().finish(),
    }
}

fn is_known(code: &str) -> bool {
    ["gold", "silver", "canary-invite"].contains(&code) || code.starts_with("invite-")
}
