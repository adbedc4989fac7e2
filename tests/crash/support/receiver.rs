//! A fake external system that accepts every delivery and records it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use uuid::Uuid;
use vestibule_testing::serve::serve;

use super::rng::Rng;

/// The subscription and the identity of a delivery.
pub type DeliveryKey = (String, Uuid);

struct State {
    rng: Arc<Rng>,
    /// The `webhook-id` of each arrival.
    arrived: Mutex<HashMap<DeliveryKey, Vec<String>>>,
}

/// A running receiver.
pub struct Receiver {
    pub url: String,
    state: Data<State>,
}

impl Receiver {
    /// Starts a receiver. It delays some responses, so that deliveries are in progress when Vestibule is killed.
    pub fn start(rng: Arc<Rng>) -> Self {
        let state = Data::new(State {
            rng,
            arrived: Mutex::default(),
        });
        let url = serve(&state, receive).url();
        Self { url, state }
    }

    /// The `webhook-id` of each arrival so far.
    pub fn arrived(&self) -> HashMap<DeliveryKey, Vec<String>> {
        self.state
            .arrived
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }

    /// The expected deliveries that have not arrived.
    pub fn missing(&self, expected: &[DeliveryKey]) -> Vec<DeliveryKey> {
        let arrived = self.state.arrived.lock().expect("the lock is not poisoned");
        let missing = expected.iter().filter(|key| !arrived.contains_key(key));
        missing.cloned().collect()
    }
}

/// `GET /check`, `POST /crm/{identity}`, `PUT /ledger/{identity}`
async fn receive(request: HttpRequest, state: Data<State>) -> HttpResponse {
    if request.path() == "/check" {
        return HttpResponse::NoContent().finish();
    }
    let mut path = request.path().trim_start_matches('/').split('/');
    let (subscription, identity) = (path.next(), path.next());
    let identity = identity.and_then(|id| Uuid::parse_str(id).ok());
    let id = request.headers().get("webhook-id");
    let (Some(subscription), Some(identity), Some(id)) = (subscription, identity, id) else {
        return HttpResponse::BadRequest().finish();
    };
    let id = id.to_str().expect("an id").to_owned();
    let key = (subscription.to_owned(), identity);
    state
        .arrived
        .lock()
        .expect("the lock is not poisoned")
        .entry(key)
        .or_default()
        .push(id);
    if state.rng.one_in(4) {
        tokio::time::sleep(Duration::from_millis(state.rng.below(60))).await;
    }
    HttpResponse::NoContent().finish()
}
