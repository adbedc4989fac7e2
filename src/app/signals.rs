//! Handles the signals that stop the program, and SIGHUP.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM or SIGINT.
pub async fn shutdown_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Ignores SIGHUP from now on, with a log line, because settings are not reloaded. Without this call, SIGHUP ends the
/// process.
pub fn ignore_hang_ups() -> anyhow::Result<()> {
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            tracing::warn!(
                "Ignored SIGHUP: settings are not reloaded; restart Vestibule to apply them"
            );
        }
    });
    Ok(())
}
