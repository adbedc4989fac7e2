//! Reads a settings file and returns the settings, or every problem of the file.

mod expand;
pub mod file;
pub mod interpolation;
mod renamed;
mod resolve;
pub mod schema;
pub mod settings;
pub mod tree;
mod validate;

use std::path::Path;

pub use crate::base::diagnostics::{Problem, Problems};
pub use interpolation::Environment;
pub use settings::Settings;

use crate::base::diagnostics::Position;

/// Reads the settings file at `path`. The error has every problem of the file.
pub fn load(path: &Path, environment: &Environment) -> Result<Settings, Problems> {
    match std::fs::read_to_string(path) {
        Ok(text) => read(&text, path, environment),
        Err(cause) => {
            let problem = Problem::new(
                String::new(),
                Position::default(),
                format!("cannot read the file: {cause}"),
            );
            Err(Problems::new(path.display().to_string(), "", vec![problem]))
        }
    }
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
    let mut problems = Vec::new();
    let folder = path.parent().unwrap_or(Path::new(""));
    let resolved = match tree::read(text, &mut problems) {
        Some(node) => resolve::resolve(&node, text, folder, environment, problems),
        None => Err(problems),
    };
    let name = path.display().to_string();
    match resolved {
        Ok((settings, warnings)) => Ok(Settings {
            warnings: Problems::warnings(name, text, warnings),
            ..settings
        }),
        Err(problems) => Err(Problems::new(name, text, problems)),
    }
}
