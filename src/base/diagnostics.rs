//! Problems in a file: the position, what was found, what was expected, and how to fix it.

use std::borrow::Cow;
use std::fmt;

/// A position in the file, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// One problem or warning about a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys that lead to the value: `checks.vat_number.ask.service`.
    pub path: String,
    /// The position in the file.
    pub at: Position,
    /// The description of the problem.
    pub message: String,
    /// What to do about the problem, printed after `help:`.
    pub hint: Option<String>,
}

impl Problem {
    /// Creates a problem without a hint.
    #[must_use]
    pub fn new(path: String, at: Position, message: String) -> Self {
        Self {
            path,
            at,
            message,
            hint: None,
        }
    }

    /// Creates the problem of a key without a value.
    #[must_use]
    pub fn nothing(path: String, at: Position) -> Self {
        let hint = "set a value, or remove the key".to_owned();
        Self::new(path, at, "this key has no value".to_owned()).with_hint(Some(hint))
    }

    /// Replaces the hint of this problem.
    #[must_use]
    pub fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// All problems of a settings file, or all warnings about it, with the lines of the file.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    file: String,
    noun: &'static str,
    lines: Vec<String>,
    all: Vec<Problem>,
}

impl Problems {
    /// Collects problems in the order of the file. `Display` prints only the operator's own lines. Values from the
    /// environment are not in these lines.
    #[must_use]
    pub fn new(file: String, text: &str, problems: Vec<Problem>) -> Self {
        Self::collected(file, text, problems, "problem")
    }

    /// Collects warnings in the same way. Vestibule uses the settings in spite of warnings.
    #[must_use]
    pub fn warnings(file: String, text: &str, warnings: Vec<Problem>) -> Self {
        Self::collected(file, text, warnings, "warning")
    }

    /// Collects notes in the same way. A note is worth knowing, and needs no change.
    #[must_use]
    pub fn notes(file: String, text: &str, notes: Vec<Problem>) -> Self {
        Self::collected(file, text, notes, "note")
    }

    fn collected(file: String, text: &str, mut problems: Vec<Problem>, noun: &'static str) -> Self {
        problems.sort_by(|one, other| (one.at, &one.path).cmp(&(other.at, &other.path)));
        problems.dedup();
        Self {
            file,
            noun,
            lines: text.lines().map(ToOwned::to_owned).collect(),
            all: problems,
        }
    }

    /// Returns the number of problems.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Iterates over the problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }

    /// Returns whether the list is empty. A list of problems that is returned as an error is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.all.len();
        writeln!(
            formatter,
            "{} has {count} {}{}",
            self.file,
            self.noun,
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.all {
            writeln!(formatter)?;
            let Position { line, column } = problem.at;
            match (problem.path.as_str(), line) {
                ("", 0) => write!(formatter, "  ")?,
                (path, 0) => write!(formatter, "  {path}: ")?,
                ("", _) => write!(formatter, "  line {line}, column {column}: ")?,
                (path, _) => write!(formatter, "  {path} (line {line}, column {column}): ")?,
            }
            writeln!(formatter, "{}", problem.message)?;
            if let Some(source) = line.checked_sub(1).and_then(|index| self.lines.get(index)) {
                let (source, before) = excerpt(source, column);
                writeln!(formatter, "    {line:>4} | {source}")?;
                writeln!(formatter, "         | {}^", " ".repeat(before))?;
            }
            if let Some(hint) = &problem.hint {
                writeln!(formatter, "    help: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Returns the part of a line that fits on a screen, and the number of its characters before the column.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 160;
    const BEFORE: usize = 80;
    let characters: Vec<char> = line
        .trim_end()
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .collect();
    let before = column.saturating_sub(1);
    let start = if characters.len() > WIDTH {
        before.saturating_sub(BEFORE)
    } else {
        0
    };
    let end = characters.len().min(start + WIDTH);
    let shown: String = characters
        .get(start..end)
        .unwrap_or_default()
        .iter()
        .collect();
    let (left, right) = (start > 0, end < characters.len());
    let source = format!(
        "{}{shown}{}",
        if left { "…" } else { "" },
        if right { "…" } else { "" }
    );
    (source, before - start + usize::from(left))
}

/// Quotes a text: with single quotes if it contains `"` or `\`, else with double quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    if text.contains(['"', '\\']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}

/// Returns the entry of `known` that is nearest to `written`, as "did you mean `…`?".
#[must_use]
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

/// Returns the entry of `known` that is nearest to `written`, if the distance is small enough.
#[must_use]
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&lower, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1 + name.chars().count() / 4)
        // Something in common.
        .filter(|(distance, _)| *distance < lower.chars().count().max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Formats names as "`a`, `b` and `c`".
#[must_use]
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// Escapes what could forge a line of the report or control a terminal. Other systems give parts of messages.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_unsafe = |character: char| {
        character.is_control()
            // Line and paragraph separators, and what changes the direction of text.
            || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::new();
    for character in text.chars() {
        if is_unsafe(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}
