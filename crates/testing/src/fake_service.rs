//! The fake external system of all tests. It answers as a test says, and records the calls that it receives.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::ops::{Deref, Index};
use std::sync::{Arc, Mutex, MutexGuard};

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::port;
use crate::serve::{Server, any_port, serve_on};
use crate::wait::{bounded, eventually};

/// A response: status, body and header.
pub type Response = (u16, String, Option<(&'static str, String)>);

/// Returns the response to a call.
pub type Handler = dyn Fn(&Received) -> Response + Send + Sync;

/// What the service does with a call.
#[derive(Clone)]
pub enum Behaviour {
    /// Answers as the service was started.
    Works,
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
    /// The method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// The path without the query.
    pub path: String,
    /// All headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// The body of a call: a text, and its members if it is JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    text: String,
    json: Value,
}

impl Received {
    fn of(request: &HttpRequest, body: &[u8]) -> Self {
        let headers = request.headers().iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.into_owned())
        });
        Self {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            path: request.path().to_owned(),
            headers: headers.collect(),
            body: Body {
                text: String::from_utf8_lossy(body).into_owned(),
                json: serde_json::from_slice(body).unwrap_or_default(),
            },
        }
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The value of `Idempotency-Key`.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.header("Idempotency-Key")
    }

    /// Method and target.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// The body, which must be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }
}

impl Deref for Body {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// Null if there is no such member.
impl Index<&str> for Body {
    type Output = Value;

    fn index(&self, name: &str) -> &Value {
        &self.json[name]
    }
}

impl PartialEq<Value> for Body {
    fn eq(&self, other: &Value) -> bool {
        self.json == *other
    }
}

impl PartialEq<&str> for Body {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl fmt::Display for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(formatter)
    }
}

struct State {
    works: Arc<Handler>,
    behaviour: Mutex<Behaviour>,
    /// Prefixes of method and target, with their behaviour.
    by_prefix: Mutex<Vec<(String, Behaviour)>>,
    hang_end: Notify,
    received: Mutex<Vec<Received>>,
    answered: Mutex<Vec<(Received, u16)>>,
    arrivals: mpsc::UnboundedSender<Received>,
}

/// A running service. It can go down and come up again at the same address.
pub struct FakeService {
    address: SocketAddr,
    state: Data<State>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
    server: tokio::sync::Mutex<Option<Server>>,
}

impl FakeService {
    /// Starts a service that answers `200 {}`.
    pub fn start() -> Self {
        Self::answering(|_| empty_answer())
    }

    /// Starts a service that answers with this function while it works.
    pub fn answering(works: impl Fn(&Received) -> Response + Send + Sync + 'static) -> Self {
        Self::answering_on(any_port(), works)
    }

    /// The same on this listener. A service that goes down needs a port that stays reserved meanwhile.
    pub fn answering_on(
        listener: TcpListener,
        works: impl Fn(&Received) -> Response + Send + Sync + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Data::new(State {
            works: Arc::new(works),
            behaviour: Mutex::new(Behaviour::Works),
            by_prefix: Mutex::default(),
            hang_end: Notify::new(),
            received: Mutex::default(),
            answered: Mutex::default(),
            arrivals: sender,
        });
        let server = serve_on(listener, 1, &state, serve);
        Self {
            address: server.address,
            state,
            arrivals: tokio::sync::Mutex::new(receiver),
            server: tokio::sync::Mutex::new(Some(server)),
        }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the behaviour for the next calls.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.state.behaviour) = behaviour;
    }

    /// Sets the behaviour for calls whose method and target start with `prefix`, as in `POST /holds`.
    pub fn set_behaviour_for(&self, prefix: &str, behaviour: Behaviour) {
        let mut by_prefix = lock(&self.state.by_prefix);
        by_prefix.retain(|(known, _)| known != prefix);
        by_prefix.push((prefix.to_owned(), behaviour));
    }

    /// Answers the next calls with this status and this body.
    pub fn respond_with(&self, status: u16, body: &Value) {
        self.set_behaviour(Behaviour::Answers(status, body.to_string()));
    }

    /// Answers the calls that hang, and the next ones, with `200 {}`.
    pub fn release_hanging_calls(&self) {
        self.set_behaviour(Behaviour::Answers(200, "{}".to_owned()));
        self.state.hang_end.notify_waiters();
    }

    /// Sets the behaviour for the next calls and for those that hang.
    pub fn change_behaviour(&self, behaviour: Behaviour) {
        self.set_behaviour(behaviour);
        self.state.hang_end.notify_waiters();
    }

    /// Every call so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state.received).clone()
    }

    /// Every answered call so far, with the status of the response.
    pub fn answered(&self) -> Vec<(Received, u16)> {
        lock(&self.state.answered).clone()
    }

    /// Method and target of every call so far.
    pub fn request_lines(&self) -> Vec<String> {
        self.received().iter().map(Received::line).collect()
    }

    /// Waits for the next call that this method has not returned yet.
    pub async fn next_call(&self) -> Received {
        let call = async { self.arrivals.lock().await.recv().await };
        let call = bounded("a call of the service", call).await;
        call.expect("the service runs")
    }

    /// Stops the server, so that connections are refused.
    pub async fn go_down(&self) {
        let server = self.server.lock().await.take().expect("the service is up");
        bounded("the service stops", server.stop()).await;
        eventually("the port closes", async || {
            let connection = TcpStream::connect(self.address).await;
            connection.is_err().then_some(())
        })
        .await;
    }

    /// Starts the server on the address of the service.
    pub async fn come_up(&self) {
        // Another test case may fork at this moment. Its child holds copies of the sockets until it executes a program.
        let listener = eventually("the port is free", async || {
            TcpListener::bind(self.address).ok()
        })
        .await;
        *self.server.lock().await = Some(serve_on(listener, 1, &self.state, serve));
    }
}

impl State {
    fn behaviour_for(&self, call: &Received) -> Behaviour {
        let line = call.line();
        let by_prefix = lock(&self.by_prefix);
        let named = by_prefix
            .iter()
            .find(|(prefix, _)| line.starts_with(prefix.as_str()));
        named.map_or_else(
            || lock(&self.behaviour).clone(),
            |(_, behaviour)| behaviour.clone(),
        )
    }

    /// Returns the response, or `None` to break the connection.
    async fn respond(&self, call: &Received) -> Option<Response> {
        let hang_end = self.hang_end.notified();
        let mut behaviour = self.behaviour_for(call);
        let _ = self.arrivals.send(call.clone());
        if matches!(behaviour, Behaviour::Hangs) {
            hang_end.await;
            behaviour = self.behaviour_for(call);
        }
        Some(match behaviour {
            Behaviour::Works => (self.works)(call),
            Behaviour::Handles(handler) => handler(call),
            Behaviour::Answers(status, body) => (status, body, None),
            Behaviour::AnswersWith(status, body, header) => (status, body, Some(header)),
            Behaviour::Hangs => empty_answer(),
            Behaviour::Breaks => return None,
        })
    }
}

async fn serve(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let call = Received::of(&request, &body);
    lock(&state.received).push(call.clone());
    let Some((status, body, header)) = state.respond(&call).await else {
        return broken_response();
    };
    lock(&state.answered).push((call, status));
    let status = StatusCode::from_u16(status).expect("a status");
    let mut response = HttpResponse::build(status);
    if let Some(header) = header {
        response.insert_header(header);
    }
    response.content_type("application/json").body(body)
}

fn broken_response() -> HttpResponse {
    let broken = futures_util::stream::iter([
        Ok(Bytes::from_static(b"{\"half\": ")),
        Err(std::io::Error::other("broken on purpose")),
    ]);
    HttpResponse::Ok()
        .content_type("application/json")
        .streaming(broken)
}

/// An address on which no server listens.
pub fn unused_address() -> String {
    format!("http://127.0.0.1:{}", port::free())
}

fn empty_answer() -> Response {
    (200, "{}".to_owned(), None)
}

/// A test that panicked fails by itself, so the value behind a poisoned lock is used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::client;

    async fn status(service: &FakeService, path: &str) -> Option<u16> {
        let url = format!("{}{path}", service.url());
        let response = client().post(url).body("{\"a\": 1}").send().await.ok()?;
        let status = response.status().as_u16();
        response.bytes().await.is_ok().then_some(status)
    }

    #[tokio::test]
    async fn a_service_answers_as_the_test_says_and_records_the_calls() {
        let service = FakeService::answering(|call| (201, call.path.clone(), None));
        assert_eq!(status(&service, "/a?b=c").await, Some(201));
        service.set_behaviour(Behaviour::Answers(409, String::new()));
        service.set_behaviour_for("POST /held", Behaviour::Breaks);
        assert_eq!(status(&service, "/free").await, Some(409));
        assert_eq!(status(&service, "/held").await, None);
        assert_eq!(
            service.request_lines(),
            ["POST /a?b=c", "POST /free", "POST /held"]
        );
        let first = service.next_call().await;
        assert_eq!((&first.body["a"], &*first.body), (&1.into(), "{\"a\": 1}"));
        assert_eq!(service.answered().len(), 2);
    }

    #[tokio::test]
    async fn a_hanging_call_is_answered_with_the_changed_behaviour() {
        let service = FakeService::start();
        service.set_behaviour(Behaviour::Hangs);
        let (answer, ()) = tokio::join!(status(&service, "/"), async {
            service.next_call().await;
            service.change_behaviour(Behaviour::Answers(503, String::new()));
        });
        assert_eq!(answer, Some(503));
    }

    #[tokio::test]
    async fn a_service_comes_up_at_its_address() {
        let service = FakeService::answering_on(port::listener(), |_| empty_answer());
        service.go_down().await;
        assert_eq!(status(&service, "/").await, None);
        service.come_up().await;
        assert_eq!(status(&service, "/").await, Some(200));
    }
}
