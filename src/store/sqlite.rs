//! SQLite: one database file for one instance.
//!
//! Each change is one statement or one short transaction. No transaction is open while a service is called. All writes
//! use one connection, because SQLite has one writer; reads have their own connections.

/// The objects of the JSON list `$1` as rows of a table `new`.
macro_rules! rows {
    ($name:literal $kind:literal $(, $names:literal $kinds:literal)*) => {
        concat!(
            "(SELECT value ->> '", $name, "' AS ", $name,
            $(", value ->> '", $names, "' AS ", $names,)*
            " FROM json_each($1)) AS new"
        )
    };
}

/// The texts of a JSON list, as a subquery for `IN`.
macro_rules! texts {
    ($list:literal) => {
        concat!("(SELECT value FROM json_each(", $list, "))")
    };
}

/// Empty, because there is one writer, and so no row is locked by another.
macro_rules! skip_locked {
    () => {
        ""
    };
}

mod open;

#[path = "sql/admin.rs"]
mod admin;
#[path = "sql/decisions.rs"]
mod decisions;
#[path = "sql/erasure.rs"]
mod erasure;
#[path = "sql/identity_writes.rs"]
mod identity_writes;
#[path = "sql/impl_store.rs"]
mod impl_store;
#[path = "sql/late_refusals.rs"]
mod late_refusals;
#[path = "sql/locks.rs"]
mod locks;
#[path = "sql/outbox.rs"]
mod outbox;
#[path = "sql/pending.rs"]
mod pending;
#[path = "sql/properties.rs"]
mod properties;
#[path = "sql/reservations.rs"]
mod reservations;
#[path = "sql/retention.rs"]
mod retention;
#[path = "sql/retry.rs"]
mod retry;
#[path = "sql/row.rs"]
mod row;

use std::path::Path;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{SqliteConnection, SqlitePool, Transaction};

use super::{AppliedMigration, Error};

type Db = sqlx::Sqlite;
type Pool = SqlitePool;
type Connection = SqliteConnection;
type Arguments = SqliteArguments;
type DbRow = SqliteRow;
type Database = Sqlite;

/// No time limit: a file always answers, and the wait for a lock has its own limit.
const MAX_DURATION: Option<Duration> = None;

/// A database in a file.
#[derive(Debug)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    changes: Vec<AppliedMigration>,
    stored: Counter,
}

impl Sqlite {
    /// How long a statement waits for another program's write, with [`Sqlite::open`].
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// Opens the file, or creates it for this user alone, and applies pending migrations.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Self::PATIENCE).await
    }

    /// Opens the file with another limit for the wait.
    pub async fn open_with(path: &Path, patience: Duration) -> Result<Self, Error> {
        open::create_if_missing(path, patience).await?;
        let (writer, changes) = open::writer(path, patience).await?;
        let readers = open::readers(path, patience).await?;
        Ok(Self {
            writer,
            readers,
            changes,
            stored: Counter::default(),
        })
    }
}

impl Sqlite {
    fn writer(&self) -> &Pool {
        &self.writer
    }

    fn readers(&self) -> &Pool {
        &self.readers
    }

    /// Begins a write transaction immediately. A transaction that reads first could not wait for another program's
    /// write.
    async fn begin(&self) -> Result<Transaction<'static, Db>, Error> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    async fn reach(&self) -> Result<(), Error> {
        self.begin().await?.rollback().await?;
        Ok(())
    }

    async fn shut(&self) {
        // The writer is closed last: the last connection to close merges the write-ahead log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::model::delivery::{Event, NewDelivery};
    use crate::store::{Backlog, DeliveryStore as _, Store as _, WriteSet};
    use sqlx::AssertSqlSafe;
    use uuid::Uuid;

    async fn fresh(folder: &tempfile::TempDir) -> Sqlite {
        let path = folder.path().join("vestibule.db");
        Sqlite::open(&path).await.unwrap()
    }

    fn delivery(number: u128, reason: String) -> NewDelivery {
        NewDelivery {
            id: Uuid::from_u128(number),
            subscription: "crm".to_owned(),
            event: Event::IdentityCreated,
            unique_key: number.to_string(),
            identity_id: Uuid::from_u128(number),
            action: Err(reason),
            context: None,
            created_at: Timestamp::UNIX_EPOCH,
            due_at: Timestamp::UNIX_EPOCH,
            keep_trying_until: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_committed_write_is_synced_to_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder).await;
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(&store.writer)
            .await
            .unwrap();
        assert_eq!(mode, "wal");
        for (statement, expected) in [
            ("PRAGMA synchronous", 2),
            ("PRAGMA foreign_keys", 1),
            ("PRAGMA busy_timeout", 5000),
            ("PRAGMA secure_delete", 1),
        ] {
            let value: i64 = sqlx::query_scalar(statement)
                .fetch_one(&store.writer)
                .await
                .unwrap();
            assert_eq!(value, expected, "{statement}");
        }
    }

    #[tokio::test]
    async fn readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder).await;
        let written = sqlx::query("DELETE FROM deliveries").execute(&store.readers);
        assert!(written.await.is_err());
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error_and_leaves_no_partial_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder).await;
        let pages = async |statement: &'static str| {
            let pages: i64 = sqlx::query_scalar(statement)
                .fetch_one(&store.writer)
                .await
                .unwrap();
            pages
        };
        pages("PRAGMA max_page_count = 20").await;
        let large = (0..100).map(|number| delivery(number, "x".repeat(4000)));
        let large = WriteSet::of(large.collect());
        let error = store.write(&large).await.unwrap_err();
        assert!(
            error.error_chain().contains("full"),
            "{}",
            error.error_chain()
        );
        assert_eq!(store.backlog().await.unwrap(), Backlog::default());
        pages("PRAGMA max_page_count = 100000").await;
        let small = WriteSet::of(vec![delivery(1, "x".to_owned())]);
        assert_eq!(store.write(&small).await.unwrap().len(), 1);
    }

    /// Fails like SQLite on a full or broken disk. SQLite has then rolled back already, so there is nothing to roll
    /// back.
    #[tokio::test]
    async fn a_transaction_that_sqlite_rolled_back_does_not_affect_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder).await;
        let mut transaction = store.begin().await.unwrap();
        let taken_back = sqlx::query("ROLLBACK").execute(&mut *transaction);
        taken_back.await.unwrap();
        assert!(transaction.commit().await.is_err());
        store.ping().await.unwrap();
    }

    #[tokio::test]
    async fn frequent_queries_use_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder).await;
        for statement in [
            outbox::NEXT_DUE,
            outbox::CLAIM,
            admin::BACKLOG,
            erasure::IDENTITIES_WITH_DATA,
            erasure::ERASE_DELIVERIES,
            erasure::ERASE_UNBUILT,
            erasure::ERASE_ATTEMPTS,
        ] {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
                .fetch_all(&store.writer)
                .await
                .unwrap();
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
