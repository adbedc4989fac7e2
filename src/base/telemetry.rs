//! Logs, metrics and traces, and their outputs.

pub mod job_status;
pub mod metrics;
pub mod trace;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use metrics::Metrics;
pub use trace::Trace;

/// Formats an error and its causes as one line for a log.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some errors already print their cause.
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for operators.
    Text,
}

/// Starts logging to `writer`, or fails if logging was started before. Other crates log from level `warn` on, because
/// some crates log what they send and receive.
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

/// The maximum number of lines in the log queue. Further lines are dropped: a sign-up is worth more than its log
/// line.
const LINES_WAITING: usize = 8192;

/// Returns standard output behind a thread of its own, so that a stalled reader delays no sign-up. The queued lines
/// are written when the guard is dropped.
pub fn nonblocking_stdout() -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING)
        .finish(std::io::stdout())
}

/// Logs a panic with its source position only, because its message could hold what the visitor typed.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(
            place,
            "Panicked; this is a defect of Vestibule: please report it with its source position"
        );
    }));
}
