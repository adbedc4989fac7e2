//! An invite service with codes of limited uses, which counts holds, as the example in examples/settings/invites.yaml asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

#[derive(Default)]
struct Book {
    uses: usize,
    /// By Idempotency-Key: whoever asks twice with the same key has one hold.
    holds: BTreeMap<String, String>,
    confirmed: BTreeSet<String>,
}

/// A service with one code, `gold`.
pub struct Invites {
    address: SocketAddr,
    book: Data<Mutex<Book>>,
}

impl Invites {
    /// With so many uses.
    pub fn with_uses(uses: usize) -> Self {
        let book = Data::new(Mutex::new(Book {
            uses,
            ..Book::default()
        }));
        let address = super::serve::serve(&book, serve);
        Self { address, book }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many are held, and how many of those are used up for good.
    pub fn held_and_confirmed(&self) -> (usize, usize) {
        let book = self.book.lock().expect("a lock");
        (book.holds.len(), book.confirmed.len())
    }
}

async fn serve(request: HttpRequest, book: Data<Mutex<Book>>) -> HttpResponse {
    let mut book = book.lock().expect("a lock");
    let key = request.headers().get("Idempotency-Key");
    let key = key.and_then(|key| key.to_str().ok()).expect("a key");
    let path: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    match (request.method().as_str(), path.as_slice()) {
        ("POST", ["invites", "gold", "hold"]) => {
            if !book.holds.contains_key(key) && book.holds.len() >= book.uses {
                return HttpResponse::Conflict().json(json!({"error": "used up"}));
            }
            let next = format!("hold-{}", book.holds.len() + 1);
            let hold = book.holds.entry(key.to_owned()).or_insert(next).clone();
            HttpResponse::Created().json(json!({"hold_id": hold}))
        }
        ("POST", ["holds", hold, "confirm"]) => {
            let hold = (*hold).to_owned();
            book.confirmed.insert(hold);
            HttpResponse::NoContent().finish()
        }
        ("DELETE", ["holds", hold]) => {
            book.holds.retain(|_, known| known != hold);
            HttpResponse::NoContent().finish()
        }
        _ => HttpResponse::NotFound().finish(),
    }
}
