//! PostgreSQL: one database for several instances.
//!
//! Each change is one statement or one short transaction. No transaction is open while a service is called. The
//! statements use neither LISTEN nor advisory locks.

/// The objects of the JSON list `$1` as rows of a table `new`.
macro_rules! rows {
    ($name:literal $kind:literal $(, $names:literal $kinds:literal)*) => {
        concat!(
            "jsonb_to_recordset(CAST($1 AS JSONB)) AS new (", $name, " ", $kind,
            $(", ", $names, " ", $kinds,)*
            ")"
        )
    };
}

/// The texts of a JSON list, as a subquery for `IN`.
macro_rules! texts {
    ($list:literal) => {
        concat!(
            "(SELECT jsonb_array_elements_text(CAST(",
            $list,
            " AS JSONB)))"
        )
    };
}

/// Skips rows that another instance is claiming.
macro_rules! skip_locked {
    () => {
        " FOR UPDATE SKIP LOCKED"
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

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{PgConnection, PgPool, Transaction};

use super::{AppliedMigration, Error};

type Db = sqlx::Postgres;
type Pool = PgPool;
type Connection = PgConnection;
type Arguments = PgArguments;
type DbRow = PgRow;
type Database = Postgres;

/// The maximum duration of a statement that affects few rows.
const MAX_DURATION: Option<Duration> = Some(Duration::from_secs(20));

/// A database that several instances share.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
    changes: Vec<AppliedMigration>,
    stored: Counter,
}

impl Postgres {
    /// Connects to `postgres://user:password@host:5432/database` and applies pending migrations. Several instances may
    /// do so at the same time.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let pool = open::pool(url).await?;
        let changes = open::migrate(&pool).await?;
        Ok(Self {
            pool,
            changes,
            stored: Counter::default(),
        })
    }
}

/// Returns whether the text is an address of a PostgreSQL database.
#[must_use]
pub fn is_address(url: &str) -> bool {
    open::options(url).is_ok()
}

impl Postgres {
    fn writer(&self) -> &Pool {
        &self.pool
    }

    fn readers(&self) -> &Pool {
        &self.pool
    }

    async fn begin(&self) -> Result<Transaction<'static, Db>, Error> {
        Ok(self.pool.begin().await?)
    }

    async fn reach(&self) -> Result<(), Error> {
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

    async fn shut(&self) {
        self.pool.close().await;
    }
}
