//! What the store can do, as ratios within one run on one database.
//!
//! - **Enqueue**: deliveries stored per second with 64 calls in flight, each in a transaction of its own (over all connections,
//!   and over one) and through the intake. Rounds take turns.
//! - **Drain**: what went through the intake, carried by a worker whose courier does nothing: settled per second.
//! - **Queue**: the time of a look and a claim, and the memory of the process while a worker runs, with 1,000 and with
//!   1,000,000 deliveries waiting.
//!
//! `cargo bench --bench store`; on PostgreSQL with the address of a server in `BENCH_DSN`, on which it makes databases
//! of its own.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement is about the system's own time"
)]

mod database;
mod deliveries;
mod drain;
mod enqueue;
mod queue;

use std::time::Duration;

use database::Database;

/// The program's own, for all sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

async fn measure() {
    // First, while the process holds nothing yet.
    queue::measure().await;
    let database = Database::open("rounds").await;
    println!(
        "{}: 1 KB each, {} in flight, {ROUNDS} rounds of {} s each",
        database.name(),
        enqueue::IN_FLIGHT,
        ROUND.as_secs()
    );
    let mut shared = Vec::new();
    let mut one_by_one = Vec::new();
    let mut drained = Vec::new();
    for number in 1..=ROUNDS {
        let enqueued = enqueue::round(&database).await;
        let drain = drain::round(&database, enqueued.to_be_drained).await;
        println!(
            "round {number}: alone {:>6.0} /s   alone on one connection {:>6.0} /s   together {:>6.0} /s   drain {drain:>6.0} /s",
            enqueued.alone, enqueued.one_by_one, enqueued.together
        );
        shared.push(enqueued.together / enqueued.alone);
        one_by_one.push(enqueued.together / enqueued.one_by_one);
        drained.push(drain / enqueued.together);
    }
    println!(
        "together / alone, median of {ROUNDS}: {:.1}",
        median(shared)
    );
    println!(
        "together / alone on one connection, median of {ROUNDS}: {:.1}",
        median(one_by_one)
    );
    println!(
        "drain / together, median of {ROUNDS}: {:.2}",
        median(drained)
    );
    database.store.close().await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
