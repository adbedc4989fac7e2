//! `vestibule validate`: reports every problem in a settings file.

use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Environment};

/// Reads the file, compiles every expression, and prints the problems. Warnings are printed, and do not change the exit
/// code.
pub fn run(file: &Path) -> anyhow::Result<ExitCode> {
    match config::load(file, &Environment::of_process()) {
        Ok(settings) => {
            println!(
                "{} is valid: {}, {}",
                file.display(),
                counted(settings.checks.len(), "check"),
                counted(settings.subscriptions.len(), "delivery")
                    .replace("deliverys", "deliveries"),
            );
            if !settings.warnings.is_empty() {
                eprint!("{}", settings.warnings);
            }
            if settings.hooks.keys.is_empty() {
                println!(
                    "note: `hooks.keys` is empty; `vestibule serve` needs a key in `hooks.keys` or in the environment variable VESTIBULE_KEY"
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            eprint!("{problems}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
