//! Notices when the host of a virtual machine takes a processor away, which no program in the machine can prevent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The interval between two readings, which is the unit of the counter.
const EVERY: Duration = Duration::from_millis(10);

/// The longest interval that counts. In a longer one the thread itself had to wait, and the program may be the reason.
const LONGEST: Duration = Duration::from_millis(30);
/// The time after the beginning of a sign-up that counts. It is the same for all, so that slow ones are not left out more
/// often.
const BEGINNING: Duration = Duration::from_millis(20);

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
                if next.1 != last.1 && next.0 - last.0 <= LONGEST {
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
    /// Returns whether a processor was taken away when a sign-up that was due then began.
    pub fn at(&self, due: Instant) -> bool {
        let end = due + BEGINNING;
        self.0.iter().any(|(from, to)| *from < end && due < *to)
    }
}

/// The time that was taken away since the start of the machine, over all processors.
fn counter() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}
