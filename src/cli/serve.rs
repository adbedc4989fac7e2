//! Run it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, Surroundings};
use crate::config;
use crate::telemetry;

/// Runs the program on the settings of `file` until it is told to stop.
pub async fn serve(file: &Path) -> anyhow::Result<ExitCode> {
    let settings = match config::load(file, &config::Environment::of_process()) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let (lines, _written_at_the_end) = telemetry::standard_output();
    telemetry::log_to(lines, settings.log.level, settings.log.format)
        .map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    telemetry::log_panics();
    for warning in settings.warnings.iter() {
        tracing::warn!(
            settings.key = warning.path,
            settings.line = warning.at.line,
            help = warning.hint,
            "The settings have a warning: {}",
            warning.message
        );
    }
    let app = App::start(settings, Surroundings::default()).await?;
    told_to_stop().await?;
    app.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGTERM or SIGINT.
pub async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate =
        signal(SignalKind::terminate()).context("SIGTERM cannot be listened for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be listened for")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
