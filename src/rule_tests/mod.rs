//! Tests of an operator's rules: `vestibule test`. A test file names the settings, and its cases say what a visitor sends,
//! what the services answer, and what follows. A test needs no network and no database.

mod canned;
mod compare;
mod coverage;
mod explain;
pub mod file;
pub mod hidden;
pub mod junit;
mod reservation;
mod run;
pub mod submission;
pub mod trial;
pub mod unknown_traits;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::base::diagnostics::{Position, Problem, Problems};
use crate::checks::Rules;
use crate::config::{self, Environment, Settings};
use file::{SettingsSource, TestFile};

pub use coverage::{Coverage, CoveredCheck, CoveredOutcome};
pub use run::{CaseResult, run};

/// A test file with its settings.
pub struct RuleTests {
    /// The path of the test file.
    pub path: PathBuf,
    /// The content of the test file.
    pub file: TestFile,
    settings: Settings,
    rules: Arc<Rules>,
}

/// Why a test file cannot be run: every problem of the test file or of its settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(Problems);

impl RuleTests {
    /// Reads a test file and the settings that it names.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = Problem::new(
                String::new(),
                Position::default(),
                format!("cannot read the file: {error}"),
            );
            LoadError(Problems::new(path.display().to_string(), "", vec![problem]))
        })?;
        Self::read(&text, path)
    }

    /// Reads tests from a text. Relative paths start in the folder of `path`.
    pub fn read(text: &str, path: &Path) -> Result<Self, LoadError> {
        let file: TestFile = config::read_document(text, path).map_err(LoadError)?;
        let environment = Environment::of(file.env.clone()).allowing_missing();
        let folder = path.parent().unwrap_or(Path::new(""));
        let settings = match &file.settings {
            SettingsSource::File(name) => config::load(&folder.join(name), &environment),
            SettingsSource::Inline(settings) => {
                // JSON is YAML. The positions in problems are those of this text.
                let text = format!("{:#}", Value::Object(settings.clone()));
                let name = format!("{} (settings as JSON)", path.display());
                config::read(&text, Path::new(&name), &environment)
            }
        };
        let settings = settings.map_err(LoadError)?;
        Ok(Self {
            path: path.to_owned(),
            rules: Arc::new(settings.rules()),
            file,
            settings,
        })
    }
}
