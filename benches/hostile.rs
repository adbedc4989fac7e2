//! Compares the time of honest sign-ups beside hostile traffic with the time alone, in the same process and in the same
//! run. Rounds alternate. Honest sign-ups ask a service, which answers after 5 ms.
//!
//! `cargo bench --bench hostile`.

#[path = "support/caller.rs"]
#[expect(dead_code, reason = "this bench paces its calls by itself")]
mod caller;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use reqwest::Client;
use serde_json::json;
use uuid::Uuid;
use vestibule::app::{App, Overrides};
use vestibule::config::{self, Environment};
use vestibule_testing::http::client;
use vestibule_testing::payload::Payload;
use vestibule_testing::serve::serve;

use caller::{KEY, payload};

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: vestibule_allocator::Allocator = vestibule_allocator::Allocator;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(6);
/// The interval between two honest sign-ups: 100 a second, far below what one core can do.
const HONEST_EVERY: Duration = Duration::from_millis(10);
/// The interval between two hostile calls.
const HOSTILE_EVERY: Duration = Duration::from_millis(500);
/// The response time of the service.
const SERVICE: Duration = Duration::from_millis(5);

const SETTINGS: &str = r#"
hooks: {keys: [a-key-for-the-bench-only]}
serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}
dsn: ${env:DSN}
checks:
  vat_number: {field: traits.vat_number, ask: {get: "${env:SERVICE}/{value}"}}
  words:
    field: traits.company
    refuse: [{when: "value.split(' ').exists(w, w.size() > 3 && w.split('').all(c, w.replace(c, '') == ''))", message: "No."}]
  doubled:
    field: traits.invite
    refuse: [{when: "value.replace('a', value) == ''", message: "No."}]
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:SERVICE}/contacts"}}
"#;

/// A kind of hostile traffic.
#[derive(Clone, Copy)]
struct Hostile {
    name: &'static str,
    stage: &'static str,
    /// Makes the body of a call from an honest one.
    body: fn(Payload) -> Payload,
}

const KINDS: [Hostile; 3] = [
    Hostile {
        name: "a value of 30 KB in a loop",
        stage: "pre",
        body: |honest| honest.with_trait("company", long_value()),
    },
    Hostile {
        name: "a value of 30 KB that is multiplied",
        stage: "pre",
        body: |honest| honest.with_trait("invite", long_value()),
    },
    Hostile {
        name: "a receiver with 800 KB of errors",
        stage: "post",
        body: |honest| {
            let tags: Vec<String> = (0..3_000).map(|tag| format!("tag-{tag}")).collect();
            honest.with("/identity/traits/tags", json!(tags)).saved()
        },
    },
];

fn long_value() -> String {
    format!("{} {}", "a".repeat(30_000), Uuid::new_v4())
}

fn main() {
    caller::run(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let app = start(folder.path()).await;
    let address = format!("http://{}", app.hooks_address);
    println!(
        "{ROUNDS} rounds of {} s each, p99 of honest sign-ups",
        ROUND.as_secs()
    );
    p99(&address).await;
    let memory = resident();
    for hostile in KINDS {
        let mut ratios = Vec::new();
        println!("{}", hostile.name);
        for number in 1..=ROUNDS {
            let alone = p99(&address).await;
            let beside = beside(&address, hostile).await;
            let ratio = beside.as_secs_f64() / alone.as_secs_f64();
            ratios.push(ratio);
            println!(
                "round {number}: alone {alone:>8.2?}   beside {beside:>8.2?}   ratio {ratio:.3}"
            );
        }
        ratios.sort_by(f64::total_cmp);
        println!("ratio, median of {ROUNDS}: {:.3}", ratios[ROUNDS / 2]);
    }
    println!("memory: {memory} KiB before, {} KiB after", resident());
    app.stop().await;
}

/// Returns the p99 of honest sign-ups while hostile calls arrive.
async fn beside(address: &str, hostile: Hostile) -> Duration {
    let running = Arc::new(AtomicBool::new(true));
    let attack = tokio::spawn(attack(address.to_owned(), hostile, Arc::clone(&running)));
    let measured = p99(address).await;
    running.store(false, Ordering::Relaxed);
    let calls = attack.await.expect("the attack ends");
    assert!(calls > 0, "there was hostile traffic");
    measured
}

#[expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]
async fn attack(address: String, hostile: Hostile, running: Arc<AtomicBool>) -> usize {
    let http = client();
    let mut calls = 0;
    while running.load(Ordering::Relaxed) {
        let body = (hostile.body)(payload().with("/flow/id", Uuid::new_v4().to_string()));
        let status = call(&http, &address, hostile.stage, body).await;
        assert!(status < 500 && status != 429, "{status}");
        calls += 1;
        tokio::time::sleep(HOSTILE_EVERY).await;
    }
    calls
}

/// Makes honest sign-ups for one round, and returns their p99.
#[expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]
async fn p99(address: &str) -> Duration {
    let http = client();
    let begin = Instant::now();
    let mut calls = Vec::new();
    let mut due = begin;
    while begin.elapsed() < ROUND {
        let (http, address) = (http.clone(), address.to_owned());
        calls.push(tokio::spawn(async move {
            // The time counts from when the call is due, also if it starts late.
            let body = payload().with("/flow/id", Uuid::new_v4().to_string());
            let status = call(&http, &address, "pre", body).await;
            assert!(status == 204 || status == 200, "{status}");
            due.elapsed()
        }));
        due += HONEST_EVERY;
        tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
    }
    let mut took = vestibule_testing::join_all("each sign-up is answered", calls).await;
    took.sort();
    took[took.len() * 99 / 100]
}

async fn call(http: &Client, address: &str, stage: &str, body: Payload) -> u16 {
    let url = format!("{address}/hooks/registration/{stage}?method=password");
    let request = http
        .post(url)
        .header("Content-Type", "application/json")
        .header("X-Vestibule-Key", KEY)
        .header("Ory-Webhook-Trigger-Id", Uuid::new_v4().to_string());
    let response = request.body(body.to_string()).send().await;
    response.expect("an answer").status().as_u16()
}

async fn start(folder: &Path) -> App {
    let errors = vec![json!({"field": "e-mail", "error": "is not valid at all"}); 15_000];
    let errors = Bytes::from(json!({ "errors": errors }).to_string());
    let service = serve(&Data::new(errors), answer).address;
    let environment = Environment::of([
        (
            "DSN".to_owned(),
            format!("sqlite://{}", folder.join("bench.db").display()),
        ),
        ("SERVICE".to_owned(), format!("http://{service}")),
    ]);
    let settings = config::read(SETTINGS, Path::new("bench.yaml"), &environment)
        .unwrap_or_else(|problems| panic!("{problems}"));
    App::start(settings, Overrides::default())
        .await
        .expect("Vestibule starts")
}

/// Answers questions after a while, and deliveries with many errors.
#[expect(
    clippy::disallowed_methods,
    reason = "the service uses the system clock"
)]
async fn answer(request: HttpRequest, errors: Data<Bytes>) -> HttpResponse {
    if request.path() == "/contacts" {
        return HttpResponse::UnprocessableEntity()
            .content_type("application/json")
            .body(errors.get_ref().clone());
    }
    tokio::time::sleep(SERVICE).await;
    HttpResponse::Ok().json(json!({"valid": true}))
}

/// Returns the resident memory of the process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}
