//! One thing wrong: where, what was found, what was expected, how to mend it.

use std::fmt;

/// A place in the file, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One thing wrong with a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The keys that lead there: `checks.vat_number.ask.service`.
    pub path: String,
    /// Where it stands.
    pub at: Position,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Problem {
    /// Without a hint.
    #[must_use]
    pub fn new(path: String, at: Position, message: String) -> Self {
        Self {
            path,
            at,
            message,
            hint: None,
        }
    }

    /// A key with nothing behind it.
    #[must_use]
    pub fn nothing(path: String, at: Position) -> Self {
        let hint = "say what it shall be, or take the key out".to_owned();
        Self::new(path, at, "nothing stands here".to_owned()).with_hint(Some(hint))
    }

    /// The same with a hint, if there is one.
    #[must_use]
    pub fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// All that is wrong with a settings file, or all warnings about it, with the lines it stands in.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    file: String,
    are_warnings: bool,
    lines: Vec<String>,
    all: Vec<Problem>,
}

impl Problems {
    /// In the order of the file. What is shown of it are the operator's own lines: values put in from the environment
    /// are not in them.
    #[must_use]
    pub fn new(file: String, text: &str, problems: Vec<Problem>) -> Self {
        Self::gathered(file, text, problems, false)
    }

    /// The same for warnings, with which the settings are used.
    #[must_use]
    pub fn warnings(file: String, text: &str, warnings: Vec<Problem>) -> Self {
        Self::gathered(file, text, warnings, true)
    }

    fn gathered(file: String, text: &str, mut problems: Vec<Problem>, are_warnings: bool) -> Self {
        problems.sort_by(|one, other| (one.at, &one.path).cmp(&(other.at, &other.path)));
        problems.dedup();
        Self {
            file,
            are_warnings,
            lines: text.lines().map(ToOwned::to_owned).collect(),
            all: problems,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }

    /// Whether there is none, which is never so of problems when they are handed out.
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
            if self.are_warnings {
                "warning"
            } else {
                "problem"
            },
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
                writeln!(formatter, "    mend it: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// As much of a line as fits on a screen, and how many characters of it stand before the column.
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

/// A text in the quotes that suit it.
#[must_use]
pub fn quoted(text: &str) -> String {
    if text.contains(['"', '\\']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}

/// The nearest of `known` to `written`, as "did you mean".
#[must_use]
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

/// The nearest of `known` to `written`, if it is near.
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
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "`a`, `b` and `c`"
#[must_use]
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
