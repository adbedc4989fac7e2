//! PostgreSQL: one database for several instances.
//!
//! Each change is one statement, so that it is whole by itself and no transaction is ever open while something else is
//! awaited. Nothing in here is PostgreSQL's alone (no LISTEN, no advisory lock), so that CockroachDB can stand in its place.

mod again;
mod decisions;
mod open;
mod operation;
mod outbox;
mod row;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use sqlx::PgPool;
use uuid::Uuid;

use super::{AttemptRecord, Backlog, Error, Filter, Listed, NextDue, Store};
use crate::clock::Timestamp;
use crate::decision::Decision;
use crate::delivery::{Claimed, New, Outcome};
use again::again;

/// A database that instances share.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// Connects to `postgres://user:password@host:5432/database` and brings it to this version's shape. Several
    /// instances may do so at once.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let pool = open::pool(url).await?;
        open::migrate(&pool).await?;
        Ok(Self { pool })
    }
}

/// Whether it looks like an address of a database.
#[must_use]
pub fn is_address(url: &str) -> bool {
    open::options(url).is_ok()
}

#[async_trait]
impl Store for Postgres {
    async fn accept_all(&self, deliveries: &[New]) -> Result<HashSet<Uuid>, Error> {
        again(|| outbox::accept(&self.pool, deliveries).boxed()).await
    }

    async fn claim(
        &self,
        plan: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        again(|| outbox::claim(&self.pool, plan, now, lease, limit).boxed()).await
    }

    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        again(|| outbox::settle(&self.pool, held, attempt, outcome).boxed()).await
    }

    async fn give_back(&self, held: &[Claimed], now: Timestamp) -> Result<(), Error> {
        again(|| outbox::give_back(&self.pool, held, now).boxed()).await
    }

    async fn next_due(&self) -> Result<Vec<NextDue>, Error> {
        again(|| outbox::next_due(&self.pool).boxed()).await
    }

    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<Listed>, Error> {
        again(|| operation::list(&self.pool, filter, limit).boxed()).await
    }

    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error> {
        again(|| operation::retry(&self.pool, filter, now, keep_trying_for).boxed()).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        again(|| operation::backlog(&self.pool).boxed()).await
    }

    async fn record(&self, decisions: &[Decision]) -> Result<(), Error> {
        again(|| decisions::record(&self.pool, decisions).boxed()).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let read_only: String = sqlx::query_scalar("SHOW transaction_read_only")
            .fetch_one(&self.pool)
            .await?;
        if read_only == "on" {
            return Err(
                sqlx::Error::Protocol("the database cannot be written to".to_owned()).into(),
            );
        }
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
