//! `vestibule deliveries`: lists, shows, retries and discards deliveries.

mod action;
mod filter_args;
mod list;
mod show;

use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{ConfigFile, open_database};
use crate::base::clock::Timestamp;
use crate::store::admin::RetryWindows;

pub use action::{Confirmation, agreed, discard, retry};
use filter_args::FilterArgs;
pub use list::list;
pub use show::show;

/// `vestibule deliveries …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List deliveries, newest first
    List {
        /// The settings file, which names the database
        #[command(flatten)]
        file: ConfigFile,
        /// The deliveries
        #[command(flatten)]
        which: FilterArgs,
        /// The maximum number of deliveries
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// The start of the next page, as the previous page printed it
        #[arg(long, value_name = "ID")]
        cursor: Option<Uuid>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one delivery with its attempts
    Show {
        /// The settings file, which names the database
        #[command(flatten)]
        file: ConfigFile,
        /// The delivery's id
        id: Uuid,
        /// Also print the payload, which holds personal data
        #[arg(long)]
        payload: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make pending and abandoned deliveries due now
    ///
    /// A running `vestibule serve` sends the deliveries within a minute. Abandoned deliveries are retried for the
    /// `retry.max_elapsed` of their subscription again. A delivery that could not be built is built with the settings of
    /// that `serve`. The exit code is 1 if a delivery given by id is skipped.
    Retry {
        /// The settings file, which names the database
        #[command(flatten)]
        file: ConfigFile,
        /// The deliveries
        #[command(flatten)]
        chosen: Selection,
        /// Also retry deliveries that are older than one that was delivered to the same subscription about the same identity
        #[arg(long)]
        out_of_order: bool,
    },
    /// Discard pending and abandoned deliveries, and erase their payloads
    ///
    /// The exit code is 1 if a delivery given by id is skipped.
    Discard {
        /// The settings file, which names the database
        #[command(flatten)]
        file: ConfigFile,
        /// The deliveries
        #[command(flatten)]
        chosen: Selection,
        /// Discard without asking
        #[arg(long)]
        yes: bool,
        /// Only count the deliveries, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// The deliveries to change. Without ids, `--all` is required, so that a missing option never selects all deliveries.
#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    which: FilterArgs,
    /// All deliveries that match the other options, instead of deliveries given by id
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl Selection {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.all || !self.which.ids.is_empty(),
            "no deliveries given\nhelp: give ids, or `--all` with `--subscription`, `--state`, `--identity`, `--since` or `--until`"
        );
        Ok(())
    }
}

impl Command {
    /// Runs the command on the database that the settings name.
    pub async fn run(self, now: Timestamp) -> anyhow::Result<ExitCode> {
        let filter = match &self {
            Self::List { which, cursor, .. } => which.filter(*cursor, now)?,
            Self::Show { id, .. } => FilterArgs::only(*id),
            Self::Retry { chosen, .. } | Self::Discard { chosen, .. } => {
                chosen.check()?;
                let filter = chosen.which.filter(None, now)?;
                filter.check_for_change()?;
                filter
            }
        };
        let Some(settings) = self.file().settings() else {
            return Ok(ExitCode::FAILURE);
        };
        let opened = open_database(&settings).await?;
        let store = &*opened;
        let mut out = std::io::stdout();
        let done = match self {
            Self::List { limit, json, .. } => list(store, &filter, limit, json, &mut out)
                .await
                .map(|()| true),
            Self::Show {
                id, payload, json, ..
            } => show(store, id, payload, json, &mut out)
                .await
                .map(|()| true),
            Self::Retry { out_of_order, .. } => {
                let keep_trying = RetryWindows::of(&settings.subscriptions);
                let keep_trying = keep_trying.out_of_order(out_of_order);
                retry(store, &filter, now, &keep_trying, &mut out).await
            }
            Self::Discard { yes, dry_run, .. } => {
                let confirmation = Confirmation::from_options(yes, dry_run);
                discard(store, &filter, now, confirmation, &mut out).await
            }
        };
        opened.close().await;
        done.map(|all| {
            if all {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        })
    }

    fn file(&self) -> &ConfigFile {
        match self {
            Self::List { file, .. }
            | Self::Show { file, .. }
            | Self::Retry { file, .. }
            | Self::Discard { file, .. } => file,
        }
    }
}
