//! Logs, metrics and traces, and where they go.

pub mod metrics;
pub mod trace;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use metrics::Metrics;
pub use trace::Trace;

/// An error and its causes in one line, for a log.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Some say their cause themselves.
        if !line.ends_with(&words) {
            line = format!("{line}: {words}");
        }
        cause = error.source();
    }
    line
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Starts logging to `writer`. Other crates are heard from `warn` on, because some of them log what
/// they send and receive. Fails if logging was started before.
pub fn init_logging<W>(
    writer: W,
    level: Level,
    format: LogFormat,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::new(format!("warn,vestibule={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
    }
}

/// How many lines may wait to be written. What comes beyond is lost: a sign-up is worth more than its line.
const LINES_WAITING: usize = 8192;

/// The standard output behind a thread of its own, so that a reader who stalls holds up no sign-up. What waits is
/// written when the guard is dropped.
pub fn nonblocking_stdout() -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING)
        .finish(std::io::stdout())
}

/// Logs a panic by its place alone: its words could hold what somebody typed.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(
            place,
            "Panicked; this is a defect of Vestibule, please report it with its place"
        );
    }));
}
