//! `vestibule serve`: runs the program.

use std::process::ExitCode;

use clap::Args;

use super::ConfigFile;
use crate::app::{
    App, MemoryKeeper, Overrides, ignore_hang_ups, raise_open_files_limit, shutdown_signal,
};
use crate::base::telemetry;
use crate::config;
use crate::model::pending::LookupTimes;

/// `vestibule serve`
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Look up sign-ups without a `post` this many times faster, for tests
    #[arg(
        long,
        hide = true,
        value_name = "TIMES",
        env = "VESTIBULE_LOOK_UP_FASTER",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    look_up_faster: u32,
}

/// Runs the program with the settings of the file until a signal stops it.
pub async fn serve(options: &Options) -> anyhow::Result<ExitCode> {
    let file = &options.file.config;
    let settings = match config::load(file, &config::Environment::of_process()) {
        Ok(settings) => settings,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let (lines, _written_at_the_end) = telemetry::nonblocking_stdout();
    telemetry::init_logging(lines, settings.log.level, settings.log.format)
        .map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    telemetry::log_panics();
    ignore_hang_ups()?;
    raise_open_files_limit();
    let memory = MemoryKeeper::start();
    if let Err(error) = &memory {
        tracing::warn!(%error, "The thread that gives memory back cannot start; other threads give it back in passing");
    }
    for warning in settings.warnings.iter() {
        tracing::warn!(
            settings.key = warning.path,
            settings.line = warning.at.line,
            help = warning.hint,
            "The settings have a warning: {}",
            warning.message
        );
    }
    let surroundings = Overrides {
        lookup_times: LookupTimes::default().divided_by(options.look_up_faster),
        ..Overrides::default()
    };
    let app = App::start(settings, surroundings).await?;
    app.run_until(shutdown_signal()).await?;
    Ok(ExitCode::SUCCESS)
}
