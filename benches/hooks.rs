//! Compares the throughput of `pre` with a bare actix-web handler that parses the payload and answers 204. Both get the
//! same payload in the same run, with 64 calls in flight. Rounds alternate.
//!
//! `cargo bench --bench hooks`

#[path = "support/caller.rs"]
mod caller;

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data};
use serde_json::Value;
use vestibule::app::{App, Overrides};
use vestibule::config::{self, Environment};
use vestibule_testing::serve::{any_port, serve_on};

use caller::{IN_FLIGHT, payload};

/// The allocator of the program, for both sides.
#[global_allocator]
static ALLOCATOR: vestibule_allocator::Allocator = vestibule_allocator::Allocator;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(3);

const TEN_CHECKS: &str = r#"
hooks: {keys: [a-key-for-the-bench-only]}
serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}
dsn: ${env:DSN}
lists: {throwaway: [trash.example, mail.example]}
checks:
  c1: {field: traits.email, refuse: [{when: "in_domains(value, lists.throwaway)"}]}
  c2: {field: traits.email, refuse: [{when: "value.endsWith('.invalid')"}]}
  c3: {field: traits.vat_number, refuse: [{when: "!value.matches('^[A-Z]{2}[0-9A-Z]+$')"}]}
  c4: {field: traits.vat_number, refuse: [{when: "value.substring(0, 2) == 'XX'"}]}
  c5: {field: traits.company, refuse: [{when: "size(value) > 200"}]}
  c6: {field: traits.company, refuse: [{when: "value.lowerAscii() == 'test'"}]}
  c7: {refuse: [{when: "identity.schema_id != 'default'"}]}
  c8: {refuse: [{when: "has(identity.traits.invite) && identity.traits.invite == ''"}]}
  c9: {refuse: [{when: "method == 'lookup_secret'"}]}
  c10: {refuse: [{when: "flow.type == 'api' && !has(flow.return_to)"}]}
"#;

fn main() {
    caller::run(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dsn = format!("sqlite://{}", folder.path().join("bench.db").display());
    let environment = Environment::of([("DSN".to_owned(), dsn)]);
    let settings = config::read(TEN_CHECKS, Path::new("bench.yaml"), &environment)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let app = App::start(settings, Overrides::default())
        .await
        .expect("Vestibule starts");
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let bare = serve_on(any_port(), threads, &Data::new(()), bare).address;

    let body = payload().to_string();
    println!(
        "payload {} bytes, {IN_FLIGHT} in flight, {ROUNDS} rounds of {} s each",
        body.len(),
        ROUND.as_secs()
    );
    let mut ratios = Vec::new();
    // One warm-up round each.
    round(bare, &body).await;
    round(app.hooks_address, &body).await;
    for number in 1..=ROUNDS {
        let bare_rate = round(bare, &body).await;
        let pre_rate = round(app.hooks_address, &body).await;
        ratios.push(pre_rate / bare_rate);
        println!(
            "round {number}: bare {bare_rate:>8.0} /s   pre {pre_rate:>8.0} /s   ratio {:.2}",
            pre_rate / bare_rate
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio, median of {ROUNDS}: {:.2}", ratios[ROUNDS / 2]);
    app.stop().await;
}

async fn bare(body: Bytes) -> HttpResponse {
    match serde_json::from_slice::<Value>(&body) {
        Ok(_) => HttpResponse::NoContent().finish(),
        Err(_) => HttpResponse::BadRequest().finish(),
    }
}

/// Runs one round. Returns the calls per second.
async fn round(address: SocketAddr, body: &str) -> f64 {
    let body = body.to_owned();
    let took = caller::round(address, ROUND, move || body.clone()).await;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let calls = took.len() as f64;
    calls / ROUND.as_secs_f64()
}
