//! `vestibule schema`: prints the JSON Schemas of the settings file and of test files, and the OpenAPI document of the admin API.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::config::schema::{markdown, schema};
use crate::http::admin::openapi;
use crate::rule_tests::file::TestFile;

/// `vestibule schema …`
#[derive(Debug, Args)]
pub struct Options {
    /// Print docs/configuration.md instead
    #[arg(long, conflicts_with = "openapi")]
    markdown: bool,
    /// Print docs/openapi.json instead: the admin API (OpenAPI 3.1)
    #[arg(long)]
    openapi: bool,
    /// Print the JSON Schema of test files instead: `vestibule test`
    #[arg(long, conflicts_with_all = ["openapi", "markdown"])]
    tests: bool,
}

/// Prints the schema, the reference that is generated from it, or the OpenAPI document.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let text = if options.markdown {
        markdown()
    } else if options.openapi {
        openapi::text()
    } else if options.tests {
        let schema = schemars::schema_for!(TestFile).to_value();
        format!("{schema:#}\n")
    } else {
        let schema = serde_json::to_string_pretty(&schema());
        format!("{}\n", schema.context("cannot print the schema")?)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
