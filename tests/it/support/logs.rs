//! Every line that the suite logs is read here. What people type, keys and tokens all hold the word
//! `canary` in these tests; a line with that word ends the whole run.

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

/// Starts logging, once for all tests, at the level that says most.
pub fn start() {
    STARTED.get_or_init(|| {
        init_logging(CanaryWriter, tracing::Level::TRACE, LogFormat::Json)
            .expect("logging is started once");
    });
}

/// Whether a line gives away what it must not.
pub fn holds_canary(line: &str) -> bool {
    line.to_lowercase().contains(CANARY)
}

/// How many lines have been read.
pub fn line_count() -> usize {
    LINES.load(Ordering::SeqCst)
}

/// The lines that hold `text`.
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
            // Not a panic: a panic in here would only fail whichever test happened to log.
            let _ = writeln!(
                std::io::stderr(),
                "A LOG LINE GIVES AWAY WHAT SOMEBODY TYPED, OR A KEY:\n{line}"
            );
            std::process::exit(101);
        }
        // A defect in the middle of judging, brought about by a check of this name that has no answer.
        assert!(
            !line.contains("panic_on_purpose") || line.contains("Panicked"),
            "on purpose"
        );
        KEPT.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
