//! One address in front of all instances of Vestibule; reports when `pre` is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use serde_json::Value;
use tokio::sync::oneshot;

/// Passes calls to the instances in turn.
pub struct Relay {
    pub url: String,
    state: Data<State>,
    server: ServerHandle,
}

struct State {
    instances: Vec<String>,
    next: AtomicUsize,
    http: reqwest::Client,
    answered: Mutex<BTreeMap<String, oneshot::Sender<()>>>,
    posts: Mutex<BTreeSet<String>>,
    calls: Vec<AtomicUsize>,
}

impl Relay {
    /// Starts one in front of these addresses.
    pub fn start(instances: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(1))
            .build()
            .expect("a client");
        let state = Data::new(State {
            calls: instances.iter().map(|_| AtomicUsize::new(0)).collect(),
            instances,
            next: AtomicUsize::new(0),
            http,
            answered: Mutex::default(),
            posts: Mutex::default(),
        });
        let of_server = state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(of_server.clone())
                .default_service(web::route().to(pass_on))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .listen(listener)
        .expect("listening")
        .run();
        let handle = server.handle();
        tokio::spawn(server);
        Self {
            url: format!("http://{address}"),
            state,
            server: handle,
        }
    }

    /// Resolves when Vestibule has answered the next `pre` of the visitor with this address.
    pub fn pre_answered(&self, email: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut answered = self.state.answered.lock().expect("a lock");
        answered.insert(email.to_owned(), sender);
        receiver
    }

    /// Whether a `post` of this path came for this identity.
    pub fn had_post(&self, path: &str, id: &str) -> bool {
        let posts = self.state.posts.lock().expect("a lock");
        posts.contains(&format!("{path} {id}"))
    }

    /// The number of calls that each instance got.
    pub fn calls(&self) -> Vec<usize> {
        let count = |calls: &AtomicUsize| calls.load(Ordering::SeqCst);
        self.state.calls.iter().map(count).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

async fn pass_on(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let turn = state.next.fetch_add(1, Ordering::SeqCst) % state.instances.len();
    state.calls[turn].fetch_add(1, Ordering::SeqCst);
    let url = format!("{}{}", state.instances[turn], request.uri());
    let mut call = state.http.post(url).body(body.clone());
    for (name, value) in request.headers() {
        let own = [HOST, CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING];
        if !own.iter().any(|own| own.as_str() == name.as_str()) {
            call = call.header(name.as_str(), value.as_bytes());
        }
    }
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    let identity = &told["identity"];
    if let (true, Some(id)) = (request.path().ends_with("/post"), identity["id"].as_str()) {
        let mut posts = state.posts.lock().expect("a lock");
        posts.insert(format!("{} {id}", request.path()));
    }
    let Ok(answer) = call.send().await else {
        return HttpResponse::BadGateway().finish();
    };
    let status = StatusCode::from_u16(answer.status().as_u16()).expect("a status");
    let mut response = HttpResponse::build(status);
    if let Some(kind) = answer.headers().get("content-type") {
        response.insert_header(("content-type", kind.as_bytes()));
    }
    if let Some(after) = answer.headers().get("retry-after") {
        response.insert_header(("retry-after", after.as_bytes()));
    }
    let answer = answer.bytes().await.unwrap_or_default();
    if request.path().ends_with("/pre") {
        let email = identity["traits"]["email"].as_str();
        let mut answered = state.answered.lock().expect("a lock");
        if let Some(sender) = email.and_then(|email| answered.remove(email)) {
            let _ = sender.send(());
        }
    }
    response.body(answer)
}
