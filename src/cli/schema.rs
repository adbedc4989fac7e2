//! The JSON Schema of the settings file.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::schema::{markdown, schema};

/// Prints the schema, or the manual made of it.
pub fn run(as_markdown: bool) -> anyhow::Result<ExitCode> {
    if as_markdown {
        print!("{}", markdown());
    } else {
        println!(
            "{}",
            serde_json::to_string_pretty(&schema()).context("the schema cannot be written")?
        );
    }
    Ok(ExitCode::SUCCESS)
}
