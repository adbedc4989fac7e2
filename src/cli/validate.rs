//! `vestibule validate`: reports every problem and warning of a settings file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::counted;
use crate::base::diagnostics::{Problem, Problems};
use crate::config::{self, Environment, Review, Settings};

const AFTER_HELP: &str = "\
Exit codes:
  0  no problem; with --strict, no warning either
  1  a problem; with --strict, a problem or a warning
  2  the command line is wrong

Examples:
  vestibule validate
  vestibule validate --strict --allow-missing-env --format github config/vestibule.yaml";

/// `vestibule validate`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The settings file
    #[arg(env = "VESTIBULE_CONFIG", default_value = "vestibule.yaml")]
    file: PathBuf,
    /// Exit with code 1 also if there is a warning
    #[arg(long)]
    strict: bool,
    /// Check the file where its environment variables and secret files are missing, as in CI. A placeholder of the right
    /// type is used for each
    #[arg(long)]
    allow_missing_env: bool,
    /// How problems and warnings are printed: for people, as one JSON object, or as annotations of GitHub Actions
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

/// How problems and warnings are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
    Github,
}

/// Checks the file, and prints what it finds.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    let environment = if options.allow_missing_env {
        environment.allowing_missing()
    } else {
        environment
    };
    let review = config::review(&options.file, &environment);
    let file = options.file.display().to_string();
    match options.format {
        Format::Text => print_text(&file, &review),
        Format::Json => writeln!(std::io::stdout(), "{}", as_json(&file, &review))?,
        Format::Github => write!(std::io::stdout(), "{}", annotations(&file, &review))?,
    }
    let fails = !review.problems.is_empty() || options.strict && !review.warnings.is_empty();
    Ok(if fails {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print_text(file: &str, review: &Review) {
    for problems in [&review.problems, &review.warnings] {
        if !problems.is_empty() {
            eprint!("{problems}");
        }
    }
    let Some(settings) = &review.settings else {
        return;
    };
    println!("{file} is valid: {}", contents(settings));
    if settings.hooks.keys.is_empty() {
        println!(
            "note: `hooks.keys` is empty; `vestibule serve` needs a key in `hooks.keys` or in the environment variable VESTIBULE_KEY"
        );
    }
}

fn contents(settings: &Settings) -> String {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    format!(
        "{}, {}",
        counted(count(settings.checks.len()), "check", "checks"),
        counted(
            count(settings.subscriptions.len()),
            "subscription",
            "subscriptions"
        ),
    )
}

fn as_json(file: &str, review: &Review) -> Value {
    json!({
        "file": file,
        "valid": review.problems.is_empty(),
        "problems": review.problems.iter().map(problem_as_json).collect::<Vec<_>>(),
        "warnings": review.warnings.iter().map(problem_as_json).collect::<Vec<_>>(),
    })
}

/// Returns a problem as JSON.
pub(super) fn problem_as_json(problem: &Problem) -> Value {
    json!({
        "path": problem.path,
        "line": problem.at.line,
        "column": problem.at.column,
        "message": problem.message,
        "help": problem.hint,
    })
}

/// Returns workflow commands of GitHub Actions, which show each problem at its line.
fn annotations(file: &str, review: &Review) -> String {
    let each = |level: &'static str, problems: &Problems| -> Vec<String> {
        problems
            .iter()
            .map(|problem| annotation(level, file, problem))
            .collect()
    };
    let mut lines = each("error", &review.problems);
    lines.extend(each("warning", &review.warnings));
    if let Some(settings) = &review.settings {
        lines.push(format!("{file} is valid: {}\n", contents(settings)));
    }
    lines.concat()
}

/// Returns the annotation of one problem.
pub(super) fn annotation(level: &str, file: &str, problem: &Problem) -> String {
    let position = if problem.at.line == 0 {
        String::new()
    } else {
        format!(",line={},col={}", problem.at.line, problem.at.column)
    };
    let help = problem.hint.iter().map(|help| format!("\nhelp: {help}"));
    let text: String = std::iter::once(problem.message.clone())
        .chain(help)
        .collect();
    let title = if problem.path.is_empty() {
        "settings"
    } else {
        &problem.path
    };
    format!(
        "::{level} file={}{position},title={}::{}\n",
        property(file),
        property(title),
        data(&text)
    )
}

/// Escapes the message of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Escapes a property of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::diagnostics::Position;

    #[test]
    fn an_annotation_escapes_what_ends_its_parts() {
        let at = Position { line: 3, column: 7 };
        let problem = Problem::new("checks.a".to_owned(), at, "50% of\nit".to_owned());
        let problem = problem.with_hint(Some("write `a: b, c`".to_owned()));
        assert_eq!(
            annotation("warning", "a,b:c.yaml", &problem),
            "::warning file=a%2Cb%3Ac.yaml,line=3,col=7,title=checks.a::50%25 of%0Ait%0Ahelp: write `a: b, c`\n"
        );
        let nowhere = Problem::new(String::new(), Position::default(), "gone".to_owned());
        assert_eq!(
            annotation("error", "v.yaml", &nowhere),
            "::error file=v.yaml,title=settings::gone\n"
        );
    }
}
