//! What sharing a transaction brings: deliveries stored per second with 64 calls in flight, each in a transaction of its
//! own and through the intake. Same database file, same run; rounds take turns.
//!
//! `cargo bench --bench store`; on PostgreSQL with its address in `BENCH_DSN`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use uuid::Uuid;
use vestibule::clock::Timestamp;
use vestibule::delivery::{Event, New, Work};
use vestibule::request::{Body, Method, Request};
use vestibule::store::Store;
use vestibule::store::intake::intake;
use vestibule::store::postgres::Postgres;
use vestibule::store::sqlite::Sqlite;

/// The program's own, for both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

fn main() {
    // `cargo test --benches` passes this; a measurement is no test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

#[expect(clippy::disallowed_methods, reason = "asks whoever measures")]
async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn Store> = match std::env::var("BENCH_DSN") {
        Ok(dsn) => Arc::new(Postgres::open(&dsn).await.expect("a PostgreSQL")),
        Err(_) => Arc::new(
            Sqlite::open(&folder.path().join("bench.db"))
                .await
                .expect("a file"),
        ),
    };
    let (intake, writer) = intake(Arc::clone(&store), Arc::new(|_| {}));
    tokio::spawn(writer.run());

    println!(
        "1 KB each, {IN_FLIGHT} in flight, {ROUNDS} rounds of {} s each",
        ROUND.as_secs()
    );
    let mut ratios = Vec::new();
    for number in 1..=ROUNDS {
        let (one, shared) = (Arc::clone(&store), intake.clone());
        let alone = round(move || {
            let store = Arc::clone(&one);
            async move {
                store
                    .accept(vec![delivery()])
                    .await
                    .map(drop)
                    .expect("stored");
            }
        })
        .await;
        let together = round(move || {
            let intake = shared.clone();
            async move {
                intake
                    .accept(vec![delivery()])
                    .await
                    .map(drop)
                    .expect("stored");
            }
        })
        .await;
        ratios.push(together / alone);
        println!(
            "round {number}: alone {alone:>7.0} /s   together {together:>7.0} /s   ratio {:.1}",
            together / alone
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio, median of {ROUNDS}: {:.1}", ratios[ROUNDS / 2]);
    store.close().await;
}

/// Calls per second over one round.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement is about the system's own time"
)]
async fn round<F: Future<Output = ()> + Send + 'static>(
    call: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let running = Arc::new(AtomicBool::new(true));
    let calls = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (call, running, calls) = (call.clone(), Arc::clone(&running), Arc::clone(&calls));
            tokio::spawn(async move {
                while running.load(Ordering::Relaxed) {
                    call().await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    running.store(false, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a caller");
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let calls = calls.load(Ordering::Relaxed) as f64;
    calls / started.elapsed().as_secs_f64()
}

fn delivery() -> New {
    let id = Uuid::now_v7();
    New {
        id,
        plan: "crm".to_owned(),
        event: Event::IdentityCreated,
        unique_key: id.to_string(),
        identity_id: id,
        work: Ok(Work::Send(Request {
            method: Method::Post,
            path: "/contacts".to_owned(),
            headers: Vec::new(),
            body: Some(Body {
                content_type: "application/json".to_owned(),
                text: "x".repeat(1000),
            }),
        })),
        scene: None,
        created_at: Timestamp::UNIX_EPOCH,
        due_at: Timestamp::UNIX_EPOCH,
        keep_trying_until: Timestamp::UNIX_EPOCH,
    }
}
