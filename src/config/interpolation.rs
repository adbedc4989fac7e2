//! Inserts `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` into texts, unchanged, after the YAML is parsed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::read_file::{MAX_INSERTED, read_text};
use crate::expression::{Piece, Variable};
use crate::kratos::schema::Schemas;

/// The variables for `${env:…}`, and what else replaces a part of the settings file.
#[derive(Clone, Debug)]
pub struct Environment {
    source: Source,
    allows_missing: bool,
    schemas: Option<Arc<Schemas>>,
}

#[derive(Clone, Debug)]
enum Source {
    Process,
    Given(Arc<BTreeMap<String, String>>),
}

impl Environment {
    /// Returns the environment of the process.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            source: Source::Process,
            allows_missing: false,
            schemas: None,
        }
    }

    /// Only these variables.
    #[must_use]
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            source: Source::Given(Arc::new(variables.into_iter().collect())),
            allows_missing: false,
            schemas: None,
        }
    }

    /// Inserts a placeholder for each variable that is not set, and for each file that cannot be read. The settings can
    /// be checked then, and not be used.
    #[must_use]
    pub fn allowing_missing(self) -> Self {
        Self {
            allows_missing: true,
            ..self
        }
    }

    /// Uses these identity schemas, and not those that the settings name.
    #[must_use]
    pub fn with_identity_schemas(self, schemas: Schemas) -> Self {
        Self {
            schemas: Some(Arc::new(schemas)),
            ..self
        }
    }

    /// Returns the identity schemas that replace those of the settings.
    pub(super) fn identity_schemas(&self) -> Option<&Schemas> {
        self.schemas.as_deref()
    }

    /// Returns whether placeholders are inserted.
    pub(super) fn allows_missing(&self) -> bool {
        self.allows_missing
    }

    /// Returns the value of a variable that is set and not empty.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn value(&self, name: &str) -> Option<String> {
        let value = match &self.source {
            Source::Process => std::env::var(name).ok(),
            Source::Given(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// A failed lookup. Never contains a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The position in the text, in bytes.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the text is right, and only the variable or the file is missing.
    pub is_missing: bool,
}

/// A part of a text as the operator wrote it.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Text. `$${` is `${` here.
    Text(String),
    /// What stands between `${` and `}`, and where the `${` is.
    Variable(&'t str, usize),
    /// Where a `${` without `}` is.
    Unclosed(usize),
}

/// Splits a text at its variables, without their values.
#[must_use]
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut written = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let offset = text.len() - rest.len() + start;
        written.push_str(&rest[..start]);
        if rest[..start].ends_with('$') {
            written.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        if !written.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut written)));
        }
        let Some((inside, after)) = rest[start + 2..].split_once('}') else {
            parts.push(Part::Unclosed(offset));
            return parts;
        };
        parts.push(Part::Variable(inside, offset));
        rest = after;
    }
    written.push_str(rest);
    if !written.is_empty() {
        parts.push(Part::Text(written));
    }
    parts
}

/// Splits a text into the operator's pieces and inserted values. `$${` produces `${`.
pub fn pieces(text: &str, environment: &Environment) -> Result<Vec<Piece>, Error> {
    let mut pieces = Vec::new();
    for part in parts(text) {
        pieces.push(match part {
            Part::Text(written) => Piece::Written(written),
            Part::Variable(inside, offset) => {
                Piece::Inserted(looked_up(inside, environment, offset)?)
            }
            Part::Unclosed(offset) => {
                return Err(Error {
                    offset,
                    message: "`${` has no `}`".to_owned(),
                    hint: Some("close it, as in `${env:NAME}`".to_owned()),
                    is_missing: false,
                });
            }
        });
    }
    if pieces.is_empty() {
        pieces.push(Piece::Written(String::new()));
    }
    Ok(pieces)
}

/// Returns the values that a text inserts.
pub(super) fn inserted(text: &str, environment: &Environment) -> Vec<String> {
    let pieces = pieces(text, environment).unwrap_or_default().into_iter();
    let inserted = pieces.filter_map(|piece| match piece {
        Piece::Inserted(value) => Some(value),
        Piece::Written(_) => None,
    });
    inserted.collect()
}

/// Joins the pieces.
#[must_use]
pub fn joined(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Written(text) | Piece::Inserted(text) => text.as_str(),
        })
        .collect()
}

fn looked_up(inside: &str, environment: &Environment, offset: usize) -> Result<String, Error> {
    let error = |message: String, hint: Option<String>| Error {
        offset,
        message,
        hint,
        is_missing: false,
    };
    let missing = |message: String, hint: Option<String>| Error {
        is_missing: true,
        ..error(message, hint)
    };
    if let Some(variable) = inside.strip_prefix("env:") {
        let (name, default) = match variable.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (variable, None),
        };
        let usable = |character: char| character.is_ascii_alphanumeric() || character == '_';
        if name.is_empty() || !name.chars().all(usable) {
            return Err(error(
                format!("`{name}` is not a name of an environment variable"),
                instead(inside).map(|instead| format!("write `{instead}`")),
            ));
        }
        return environment
            .value(name)
            .or_else(|| default.map(ToOwned::to_owned))
            .ok_or_else(|| {
                missing(
                    format!("the environment variable `{name}` is not set, or empty"),
                    Some(format!("set it, or add a default: ${{env:{name}:-…}}")),
                )
            });
    }
    if let Some(path) = inside.strip_prefix("file:") {
        let text = read_text(Path::new(path), MAX_INSERTED)
            .map_err(|cause| missing(format!("cannot read the file `{path}`: {cause}"), None))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        return if text.is_empty() {
            Err(error(format!("the file `{path}` is empty"), None))
        } else {
            Ok(text.to_owned())
        };
    }
    Err(error(
        format!("`${{{inside}}}` is neither `${{env:NAME}}` nor `${{file:/path}}`"),
        Some(match instead(inside) {
            Some(instead) => {
                format!("write `{instead}`, or `$${{{inside}}}` for a literal `${{`")
            }
            None => format!("for a literal `${{`, write `$${{{inside}}}`"),
        }),
    ))
}

/// Replaces each `${…}` whose variable or file is missing. `placeholder` gets the texts before and behind it. A text
/// with an error of another kind stays as it is.
pub(super) fn replace_missing(
    text: &str,
    environment: &Environment,
    mut placeholder: impl FnMut(&str, &str) -> String,
) -> String {
    let mut text = text.to_owned();
    // Each round replaces one.
    while let Err(error) = pieces(&text, environment) {
        let end = text[error.offset..].find('}').map(|end| error.offset + end);
        let (true, Some(end)) = (error.is_missing, end) else {
            break;
        };
        let value = placeholder(&text[..error.offset], &text[end + 1..]);
        text.replace_range(error.offset..=end, &value);
    }
    text
}

/// Returns what was probably meant by a `${…}` of another program.
fn instead(inside: &str) -> Option<String> {
    let inside = inside.trim();
    let (name, default) = match inside.find([':', '-', '?', '+']) {
        Some(end) => {
            let behind = inside[end..].trim_start_matches(':');
            (&inside[..end], behind.strip_prefix('-'))
        }
        None => (inside, None),
    };
    let root = name.split(['.', '[', ' ']).next().unwrap_or_default();
    let is_variable = Variable::ALL.iter().any(|variable| variable.name() == root);
    if is_variable {
        return Some(format!("{{{inside}}}"));
    }
    if inside.starts_with(['/', '.']) {
        return Some(format!("${{file:{inside}}}"));
    }
    let lower = inside.to_lowercase();
    for prefix in [
        "process.env.",
        "env.",
        "env:",
        "env ",
        "secrets.",
        "vars.",
        "var.",
    ] {
        if lower.starts_with(prefix) {
            return env_form(inside[prefix.len()..].trim(), None);
        }
    }
    env_form(name, default)
}

fn env_form(name: &str, default: Option<&str>) -> Option<String> {
    let usable = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let is_name = !name.is_empty() && name.chars().all(usable);
    is_name.then(|| match default {
        Some(default) => format!("${{env:{name}:-{default}}}"),
        None => format!("${{env:{name}}}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_at_its_variables() {
        let text = |text: &str| Part::Text(text.to_owned());
        for (written, expected) in [
            ("", vec![]),
            ("a", vec![text("a")]),
            (
                "a${env:B}c",
                vec![text("a"), Part::Variable("env:B", 1), text("c")],
            ),
            ("a$${b}${c}", vec![text("a${b}"), Part::Variable("c", 6)]),
            ("a${b", vec![text("a"), Part::Unclosed(1)]),
        ] {
            assert_eq!(parts(written), expected, "{written}");
        }
    }

    #[test]
    fn a_form_of_another_program_has_the_right_form_as_help() {
        for (text, expected) in [
            ("${API_URL}", "${env:API_URL}"),
            ("${api_url}", "${env:api_url}"),
            ("${API_URL:-http://a}", "${env:API_URL:-http://a}"),
            ("${API_URL-http://a}", "${env:API_URL:-http://a}"),
            ("${API_URL:?it is not set}", "${env:API_URL}"),
            ("${env.API_URL}", "${env:API_URL}"),
            ("${ENV:API_URL}", "${env:API_URL}"),
            ("${env: API_URL }", "${env:API_URL}"),
            ("${process.env.API_URL}", "${env:API_URL}"),
            ("${/run/secrets/key}", "${file:/run/secrets/key}"),
            ("${./key.txt}", "${file:./key.txt}"),
            ("${value}", "{value}"),
            ("${identity.traits.email}", "{identity.traits.email}"),
        ] {
            let error = pieces(text, &Environment::of([])).expect_err(text);
            let hint = error.hint.unwrap_or_default();
            assert!(
                hint.starts_with(&format!("write `{expected}`")),
                "{text}: {hint}"
            );
        }
    }

    #[test]
    fn only_missing_values_are_replaced() {
        let environment = Environment::of([("A".to_owned(), "a".to_owned())]);
        for (text, expected) in [
            ("${env:A}", "${env:A}"),
            ("${env:B}", "(|)"),
            ("${env:B:-b}", "${env:B:-b}"),
            ("x${env:B}y", "x(x|y)y"),
            ("${env:B}/${env:C}", "(|/C)/((|/C)/|)"),
            ("$${env:B}", "$${env:B}"),
            ("${file:/nowhere}", "(|)"),
            ("${B}", "${B}"),
            ("${env:B", "${env:B"),
        ] {
            let replaced = replace_missing(text, &environment, |before, behind| {
                format!("({before}|{behind})").replace("${env:C}", "C")
            });
            assert_eq!(replaced, expected, "{text}");
        }
    }

    #[test]
    fn what_is_put_in_is_kept_apart_from_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "top\nsecret\r\n").unwrap();
        let environment = Environment::of([
            ("NAME".to_owned(), "{value} ${env:OTHER}".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        let from_file = format!("${{file:{}}}", file.display());
        let show = |text: &str| match pieces(text, &environment) {
            Ok(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Written(text) => format!("w({text})"),
                    Piece::Inserted(text) => format!("i({text})"),
                })
                .collect::<String>(),
            Err(error) => format!("{}: {}", error.offset, error.message),
        };
        for (text, expected) in [
            ("plain", "w(plain)"),
            ("", "w()"),
            ("a ${env:NAME} b", "w(a )i({value} ${env:OTHER})w( b)"),
            ("${env:NAME}", "i({value} ${env:OTHER})"),
            ("${env:UNSET:-x:-y}", "i(x:-y)"),
            ("${env:EMPTY:-}", "i()"),
            (&from_file, "i(top\nsecret)"),
            ("$${env:NAME}", "w(${env:NAME})"),
            ("{value} $5 $ {", "w({value} $5 $ {)"),
            (
                "ab${env:UNSET}",
                "2: the environment variable `UNSET` is not set, or empty",
            ),
            (
                "${env:EMPTY}",
                "0: the environment variable `EMPTY` is not set, or empty",
            ),
            (
                "${env:A-B}",
                "0: `A-B` is not a name of an environment variable",
            ),
            (
                "${NAME}",
                "0: `${NAME}` is neither `${env:NAME}` nor `${file:/path}`",
            ),
            ("${env:NAME", "0: `${` has no `}`"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
        assert!(show("${file:/nowhere}").starts_with("0: cannot read the file `/nowhere`"));
    }
}
