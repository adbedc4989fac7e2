//! What a long queue costs.

use std::time::{Duration, Instant};

use vestibule::clock::Clock;

use crate::database::Database;
use crate::drain::Running;
use crate::median;

const SHORT: u32 = 1_000;
const LONG: u32 = 1_000_000;
/// How many looks are measured.
const LOOKS: usize = 200;
/// As many as a service takes at once unless the settings say otherwise.
const AT_ONCE: u32 = 8;
/// How long a worker runs on it.
const WORK: Duration = Duration::from_secs(5);

pub async fn measure(database: &Database) {
    let mut figures = Vec::new();
    for many in [SHORT, LONG] {
        database.empty().await;
        database.fill(many).await;
        let (look, claim) = looks(database).await;
        let memory = memory(database).await;
        println!(
            "{many:>9} waiting: look {:>6.0} µs   claim of {AT_ONCE} {:>6.0} µs   memory {memory:>6.1} MiB",
            look * 1e6,
            claim * 1e6
        );
        figures.push((look, claim, memory));
    }
    let [short, long] = figures[..] else { return };
    println!("look, {LONG} / {SHORT}, medians: {:.2}", long.0 / short.0);
    println!("claim, {LONG} / {SHORT}, medians: {:.2}", long.1 / short.1);
    println!("memory, {LONG} - {SHORT}: {:+.1} MiB", long.2 - short.2);
}

/// Seconds that a look at what is due takes, and a claim; medians.
async fn looks(database: &Database) -> (f64, f64) {
    let store = &database.store;
    let lease = Duration::from_mins(3);
    let mut looks = Vec::new();
    let mut claims = Vec::new();
    for _ in 0..LOOKS {
        let now = Clock::system().now();
        let started = Instant::now();
        let due = store.next_due().await.expect("a look");
        looks.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        let held = store.claim(&due[0].plan, now, lease, AT_ONCE).await;
        claims.push(started.elapsed().as_secs_f64());
        let held = held.expect("a claim");
        assert_eq!(held.len(), AT_ONCE as usize);
        store.give_back(&held, due[0].at).await.expect("given back");
    }
    (median(looks), median(claims))
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
