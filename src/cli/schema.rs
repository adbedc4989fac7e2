//! The JSON Schema of the settings file.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config::schema::{markdown, schema};

/// Prints the schema, or the manual made of it.
pub fn run(as_markdown: bool) -> anyhow::Result<ExitCode> {
    let text = if as_markdown {
        markdown()
    } else {
        let schema = serde_json::to_string_pretty(&schema());
        format!("{}\n", schema.context("the schema cannot be written")?)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
