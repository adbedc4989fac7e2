//! Measures the store, as ratios within one run on one database.
//!
//! - **Enqueue**: deliveries stored per second with 64 calls in flight: with a transaction for each call (on all connections,
//!   and one at a time), and with the group commit of the outbox. Rounds alternate.
//! - **Drain**: deliveries settled per second by a dispatcher whose transport does nothing.
//! - **Queue**: the time to find and to claim due deliveries, and the memory of the process while a dispatcher runs, with 1,000
//!   and with 1,000,000 pending deliveries.
//!
//! `cargo bench --bench store`. For PostgreSQL, set `BENCH_DSN` to the address of a server. The benchmark creates its own
//! databases there.

#![expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]

mod database;
mod deliveries;
mod drain;
mod enqueue;
mod queue;

use std::time::Duration;

use database::Database;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: vestibule_allocator::Allocator = vestibule_allocator::Allocator;

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

fn main() {
    // `cargo test --benches` passes this; benchmarks are not tests.
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
    // First, while the process uses little memory.
    queue::measure().await;
    let database = Database::open("rounds").await;
    println!(
        "{}: 1 KB each, {} in flight, {ROUNDS} rounds of {} s each",
        database.name(),
        enqueue::IN_FLIGHT,
        ROUND.as_secs()
    );
    let mut versus_separate = Vec::new();
    let mut versus_sequential = Vec::new();
    let mut drain_ratios = Vec::new();
    for number in 1..=ROUNDS {
        let enqueued = enqueue::round(&database).await;
        let drain = drain::round(&database, enqueued.due_count).await;
        println!(
            "round {number}: separate {:>6.0} /s   sequential {:>6.0} /s   grouped {:>6.0} /s   drain {drain:>6.0} /s",
            enqueued.separate, enqueued.sequential, enqueued.grouped
        );
        versus_separate.push(enqueued.grouped / enqueued.separate);
        versus_sequential.push(enqueued.grouped / enqueued.sequential);
        drain_ratios.push(drain / enqueued.grouped);
    }
    println!(
        "grouped / separate, median of {ROUNDS}: {:.1}",
        median(versus_separate)
    );
    println!(
        "grouped / sequential, median of {ROUNDS}: {:.1}",
        median(versus_sequential)
    );
    println!(
        "drain / grouped, median of {ROUNDS}: {:.2}",
        median(drain_ratios)
    );
    database.store.close().await;
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
