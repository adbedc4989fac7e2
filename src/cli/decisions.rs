//! `vestibule decisions`: lists and shows the decisions about sign-ups and changes.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use comfy_table::Table;
use uuid::Uuid;

use super::table::{nothing, table, time};
use super::when::{When, when};
use super::{ConfigFile, open_database};
use crate::base::clock::Timestamp;
use crate::base::diagnostics::did_you_mean;
use crate::config::Settings;
use crate::model::decision::DecisionOutcome;
use crate::store::DecisionStore;
use crate::store::decisions::{
    DecisionFilter, DecisionPage, FlowDecisions, RecordedCheck, RecordedDecision, decision_page,
};

const EXAMPLES: &str = "\
Examples:
  vestibule decisions list --outcome refused --since 2h
  vestibule decisions list --outcome unavailable --check vat_number
  vestibule decisions show 0198a1b2-c3d4-4e5f-8a6b-7c8d9e0f1a2b";

/// `vestibule decisions …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List decisions, newest first
    #[command(after_help = EXAMPLES)]
    List {
        /// The settings file, which names the database
        #[command(flatten)]
        file: ConfigFile,
        /// Only decisions with this outcome: refused, unavailable (a check had no answer), admitted (with changes or without) or
        /// changed. With `--check`, the outcome `refused` or `unavailable` is that of the check
        #[arg(long, value_parser = outcome)]
        outcome: Option<DecisionOutcome>,
        /// Only decisions for which this check ran
        #[arg(long, value_name = "NAME")]
        check: Option<String>,
        /// Only decisions about this flow
        #[arg(long, value_name = "ID")]
        flow_id: Option<Uuid>,
        /// Only decisions about this identity
        #[arg(long, value_name = "ID")]
        identity: Option<Uuid>,
        /// Only decisions at this time or later: a day, a time, or an age, such as 2026-11-01, 2026-11-01T12:00:00Z, 2h or 3d
        #[arg(long, value_name = "WHEN", value_parser = when)]
        since: Option<When>,
        /// The maximum number of decisions
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// The start of the next page, as the previous page printed it
        #[arg(long, value_name = "NUMBER")]
        cursor: Option<i64>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the decisions about one flow, with the result of each check
    #[command(after_help = EXAMPLES)]
    Show {
        /// The settings file, which names the database
        #[command(flatten)]
        file: ConfigFile,
        /// The id of the flow
        flow_id: Uuid,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

fn outcome(name: &str) -> Result<DecisionOutcome, String> {
    DecisionOutcome::named(name).ok_or_else(|| {
        format!(
            "expected one of: {}",
            DecisionOutcome::ALL.map(DecisionOutcome::as_str).join(", ")
        )
    })
}

impl Command {
    /// Runs the command on the database that the settings name.
    pub async fn run(self, now: Timestamp) -> anyhow::Result<ExitCode> {
        let (Self::List { file, .. } | Self::Show { file, .. }) = &self;
        let Some(settings) = file.settings() else {
            return Ok(ExitCode::FAILURE);
        };
        self.warn_about_check(&settings);
        let opened = open_database(&settings).await?;
        let done = self.print(&*opened, now, &mut std::io::stdout()).await;
        opened.close().await;
        done.map(|()| ExitCode::SUCCESS)
    }

    /// A misspelt name would look like a check without decisions. A check that was removed may have some.
    fn warn_about_check(&self, settings: &Settings) {
        let Self::List {
            check: Some(name), ..
        } = self
        else {
            return;
        };
        let known = || settings.checks.iter().map(|check| check.name.as_str());
        if !known().any(|check| check == name) {
            eprintln!("warning: the settings have no check `{name}`");
            if let Some(help) = did_you_mean(name, known()) {
                eprintln!("help: {help}");
            }
        }
    }

    /// Prints what the command asks for.
    pub async fn print(
        self,
        store: &dyn DecisionStore,
        now: Timestamp,
        out: &mut (dyn Write + Send),
    ) -> anyhow::Result<()> {
        match self {
            Self::List {
                outcome,
                check,
                flow_id,
                identity,
                since,
                limit,
                cursor,
                json,
                ..
            } => {
                let filter = DecisionFilter {
                    outcome,
                    check,
                    flow_id,
                    identity,
                    since: since.map(|when| when.moment(now)),
                    cursor,
                };
                let page = decision_page(store, &filter, limit).await;
                list(&page.context("cannot list the decisions")?, json, out)
            }
            Self::Show { flow_id, json, .. } => {
                let decisions = store.decisions_of_flow(flow_id).await;
                let decisions = decisions.context("cannot show the decisions")?;
                show(flow_id, decisions, json, out)
            }
        }
    }
}

fn list(page: &DecisionPage, json: bool, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    if json {
        serde_json::to_writer_pretty(&mut *out, &page.decisions)?;
        writeln!(out)?;
    } else if page.decisions.is_empty() {
        writeln!(out, "No decisions.")?;
    } else {
        writeln!(out, "{}", listed(&page.decisions))?;
        if let Some(last) = page.next_cursor {
            writeln!(out, "There are more: --cursor {last}")?;
        }
    }
    Ok(())
}

fn listed(decisions: &[RecordedDecision]) -> Table {
    let mut table = table();
    table.set_header([
        "TIME",
        "FLOW ID",
        "FLOW",
        "METHOD",
        "OUTCOME",
        "REFUSED BY",
        "UNAVAILABLE",
        "MS",
    ]);
    for decision in decisions {
        table.add_row([
            time(decision.at),
            decision.flow_id.to_string(),
            decision.flow.clone(),
            decision.method.clone(),
            decision.outcome.clone(),
            named(&decision.checks, "refused"),
            named(&decision.checks, "unavailable"),
            decision.duration_ms.to_string(),
        ]);
    }
    table
}

/// Lists the checks with this outcome.
fn named(checks: &[RecordedCheck], outcome: &str) -> String {
    let with_outcome = checks.iter().filter(|one| one.outcome == outcome);
    let names: Vec<&str> = with_outcome.map(|one| &*one.check).collect();
    if names.is_empty() {
        nothing()
    } else {
        names.join(", ")
    }
}

fn show(
    flow_id: Uuid,
    decisions: Vec<RecordedDecision>,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    ensure!(
        !decisions.is_empty(),
        "there is no decision about the flow {flow_id}\nhelp: list decisions with `vestibule decisions list`; a decision is stored \
         about a second after the call, and kept for `retention.decisions`; with `decisions: {{keep: refused}}` only refusals are kept"
    );
    if json {
        serde_json::to_writer_pretty(&mut *out, &FlowDecisions { decisions })?;
        writeln!(out)?;
        return Ok(());
    }
    for (number, decision) in decisions.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        let identity = decision.identity_id;
        writeln!(
            out,
            "{}  {} by `{}`: {} after {} ms; identity {}",
            time(decision.at),
            decision.flow,
            decision.method,
            decision.outcome,
            decision.duration_ms,
            identity.map_or_else(nothing, |id| id.to_string())
        )?;
        if decision.checks.is_empty() {
            writeln!(out, "No checks.")?;
        } else {
            writeln!(out, "{}", checks(&decision.checks))?;
        }
    }
    Ok(())
}

fn checks(checks: &[RecordedCheck]) -> Table {
    let mut table = table();
    table.set_header(["CHECK", "RESULT", "KIND", "MESSAGE ID", "MS", "MODE"]);
    for check in checks {
        table.add_row([
            check.check.clone(),
            check.outcome.clone(),
            check.kind.clone().unwrap_or_else(nothing),
            check.message_id.map_or_else(nothing, |id| id.to_string()),
            check.duration_ms.to_string(),
            if check.observed { "observe" } else { "enforce" }.to_owned(),
        ]);
    }
    table
}
