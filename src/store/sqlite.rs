//! SQLite: everything in one file beside the program.
//!
//! Each change is one statement, so that it is whole by itself and no transaction is ever open while
//! something else is awaited. Changes go through one connection, one after the other, because SQLite has
//! one writer; reads have connections of their own.

mod decisions;
mod open;
mod operation;
mod outbox;
mod row;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::SqlitePool;
use uuid::Uuid;

use super::{AttemptRecord, Backlog, Error, Filter, Listed, NextDue, Store};
use crate::clock::Timestamp;
use crate::decision::Decision;
use crate::delivery::{Claimed, New, Outcome};

/// A database in a file.
#[derive(Debug)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// How long [`Sqlite::open`] lets a statement wait for another program that writes.
    pub const PATIENCE: Duration = Duration::from_secs(5);

    /// Opens the file, or creates it for this user alone, and brings it to this version's shape.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, Self::PATIENCE).await
    }

    /// The same with another patience.
    pub async fn open_with(path: &Path, patience: Duration) -> Result<Self, Error> {
        open::create_if_missing(path, patience).await?;
        let writer = open::writer(path, patience).await?;
        let readers = open::readers(path, patience).await?;
        Ok(Self { writer, readers })
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn accept_all(&self, deliveries: &[New]) -> Result<HashSet<Uuid>, Error> {
        outbox::accept(&self.writer, deliveries).await
    }

    async fn claim(
        &self,
        plan: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        outbox::claim(&self.writer, plan, now, lease, limit).await
    }

    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        outbox::settle(&self.writer, held, attempt, outcome).await
    }

    async fn give_back(&self, held: &[Claimed], now: Timestamp) -> Result<(), Error> {
        outbox::give_back(&self.writer, held, now).await
    }

    async fn next_due(&self) -> Result<Vec<NextDue>, Error> {
        outbox::next_due(&self.readers).await
    }

    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<Listed>, Error> {
        operation::list(&self.readers, filter, limit).await
    }

    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error> {
        operation::retry(&self.writer, filter, now, keep_trying_for).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        operation::backlog(&self.readers).await
    }

    async fn record(&self, decisions: &[Decision]) -> Result<(), Error> {
        decisions::record(&self.writer, decisions).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let mut connection = self.writer.acquire().await?;
        let transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        transaction.rollback().await?;
        Ok(())
    }

    async fn close(&self) {
        // The writer last: whoever closes last folds the write-ahead log into the file.
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Event;
    use sqlx::AssertSqlSafe;
    use uuid::Uuid;

    async fn fresh(folder: &tempfile::TempDir) -> Sqlite {
        let path = folder.path().join("vestibule.db");
        Sqlite::open(&path).await.unwrap()
    }

    fn delivery(number: u128, reason: String) -> New {
        New {
            id: Uuid::from_u128(number),
            plan: "crm".to_owned(),
            event: Event::IdentityCreated,
            unique_key: number.to_string(),
            identity_id: Uuid::from_u128(number),
            request: Err(reason),
            created_at: Timestamp::UNIX_EPOCH,
            keep_trying_until: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn what_is_committed_is_on_the_disk() {
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
    async fn a_full_disk_is_an_error_and_leaves_nothing_half_done() {
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
        let error = store.accept(large.collect()).await.unwrap_err();
        assert!(error.in_full().contains("full"), "{}", error.in_full());
        assert_eq!(store.backlog().await.unwrap(), Backlog::default());
        pages("PRAGMA max_page_count = 100000").await;
        let small = vec![delivery(1, "x".to_owned())];
        assert_eq!(store.accept(small).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn what_is_asked_all_the_time_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let store = fresh(&folder).await;
        for statement in [outbox::NEXT_DUE, outbox::CLAIM, operation::BACKLOG] {
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
        }
    }
}
