//! Fake external services with configurable behaviour that record their calls.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::{eventually, port};

/// The prefix of unknown VAT numbers.
pub const UNKNOWN_VAT_PREFIX: &str = "DE0000";
/// An unknown VAT number.
pub const UNKNOWN_VAT_NUMBER: &str = "DE000000000";
/// The only invite code that can be used many times.
pub const KNOWN_INVITE: &str = "WELCOME-2026";

/// The behaviour of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers as a working service.
    Works,
    /// Answers with this status.
    Answers(u16),
    /// Accepts the call and does not answer until the behaviour changes.
    Hangs,
}

/// A received call.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub idempotency_key: Option<String>,
    pub body: Value,
}

type Handler = Box<dyn Fn(&Received) -> (u16, Value) + Send + Sync>;

/// The prefix of invite codes that can be used once.
pub const ONE_USE_PREFIX: &str = "ONCE-";

struct State {
    handler: Handler,
    behaviour: watch::Sender<Behaviour>,
    received: Mutex<Vec<Received>>,
    answered: Mutex<Vec<(Received, u16)>>,
    arrivals: mpsc::UnboundedSender<Received>,
}

/// A service with its own address. It can go down and come up again.
pub struct Service {
    port: u16,
    state: Data<State>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
    running: tokio::sync::Mutex<Option<ServerHandle>>,
}

impl Service {
    /// A VAT register that knows all numbers except those with [`UNKNOWN_VAT_PREFIX`]. The name of a company contains its number.
    pub async fn vat_register() -> Self {
        Self::start(|received| {
            let number = vat_number(received);
            if number.starts_with(UNKNOWN_VAT_PREFIX) {
                (200, json!({"valid": false, "name": null}))
            } else {
                (
                    200,
                    json!({"valid": true, "name": registered_name(&number)}),
                )
            }
        })
        .await
    }

    /// An invite service that knows [`KNOWN_INVITE`] and codes with [`ONE_USE_PREFIX`], which can be used once. A repeated
    /// Idempotency-Key gets the same reservation.
    pub async fn invites() -> Self {
        let reservations: Mutex<BTreeMap<String, String>> = Mutex::default();
        Self::start(move |received| {
            let mut reservations = reservations.lock().expect("the lock is not poisoned");
            let key = received.idempotency_key.clone().unwrap_or_default();
            let parts: Vec<&str> = received.path.trim_matches('/').split('/').collect();
            match (received.method.as_str(), parts.as_slice()) {
                ("POST", ["invites", KNOWN_INVITE, "hold"]) => (201, json!({"hold_id": "hold-1"})),
                ("POST", ["invites", code, "hold"]) if code.starts_with(ONE_USE_PREFIX) => {
                    let hold = format!("{key}.{code}");
                    let existing = reservations
                        .entry((*code).to_owned())
                        .or_insert(hold.clone());
                    if *existing == hold {
                        (201, json!({"hold_id": hold}))
                    } else {
                        (409, json!({}))
                    }
                }
                ("DELETE", ["holds", hold]) => {
                    reservations.retain(|_, existing| existing != hold);
                    (200, json!({}))
                }
                ("GET", ["invites", KNOWN_INVITE]) | (_, ["holds", ..]) => (200, json!({})),
                _ => (404, json!({})),
            }
        })
        .await
    }

    /// A CRM that accepts every contact.
    pub async fn crm() -> Self {
        Self::start(|_| (201, json!({"id": "contact-1"}))).await
    }

    async fn start(handler: impl Fn(&Received) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let service = Self {
            port: port::free(),
            state: Data::new(State {
                handler: Box::new(handler),
                behaviour: watch::Sender::new(Behaviour::Works),
                received: Mutex::default(),
                answered: Mutex::default(),
                arrivals: sender,
            }),
            arrivals: tokio::sync::Mutex::new(receiver),
            running: tokio::sync::Mutex::default(),
        };
        service.come_up().await;
        service
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.state.behaviour.send_replace(behaviour);
    }

    /// Stops the server, so that connections are refused.
    pub async fn go_down(&self) {
        let server = self.running.lock().await.take().expect("the service is up");
        server.stop(false).await;
        eventually("the port closes", async || {
            TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_err()
                .then_some(())
        })
        .await;
    }

    /// Starts the server on the address of the service.
    pub async fn come_up(&self) {
        // Another test case may fork at this moment. Its child holds copies of the sockets until it executes a program.
        let listener = eventually("the port is free", async || {
            TcpListener::bind(("127.0.0.1", self.port)).ok()
        })
        .await;
        let state = self.state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .default_service(web::route().to(serve))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .listen(listener)
        .expect("listening")
        .run();
        *self.running.lock().await = Some(server.handle());
        tokio::spawn(server);
    }

    /// All calls so far.
    pub fn received(&self) -> Vec<Received> {
        self.state
            .received
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }

    /// All answered calls so far, each with the status of the response.
    pub fn answered(&self) -> Vec<(Received, u16)> {
        self.state
            .answered
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }

    /// Waits for the next call that this method has not returned yet.
    pub async fn next(&self) -> Received {
        let mut arrivals = self.arrivals.lock().await;
        let arrival = tokio::time::timeout(Duration::from_secs(30), arrivals.recv());
        arrival
            .await
            .expect("a call within 30 s")
            .expect("the service runs")
    }
}

/// The VAT number in a call to the register.
pub fn vat_number(received: &Received) -> String {
    let part = |name: &str| received.body[name].as_str().unwrap_or_default().to_owned();
    part("countryCode") + &part("vatNumber")
}

/// The name of the company with this number in the register.
pub fn registered_name(vat_number: &str) -> String {
    format!("Registered {vat_number} GmbH")
}

async fn serve(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let received = Received {
        method: request.method().to_string(),
        path: request.path().to_owned(),
        idempotency_key: request
            .headers()
            .get("Idempotency-Key")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    state
        .received
        .lock()
        .expect("the lock is not poisoned")
        .push(received.clone());
    let _ = state.arrivals.send(received.clone());
    let mut behaviour = state.behaviour.subscribe();
    let now = behaviour
        .wait_for(|behaviour| *behaviour != Behaviour::Hangs)
        .await;
    let (status, response) = match now.as_deref() {
        Ok(Behaviour::Answers(status)) => (*status, json!({})),
        _ => (state.handler)(&received),
    };
    let answered = (received, status);
    state
        .answered
        .lock()
        .expect("the lock is not poisoned")
        .push(answered);
    let status = StatusCode::from_u16(status).expect("a status");
    HttpResponse::build(status).json(response)
}
