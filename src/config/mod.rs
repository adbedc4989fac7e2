//! Reads a settings file and returns the settings, or every problem of the file.

mod expand;
pub mod file;
mod hints;
pub mod interpolation;
mod languages;
mod placeholder;
mod read_file;
mod renamed;
mod resolve;
pub mod schema;
pub mod settings;
pub mod tree;
mod validate;

use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use crate::base::diagnostics::{Problem, Problems};
pub use interpolation::Environment;
pub use settings::Settings;

use crate::base::diagnostics::Position;

/// What the check of a settings file finds.
#[derive(Clone, Debug)]
pub struct Review {
    /// The settings, if the file has no problem.
    pub settings: Option<Settings>,
    /// Every problem. Vestibule does not start with one.
    pub problems: Problems,
    /// Every warning. Vestibule uses the settings in spite of warnings.
    pub warnings: Problems,
}

/// Checks the settings file at `path`.
#[must_use]
pub fn review(path: &Path, environment: &Environment) -> Review {
    let read = std::fs::read_to_string(path);
    review_read(read.as_deref(), path, environment)
}

/// Reviews what was read of the file, so that a file that can be read once, such as a pipe, can be used further.
#[must_use]
pub fn review_read(
    read: Result<&str, &std::io::Error>,
    path: &Path,
    environment: &Environment,
) -> Review {
    match read {
        Ok(text) => review_text(text, path, environment),
        Err(cause) => {
            let name = path.display().to_string();
            let problem = Problem::new(
                String::new(),
                Position::default(),
                format!("cannot read the file: {cause}"),
            );
            Review {
                settings: None,
                problems: Problems::new(name.clone(), "", vec![problem]),
                warnings: Problems::warnings(name, "", Vec::new()),
            }
        }
    }
}

/// Reads another document of an operator. `path` names it in problems. Every unknown key, wrong type and missing key is a
/// problem with its position.
pub fn read_document<T: DeserializeOwned + JsonSchema>(
    text: &str,
    path: &Path,
) -> Result<T, Problems> {
    let schema = schemars::schema_for!(T).to_value();
    let mut problems = Vec::new();
    let node = tree::read(text, &mut problems);
    if let Some(node) = &node {
        validate::Validator {
            root: &schema,
            problems: &mut problems,
            unknown: &[],
        }
        .check(node, &schema, "");
    }
    if problems.is_empty()
        && let Some(node) = node
    {
        match serde_json::from_value(node.to_value()) {
            Ok(document) => return Ok(document),
            Err(error) => problems.push(Problem::new(String::new(), node.at, error.to_string())),
        }
    }
    Err(Problems::new(path.display().to_string(), text, problems))
}

/// Reads the settings file at `path`. The error has every problem of the file.
pub fn load(path: &Path, environment: &Environment) -> Result<Settings, Problems> {
    let Review {
        settings, problems, ..
    } = review(path, environment);
    settings.ok_or(problems)
}

/// Parses a duration as written in the settings file: `500ms`, `5s`, `2m`, `24h`, `8d`.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    resolve::durations::parse(&text.into()).map_err(|(message, hint)| match hint {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    })
}

/// Parses a time as written in the settings file: `2026-11-01` or `2026-11-01T12:00:00Z`.
pub fn parse_moment(text: &str) -> Result<crate::base::clock::Timestamp, String> {
    crate::base::clock::moment(text).ok_or_else(|| {
        "expected a day or a time, as in 2026-11-01 or 2026-11-01T12:00:00Z".to_owned()
    })
}

/// Reads settings from a text. Problems name the file by `path`, and relative paths start in its folder.
pub fn read(text: &str, path: &Path, environment: &Environment) -> Result<Settings, Problems> {
    let Review {
        settings, problems, ..
    } = review_text(text, path, environment);
    settings.ok_or(problems)
}

/// Returns every value that the settings file at `path` inserts from the environment or from a file. None if the file cannot be
/// read.
#[must_use]
pub fn inserted_values(path: &Path, environment: &Environment) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut values = Vec::new();
    if let Some(root) = tree::read(&text, &mut Vec::new()) {
        collect_inserted(&root, environment, &mut values);
    }
    values
}

fn collect_inserted(node: &tree::Node, environment: &Environment, values: &mut Vec<String>) {
    match &node.kind {
        tree::Kind::Text { text, .. } => values.extend(interpolation::inserted(text, environment)),
        tree::Kind::List(items) => {
            for item in items {
                collect_inserted(item, environment, values);
            }
        }
        tree::Kind::Map(entries) => {
            for entry in entries {
                collect_inserted(&entry.value, environment, values);
            }
        }
        _ => {}
    }
}

/// Checks settings in a text, as [`read`] does.
#[must_use]
pub fn review_text(text: &str, path: &Path, environment: &Environment) -> Review {
    let mut problems = Vec::new();
    let folder = path.parent().unwrap_or(Path::new(""));
    let resolved = match tree::read(text, &mut problems) {
        Some(node) => resolve::resolve(&node, text, folder, environment, problems),
        None => resolve::Resolved {
            problems,
            ..resolve::Resolved::default()
        },
    };
    let name = path.display().to_string();
    let warnings = Problems::warnings(name.clone(), text, resolved.warnings);
    let settings = resolved.settings.map(|settings| Settings {
        warnings: warnings.clone(),
        ..settings
    });
    Review {
        settings,
        problems: Problems::new(name, text, resolved.problems),
        warnings,
    }
}
