//! One thing wrong: where, what was found, what was expected, how to mend it.

use std::fmt;

use super::tree::Position;

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

    /// The same with a hint, if there is one.
    #[must_use]
    pub fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// All that is wrong with a settings file, with the lines it stands in.
#[derive(Clone, Debug)]
pub struct Problems {
    file: String,
    lines: Vec<String>,
    all: Vec<Problem>,
}

impl Problems {
    /// In the order of the file. What is shown of it are the operator's own lines: values put in from the environment
    /// are not in them.
    #[must_use]
    pub fn new(file: String, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|one, other| (one.at, &one.path).cmp(&(other.at, &other.path)));
        problems.dedup();
        Self {
            file,
            lines: text.lines().map(ToOwned::to_owned).collect(),
            all: problems,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none, which is never so when they are handed out.
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
            "{} has {count} problem{}",
            self.file,
            if count == 1 { "" } else { "s" }
        )?;
        for problem in &self.all {
            writeln!(formatter)?;
            let Position { line, column } = problem.at;
            if problem.path.is_empty() {
                write!(formatter, "  line {line}, column {column}: ")?;
            } else {
                write!(
                    formatter,
                    "  {} (line {line}, column {column}): ",
                    problem.path
                )?;
            }
            writeln!(formatter, "{}", problem.message)?;
            if let Some(source) = line.checked_sub(1).and_then(|index| self.lines.get(index)) {
                let source = source.trim_end().replace('\t', " ");
                writeln!(formatter, "    {line:>4} | {source}")?;
                writeln!(
                    formatter,
                    "         | {}^",
                    " ".repeat(column.saturating_sub(1))
                )?;
            }
            if let Some(hint) = &problem.hint {
                writeln!(formatter, "    mend it: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

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
