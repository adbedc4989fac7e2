//! Compares the latency of `pre` with and without the record of pending sign-ups, with 64 calls in flight. Both call the same
//! service, which takes 5 ms, and use the same database server in the same run. Rounds alternate.
//!
//! `cargo bench --bench pending`. For PostgreSQL, set `BENCH_DSN` to the address of an empty database.

#[path = "support/caller.rs"]
mod caller;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Data;
use vestibule::app::{App, Overrides};
use vestibule::config::{self, Environment};
use vestibule::model::pending::LookupTimes;
use vestibule_testing::serve::serve;

use caller::{FLOW_ID, IN_FLIGHT, payload};

/// The allocator of the program, for both sides.
#[global_allocator]
static ALLOCATOR: vestibule_allocator::Allocator = vestibule_allocator::Allocator;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(4);
/// The response time of the service.
const SERVICE: Duration = Duration::from_millis(5);

const SETTINGS: &str = r#"
hooks: {keys: [a-key-for-the-bench-only]}
serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}
dsn: ${env:DSN}
checks:
  vat_number: {field: traits.vat_number, ask: {get: "${env:SERVICE}/{value}"}}
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:SERVICE}/contacts"}}
"#;

fn main() {
    caller::run(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let service = serve(&Data::new(()), answer).address;
    let without = start(folder.path(), "without.db", service, "").await;
    // Nothing listens there, and Vestibule looks up no sign-up during the measurement.
    let admin = "kratos: {admin_url: \"http://127.0.0.1:9\"}\n";
    let with = start(folder.path(), "with.db", service, admin).await;
    println!(
        "{IN_FLIGHT} in flight, {ROUNDS} rounds of {} s each",
        ROUND.as_secs()
    );
    let mut ratios = Vec::new();
    median(without.hooks_address).await;
    median(with.hooks_address).await;
    for number in 1..=ROUNDS {
        let baseline = median(without.hooks_address).await;
        let recorded = median(with.hooks_address).await;
        let ratio = recorded.as_secs_f64() / baseline.as_secs_f64();
        ratios.push(ratio);
        println!(
            "round {number}: p50 without {baseline:>8.2?}   with {recorded:>8.2?}   ratio {ratio:.3}"
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio, median of {ROUNDS}: {:.3}", ratios[ROUNDS / 2]);
    without.stop().await;
    with.stop().await;
}

async fn median(address: SocketAddr) -> Duration {
    let template = payload().to_string();
    let body = move || {
        let flow = uuid::Uuid::new_v4().to_string();
        template.replace(FLOW_ID, &flow)
    };
    let mut took = caller::round(address, ROUND, body).await;
    took.sort();
    took[took.len() / 2]
}

#[expect(
    clippy::disallowed_methods,
    reason = "reads the environment of the benchmark"
)]
async fn start(folder: &Path, database: &str, service: SocketAddr, head: &str) -> App {
    let file = format!("sqlite://{}", folder.join(database).display());
    let dsn = std::env::var("BENCH_DSN").unwrap_or(file);
    let environment = Environment::of([
        ("DSN".to_owned(), dsn),
        ("SERVICE".to_owned(), format!("http://{service}")),
    ]);
    let settings = config::read(
        &format!("{head}{SETTINGS}"),
        Path::new("bench.yaml"),
        &environment,
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    let overrides = Overrides {
        lookup_times: LookupTimes {
            after_acceptance: [Duration::from_hours(1); 4],
            ..LookupTimes::default()
        },
        ..Overrides::default()
    };
    App::start(settings, overrides)
        .await
        .expect("Vestibule starts")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the service uses the system clock"
)]
async fn answer() -> HttpResponse {
    tokio::time::sleep(SERVICE).await;
    HttpResponse::Ok().json(serde_json::json!({"valid": true}))
}
