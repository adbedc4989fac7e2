//! The page of the demo. The visitor submits a sign-up, and sees the calls, the result and the deliveries.

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
use crate::base::clock::{Clock, saturating_add};

/// The port of the page, unless another program uses it.
const PORT: u16 = 4470;
/// The maximum duration of one request for news.
const NEWS_WITHIN: Duration = Duration::from_secs(20);
/// The interval of reads from the database. The database does not notify the page of a settled delivery.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The maximum size of a request, in bytes.
const MOST: usize = 16 * 1024;

/// The state of the page.
pub struct AppState {
    /// The sign-ups.
    pub sign_ups: Arc<SignUps>,
    /// The requests that the example services received.
    pub book: Arc<RequestLog>,
    /// The VAT register.
    pub register: Arc<Example>,
    /// The CRM.
    pub crm: Arc<Example>,
    /// The page for a sign-up with a real Kratos, if one runs.
    pub kratos: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    register: Option<Behaviour>,
    crm: Option<Behaviour>,
}

#[derive(Deserialize)]
struct Seen {
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
pub fn start(desk: AppState) -> anyhow::Result<Page> {
    let listener = TcpListener::bind(("127.0.0.1", PORT))
        .or_else(|_| TcpListener::bind("127.0.0.1:0"))
        .context("cannot open a port for the page of the demo")?;
    let address = listener.local_addr()?;
    let desk = Data::new(desk);
    let hosts = Data::new(guard::Hosts::of(address));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(desk.clone())
            .app_data(hosts.clone())
            .app_data(
                JsonConfig::default()
                    .limit(MOST)
                    .error_handler(not_understood),
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

async fn state(desk: Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "register": desk.register.service.switch.behaviour(),
        "crm": desk.crm.service.switch.behaviour(),
        "registered": REGISTERED.map(|(number, holder)| json!({"number": number, "holder": holder})),
        "accounts": desk.sign_ups.accounts(),
        "kratos": desk.kratos,
    }))
}

async fn switch(wanted: Json<Wanted>, desk: Data<AppState>) -> HttpResponse {
    for (example, wanted) in [(&desk.register, wanted.register), (&desk.crm, wanted.crm)] {
        if let Some(wanted) = wanted
            && let Err(error) = example.switch(wanted).await
        {
            return HttpResponse::InternalServerError()
                .json(json!({"problem": format!("{error:#}")}));
        }
    }
    state(desk).await
}

async fn begin(
    request: HttpRequest,
    visit: Json<SignUpInput>,
    desk: Data<AppState>,
) -> HttpResponse {
    let mut visit = visit.into_inner();
    visit.browser = request
        .headers()
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .map(ToOwned::to_owned);
    match desk.sign_ups.begin(visit) {
        Ok(id) => HttpResponse::Accepted().json(json!({"id": id})),
        Err(problem) => HttpResponse::UnprocessableEntity().json(json!({"problem": problem})),
    }
}

/// Returns a sign-up as soon as it differs from the state that the page has seen.
async fn news(id: Path<Uuid>, seen: Query<Seen>, desk: Data<AppState>) -> HttpResponse {
    let clock = Clock::system();
    let until = saturating_add(clock.now(), NEWS_WITHIN);
    let mut changed = desk.book.watch();
    loop {
        changed.mark_unchanged();
        let Some(shown) = desk.sign_ups.shown(*id).await else {
            return HttpResponse::NotFound()
                .json(json!({"problem": "there is no sign-up with this id"}));
        };
        let state = fingerprint(&shown);
        if seen.seen.as_ref() != Some(&state) || clock.now() >= until {
            return HttpResponse::Ok().json(json!({"seen": state, "sign_up": shown}));
        }
        let look_again = saturating_add(clock.now(), LOOK_AGAIN);
        // An error would mean that there is no writer any more.
        let _ = clock.timeout_at(look_again, changed.changed()).await;
    }
}

fn fingerprint(shown: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    shown.to_string().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn not_understood(error: actix_web::error::JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
    let answer = HttpResponse::BadRequest().json(json!({"problem": error.to_string()}));
    actix_web::error::InternalError::from_response(error, answer).into()
}
