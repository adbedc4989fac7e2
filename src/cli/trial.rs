//! `vestibule try`: one sign-up against the settings and the real services.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::ConfigFile;
use crate::base::clock::Clock;
use crate::base::telemetry::Metrics;
use crate::config::{self, Environment, Settings};
use crate::kratos::{Flow, Payload, Stage};
use crate::outbound::services::client::Services;
use crate::rule_tests::hidden::Hidden;
use crate::rule_tests::submission::Submission;
use crate::rule_tests::trial::{Trial, Trials, TriedCheck};
use crate::rule_tests::unknown_traits::unknown_traits;

const AFTER_HELP: &str = "\
The services are really asked. Reservations are not taken, unless `--take` is given; then they are released again. Nothing is
stored and nothing is delivered.

Examples:
  vestibule try --traits '{\"email\": \"ada@example.org\", \"vat_number\": \"DE811115368\"}'
  vestibule try --flow settings --previous '{\"email\": \"old@example.org\"}' --traits '{\"email\": \"new@example.org\"}'
  vestibule try --payload recorded-call.json --json

Exit codes:
  0  the submission was admitted
  1  it was refused, the settings have a problem, or a reservation could not be released
  2  the command line is wrong, or the payload cannot be read";

/// The methods of Kratos that call hooks at registration or in settings.
const METHODS: [&str; 8] = [
    "password",
    "oidc",
    "code",
    "passkey",
    "webauthn",
    "profile",
    "totp",
    "lookup_secret",
];
/// The longest body of an answer that is printed whole, in characters.
const MAX_SHOWN: usize = 200;

/// `vestibule try`
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Options {
    /// The settings file
    #[command(flatten)]
    file: ConfigFile,
    /// The traits that the visitor sends, as JSON
    #[arg(long, value_name = "JSON", value_parser = object, required_unless_present = "payload")]
    traits: Option<Map<String, Value>>,
    /// A file with the body of a call, as Kratos sends it with Vestibule's template; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["traits", "previous", "transient_payload", "language", "header"])]
    payload: Option<PathBuf>,
    /// The flow
    #[arg(long, value_enum, default_value_t = FlowName::Registration)]
    flow: FlowName,
    /// The method; default: `password`, in settings `profile`
    #[arg(long, value_parser = METHODS)]
    method: Option<String>,
    /// The traits before a change in settings, as JSON
    #[arg(long, value_name = "JSON", value_parser = object)]
    previous: Option<Map<String, Value>>,
    /// `flow.transient_payload`, as JSON
    #[arg(long, value_name = "JSON", value_parser = object)]
    transient_payload: Option<Map<String, Value>>,
    /// The language of the visitor, which becomes the header `Accept-Language`
    #[arg(long)]
    language: Option<String>,
    /// Another header of the visitor's request
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Take reservations, and release them again
    #[arg(long)]
    take: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FlowName {
    Registration,
    Settings,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("expected a JSON object such as {{\"email\": \"…\"}}: {error}"))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Tries the submission, and prints what followed.
pub async fn run(options: Options, clock: Clock) -> anyhow::Result<ExitCode> {
    let Some(settings) = options.file.settings() else {
        return Ok(ExitCode::FAILURE);
    };
    let submission = options.submission();
    let payload = match &options.payload {
        Some(path) => match read(path) {
            Ok(payload) => payload,
            Err(error) => {
                eprintln!("error: {error:#}");
                return Ok(ExitCode::from(2));
            }
        },
        None => submission
            .payload(&settings, clock.now())
            .map_err(|error| anyhow!(error))?,
    };
    options.warn_about_traits(&settings);
    let services = Services::new(
        settings.services.clone(),
        clock.clone(),
        Arc::new(Metrics::new()),
    );
    let trials = Trials {
        services: Arc::new(services.context("cannot create the client of the services")?),
        settings,
        clock,
        takes: options.take,
    };
    let mut trial = trials.run(&submission.hook(Stage::Pre), &payload).await;
    let environment = Environment::of_process();
    let inserted = config::inserted_values(&options.file.config, &environment);
    trial.hide(&Hidden::new(&inserted));
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &trial)?;
        writeln!(out)?;
    } else {
        print(&trial, &mut out)?;
    }
    Ok(
        if trial.verdict == "refused" || !trial.unreleased.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        },
    )
}

fn read(path: &std::path::Path) -> anyhow::Result<Payload> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    let payload = Payload::parse(text.as_bytes())
        .with_context(|| format!("{} is not the body of a call", path.display()))?;
    if payload.identity.is_none() {
        bail!(
            "the call has no identity\nhelp: record a call of a hook under `after.<method>.hooks`"
        );
    }
    Ok(payload)
}

impl Options {
    /// Kratos refuses a form with a trait that its identity schema forbids, so no check sees it.
    fn warn_about_traits(&self, settings: &Settings) {
        let traits = self.traits.iter();
        for warning in
            traits.flat_map(|traits| unknown_traits(&settings.kratos.schemas, None, traits))
        {
            eprintln!("warning: {warning}");
        }
    }

    fn submission(&self) -> Submission {
        let flow = match self.flow {
            FlowName::Registration => Flow::Registration,
            FlowName::Settings => Flow::Settings,
        };
        let traits = self.traits.clone().unwrap_or_default();
        let mut submission = Submission::of(flow, self.method.clone(), traits);
        submission.previous = self.previous.clone().map(|traits| (traits, None));
        submission.transient_payload = self.transient_payload.clone().map(Value::Object);
        submission.headers.extend(self.header.iter().cloned());
        let language = self.language.clone();
        submission
            .headers
            .extend(language.map(|language| ("Accept-Language".to_owned(), language)));
        submission
    }
}

fn print(trial: &Trial, out: &mut impl Write) -> std::io::Result<()> {
    for check in &trial.checks {
        print_check(check, out)?;
    }
    writeln!(out, "\nverdict: {}", trial.verdict)?;
    for message in &trial.messages {
        let field = message.field.as_deref().unwrap_or("the form");
        writeln!(out, "  {field}: {} ({})", message.text, message.id)?;
    }
    if trial
        .changes
        .as_object()
        .is_some_and(|changes| !changes.is_empty())
    {
        writeln!(out, "  changes: {}", trial.changes)?;
    }
    for delivery in &trial.deliveries {
        let name = delivery["subscription"].as_str().unwrap_or_default();
        match delivery["request"].as_str() {
            Some(request) => writeln!(
                out,
                "\nwould send to {name}: {request}\n  {}",
                delivery["body"]
            )?,
            None => writeln!(out, "\ncould not send to {name}: {}", delivery["not_built"])?,
        }
    }
    for held in &trial.unreleased {
        writeln!(
            out,
            "\nthe reservation of {} may still be held: {}\nhelp: release it at the service; it was taken with the \
             Idempotency-Key {}",
            held.check, held.reason, held.key
        )?;
    }
    Ok(())
}

/// Returns a body as text, shortened.
fn beginning(body: &Value) -> String {
    let text = body.to_string();
    let length = text.chars().count();
    if length <= MAX_SHOWN {
        return text;
    }
    let start: String = text.chars().take(MAX_SHOWN).collect();
    format!("{start}… ({length} characters; `--json` prints more)")
}

fn print_question(question: &Value, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "  asked: {}",
        question["request"].as_str().unwrap_or_default()
    )?;
    for (name, value) in question["headers"].as_object().into_iter().flatten() {
        writeln!(out, "    {name}: {}", value.as_str().unwrap_or_default())?;
    }
    if !question["body"].is_null() {
        writeln!(out, "    {}", question["body"])?;
    }
    Ok(())
}

fn print_check(check: &TriedCheck, out: &mut impl Write) -> std::io::Result<()> {
    let kind = check
        .kind
        .map_or_else(String::new, |kind| format!(", {kind}"));
    let observed = if check.observed {
        ", observed only"
    } else {
        ""
    };
    writeln!(
        out,
        "{}: {}{kind}{observed} ({} ms)",
        check.check, check.outcome, check.duration_ms
    )?;
    if let Some(why) = check.why {
        let what = match check.outcome {
            "refused" => "refused by",
            _ => "did not run:",
        };
        writeln!(out, "  {what} {why}")?;
    }
    if let Some(question) = &check.question {
        print_question(question, out)?;
    }
    if let Some(answer) = &check.answer {
        match answer["none"].as_str() {
            Some(error) => writeln!(out, "  no answer: {error}")?,
            None => writeln!(
                out,
                "  answered: {} {}",
                answer["status"],
                beginning(&answer["body"])
            )?,
        }
    }
    for one in &check.expressions {
        writeln!(out, "  {} `{}`: {}", one.setting, one.source, one.result)?;
    }
    Ok(())
}
