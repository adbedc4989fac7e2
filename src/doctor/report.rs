//! What `vestibule doctor` reports: findings by section, as text and as JSON.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::diagnostics::{Position, printable};

/// What a part of the report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// The settings file.
    Settings,
    /// Permissions of files and folders.
    Files,
    /// The database, and the disk that holds it.
    Database,
    /// The ports on which Vestibule listens.
    Ports,
    /// The services.
    Services,
    /// Kratos's admin API and identity schemas.
    Kratos,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it must be.
    Ok,
    /// Probably a mistake.
    Warning,
    /// Vestibule does not work as the settings say.
    Problem,
    /// It could not be examined, or the settings do not say how.
    NotChecked,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The section.
    pub section: Section,
    /// The stable name of what was examined.
    pub name: &'static str,
    /// The service, file or port, where a section has several.
    pub subject: Option<String>,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// The keys in the settings file that lead to it.
    pub path: String,
    /// The position in the settings file; line 0 if there is none.
    pub at: Position,
    /// What to do about it.
    pub help: Option<String>,
    /// How long it took, if it was a call.
    pub duration_ms: Option<u64>,
}

/// All findings.
#[derive(Clone, Debug)]
pub struct Report {
    /// The settings file.
    pub file: String,
    /// The findings, by section.
    pub findings: Vec<Finding>,
}

impl Section {
    /// All sections, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Settings,
        Self::Files,
        Self::Database,
        Self::Ports,
        Self::Services,
        Self::Kratos,
    ];

    /// Returns the name of the section in commands and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Files => "files",
            Self::Database => "database",
            Self::Ports => "ports",
            Self::Services => "services",
            Self::Kratos => "kratos",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Settings => "Settings",
            Self::Files => "Files",
            Self::Database => "Database",
            Self::Ports => "Ports",
            Self::Services => "Services",
            Self::Kratos => "Kratos",
        }
    }

    /// Creates a finding of this section.
    pub(super) fn finding(
        self,
        name: &'static str,
        level: Level,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            section: self,
            name,
            subject: None,
            level,
            message: message.into(),
            path: String::new(),
            at: Position::default(),
            help: None,
            duration_ms: None,
        }
    }

    /// Something is as it must be.
    pub(super) fn ok(self, name: &'static str, message: impl Into<String>) -> Finding {
        self.finding(name, Level::Ok, message)
    }

    /// Something is probably a mistake.
    pub(super) fn warning(self, name: &'static str, message: impl Into<String>) -> Finding {
        self.finding(name, Level::Warning, message)
    }

    /// Something does not work.
    pub(super) fn problem(self, name: &'static str, message: impl Into<String>) -> Finding {
        self.finding(name, Level::Problem, message)
    }

    /// Something was not examined, for this reason.
    pub(super) fn not_checked(self, name: &'static str, reason: impl Into<String>) -> Finding {
        self.finding(name, Level::NotChecked, reason)
    }
}

impl Finding {
    pub(super) fn about(self, subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..self
        }
    }

    pub(super) fn at(self, (path, at): (String, Position)) -> Self {
        Self { path, at, ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    pub(super) fn took(self, milliseconds: u64) -> Self {
        Self {
            duration_ms: Some(milliseconds),
            ..self
        }
    }

    fn to_json(&self) -> Value {
        let line = |number: usize| (number > 0).then_some(number);
        json!({
            "section": self.section,
            "name": self.name,
            "subject": self.subject,
            "level": self.level,
            "message": self.message,
            "path": (!self.path.is_empty()).then_some(&self.path),
            "line": line(self.at.line),
            "column": line(self.at.column),
            "help": self.help,
            "duration_ms": self.duration_ms,
        })
    }
}

impl Level {
    /// The name in a report. All have the same width.
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok         ",
            Self::Warning => "warning    ",
            Self::Problem => "problem    ",
            Self::NotChecked => "not checked",
        }
    }
}

impl Report {
    /// Returns the number of findings of this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.level == level).count()
    }

    /// Returns the report as JSON, as docs/doctor.md describes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "file": self.file,
            "healthy": self.count(Level::Problem) == 0,
            "problems": self.count(Level::Problem),
            "warnings": self.count(Level::Warning),
            "not_checked": self.count(Level::NotChecked),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "  {}  ", self.level.label())?;
        if let Some(subject) = &self.subject {
            write!(formatter, "{}: ", printable(subject))?;
        }
        write!(formatter, "{}: {}", self.name, printable(&self.message))?;
        if let Some(milliseconds) = self.duration_ms {
            write!(formatter, " ({milliseconds} ms)")?;
        }
        writeln!(formatter)?;
        if matches!(self.level, Level::Problem | Level::Warning) && !self.path.is_empty() {
            write!(formatter, "                 at: {}", printable(&self.path))?;
            match self.at {
                Position { line: 0, .. } => writeln!(formatter)?,
                Position { line, column } => {
                    writeln!(formatter, " (line {line}, column {column})")?;
                }
            }
        }
        if let Some(help) = &self.help {
            writeln!(formatter, "                 help: {}", printable(help))?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in Section::ALL {
            let mut findings = self.findings.iter();
            let first = findings.find(|finding| finding.section == section);
            let Some(first) = first else { continue };
            write!(formatter, "{}\n{first}", section.title())?;
            for finding in findings.filter(|finding| finding.section == section) {
                write!(formatter, "{finding}")?;
            }
            writeln!(formatter)?;
        }
        let counted = |level, one: &str| match self.count(level) {
            0 => format!("no {one}s"),
            1 => format!("1 {one}"),
            count => format!("{count} {one}s"),
        };
        writeln!(
            formatter,
            "{}, {}, {} not checked",
            counted(Level::Problem, "problem"),
            counted(Level::Warning, "warning"),
            self.count(Level::NotChecked)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_other_systems_forges_no_line_and_controls_no_terminal() {
        for (text, expected) in [
            ("v26.2.0", "v26.2.0"),
            ("Größe: „ok“", "Größe: „ok“"),
            (
                "v1\n  ok           access: fine",
                "v1\\n  ok           access: fine",
            ),
            ("\u{1b}[2J\r", "\\u{1b}[2J\\r"),
            (
                "a\u{9b}b\u{202e}c\u{2028}d",
                "a\\u{9b}b\\u{202e}c\\u{2028}d",
            ),
        ] {
            let found = Section::Kratos.problem("version", text);
            let found = found
                .about(text)
                .help(text)
                .at((text.to_owned(), Position::default()));
            let printed = found.to_string();
            assert_eq!(printed.lines().count(), 3, "{printed}");
            assert_eq!(printed.matches(expected).count(), 4, "{printed}");
            assert_eq!(found.to_json()["message"], text);
        }
    }
}
