//! The cost of a long queue.

use std::time::{Duration, Instant};

use vestibule::base::clock::Clock;

use crate::database::Database;
use crate::drain::RunningDispatcher;
use crate::median;

const SHORT: u32 = 1_000;
const LONG: u32 = 1_000_000;
/// The number of measurements.
const MEASUREMENTS: usize = 200;
/// The default concurrency limit of a service.
const BATCH: u32 = 8;
const LEASE: Duration = Duration::from_mins(3);
/// How long a dispatcher runs on the queue.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// A database with pending deliveries, and the durations of `next_due` and `claim` in seconds.
struct Queue {
    database: Database,
    pending: u32,
    next_due: Vec<f64>,
    claims: Vec<f64>,
}

struct Figures {
    next_due: f64,
    claim: f64,
    memory: f64,
}

pub async fn measure() {
    let mut short = Queue::of("short", SHORT).await;
    let mut long = Queue::of("long", LONG).await;
    // Alternate, so that other load of the machine affects both.
    for _ in 0..MEASUREMENTS {
        for queue in [&mut short, &mut long] {
            queue.measure_once().await;
        }
    }
    let short = short.figures().await;
    let long = long.figures().await;
    println!(
        "next_due, {LONG} / {SHORT}, medians: {:.2}",
        long.next_due / short.next_due
    );
    println!(
        "claim, {LONG} / {SHORT}, medians: {:.2}",
        long.claim / short.claim
    );
    println!(
        "memory, {LONG} - {SHORT}: {:+.1} MiB",
        long.memory - short.memory
    );
}

impl Queue {
    async fn of(name: &str, pending: u32) -> Self {
        let database = Database::open(name).await;
        database.fill(pending).await;
        Self {
            database,
            pending,
            next_due: Vec::new(),
            claims: Vec::new(),
        }
    }

    async fn measure_once(&mut self) {
        let store = &self.database.store;
        let now = Clock::system().now();
        let started = Instant::now();
        let due = store.next_due().await.expect("a due subscription");
        self.next_due.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        let claimed = store.claim(&due[0].subscription, now, LEASE, BATCH).await;
        self.claims.push(started.elapsed().as_secs_f64());
        let claimed = claimed.expect("the claim succeeds");
        assert_eq!(claimed.len(), BATCH as usize);
        let result = store.give_back(&claimed, due[0].at).await;
        result.expect("the leases end");
    }

    async fn figures(self) -> Figures {
        let figures = Figures {
            next_due: median(self.next_due),
            claim: median(self.claims),
            memory: memory(&self.database).await,
        };
        println!(
            "{:>9} pending: next_due {:>6.0} µs   claim of {BATCH} {:>6.0} µs   memory {:>6.1} MiB",
            self.pending,
            figures.next_due * 1e6,
            figures.claim * 1e6,
            figures.memory
        );
        self.database.store.close().await;
        figures
    }
}

/// The largest resident memory of the process while a dispatcher drains the queue, in MiB.
async fn memory(database: &Database) -> f64 {
    let dispatcher = RunningDispatcher::start(&database.store, 0);
    let end = Instant::now() + DRAIN_TIME;
    let mut peak: f64 = 0.0;
    while Instant::now() < end {
        peak = peak.max(resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = dispatcher.stop().await;
    println!("            the dispatcher settled {settled} within {DRAIN_TIME:?}");
    peak
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the system is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.expect("a number") / 1024.0
}
