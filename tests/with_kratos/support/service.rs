//! External systems that do as they are told, and remember what they were asked.

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

/// Unknown VAT numbers begin so.
pub const UNKNOWN_VAT_NUMBERS: &str = "DE0000";
/// One of them.
pub const UNKNOWN_VAT_NUMBER: &str = "DE000000000";
/// The only invite code that there is.
pub const KNOWN_INVITE: &str = "WELCOME-2026";

/// What a service does when it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Its work.
    Works,
    /// Answers with this status.
    Answers(u16),
    /// Takes the call and says nothing until it is let go.
    Hangs,
}

/// One call as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub path: String,
    pub idempotency_key: Option<String>,
    pub body: Value,
}

type Work = Box<dyn Fn(&Received) -> (u16, Value) + Send + Sync>;

/// Invites that can be used once begin so.
pub const ONE_USE: &str = "ONCE-";

struct State {
    work: Work,
    behaviour: watch::Sender<Behaviour>,
    received: Mutex<Vec<Received>>,
    answered: Mutex<Vec<(Received, u16)>>,
    arrivals: mpsc::UnboundedSender<Received>,
}

/// A service with an address of its own, up or down.
pub struct Service {
    port: u16,
    state: Data<State>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
    running: tokio::sync::Mutex<Option<ServerHandle>>,
}

impl Service {
    /// Knows all VAT numbers but some; the company behind one is called by its number.
    pub async fn vat_register() -> Self {
        Self::start(|received| {
            let number = vat_number(received);
            if number.starts_with(UNKNOWN_VAT_NUMBERS) {
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

    /// Knows one invite code, which everybody may use, and those that begin with [`ONE_USE`], which can be used once. A
    /// repeated Idempotency-Key gets the same hold.
    pub async fn invites() -> Self {
        let holds: Mutex<BTreeMap<String, String>> = Mutex::default();
        Self::start(move |received| {
            let mut holds = holds.lock().expect("a lock");
            let key = received.idempotency_key.clone().unwrap_or_default();
            let parts: Vec<&str> = received.path.trim_matches('/').split('/').collect();
            match (received.method.as_str(), parts.as_slice()) {
                ("POST", ["invites", KNOWN_INVITE, "hold"]) => (201, json!({"hold_id": "hold-1"})),
                ("POST", ["invites", code, "hold"]) if code.starts_with(ONE_USE) => {
                    let hold = format!("{key}.{code}");
                    let known = holds.entry((*code).to_owned()).or_insert(hold.clone());
                    if *known == hold {
                        (201, json!({"hold_id": hold}))
                    } else {
                        (409, json!({}))
                    }
                }
                ("DELETE", ["holds", hold]) => {
                    holds.retain(|_, known| known != hold);
                    (200, json!({}))
                }
                ("GET", ["invites", KNOWN_INVITE]) | (_, ["holds", ..]) => (200, json!({})),
                _ => (404, json!({})),
            }
        })
        .await
    }

    /// Takes every contact.
    pub async fn crm() -> Self {
        Self::start(|_| (201, json!({"id": "contact-1"}))).await
    }

    async fn start(work: impl Fn(&Received) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let service = Self {
            port: port::free(),
            state: Data::new(State {
                work: Box::new(work),
                behaviour: watch::Sender::new(Behaviour::Works),
                received: Mutex::default(),
                answered: Mutex::default(),
                arrivals: sender,
            }),
            arrivals: tokio::sync::Mutex::new(receiver),
            running: tokio::sync::Mutex::default(),
        };
        service.comes_up().await;
        service
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn does(&self, behaviour: Behaviour) {
        self.state.behaviour.send_replace(behaviour);
    }

    /// From now on connections are refused.
    pub async fn goes_down(&self) {
        let server = self.running.lock().await.take().expect("it is up");
        server.stop(false).await;
        eventually("the port closes", async || {
            TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_err()
                .then_some(())
        })
        .await;
    }

    /// Answers on its address, at first or again.
    pub async fn comes_up(&self) {
        // A program that another scene starts at this moment holds copies of our sockets until it is itself.
        let listener = eventually("its port is free", async || {
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

    /// Everything that has arrived so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("a lock").clone()
    }

    /// Everything that was answered so far, each with the status of the answer.
    pub fn answered(&self) -> Vec<(Received, u16)> {
        self.state.answered.lock().expect("a lock").clone()
    }

    /// Waits for the next call that was not waited for yet.
    pub async fn next(&self) -> Received {
        let mut arrivals = self.arrivals.lock().await;
        let arrival = tokio::time::timeout(Duration::from_secs(30), arrivals.recv());
        arrival
            .await
            .expect("a call within 30 s")
            .expect("the service runs")
    }
}

/// The number that the register was asked about.
pub fn vat_number(received: &Received) -> String {
    let part = |name: &str| received.body[name].as_str().unwrap_or_default().to_owned();
    part("countryCode") + &part("vatNumber")
}

/// What the register calls the company with this number.
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
        .expect("a lock")
        .push(received.clone());
    let _ = state.arrivals.send(received.clone());
    let mut behaviour = state.behaviour.subscribe();
    let now = behaviour
        .wait_for(|behaviour| *behaviour != Behaviour::Hangs)
        .await;
    let (status, answer) = match now.as_deref() {
        Ok(Behaviour::Answers(status)) => (*status, json!({})),
        _ => (state.work)(&received),
    };
    let answered = (received, status);
    state.answered.lock().expect("a lock").push(answered);
    let status = StatusCode::from_u16(status).expect("a status");
    HttpResponse::build(status).json(answer)
}
