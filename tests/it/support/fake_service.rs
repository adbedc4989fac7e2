//! A fake external system with a configurable behaviour, which records the calls it receives.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

/// Returns the response to a call: status, body and header.
pub type Handler = dyn Fn(&Received) -> (u16, String, Option<(&'static str, String)>) + Send + Sync;

/// What the service does with a call.
#[derive(Clone)]
pub enum Behaviour {
    /// Runs a handler.
    Handles(Arc<Handler>),
    /// Answers with a status and a body.
    Answers(u16, String),
    /// Answers with a status, a body and a header.
    AnswersWith(u16, String, (&'static str, String)),
    /// Accepts the call and does not answer until the test releases it.
    Hangs,
    /// Breaks the connection in the middle of the response.
    Breaks,
}

/// A received call.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }
}

struct State {
    behaviour: Mutex<Behaviour>,
    /// Prefixes of method and target, with their behaviour.
    by_prefix: Mutex<Vec<(String, Behaviour)>>,
    hang_end: Notify,
    received: Mutex<Vec<Received>>,
    arrivals: mpsc::UnboundedSender<Received>,
}

/// A running service.
pub struct FakeService {
    address: SocketAddr,
    state: Data<State>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
}

impl FakeService {
    /// Starts a service that answers `200 {}`.
    pub fn start() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Data::new(State {
            behaviour: Mutex::new(Behaviour::Answers(200, "{}".to_owned())),
            by_prefix: Mutex::default(),
            hang_end: Notify::new(),
            received: Mutex::default(),
            arrivals: sender,
        });
        let address = super::serve::serve(&state, serve);
        Self {
            address,
            state,
            arrivals: tokio::sync::Mutex::new(receiver),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().expect("a lock") = behaviour;
    }

    /// Sets the behaviour for calls whose method and target start with `prefix`, as in `POST /holds`.
    pub fn set_behaviour_for(&self, prefix: &str, behaviour: Behaviour) {
        let mut by_prefix = self.state.by_prefix.lock().expect("a lock");
        by_prefix.retain(|(known, _)| known != prefix);
        by_prefix.push((prefix.to_owned(), behaviour));
    }

    /// Returns method and target of every call so far.
    pub fn request_lines(&self) -> Vec<String> {
        let received = self.received();
        received
            .iter()
            .map(|one| format!("{} {}", one.method, one.target))
            .collect()
    }

    pub fn respond_with(&self, status: u16, body: &Value) {
        self.set_behaviour(Behaviour::Answers(status, body.to_string()));
    }

    /// Answers the calls that hang.
    pub fn release_hanging_calls(&self) {
        self.set_behaviour(Behaviour::Answers(200, "{}".to_owned()));
        self.state.hang_end.notify_waiters();
    }

    /// Returns every call so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("a lock").clone()
    }

    /// Waits for the next call.
    #[expect(
        clippy::disallowed_methods,
        reason = "a bound on a test that would otherwise hang for ever"
    )]
    pub async fn next_call(&self) -> Received {
        let mut arrivals = self.arrivals.lock().await;
        let arrival = tokio::time::timeout(Duration::from_secs(30), arrivals.recv());
        arrival
            .await
            .expect("a call within 30 s")
            .expect("the service runs")
    }
}

async fn serve(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let received = Received {
        method: request.method().to_string(),
        target: request.uri().to_string(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let hang_end = state.hang_end.notified();
    state
        .received
        .lock()
        .expect("a lock")
        .push(received.clone());
    let called = format!("{} {}", received.method, received.target);
    let by_prefix = state.by_prefix.lock().expect("a lock").clone();
    let by_prefix = by_prefix
        .into_iter()
        .find(|(prefix, _)| called.starts_with(prefix.as_str()));
    let behaviour = by_prefix.map_or_else(
        || state.behaviour.lock().expect("a lock").clone(),
        |(_, behaviour)| behaviour,
    );
    let _ = state.arrivals.send(received.clone());
    match behaviour {
        Behaviour::Handles(handler) => {
            let (status, body, header) = handler(&received);
            answer(status, body, header)
        }
        Behaviour::Answers(status, body) => answer(status, body, None),
        Behaviour::AnswersWith(status, body, header) => answer(status, body, Some(header)),
        Behaviour::Hangs => {
            hang_end.await;
            answer(200, json!({}).to_string(), None)
        }
        Behaviour::Breaks => {
            let broken = futures_util::stream::iter([
                Ok(Bytes::from_static(b"{\"half\": ")),
                Err(std::io::Error::other("broken on purpose")),
            ]);
            HttpResponse::Ok()
                .content_type("application/json")
                .streaming(broken)
        }
    }
}

fn answer(status: u16, body: String, header: Option<(&'static str, String)>) -> HttpResponse {
    let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
    let mut response = HttpResponse::build(status);
    if let Some(header) = header {
        response.insert_header(header);
    }
    response.content_type("application/json").body(body)
}

/// Returns an address on which no server listens.
pub fn unused_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    format!("http://{address}")
}
