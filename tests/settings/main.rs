//! The settings file from an operator's view: every problem is reported, with its position and a `help:` line.

mod comparisons;
mod guards;
mod hints;
mod lint;
mod manual;
mod paths;
mod problems;
mod request_headers;
mod rules;
mod schemas;
mod strict;
mod valid;
mod warnings;

use std::path::{Path, PathBuf};

use vestibule::config::{self, Environment, Settings};

/// Returns the path of a file of this repository.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An environment with one secret.
#[must_use]
pub fn environment() -> Environment {
    Environment::of(
        [
            ("VESTIBULE_KEY", "a-key-for-tests-only"),
            ("SECRET", "hush-hush"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
}

/// Reads settings from a text, or returns the report of problems.
pub fn read(text: &str) -> Result<Settings, String> {
    config::read(text, Path::new("vestibule.yaml"), &environment())
        .map_err(|problems| problems.to_string())
}
