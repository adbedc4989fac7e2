//! A load balancer in front of all instances of Vestibule. It reports responses to `pre`, and can hold and repeat `post` calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use vestibule_testing::http::client_with_timeout;
use vestibule_testing::serve::{Server, serve};
use vestibule_testing::wait::bounded_by;

/// Distributes calls to the instances in turn.
pub struct LoadBalancer {
    pub url: String,
    state: Data<State>,
    server: Server,
}

struct State {
    instances: Vec<String>,
    next: AtomicUsize,
    http: reqwest::Client,
    answered: Mutex<BTreeMap<String, oneshot::Sender<()>>>,
    posts: Mutex<BTreeSet<String>>,
    calls: Vec<AtomicUsize>,
    last_post: Mutex<Option<Call>>,
    hold_posts: watch::Sender<bool>,
    held_post_count: AtomicUsize,
}

/// A recorded call of Kratos.
#[derive(Clone)]
pub struct Call {
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

impl LoadBalancer {
    /// Starts a load balancer in front of these addresses.
    pub fn start(instances: Vec<String>) -> Self {
        let state = Data::new(State {
            calls: instances.iter().map(|_| AtomicUsize::new(0)).collect(),
            instances,
            next: AtomicUsize::new(0),
            http: client_with_timeout(Duration::from_mins(1)),
            answered: Mutex::default(),
            posts: Mutex::default(),
            last_post: Mutex::default(),
            hold_posts: watch::Sender::new(false),
            held_post_count: AtomicUsize::new(0),
        });
        let server = serve(&state, forward);
        Self {
            url: server.url(),
            state,
            server,
        }
    }

    /// Resolves when Vestibule has answered the next `pre` of the visitor with this e-mail address.
    pub fn pre_answered(&self, email: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut answered = self
            .state
            .answered
            .lock()
            .expect("the lock is not poisoned");
        answered.insert(email.to_owned(), sender);
        receiver
    }

    /// Whether a `post` with this path arrived for this identity.
    pub fn had_post(&self, path: &str, id: &str) -> bool {
        let posts = self.state.posts.lock().expect("the lock is not poisoned");
        posts.contains(&format!("{path} {id}"))
    }

    /// Holds each `post` until [`LoadBalancer::release_posts`].
    pub fn hold_posts(&self) {
        self.state.hold_posts.send_replace(true);
    }

    /// Releases all held `post` calls.
    pub fn release_posts(&self) {
        self.state.hold_posts.send_replace(false);
    }

    /// How many `post` calls were held so far.
    pub fn held_post_count(&self) -> usize {
        self.state.held_post_count.load(Ordering::SeqCst)
    }

    /// The last `post` of Kratos.
    pub fn last_post(&self) -> Call {
        let last = self
            .state
            .last_post
            .lock()
            .expect("the lock is not poisoned");
        last.clone().expect("a `post`")
    }

    /// Repeats the call at this instance. Returns the status of the response.
    pub async fn repeat(&self, call: &Call, instance: usize) -> u16 {
        let upstream = self.state.call(instance, call).send().await;
        upstream.expect("a response").status().as_u16()
    }

    /// The number of calls of each instance.
    pub fn calls(&self) -> Vec<usize> {
        let count = |calls: &AtomicUsize| calls.load(Ordering::SeqCst);
        self.state.calls.iter().map(count).collect()
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.server.begin_to_stop();
    }
}

impl Call {
    fn of(request: &HttpRequest, body: Bytes) -> Self {
        let own = [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING];
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("a name");
            if !own.contains(&name) {
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
                headers.append(name, value);
            }
        }
        Self {
            uri: request.uri().to_string(),
            headers,
            body,
        }
    }

    /// The same call without the trigger id.
    #[must_use]
    pub fn without_trigger_id(mut self) -> Self {
        let removed = self.headers.remove("Ory-Webhook-Trigger-ID");
        assert!(removed.is_some(), "Kratos sends a trigger id");
        self
    }
}

impl State {
    fn call(&self, instance: usize, call: &Call) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.instances[instance], call.uri);
        let request = self.http.post(url).headers(call.headers.clone());
        request.body(call.body.clone())
    }

    /// Records a `post`, and waits while `post` calls are held.
    async fn record_post(&self, post: &Call) {
        *self.last_post.lock().expect("the lock is not poisoned") = Some(post.clone());
        let mut is_held = self.hold_posts.subscribe();
        if *is_held.borrow() {
            self.held_post_count.fetch_add(1, Ordering::SeqCst);
        }
        let released = is_held.wait_for(|is_held| !*is_held);
        let _ = bounded_by(Duration::from_mins(1), "the `post` is released", released).await;
    }
}

async fn forward(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let instance = state.next.fetch_add(1, Ordering::SeqCst) % state.instances.len();
    state.calls[instance].fetch_add(1, Ordering::SeqCst);
    let call = Call::of(&request, body.clone());
    let payload: Value = serde_json::from_slice(&body).unwrap_or_default();
    let identity = &payload["identity"];
    if let (true, Some(id)) = (request.path().ends_with("/post"), identity["id"].as_str()) {
        let mut posts = state.posts.lock().expect("the lock is not poisoned");
        posts.insert(format!("{} {id}", request.path()));
    }
    if request.path().ends_with("/post") {
        state.record_post(&call).await;
    }
    let Ok(upstream) = state.call(instance, &call).send().await else {
        return HttpResponse::BadGateway().finish();
    };
    let status = StatusCode::from_u16(upstream.status().as_u16()).expect("a status");
    let mut response = HttpResponse::build(status);
    if let Some(kind) = upstream.headers().get("content-type") {
        response.insert_header(("content-type", kind.as_bytes()));
    }
    if let Some(after) = upstream.headers().get("retry-after") {
        response.insert_header(("retry-after", after.as_bytes()));
    }
    let body = upstream.bytes().await.unwrap_or_default();
    if request.path().ends_with("/pre") {
        let email = identity["traits"]["email"].as_str();
        let mut answered = state.answered.lock().expect("the lock is not poisoned");
        if let Some(sender) = email.and_then(|email| answered.remove(email)) {
            let _ = sender.send(());
        }
    }
    response.body(body)
}
