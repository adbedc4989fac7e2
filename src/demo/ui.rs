//! Serves the page of the demo. The visitor submits a sign-up, and sees the calls, the result and the deliveries.

mod guard;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::header::USER_AGENT;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, Json, JsonConfig, Path, Query};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fake_kratos::SignUpInput;
use super::services::{Behaviour, Example, REGISTERED, RequestLog};
use super::sign_up::SignUps;
use crate::base::clock::Clock;

/// The port of the page, unless another program uses it.
const PORT: u16 = 4470;
/// The maximum duration of one request for news.
const MAX_NEWS_WAIT: Duration = Duration::from_secs(20);
/// The interval of reads from the database. The database does not notify the page of a settled delivery.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The maximum size of a request, in bytes.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// The state of the page.
pub struct AppState {
    /// The sign-ups.
    pub sign_ups: Arc<SignUps>,
    /// The requests that the example services received.
    pub request_log: Arc<RequestLog>,
    /// The VAT register.
    pub register: Arc<Example>,
    /// The CRM.
    pub crm: Arc<Example>,
    /// The page for a sign-up with a real Kratos, if one runs.
    pub kratos: Option<String>,
    /// The clock of the demo.
    pub clock: Clock,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchRequest {
    register: Option<Behaviour>,
    crm: Option<Behaviour>,
}

#[derive(Deserialize)]
struct NewsQuery {
    seen: Option<String>,
}

/// The page while it is served.
pub struct Page {
    /// The address of the page.
    pub address: SocketAddr,
    /// The handle that stops the page.
    pub handle: ServerHandle,
}

/// Serves the page.
pub fn start(app_state: AppState) -> anyhow::Result<Page> {
    let listener = TcpListener::bind(("127.0.0.1", PORT))
        .or_else(|_| TcpListener::bind("127.0.0.1:0"))
        .context("cannot open a port for the page of the demo")?;
    let address = listener.local_addr()?;
    let app_state = Data::new(app_state);
    let hosts = Data::new(guard::Hosts::of(address));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(app_state.clone())
            .app_data(hosts.clone())
            .app_data(
                JsonConfig::default()
                    .limit(MAX_REQUEST_BYTES)
                    .error_handler(bad_request),
            )
            .wrap(from_fn(guard::same_origin))
            .route(
                "/",
                web::get().to(async || file("text/html", include_str!("ui/page.html"))),
            )
            .route(
                "/page.css",
                web::get().to(async || file("text/css", include_str!("ui/page.css"))),
            )
            .route(
                "/page.js",
                web::get().to(async || file("text/javascript", include_str!("ui/page.js"))),
            )
            .route(
                "/view.js",
                web::get().to(async || file("text/javascript", include_str!("ui/view.js"))),
            )
            .route(
                "/icon.svg",
                web::get().to(async || file("image/svg+xml", include_str!("ui/icon.svg"))),
            )
            .route("/api/state", web::get().to(state))
            .route("/api/switch", web::put().to(switch))
            .route("/api/sign-ups", web::post().to(begin))
            .route("/api/sign-ups/{id}", web::get().to(news))
    })
    .workers(2)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Page { address, handle })
}

fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(format!("{kind}; charset=utf-8"))
        .body(text)
}

async fn state(app_state: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "register": app_state.register.service.switch.behaviour(),
        "crm": app_state.crm.service.switch.behaviour(),
        "registered": REGISTERED.map(|(number, holder)| json!({"number": number, "holder": holder})),
        "accounts": app_state.sign_ups.accounts(),
        "kratos": app_state.kratos,
    }))
}

async fn switch(wanted: Json<SwitchRequest>, app_state: Data<AppState>) -> HttpResponse {
    for (example, wanted) in [
        (&app_state.register, wanted.register),
        (&app_state.crm, wanted.crm),
    ] {
        if let Some(wanted) = wanted
            && let Err(error) = example.switch(wanted).await
        {
            return HttpResponse::InternalServerError()
                .json(json!({"problem": format!("{error:#}")}));
        }
    }
    state(app_state).await
}

async fn begin(
    request: HttpRequest,
    input: Json<SignUpInput>,
    app_state: Data<AppState>,
) -> HttpResponse {
    let mut input = input.into_inner();
    input.browser = request
        .headers()
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .map(ToOwned::to_owned);
    match app_state.sign_ups.begin(input) {
        Ok(id) => HttpResponse::Accepted().json(json!({"id": id})),
        Err(problem) => HttpResponse::UnprocessableEntity().json(json!({"problem": problem})),
    }
}

/// Returns a sign-up as soon as it differs from the state that the page has seen.
async fn news(id: Path<Uuid>, seen: Query<NewsQuery>, app_state: Data<AppState>) -> HttpResponse {
    let clock = &app_state.clock;
    let until = clock.deadline(MAX_NEWS_WAIT);
    let mut changed = app_state.request_log.watch();
    loop {
        changed.mark_unchanged();
        let Some(view) = app_state.sign_ups.view(*id).await else {
            return HttpResponse::NotFound()
                .json(json!({"problem": "there is no sign-up with this id"}));
        };
        let state = fingerprint(&view);
        if seen.seen.as_ref() != Some(&state) || clock.time_left(until).is_zero() {
            return HttpResponse::Ok().json(json!({"seen": state, "sign_up": view}));
        }
        let next_poll = clock.deadline(POLL_INTERVAL);
        // An error would mean that there is no writer any more.
        let _ = clock.timeout_at(next_poll, changed.changed()).await;
    }
}

fn fingerprint(view: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    view.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn bad_request(error: actix_web::error::JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
    let answer = HttpResponse::BadRequest().json(json!({"problem": error.to_string()}));
    actix_web::error::InternalError::from_response(error, answer).into()
}
