//! The report: findings by file, and what was not checked.

use std::fmt;

use super::finding::{Finding, Findings, Severity};
use super::{File, Input};
use crate::base::diagnostics::{Position, Problem, Problems, printable};
use crate::config::tree::{self, Kind, Node};

/// The result of `vestibule kratos lint`.
#[derive(Clone, Debug)]
pub struct Report {
    /// The findings: problems, then warnings, then notes, each in the order of the files.
    pub findings: Vec<Finding>,
    /// What could not be checked, and why.
    pub not_checked: Vec<String>,
    files: Vec<File>,
}

impl Report {
    pub(super) fn new(input: &Input, findings: Findings) -> Self {
        let layers = input.layers.iter();
        let files = layers
            .chain(&input.environment)
            .chain(&input.settings)
            .cloned();
        let mut all = findings.all;
        all.sort_by(|one, other| key(one).cmp(&key(other)));
        Self {
            findings: all,
            not_checked: findings.not_checked.into_iter().collect(),
            files: files.collect(),
        }
    }

    /// Returns the number of findings of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// Returns the name of a finding's file.
    #[must_use]
    pub fn file_of(&self, finding: &Finding) -> &str {
        self.files
            .get(finding.file)
            .map_or("", |file| file.name.as_str())
    }

    /// Returns the findings of a file as text, with the lines of the file but without their secrets.
    fn section(&self, severity: Severity, index: usize, file: &File) -> Problems {
        let found = self
            .findings
            .iter()
            .filter(|finding| finding.severity == severity && finding.file == index);
        let problems = found.map(as_text).collect();
        let text = redacted(&file.text);
        let name = file.name.clone();
        match severity {
            Severity::Problem => Problems::new(name, &text, problems),
            Severity::Warning => Problems::warnings(name, &text, problems),
            Severity::Note => Problems::notes(name, &text, problems),
        }
    }

    fn summary(&self) -> String {
        let counted = |count: usize, one: &str| match count {
            0 => format!("no {one}s"),
            1 => format!("1 {one}"),
            _ => format!("{count} {one}s"),
        };
        let counts = [
            (Severity::Problem, "problem"),
            (Severity::Warning, "warning"),
            (Severity::Note, "note"),
        ];
        counts
            .map(|(severity, name)| counted(self.count(severity), name))
            .join(", ")
    }
}

fn key(finding: &Finding) -> (Severity, usize, Position, &str) {
    (
        finding.severity,
        finding.file,
        finding.problem.at,
        finding.rule,
    )
}

/// Returns the problem with the name of its rule, and with the lines of its help indented.
fn as_text(finding: &Finding) -> Problem {
    let problem = finding.problem.clone();
    let hint = problem.hint.as_ref();
    // Aligned with the text behind `help: `, so that the lines can be pasted.
    let hint = hint.map(|hint| {
        let lines: Vec<_> = hint.split('\n').map(printable).collect();
        lines.join("\n          ")
    });
    Problem {
        message: format!("{} [{}]", printable(&problem.message), finding.rule),
        ..problem
    }
    .with_hint(hint)
}

/// The shortest text that is hidden. Shorter texts are no secrets, and occur everywhere.
const MIN_SECRET: usize = 3;

/// Returns the text of a file without the keys and passwords of its hooks.
fn redacted(text: &str) -> String {
    let mut secrets = Vec::new();
    let Some(root) = tree::read(text, &mut Vec::new()) else {
        // Where the keys are in such a file is not known, so no line is shown.
        return String::new();
    };
    collect_secrets(&root, false, &mut secrets);
    // In an environment file.
    let variables = text.lines().filter_map(|line| line.split_once('='));
    secrets.extend(
        variables
            .filter(|(name, _)| is_secret_variable(name))
            .map(|(_, value)| value.trim().trim_matches(['"', '\'']).to_owned()),
    );
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
        .iter()
        .filter(|secret| secret.len() >= MIN_SECRET)
        .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// Keys of kratos.yml and of the settings under which every text is hidden.
const SECRET_SECTIONS: [&str; 5] = ["value", "keys", "headers", "secrets", "dsn"];
/// What the key of a secret ends with, in kratos.yml, in the settings and, in capitals, in an environment file. `password` is
/// also a method, with a section.
const SECRET_NAMES: [&str; 7] = [
    "password",
    "secret",
    "token",
    "private_key",
    "api_key",
    "connection_uri",
    "connection_string",
];

fn is_secret_name(name: &str) -> bool {
    SECRET_NAMES.iter().any(|end| name.ends_with(end))
}

/// Returns whether an environment variable of Kratos holds a secret. `SECRETS_COOKIE_0` is an entry of a list.
fn is_secret_variable(name: &str) -> bool {
    let name = name.trim().to_lowercase();
    is_secret_name(&name)
        || name.ends_with("dsn")
        || name.ends_with("_config_auth_config_value")
        || name.contains("secrets_")
}

/// Collects the texts under keys that hold secrets.
fn collect_secrets(node: &Node, is_secret: bool, secrets: &mut Vec<String>) {
    match &node.kind {
        Kind::Text { text, .. } if is_secret => secrets.push(text.clone()),
        Kind::List(items) => {
            for item in items {
                collect_secrets(item, is_secret, secrets);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                let is_text = matches!(entry.value.kind, Kind::Text { .. });
                let is_named = SECRET_SECTIONS.contains(&entry.key.as_str())
                    || is_text && is_secret_name(&entry.key);
                collect_secrets(&entry.value, is_secret || is_named, secrets);
            }
        }
        _ => {}
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for severity in [Severity::Problem, Severity::Warning, Severity::Note] {
            for (index, file) in self.files.iter().enumerate() {
                let section = self.section(severity, index, file);
                if !section.is_empty() {
                    writeln!(formatter, "{section}")?;
                }
            }
        }
        if !self.not_checked.is_empty() {
            writeln!(formatter, "Not checked:")?;
            for what in &self.not_checked {
                writeln!(formatter, "  - {}", printable(what))?;
            }
            writeln!(formatter)?;
        }
        writeln!(formatter, "{}", self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_other_systems_forges_no_line() {
        let finding = Finding {
            rule: "schema-ids",
            severity: Severity::Warning,
            file: 0,
            problem: Problem::new(
                "identity".to_owned(),
                Position::default(),
                "the id is `a\n::error::b\u{1b}[2J`".to_owned(),
            )
            .with_hint(Some("one\u{202e}\ntwo".to_owned())),
        };
        let shown = as_text(&finding);
        assert_eq!(
            shown.message,
            "the id is `a\\n::error::b\\u{1b}[2J` [schema-ids]"
        );
        assert_eq!(shown.hint.as_deref(), Some("one\\u{202e}\n          two"));
    }

    #[test]
    fn every_secret_is_hidden_in_excerpts() {
        let cases = [
            ("serve: {admin: {token: canary-a}}", "token"),
            (
                "services: {crm: {auth: {type: bearer, config: {token: canary-b}}, sign: {secret: canary-c}}}",
                "sign",
            ),
            (
                "kratos: {auth: {type: basic_auth, config: {user: ada, password: canary-d}}}",
                "ada",
            ),
            (
                "courier: {smtp: {connection_uri: \"smtps://u:canary-e@mail/\"}}",
                "smtp",
            ),
            (
                "oidc: {config: {providers: [{client_id: a, client_secret: canary-f, apple_private_key: canary-g}]}}",
                "client_id",
            ),
            (
                "dsn: postgres://u:canary-h@db/v\nsecrets: {cookie: [canary-i]}",
                "cookie",
            ),
            (
                "SELFSERVICE_METHODS_OIDC_CONFIG_PROVIDERS_0_CLIENT_SECRET=canary-j\nDSN=canary-k",
                "DSN",
            ),
            (
                "SECRETS_COOKIE_0=canary-l\nCOURIER_SMTP_CONNECTION_URI='canary-m'",
                "SMTP",
            ),
            ("A_CONFIG_AUTH_CONFIG_VALUE=canary-n\nX=shown", "shown"),
        ];
        for (text, shown) in cases {
            let safe = redacted(text);
            assert!(!safe.contains("canary") && safe.contains(shown), "{safe}");
        }
    }

    #[test]
    fn keys_of_hooks_are_hidden_in_excerpts() {
        let yaml = "auth: {type: api_key, config: {name: X, value: hush-hush}}\nheaders: {A: secret-b}\n\
                    after: {password: {hooks: [session]}}\n";
        let shown = redacted(yaml);
        assert!(
            !shown.contains("hush") && !shown.contains("secret-b"),
            "{shown}"
        );
        assert!(shown.contains("session"));
        assert_eq!(redacted("a: {value: hush\nb: }"), "");
        let shown = redacted("SELFSERVICE_X_HOOKS_0_CONFIG_AUTH_CONFIG_VALUE=\"hush\"\nA=b\n");
        assert!(!shown.contains("hush"), "{shown}");
    }
}
