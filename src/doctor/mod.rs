//! `vestibule doctor` examines everything that the settings name: files, database, ports, services and Kratos.
//!
//! It changes nothing. What it writes into the database is rolled back, and the only requests that it sends to services are
//! those that the settings give as `probe`.

mod database;
mod disk;
mod files;
mod kratos;
mod parents;
mod ports;
mod report;
mod secrets;
mod services;
mod settings_files;
mod skew;
mod way;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use url::Url;

use crate::base::clock::Clock;
use crate::base::diagnostics::{Position, Problem};
use crate::base::telemetry::{Metrics, error_chain};
use crate::config::tree::{self, Node};
use crate::config::{self, Environment, Review, Settings, interpolation};
use crate::model::request::{Method, Request};
use crate::outbound::services::Service;
use crate::outbound::services::client::{Answer, CallError, Services, TimeLimit};

pub use report::{Finding, Level, Report, Section};

/// The finding about the HTTP client, which services, Kratos and ports need.
const CLIENT: &str = "client";
const NO_CLIENT: &str = "the HTTP client cannot be created";

/// What is examined, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The settings file.
    pub file: PathBuf,
    /// The sections of the report.
    pub sections: Vec<Section>,
    /// The maximum duration of each step.
    pub timeout: Duration,
    /// The address of Kratos's public API, if that in kratos.yml cannot be used from here.
    pub kratos_public: Option<Url>,
}

/// The settings, and what the examinations share.
struct Examined<'a> {
    file: &'a Path,
    environment: &'a Environment,
    settings: &'a Settings,
    /// The settings file.
    text: &'a str,
    tree: Option<Node>,
    /// The HTTP client, or why there is none.
    client: Result<Arc<Services>, String>,
    clock: &'a Clock,
    timeout: Duration,
    kratos_public: Option<&'a Url>,
}

/// Examines everything that the settings name.
pub async fn examine(options: &Options, environment: &Environment, clock: &Clock) -> Report {
    // Only once, because the file can be a pipe.
    let read = std::fs::read_to_string(&options.file);
    let review = config::review_read(read.as_deref(), &options.file, environment);
    let text = read.unwrap_or_default();
    let mut findings = of_settings(&review);
    match &review.settings {
        None => findings.extend(without_settings()),
        Some(settings) => {
            findings.extend(of_everything(options, environment, settings, &text, clock).await);
        }
    }
    let has_settings = review.settings.is_some();
    findings.retain(|finding| is_shown(finding, &options.sections, has_settings));
    findings.sort_by_key(|finding| finding.section);
    Report {
        file: options.file.display().to_string(),
        findings,
    }
}

/// Returns whether a finding belongs into a report of these sections. What prevents every examination, or prevents that
/// Vestibule starts, is in each report.
fn is_shown(finding: &Finding, sections: &[Section], has_settings: bool) -> bool {
    let is_problem = finding.level == Level::Problem;
    let has_no_settings = finding.section == Section::Settings && !has_settings;
    sections.contains(&finding.section) || is_problem && (has_no_settings || finding.name == CLIENT)
}

/// Examines what the settings name.
async fn of_everything(
    options: &Options,
    environment: &Environment,
    settings: &Settings,
    text: &str,
    clock: &Clock,
) -> Vec<Finding> {
    let client = client(settings, clock).map(Arc::new);
    let client = client.map_err(|error| error_chain(&error));
    let examined = Examined {
        file: &options.file,
        environment,
        settings,
        text,
        tree: tree::read(text, &mut Vec::new()),
        client,
        clock,
        timeout: options.timeout,
        kratos_public: options.kratos_public.as_ref(),
    };
    let mut findings = examined.everything(&options.sections).await;
    if let Err(cause) = &examined.client {
        findings.push(without_client(cause, environment));
    }
    findings
}

/// Reports that there is no HTTP client, without which `vestibule serve` does not start.
fn without_client(cause: &str, environment: &Environment) -> Finding {
    let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    let set = variables.map(|name| Some(format!("{name}={}", environment.value(name)?)));
    let set: Vec<String> = set.into_iter().flatten().collect();
    let help = if set.is_empty() {
        "install the certificates of authorities: the package `ca-certificates`".to_owned()
    } else {
        format!(
            "name certificates of authorities in PEM format, or remove the variables: {}",
            set.join(", ")
        )
    };
    Section::Services
        .problem(CLIENT, format!("{NO_CLIENT}: {cause}"))
        .help(help)
}

fn client(settings: &Settings, clock: &Clock) -> Result<Services, reqwest::Error> {
    let admin = settings.kratos.admin.iter();
    let services = settings.services.iter().chain(admin).cloned().collect();
    Services::new(services, clock.clone(), Arc::new(Metrics::new()))
}

/// The problems and warnings of `vestibule validate`.
fn of_settings(review: &Review) -> Vec<Finding> {
    const SECTION: Section = Section::Settings;
    let problems = review.problems.iter();
    let problems = problems.map(|one| of_problem(SECTION, "file", Level::Problem, one));
    let warnings = review.warnings.iter();
    let warnings = warnings.map(|one| of_problem(SECTION, "file", Level::Warning, one));
    let mut findings: Vec<Finding> = problems.chain(warnings).collect();
    if let Some(settings) = &review.settings {
        let checks = settings.checks.len();
        let subscriptions = settings.subscriptions.len();
        let valid = format!("valid; checks: {checks}, subscriptions: {subscriptions}");
        findings.insert(0, SECTION.ok("file", valid));
        if settings.hooks.keys.is_empty() {
            findings.push(
                SECTION
                    .warning("keys", "`vestibule serve` needs a key")
                    .at(("hooks.keys".to_owned(), Position::default()))
                    .help("set the environment variable VESTIBULE_KEY, or `hooks.keys`; `vestibule keygen` generates one"),
            );
        }
    }
    findings
}

fn without_settings() -> impl Iterator<Item = Finding> {
    let others = Section::ALL.into_iter().skip(1);
    others.map(|section| section.not_checked("settings", "the settings file has problems"))
}

fn of_problem(section: Section, name: &'static str, level: Level, problem: &Problem) -> Finding {
    let found = section.finding(name, level, problem.message.clone());
    let found = found.at((problem.path.clone(), problem.at));
    match &problem.hint {
        Some(hint) => found.help(hint.clone()),
        None => found,
    }
}

impl Examined<'_> {
    /// Examines these sections. What waits for other systems runs at the same time.
    async fn everything(&self, sections: &[Section]) -> Vec<Finding> {
        let mut examinations: Vec<LocalBoxFuture<'_, Vec<Finding>>> = Vec::new();
        for section in sections {
            match section {
                // It was examined before the others.
                Section::Settings => {}
                Section::Files => examinations.push(Box::pin(async { files::examine(self) })),
                Section::Database => examinations.push(Box::pin(database::examine(self))),
                Section::Ports => examinations.push(Box::pin(ports::examine(self))),
                Section::Services => examinations.push(Box::pin(services::examine(self))),
                Section::Kratos => examinations.push(Box::pin(kratos::examine(self))),
            }
        }
        join_all(examinations).await.concat()
    }

    fn tree(&self) -> Option<&Node> {
        self.tree.as_ref()
    }

    /// Returns the keys and the position of a value. Without the value, the position is that of the nearest section.
    fn place(&self, keys: &[&str]) -> (String, Position) {
        let mut at = Position::default();
        let mut node = self.tree();
        for key in keys {
            node = node.and_then(|node| node.get(key));
            at = node.map_or(at, |node| node.at);
        }
        (keys.join("."), at)
    }

    /// The same for keys as one text: `hooks.keys[0]`.
    fn place_of(&self, path: &str) -> (String, Position) {
        let keys: Vec<&str> = path
            .split('.')
            .map(|key| key.split('[').next().unwrap_or(key))
            .collect();
        let (_, at) = self.place(&keys);
        (path.to_owned(), at)
    }

    /// Returns the result, or `None` if a step takes too long.
    async fn within_limit<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        let end = self.clock.deadline(self.timeout);
        self.clock.timeout_at(end, step).await
    }

    /// Returns the result of a step, and its duration in milliseconds.
    async fn timed<T>(&self, step: impl Future<Output = T>) -> (Option<T>, u64) {
        let started = self.clock.monotonic();
        let done = self.within_limit(step).await;
        let took = self.clock.monotonic().saturating_sub(started);
        (done, u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    /// Sends a GET to a service of the settings, as Vestibule sends its requests.
    async fn get(&self, services: &Services, name: &str, path: &str) -> Result<Answer, CallError> {
        let request = Request {
            method: Method::Get,
            path: path.to_owned(),
            headers: Vec::new(),
            body: None,
        };
        let limit = TimeLimit {
            of_request: Some(self.timeout),
            otherwise: self.timeout,
            until: self.clock.deadline(self.timeout),
        };
        services.call(name, &request, &[], limit).await
    }

    /// Sends a GET to this address, without credentials.
    async fn get_from(&self, client: &Services, url: &str, path: &str) -> Option<Answer> {
        let service = Service::without_credentials(url.to_owned(), url.parse().ok()?);
        let services = client.alone(service);
        self.get(&services, url, path).await.ok()
    }

    /// Returns a text of the settings with inserted values. They must not be shown.
    fn expanded(&self, text: &str) -> Option<String> {
        let pieces = interpolation::pieces(text, self.environment).ok()?;
        Some(interpolation::joined(&pieces))
    }
}
