//! The external system: takes every delivery, and remembers which.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use uuid::Uuid;

use super::chance::Chance;

/// What a delivery is about: its plan and the identity.
pub type About = (String, Uuid);

#[derive(Default)]
struct State {
    /// The `webhook-id` of each arrival.
    arrived: Mutex<HashMap<About, Vec<String>>>,
}

/// A running receiver.
pub struct Receiver {
    pub url: String,
    state: Data<State>,
}

impl Receiver {
    /// Sometimes takes its time, so that deliveries are under way whenever the program is killed.
    pub fn start(chance: Arc<Chance>) -> Self {
        let state = Data::new(State::default());
        let shared = state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .app_data(Data::from(Arc::clone(&chance)))
                .route("/check", web::get().to(HttpResponse::NoContent))
                .default_service(web::route().to(take))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .expect("a free port");
        let url = format!("http://{}", server.addrs()[0]);
        tokio::spawn(server.run());
        Self { url, state }
    }

    /// The `webhook-id` of each arrival so far.
    pub fn arrived(&self) -> HashMap<About, Vec<String>> {
        self.state.arrived.lock().expect("a lock").clone()
    }

    /// Which of these have not arrived.
    pub fn missing(&self, expected: &[About]) -> Vec<About> {
        let arrived = self.state.arrived.lock().expect("a lock");
        let missing = expected.iter().filter(|about| !arrived.contains_key(about));
        missing.cloned().collect()
    }
}

/// `POST /crm/{identity}`, `PUT /ledger/{identity}`
async fn take(request: HttpRequest, state: Data<State>, chance: Data<Chance>) -> HttpResponse {
    let mut path = request.path().trim_start_matches('/').split('/');
    let (plan, identity) = (path.next(), path.next());
    let identity = identity.and_then(|id| Uuid::parse_str(id).ok());
    let id = request.headers().get("webhook-id");
    let (Some(plan), Some(identity), Some(id)) = (plan, identity, id) else {
        return HttpResponse::BadRequest().finish();
    };
    let id = id.to_str().expect("an id").to_owned();
    let about = (plan.to_owned(), identity);
    state
        .arrived
        .lock()
        .expect("a lock")
        .entry(about)
        .or_default()
        .push(id);
    if chance.once_in(4) {
        tokio::time::sleep(Duration::from_millis(chance.below(60))).await;
    }
    HttpResponse::NoContent().finish()
}
