//! `vestibule deferred`: lists and lifts late refusals.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::{ConfigFile, open_database};
use crate::base::clock::Timestamp;
use crate::checks::deferred::lift;
use crate::model::late_refusal::{LateRefusal, OnLateRefusal};
use crate::store::LateRefusalStore;

/// `vestibule deferred …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lift the late refusals of an account, so that its owner can sign in again
    ///
    /// Lifts the refusals in the database, where hooks see the change within a second. A running `vestibule serve` then sets
    /// the identity active, and removes the marks in `metadata_admin`.
    Lift(Lift),
    /// List the late refusals in force: the identity, the check, the time, and whether the identity is deactivated or marked
    List(List),
}

/// `vestibule deferred list …`
#[derive(Debug, Args)]
pub struct List {
    /// The settings file, which names the database
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// `vestibule deferred lift …`
#[derive(Debug, Args)]
pub struct Lift {
    /// The settings file, which names the database
    #[command(flatten)]
    file: ConfigFile,
    /// The identity's id in Kratos
    #[arg(value_name = "ID")]
    id: Uuid,
    /// Lift only the refusal of this check
    #[arg(long, value_name = "NAME")]
    check: Option<String>,
}

impl Command {
    /// Runs the command, also while `serve` runs.
    pub async fn run(self, now: Timestamp) -> anyhow::Result<ExitCode> {
        let lift = match self {
            Self::Lift(lift) => lift,
            Self::List(list) => return list.run().await,
        };
        let Some(settings) = lift.file.settings() else {
            return Ok(ExitCode::FAILURE);
        };
        let store = open_database(&settings).await?;
        let lifted = lift.run(&*store, now).await;
        store.close().await;
        println!("{}", lifted?);
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        let Some(settings) = self.file.settings() else {
            return Ok(ExitCode::FAILURE);
        };
        let store = open_database(&settings).await?;
        let refusals = store.late_refusals().await;
        store.close().await;
        let mut out = std::io::stdout().lock();
        for refusal in refusals.context("cannot read the late refusals")? {
            self.print(&refusal, &mut out)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, refusal: &LateRefusal, out: &mut impl Write) -> std::io::Result<()> {
        let LateRefusal {
            identity_id,
            check,
            effect,
            refused_at,
            deactivated_at,
            ..
        } = refusal;
        let since = refused_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        if self.json {
            let refusal = json!({
                "identity_id": identity_id, "check": check, "effect": effect, "refused_at": since,
                "deactivated": deactivated_at.is_some(),
            });
            return writeln!(out, "{refusal}");
        }
        let state = match effect {
            OnLateRefusal::Deactivate if deactivated_at.is_some() => "deactivated",
            OnLateRefusal::Deactivate => "not deactivated yet",
            OnLateRefusal::Mark => "marked",
            OnLateRefusal::Notify => "notified",
        };
        writeln!(out, "{identity_id}  {check}  {since}  {state}")
    }
}

impl Lift {
    async fn run(&self, store: &dyn LateRefusalStore, now: Timestamp) -> anyhow::Result<String> {
        let Self { id, check, .. } = self;
        let lifted = lift(store, *id, check.as_deref(), now)
            .await
            .with_context(|| format!("cannot lift the late refusals of {id}"))?;
        ensure!(
            !lifted.checks.is_empty(),
            "{id} has no late refusal{} in force\nhelp: list late refusals with `vestibule deferred list`",
            check
                .as_ref()
                .map_or(String::new(), |check| format!(" by `{check}`"))
        );
        let checks = lifted.checks.join("`, `");
        let others = match lifted.others_in_force.join("`, `") {
            others if others.is_empty() => others,
            others => format!(" The refusal of `{others}` is still in force."),
        };
        let state = if lifted.activates {
            " A running `vestibule serve` sets the identity active within a minute."
        } else {
            " The state of the identity is unchanged."
        };
        Ok(format!(
            "{id}: lifted the refusal of `{checks}`.{others}{state}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn a_refusal_is_printed_as_text_or_json() {
        let refusal = LateRefusal {
            identity_id: Uuid::from_u128(7),
            check: "vat".to_owned(),
            effect: OnLateRefusal::Deactivate,
            message: None,
            refused_at: "2026-11-23T12:00:00.5Z".parse().unwrap(),
            deactivated_at: None,
            was_active: None,
        };
        for (json, expected) in [
            (
                false,
                "00000000-0000-0000-0000-000000000007  vat  2026-11-23T12:00:00Z  not deactivated yet\n",
            ),
            (
                true,
                "{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"check\":\"vat\",\
                 \"effect\":\"deactivate\",\"refused_at\":\"2026-11-23T12:00:00Z\",\"deactivated\":false}\n",
            ),
        ] {
            let list = List {
                file: ConfigFile {
                    config: PathBuf::new(),
                },
                json,
            };
            let mut printed = Vec::new();
            list.print(&refusal, &mut printed).unwrap();
            assert_eq!(String::from_utf8(printed).unwrap(), expected);
        }
    }
}
