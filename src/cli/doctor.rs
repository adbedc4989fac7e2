//! `vestibule doctor`: examines everything that the settings name.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use url::Url;

use super::ConfigFile;
use crate::base::clock::Clock;
use crate::config::{Environment, parse_duration};
use crate::doctor::{self, Level, Section};

const AFTER_HELP: &str = "\
Nothing is changed. A write into the database is rolled back, and services get only the
requests that the settings give as `probe`. `vestibule serve` may run meanwhile. Run the
command as the user and in the environment of `vestibule serve`.

Exit codes:
  0  no problem; with --strict, no warning either
  1  a problem; with --strict, a problem or a warning
  2  the command line is wrong

Examples:
  vestibule doctor
  vestibule doctor --config /etc/vestibule/vestibule.yaml --only services,kratos --json";

/// `vestibule doctor`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Examine only these sections
    #[arg(long, value_enum, value_name = "SECTION", value_delimiter = ',')]
    only: Vec<SectionName>,
    /// The maximum duration of each step: a look-up, a connection, a request
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,
    /// The address of Kratos's public API, which has the identity schemas. Needed if `serve.public.base_url` of kratos.yml
    /// cannot be used from here
    #[arg(long, value_name = "URL", value_parser = super::kratos::api_address)]
    kratos_public: Option<Url>,
    /// Exit with code 1 also if there is a warning
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SectionName {
    Settings,
    Files,
    Database,
    Ports,
    Services,
    Kratos,
}

impl From<SectionName> for Section {
    fn from(name: SectionName) -> Self {
        match name {
            SectionName::Settings => Self::Settings,
            SectionName::Files => Self::Files,
            SectionName::Database => Self::Database,
            SectionName::Ports => Self::Ports,
            SectionName::Services => Self::Services,
            SectionName::Kratos => Self::Kratos,
        }
    }
}

/// Examines everything, and prints the report.
pub async fn run(options: Options, clock: &Clock) -> anyhow::Result<ExitCode> {
    let mut sections: Vec<Section> = options.only.iter().copied().map(Section::from).collect();
    sections.sort();
    sections.dedup();
    let examined = doctor::Options {
        file: options.file.config,
        sections: if sections.is_empty() {
            Section::ALL.to_vec()
        } else {
            sections
        },
        timeout: options.timeout,
        kratos_public: options.kratos_public,
    };
    let report = doctor::examine(&examined, &Environment::of_process(), clock).await;
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report.to_json())?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    let has = |level| report.count(level) > 0;
    Ok(
        if has(Level::Problem) || options.strict && has(Level::Warning) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        },
    )
}
