//! Reads every line that the test suite logs. User input, keys and tokens all hold the word `canary` in these tests. A line
//! with that word ends the whole run.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::fmt::MakeWriter;
use vestibule::base::telemetry::{LogFormat, init_logging};

/// The word that no log line may hold.
pub const CANARY: &str = "canary";

static STARTED: OnceLock<()> = OnceLock::new();
static LINES: AtomicUsize = AtomicUsize::new(0);
static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Starts logging at the most detailed level, once for all tests.
pub fn start() {
    STARTED.get_or_init(|| {
        init_logging(CanaryWriter, tracing::Level::TRACE, LogFormat::Json)
            .expect("logging is started once");
    });
}

/// Returns whether a line holds the canary.
pub fn holds_canary(line: &str) -> bool {
    line.to_lowercase().contains(CANARY)
}

/// Returns the number of lines so far.
pub fn line_count() -> usize {
    LINES.load(Ordering::SeqCst)
}

/// Returns the lines that hold `text`.
pub fn lines_with(text: &str) -> Vec<String> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.iter()
        .filter(|line| line.contains(text))
        .cloned()
        .collect()
}

#[derive(Clone, Copy)]
struct CanaryWriter;

impl<'a> MakeWriter<'a> for CanaryWriter {
    type Writer = CanaryWriter;
    fn make_writer(&'a self) -> CanaryWriter {
        CanaryWriter
    }
}

impl Write for CanaryWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        LINES.fetch_add(1, Ordering::SeqCst);
        if holds_canary(&line) {
            // A panic would only fail the test that happened to log, so the whole run ends.
            let _ = writeln!(
                std::io::stderr(),
                "A LOG LINE HOLDS USER INPUT OR A SECRET:\n{line}"
            );
            std::process::exit(101);
        }
        KEPT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
