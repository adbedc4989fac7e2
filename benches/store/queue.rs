//! What a long queue costs.

use std::time::{Duration, Instant};

use vestibule::base::clock::Clock;

use crate::database::Database;
use crate::drain::Running;
use crate::median;

const SHORT: u32 = 1_000;
const LONG: u32 = 1_000_000;
/// How many looks are measured.
const LOOKS: usize = 200;
/// As many as a service takes at once unless the settings say otherwise.
const AT_ONCE: u32 = 8;
const LEASE: Duration = Duration::from_mins(3);
/// How long a worker runs on it.
const WORK: Duration = Duration::from_secs(5);

/// A database with so many waiting, and how long each look at it and each claim took, in seconds.
struct Queue {
    database: Database,
    waiting: u32,
    looks: Vec<f64>,
    claims: Vec<f64>,
}

struct Figures {
    look: f64,
    claim: f64,
    memory: f64,
}

pub async fn measure() {
    let mut short = Queue::of("short", SHORT).await;
    let mut long = Queue::of("long", LONG).await;
    // They take turns, so that whatever else the machine does concerns both.
    for _ in 0..LOOKS {
        for queue in [&mut short, &mut long] {
            queue.look().await;
        }
    }
    let short = short.told().await;
    let long = long.told().await;
    println!(
        "look, {LONG} / {SHORT}, medians: {:.2}",
        long.look / short.look
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
    async fn of(name: &str, waiting: u32) -> Self {
        let database = Database::open(name).await;
        database.fill(waiting).await;
        Self {
            database,
            waiting,
            looks: Vec::new(),
            claims: Vec::new(),
        }
    }

    async fn look(&mut self) {
        let store = &self.database.store;
        let now = Clock::system().now();
        let started = Instant::now();
        let due = store.next_due().await.expect("a look");
        self.looks.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        let held = store.claim(&due[0].subscription, now, LEASE, AT_ONCE).await;
        self.claims.push(started.elapsed().as_secs_f64());
        let held = held.expect("a claim");
        assert_eq!(held.len(), AT_ONCE as usize);
        let given_back = store.give_back(&held, due[0].at).await;
        given_back.expect("given back");
    }

    async fn told(self) -> Figures {
        let figures = Figures {
            look: median(self.looks),
            claim: median(self.claims),
            memory: memory(&self.database).await,
        };
        println!(
            "{:>9} waiting: look {:>6.0} µs   claim of {AT_ONCE} {:>6.0} µs   memory {:>6.1} MiB",
            self.waiting,
            figures.look * 1e6,
            figures.claim * 1e6,
            figures.memory
        );
        self.database.store.close().await;
        figures
    }
}

/// The most that the process has in memory while a worker works off what is waiting, in MiB.
async fn memory(database: &Database) -> f64 {
    let running = Running::start(&database.store, 0);
    let end = Instant::now() + WORK;
    let mut most: f64 = 0.0;
    while Instant::now() < end {
        most = most.max(resident());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = running.stop().await;
    println!("            a worker settled {settled} within {WORK:?}");
    most
}

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.expect("a number") / 1024.0
}
