//! Implements the store traits with statements that both databases understand. Each file implements one trait, or has
//! the statements of one.

mod admin;
mod coordination;
mod decisions;
mod deliveries;
mod erasure;
mod identity_writes;
mod known_identities;
mod late_refusals;
mod order;
mod outbox;
mod pending;
mod pending_writes;
mod reservations;
mod retention;
mod row;
mod settings_calls;
mod settle;

use async_trait::async_trait;

use super::adapter::Pool;
use super::{AppliedMigration, Coordination as _, Error, Store};
use crate::base::telemetry::metrics::DeliveryCounters;

/// The property that a ping writes after a write has failed.
const PROBE: &str = "write_probe";
/// The length of its value, in bytes. A small write can succeed on a full disk, in a part of the log that is used again.
const PROBE_LENGTH: usize = 64 * 1024;

/// A database: SQLite or PostgreSQL.
#[derive(Debug)]
pub struct Database {
    pub(super) pool: Pool,
    changes: Vec<AppliedMigration>,
    /// Counts what happens to deliveries.
    counters: DeliveryCounters,
}

impl Database {
    /// Creates the store of an open database. `changes` are the migrations that opening the database applied.
    pub(super) fn new(pool: Pool, changes: Vec<AppliedMigration>) -> Self {
        Self {
            pool,
            changes,
            counters: DeliveryCounters::default(),
        }
    }
}

#[async_trait]
impl Store for Database {
    fn changes(&self) -> &[AppliedMigration] {
        &self.changes
    }

    async fn ping(&self) -> Result<(), Error> {
        self.pool.ping().await?;
        // On a full disk a transaction begins, and only a write fails.
        if self.pool.has_failed_write() {
            let bytes = "0".repeat(PROBE_LENGTH);
            self.set_property(PROBE, Some(&bytes)).await?;
            self.set_property(PROBE, None).await?;
            self.pool.note_that_writes_succeed();
        }
        Ok(())
    }

    fn is_file_replaced(&self) -> bool {
        self.pool.replaced_file().is_some()
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::store::adapter::Connections;
    use crate::store::sqlite;

    #[tokio::test]
    async fn frequent_queries_use_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&folder.path().join("vestibule.db"))
            .await
            .unwrap();
        let Connections::Sqlite { writer, .. } = &store.pool.connections else {
            panic!("not a file");
        };
        for statement in [
            &outbox::NEXT_DUE,
            &outbox::CLAIM,
            &order::SUPERSEDE,
            &order::RESUME,
            &admin::BACKLOG,
            &erasure::IDENTITIES_WITH_DATA,
            &erasure::ERASE_DELIVERIES,
            &erasure::ERASE_WITHOUT_ACTION,
            &erasure::ERASE_ATTEMPTS,
        ] {
            let statement = statement.for_sqlite();
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(writer).await.unwrap();
            for (.., step) in steps
                .iter()
                .filter(|(.., step)| step.contains("deliveries"))
            {
                assert!(step.contains("INDEX"), "{step} in {statement}");
            }
            // However many deliveries are due at one moment, SQLite does not sort them to find the first.
            assert!(
                steps.iter().all(|(.., step)| !step.contains("TEMP B-TREE")),
                "{steps:?} in {statement}"
            );
        }
    }
}
