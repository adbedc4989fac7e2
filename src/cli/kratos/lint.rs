//! `vestibule kratos lint`: checks kratos.yml, identity schemas and settings against each other.

use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use super::running;
use crate::base::clock::Clock;
use crate::base::diagnostics::Problem;
use crate::cli::validate::{Format, annotation, problem_as_json};
use crate::lint::address::Mapping;
use crate::lint::{File, Finding, Input, Report, Severity, lint};

const AFTER_HELP: &str = "\
Exit codes:
  0  no problem; with --strict, no warning either
  1  a problem; with --strict, a problem or a warning
  2  the command line is wrong, a file cannot be read, or Kratos cannot be asked

Examples:
  vestibule kratos lint -c kratos.yml -c vestibule-hooks.yml --settings vestibule.yaml
  vestibule kratos lint -c kratos/kratos.yml --map /etc/config/kratos=./kratos --env-file kratos.env --strict --format github
  vestibule kratos lint -c kratos.yml --kratos-admin http://127.0.0.1:4434 --settings vestibule.yaml
  helm template . | yq '.data[\"kratos.yaml\"]' | vestibule kratos lint -c - --schema default=identity.schema.json";

/// `vestibule kratos lint …`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Lint {
    /// A file of kratos.yml, or `-` for standard input. Repeat it as Kratos gets it: a later file replaces the lists of an
    /// earlier one
    #[arg(short = 'c', long = "config", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The environment variables of Kratos, which override kratos.yml: a line `NAME=value` for each
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// The local folder of a folder that kratos.yml names: `/etc/config/kratos=./kratos`
    #[arg(long = "map", value_name = "FROM=TO", value_parser = Mapping::parse)]
    mappings: Vec<Mapping>,
    /// The file of an identity schema, in place of the address in kratos.yml
    #[arg(long = "schema", value_name = "ID=FILE", value_parser = schema)]
    schemas: Vec<(String, PathBuf)>,
    /// The admin API of a running Kratos, `http://127.0.0.1:4434`: check with its version and with the identity schemas that
    /// are in force, in place of those of the files
    #[arg(long, value_name = "URL", value_parser = super::api_address, conflicts_with = "schemas")]
    kratos_admin: Option<Url>,
    /// The public API of that Kratos, which has the schemas. Needed if `serve.public.base_url` cannot be used from here
    #[arg(long, value_name = "URL", value_parser = super::api_address, requires = "kratos_admin")]
    kratos_public: Option<Url>,
    /// The settings file of Vestibule. Its environment variables may be missing
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Exit with code 1 also if there is a warning
    #[arg(long)]
    strict: bool,
    /// How findings are printed: for people, as one JSON object, or as annotations of GitHub Actions
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    format: Format,
}

impl Lint {
    /// Checks the files, and prints the findings.
    pub async fn run(&self, clock: Clock) -> ExitCode {
        let input = match self.input(clock).await {
            Ok(input) => input,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::from(2);
            }
        };
        let report = lint(&input);
        let printed = match self.format {
            Format::Text => report.to_string(),
            Format::Json => format!("{}\n", as_json(&report)),
            Format::Github => annotations(&report),
        };
        match std::io::stdout().write_all(printed.as_bytes()) {
            // The reader closed the output, as in `vestibule kratos lint | head`.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                eprintln!("error: the report cannot be printed: {error}");
                return ExitCode::from(2);
            }
            _ => {}
        }
        let has = |severity| report.count(severity) > 0;
        if has(Severity::Problem) || self.strict && has(Severity::Warning) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }

    async fn input(&self, clock: Clock) -> Result<Input, String> {
        let running = match &self.kratos_admin {
            Some(admin) => {
                let public = self.kratos_public.as_ref();
                Some(running::read(admin, public, clock).await?)
            }
            None => None,
        };
        let schema =
            |(id, path): &(String, PathBuf)| Ok::<_, String>((id.clone(), read(path)?.text));
        Ok(Input {
            layers: self
                .files
                .iter()
                .map(|path| read(path))
                .collect::<Result<_, _>>()?,
            environment: self.env_file.as_deref().map(read).transpose()?,
            mappings: self.mappings.clone(),
            schemas: self.schemas.iter().map(schema).collect::<Result<_, _>>()?,
            running,
            settings: self.settings.as_deref().map(read).transpose()?,
        })
    }
}

/// Parses `default=identity.schema.json`.
fn schema(text: &str) -> Result<(String, PathBuf), String> {
    let (id, path) = text
        .split_once('=')
        .filter(|(id, path)| !id.is_empty() && !path.is_empty())
        .ok_or("expected an id and a file, as in default=identity.schema.json")?;
    Ok((id.to_owned(), path.into()))
}

fn read(path: &Path) -> Result<File, String> {
    let name = path.display().to_string();
    if name != "-" {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {name}: {error}"))?;
        return Ok(File { name, text });
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read standard input: {error}"))?;
    let name = "standard input".to_owned();
    Ok(File { name, text })
}

fn as_json(report: &Report) -> Value {
    let all = |severity: Severity| -> Vec<Value> {
        let findings = report.findings.iter();
        findings
            .filter(|finding| finding.severity == severity)
            .map(|finding| {
                let mut value = problem_as_json(&finding.problem);
                value["rule"] = finding.rule.into();
                value["file"] = report.file_of(finding).into();
                value
            })
            .collect()
    };
    json!({
        "valid": report.count(Severity::Problem) == 0,
        "problems": all(Severity::Problem),
        "warnings": all(Severity::Warning),
        "notes": all(Severity::Note),
        "not_checked": report.not_checked,
    })
}

/// Returns workflow commands of GitHub Actions, which show each finding at its line.
fn annotations(report: &Report) -> String {
    let each = |finding: &Finding| {
        let level = match finding.severity {
            Severity::Problem => "error",
            Severity::Warning => "warning",
            Severity::Note => "notice",
        };
        let problem = Problem {
            message: format!("{} [{}]", finding.problem.message, finding.rule),
            ..finding.problem.clone()
        };
        annotation(level, report.file_of(finding), &problem)
    };
    let not_checked = report.not_checked.iter();
    let not_checked = not_checked.map(|what| format!("not checked: {what}\n"));
    report
        .findings
        .iter()
        .map(each)
        .chain(not_checked)
        .collect()
}
