//! `vestibule deferred`: what checks decided after the account had been created.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{ConfigFile, open_database};
use crate::check::late::lift;
use crate::clock::{Clock, Timestamp};
use crate::store::Store;

/// What is done with late refusals.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lift the late refusals of an account: its owner can sign in again
    ///
    /// The refusal is lifted in the database, which hooks see within a second. A running `vestibule serve` then sets the
    /// identity active and removes the mark in `metadata_admin`.
    Lift(Lift),
}

/// `vestibule deferred lift …`
#[derive(Debug, Args)]
pub struct Lift {
    /// The settings, which name the database
    #[command(flatten)]
    file: ConfigFile,
    /// The identity's id, as Kratos names it
    #[arg(value_name = "ID")]
    id: Uuid,
    /// Only the refusal of this check
    #[arg(long, value_name = "NAME")]
    check: Option<String>,
}

impl Command {
    /// Does it, also while `serve` runs.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let Self::Lift(lift) = self;
        let Some(settings) = lift.file.settings() else {
            return Ok(ExitCode::FAILURE);
        };
        let store = open_database(&settings).await?;
        let lifted = lift.run(&*store, Clock::system().now()).await;
        store.close().await;
        println!("{}", lifted?);
        Ok(ExitCode::SUCCESS)
    }
}

impl Lift {
    async fn run(&self, store: &dyn Store, now: Timestamp) -> anyhow::Result<String> {
        let Self { id, check, .. } = self;
        let lifted = lift(store, *id, check.as_deref(), now)
            .await
            .with_context(|| format!("the refusals of {id} could not be lifted; try again"))?;
        ensure!(
            !lifted.checks.is_empty(),
            "no late refusal{} of {id} is in force",
            check
                .as_ref()
                .map_or(String::new(), |check| format!(" by `{check}`"))
        );
        let checks = lifted.checks.join("`, `");
        Ok(if lifted.others_in_force.is_empty() {
            format!(
                "{id}: lifted the refusal of `{checks}`. A running `vestibule serve` sets the identity active within a minute."
            )
        } else {
            format!(
                "{id}: lifted the refusal of `{checks}`. The refusal of `{}` stays in force, so the identity stays inactive.",
                lifted.others_in_force.join("`, `")
            )
        })
    }
}
