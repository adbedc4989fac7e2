//! `vestibule deliveries`: look at them, try them again.

use std::io::Write;
use std::time::Duration;

use std::process::ExitCode;

use anyhow::Context;
use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::ConfigFile;
use crate::app::open_store;
use crate::clock::{Clock, Timestamp};
use crate::config::settings::Dsn;
use crate::config::{self, Environment};
use crate::delivery::State;
use crate::store::{Filter, Listed, Store};
use uuid::Uuid;

/// `vestibule deliveries …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List deliveries, newest first
    List {
        /// The settings, which name the database
        #[command(flatten)]
        file: ConfigFile,
        /// Which of them
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make deliveries due now: pending ones, and abandoned ones for another while. A running `serve` takes
    /// them up within a minute
    Retry {
        /// The settings, which name the database
        #[command(flatten)]
        file: ConfigFile,
        /// Which of them
        #[command(flatten)]
        which: Which,
        /// All that --plan and --state leave, instead of those named by id
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}

/// Which deliveries are meant.
#[derive(Debug, Args)]
pub struct Which {
    /// Only these ids
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// Only of this plan, a name under `deliveries`
    #[arg(long)]
    plan: Option<String>,
    /// Only in this state: pending, delivered or abandoned
    #[arg(long, value_parser = state)]
    state: Option<State>,
}

/// How long abandoned deliveries are tried anew.
const KEEP_TRYING_FOR: Duration = Duration::from_hours(192);

impl Command {
    /// Runs it on the database that the settings name.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (file, which) = match &self {
            Self::List { file, which, .. } | Self::Retry { file, which, .. } => (file, which),
        };
        let settings = match config::load(&file.config, &Environment::of_process()) {
            Ok(settings) => settings,
            Err(problems) => {
                eprintln!("{problems}");
                return Ok(ExitCode::FAILURE);
            }
        };
        let filter = Filter {
            ids: which.ids.clone(),
            plan: which.plan.clone(),
            state: which.state,
            ..Filter::default()
        };
        if let Dsn::Sqlite(path) = &settings.dsn {
            anyhow::ensure!(
                path.exists(),
                "there is no database at {}; `vestibule serve` makes it when it starts",
                path.display()
            );
        }
        let store = open_store(&settings.dsn).await?;
        let mut out = std::io::stdout();
        let done = match self {
            Self::List { limit, json, .. } => list(&*store, &filter, limit, json, &mut out).await,
            Self::Retry { all, .. } if filter.ids.is_empty() && !all => Err(anyhow::anyhow!(
                "name the deliveries by id, or say --all (with --plan or --state to narrow it)"
            )),
            Self::Retry { .. } => {
                retry(
                    &*store,
                    &filter,
                    Clock::system().now(),
                    KEEP_TRYING_FOR,
                    &mut out,
                )
                .await
            }
        };
        store.close().await;
        done.map(|()| ExitCode::SUCCESS)
    }
}

fn state(name: &str) -> Result<State, String> {
    State::named(name).ok_or_else(|| "it is one of: pending, delivered, abandoned".to_owned())
}

/// Prints deliveries, newest first: for people, or as a JSON list.
pub async fn list(
    store: &dyn Store,
    filter: &Filter,
    limit: u32,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let deliveries = store
        .list(filter, limit)
        .await
        .context("the deliveries cannot be listed")?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &deliveries)?;
        writeln!(out)?;
    } else if deliveries.is_empty() {
        writeln!(out, "No deliveries.")?;
    } else {
        writeln!(out, "{}", table(&deliveries))?;
    }
    Ok(())
}

/// Makes pending or abandoned deliveries due now, and tells how many.
pub async fn retry(
    store: &dyn Store,
    filter: &Filter,
    now: Timestamp,
    keep_trying_for: Duration,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let count = store
        .retry(filter, now, keep_trying_for)
        .await
        .context("the deliveries cannot be retried")?;
    let deliveries = if count == 1 {
        "delivery is"
    } else {
        "deliveries are"
    };
    writeln!(out, "{count} {deliveries} due now.")?;
    Ok(())
}

fn table(deliveries: &[Listed]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "ID",
            "PLAN",
            "EVENT",
            "STATE",
            "ATTEMPTS",
            "NEXT ATTEMPT",
            "LAST ERROR",
            "CREATED",
        ]);
    for delivery in deliveries {
        table.add_row([
            delivery.id.to_string(),
            delivery.plan.clone(),
            delivery.event.to_string(),
            delivery.state.to_string(),
            delivery.attempts.to_string(),
            delivery.next_attempt_at.map_or_else(nothing, time),
            delivery.last_error.clone().unwrap_or_else(nothing),
            time(delivery.created_at),
        ]);
    }
    table
}

fn time(moment: Timestamp) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn nothing() -> String {
    "-".to_owned()
}
