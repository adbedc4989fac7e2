//! The external systems: a register that is asked about numbers, and a receiver of new identities. One of each serves the honest
//! visitors, and one the hostile ones.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use vestibule_testing::serve::serve;

/// The response time for an honest question.
const QUICK: Duration = Duration::from_millis(5);

/// The running service.
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    state: Data<State>,
}

struct State {
    received: Mutex<HashSet<String>>,
    errors: Bytes,
    huge: Bytes,
}

/// Starts the service.
pub fn start() -> Service {
    let errors = vec![json!({"field": "e-mail", "error": "is not valid at all"}); 15_000];
    let state = Data::new(State {
        received: Mutex::default(),
        errors: Bytes::from(json!({ "errors": errors }).to_string()),
        huge: Bytes::from(vec![b'['; 5 << 20]),
    });
    let address = serve(&state, answer).address;
    Service { address, state }
}

impl Service {
    /// Returns how many of these identities were not delivered.
    pub fn missing(&self, identities: &[String]) -> usize {
        let received = self
            .state
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        identities
            .iter()
            .filter(|id| !received.contains(*id))
            .count()
    }
}

async fn answer(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    if request.path() == "/contacts" {
        return receive(&body, &state);
    }
    match request
        .path()
        .trim_start_matches("/numbers/")
        .split('-')
        .next()
    {
        Some("slow") => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            HttpResponse::Ok().json(json!({"valid": true}))
        }
        Some("huge") => HttpResponse::Ok()
            .content_type("application/json")
            .body(state.huge.clone()),
        Some("deep") => HttpResponse::Ok()
            .content_type("application/json")
            .body(state.huge.slice(..100_000)),
        Some("endless") => {
            let bytes = futures_util::stream::repeat(Bytes::from_static(b" ")).then(async |byte| {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok::<_, actix_web::Error>(byte)
            });
            HttpResponse::Ok()
                .content_type("application/json")
                .streaming(Box::pin(bytes))
        }
        Some("broken") => {
            let bytes = futures_util::stream::iter([
                Ok(Bytes::from_static(b"{")),
                Err(actix_web::error::ErrorInternalServerError("broken")),
            ]);
            HttpResponse::Ok()
                .content_type("application/json")
                .streaming(bytes)
        }
        Some("failing") => HttpResponse::ServiceUnavailable()
            .insert_header(("Retry-After", "1"))
            .finish(),
        _ => {
            tokio::time::sleep(QUICK).await;
            HttpResponse::Ok().json(json!({"valid": true}))
        }
    }
}

/// Takes an identity, or answers with many errors.
fn receive(body: &Bytes, state: &State) -> HttpResponse {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let identity = &body["identity"];
    if identity["traits"]["tags"].is_array() {
        return HttpResponse::UnprocessableEntity()
            .content_type("application/json")
            .body(state.errors.clone());
    }
    if let Some(id) = identity["id"].as_str() {
        let mut received = state
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        received.insert(id.to_owned());
    }
    HttpResponse::Ok().json(json!({}))
}
