//! The promises a database must keep.

pub mod intake;
pub mod postgres;
pub mod recorder;
pub mod sqlite;

use std::collections::HashSet;
use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::decision::Decision;
use crate::delivery::{Claimed, Event, New, Outcome, State};

/// Why the database did not do as asked. Never holds a value of ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database said no, or nothing.
    #[error("the database did not do it")]
    Database(#[from] sqlx::Error),
    /// Its shape could not be made.
    #[error("the database could not be brought to this version's shape")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Its file could not be made.
    #[error("the database file {} could not be created", path.display())]
    File {
        /// Of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder in which its file should be made is not there.
    #[error("the folder {} does not exist; create it, the database is kept in there", folder.display())]
    NoFolder {
        /// Of the file.
        folder: PathBuf,
    },
}

impl Error {
    /// Itself and its causes in one line, for a log.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some say their cause themselves.
            if !line.ends_with(&words) {
                line = format!("{line}: {words}");
            }
            cause = error.source();
        }
        line
    }
}

/// When something of a plan falls due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextDue {
    /// The plan's name.
    pub plan: String,
    /// The earliest time at which one of its deliveries is tried, or a lease on one ends.
    pub at: Timestamp,
}

/// What a try taught, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// When it began.
    pub began_at: Timestamp,
    /// When it was over.
    pub ended_at: Timestamp,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What went wrong, in words without values: `timeout`, `connection`, `status 503`.
    pub error: Option<String>,
}

/// A delivery as the operator sees it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// Its plan's name.
    pub plan: String,
    /// What happened.
    pub event: Event,
    /// Whom it is about.
    pub identity_id: Uuid,
    /// Where it stands.
    pub state: State,
    /// How many tries there were.
    pub attempts: u32,
    /// What the last try said, if it failed.
    pub last_error: Option<String>,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it is tried next; `None` unless pending.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered or abandoned.
    pub settled_at: Option<Timestamp>,
}

/// Which deliveries to list or retry.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these; all if empty.
    pub ids: Vec<Uuid>,
    /// Only of this plan.
    pub plan: Option<String>,
    /// Only in this state.
    pub state: Option<State>,
}

/// Numbers for metrics and health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many are pending.
    pub pending: u64,
    /// How many are abandoned.
    pub abandoned: u64,
    /// Since when the oldest pending one waits.
    pub oldest_pending: Option<Timestamp>,
}

/// A database that loses nothing it said yes to.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores all of them in one transaction, durably, before it returns. One that is there already
    /// (same plan and unique key) is passed over. Returns the ids of those that were new.
    async fn accept_all(&self, deliveries: &[New]) -> Result<HashSet<Uuid>, Error>;
    /// The same; returns how many were new.
    async fn accept(&self, deliveries: Vec<New>) -> Result<usize, Error> {
        Ok(self.accept_all(&deliveries).await?.len())
    }
    /// Takes up to `limit` deliveries of the plan that are due, the longest waiting first, and gives them to
    /// the caller for `lease`; a lease that ran out makes its delivery due again. Counts the attempt.
    async fn claim(
        &self,
        plan: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error>;
    /// Writes down what became of a try. `false` if the lease is no longer the caller's.
    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error>;
    /// Gives leases back untried, so that another worker may take them at once.
    async fn give_back(&self, held: &[Claimed], now: Timestamp) -> Result<(), Error>;
    /// When each plan that has something pending falls due next. (Plan by plan, so that one whose service is
    /// busy can be left out.)
    async fn next_due(&self) -> Result<Vec<NextDue>, Error>;
    /// Newest first.
    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<Listed>, Error>;
    /// Makes pending or abandoned deliveries due now, and lets abandoned ones be tried for `keep_trying_for`
    /// anew. Leaves alone what a worker holds, and what could never be built. Returns how many.
    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error>;
    /// Numbers for metrics and health.
    async fn backlog(&self) -> Result<Backlog, Error>;
    /// Writes decisions down, all in one transaction.
    async fn record(&self, decisions: &[Decision]) -> Result<(), Error>;
    /// Whether it can be reached and written to.
    async fn ping(&self) -> Result<(), Error>;
    /// Finishes what is under way and closes.
    async fn close(&self);
}
