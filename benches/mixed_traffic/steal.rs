//! Notices when the host of a virtual machine takes a processor away, which no program in the machine can prevent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The interval between two readings, which is the unit of the counter.
const EVERY: Duration = Duration::from_millis(10);

/// A thread that reads the counter of Linux, `steal` in `/proc/stat`. Elsewhere nothing is noticed.
pub struct StealWatch {
    running: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, Instant)>>,
}

/// The times during which a processor was taken away.
#[derive(Debug, Default)]
pub struct Stolen(Vec<(Instant, Instant)>);

impl StealWatch {
    /// Starts the thread.
    pub fn begin() -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let goes_on = Arc::clone(&running);
        let thread = thread::spawn(move || {
            let mut stolen = Vec::new();
            let mut last = (Instant::now(), counter());
            while goes_on.load(Ordering::Relaxed) {
                thread::sleep(EVERY);
                let next = (Instant::now(), counter());
                if next.1 != last.1 {
                    stolen.push((last.0, next.0));
                }
                last = next;
            }
            stolen
        });
        Self { running, thread }
    }

    /// Ends the thread, and returns what it noticed.
    pub fn end(self) -> Stolen {
        self.running.store(false, Ordering::Relaxed);
        Stolen(self.thread.join().unwrap_or_default())
    }
}

impl Stolen {
    /// Returns whether a processor was taken away between these times.
    pub fn between(&self, begin: Instant, end: Instant) -> bool {
        self.0.iter().any(|(from, to)| *from < end && begin < *to)
    }
}

/// The time that was taken away since the start of the machine, over all processors.
fn counter() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}
