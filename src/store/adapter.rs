//! The adapter: all code that depends on which database runs a statement.
//!
//! The statements are in `sql`, and are the same for both databases. Each column is a text or an integer, so the adapter
//! reads and binds nothing else.

mod file;
mod row;
mod statement;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::Error;
use crate::base::clock::Clock;

pub(super) use file::DatabaseFile;
pub(super) use row::{Row, unknown};
pub(super) use statement::{Query, Sql, query};

/// The time limit of an attempt on PostgreSQL, because a connection to a failed machine reports no error. SQLite has
/// no limit: a file always answers, and the wait for a lock has its own limit.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The maximum number of attempts.
const TRIES: u32 = 5;

/// "Serialization failure" and "deadlock detected": nothing was changed, and the transaction may be repeated. SQLite
/// has one writer, and never reports these.
const RETRYABLE_SQLSTATES: [&str; 2] = ["40001", "40P01"];

/// The connections to a database, and whether its last write failed.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) connections: Connections,
    has_failed_write: AtomicBool,
}

/// The connections to a database.
#[derive(Debug)]
pub(super) enum Connections {
    /// SQLite has one writer. The readers have their own connections.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
        file: DatabaseFile,
    },
    /// The clock bounds each attempt.
    Postgres { connections: PgPool, clock: Clock },
}

/// The result of statements on a connection.
pub(super) type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;

/// What a connection is used for.
#[derive(Clone, Copy)]
enum Access {
    /// Statements that only read.
    Read,
    /// Statements that each are a transaction.
    Write,
    /// Statements that share one transaction.
    Transaction,
}

impl Pool {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            has_failed_write: AtomicBool::new(false),
        }
    }

    /// Runs statements that only read. Each statement sees the database as it is at that moment.
    pub(super) async fn read<'a, T>(
        &self,
        work: impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        self.run(Access::Read, self.limit(), work).await
    }

    /// Runs statements that each are a transaction.
    pub(super) async fn write<'a, T>(
        &self,
        work: impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        self.run(Access::Write, self.limit(), work).await
    }

    /// Runs statements in one transaction. An error rolls the transaction back.
    pub(super) async fn transaction<'a, T>(
        &self,
        work: impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        self.run(Access::Transaction, self.limit(), work).await
    }

    /// Runs an operator's statements that only read, without a time limit, because they may read all rows.
    pub(super) async fn read_untimed<'a, T>(
        &self,
        work: impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        self.run(Access::Read, None, work).await
    }

    /// Runs an operator's statements in one transaction, without a time limit, because they may read all rows.
    pub(super) async fn transaction_untimed<'a, T>(
        &self,
        work: impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        self.run(Access::Transaction, None, work).await
    }

    /// Runs the work, and repeats it after a conflict with another transaction.
    async fn run<'a, T>(
        &self,
        access: Access,
        limit: Option<&Clock>,
        work: impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        for _ in 1..TRIES {
            match self.attempt(access, limit, &work).await {
                Err(Error::Database(error)) if is_retryable(&error) => {}
                done => return self.noted(access, done),
            }
        }
        let done = self.attempt(access, limit, &work).await;
        self.noted(access, done)
    }

    /// Notes a write that failed because of the database.
    fn noted<T>(&self, access: Access, done: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &done
            && !matches!(access, Access::Read)
            && !error.is_data_error()
        {
            self.has_failed_write.store(true, Ordering::Relaxed);
        }
        done
    }

    /// Returns whether a write has failed because of the database, and no [`Self::note_that_writes_succeed`] followed.
    pub(super) fn has_failed_write(&self) -> bool {
        self.has_failed_write.load(Ordering::Relaxed)
    }

    /// Notes that a write has succeeded. Not every transaction that commits has written anything, so the caller decides.
    pub(super) fn note_that_writes_succeed(&self) {
        self.has_failed_write.store(false, Ordering::Relaxed);
    }

    /// Returns the path of the database file if the file was removed or replaced.
    pub(super) fn replaced_file(&self) -> Option<&Path> {
        match &self.connections {
            Connections::Sqlite { file, .. } => (!file.is_in_place()).then(|| file.path()),
            Connections::Postgres { .. } => None,
        }
    }

    fn check_file(&self) -> Result<(), Error> {
        let replaced = self.replaced_file().map(ToOwned::to_owned);
        replaced.map_or(Ok(()), |path| Err(Error::Replaced { path }))
    }

    async fn attempt<'a, T>(
        &self,
        access: Access,
        limit: Option<&Clock>,
        work: &(impl for<'c> Fn(&'c mut Connection<'a>) -> Work<'c, T> + Send + Sync),
    ) -> Result<T, Error> {
        let attempt = async {
            if !matches!(access, Access::Read) {
                self.check_file()?;
            }
            let mut connection: Connection<'a> = self.connect(access).await?;
            let done = work(&mut connection).await?;
            connection.commit().await?;
            if !matches!(access, Access::Read) {
                // What was written into a removed file is lost.
                self.check_file()?;
            }
            Ok::<T, Error>(done)
        };
        let Some(clock) = limit else {
            return attempt.await;
        };
        let until = clock.deadline(TIME_LIMIT);
        let done = clock.timeout_at(until, attempt).await;
        done.unwrap_or(Err(Error::Timeout))
    }

    async fn connect(&self, access: Access) -> Result<Connection<'static>, sqlx::Error> {
        Ok(match (&self.connections, access) {
            (Connections::Sqlite { readers, .. }, Access::Read) => {
                Connection::Sqlite(readers.acquire().await?)
            }
            (Connections::Sqlite { writer, .. }, Access::Write) => {
                Connection::Sqlite(writer.acquire().await?)
            }
            // A transaction that reads first could not wait for another program's write.
            (Connections::Sqlite { writer, .. }, Access::Transaction) => {
                Connection::SqliteTransaction(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            (Connections::Postgres { connections, .. }, Access::Read | Access::Write) => {
                Connection::Postgres(connections.acquire().await?)
            }
            (Connections::Postgres { connections, .. }, Access::Transaction) => {
                Connection::PostgresTransaction(connections.begin().await?)
            }
        })
    }

    /// Returns the clock that limits each attempt to [`TIME_LIMIT`].
    fn limit(&self) -> Option<&Clock> {
        match &self.connections {
            Connections::Sqlite { .. } => None,
            Connections::Postgres { clock, .. } => Some(clock),
        }
    }

    /// Checks that the database can be reached and written to. Writes nothing.
    pub(super) async fn ping(&self) -> Result<(), Error> {
        self.check_file()?;
        Ok(self.connections.ping().await?)
    }

    /// Completes running statements and closes all connections.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}

impl Connections {
    async fn ping(&self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite { writer, .. } => {
                writer.begin_with("BEGIN IMMEDIATE").await?.rollback().await
            }
            Self::Postgres { connections, .. } => {
                let show = sqlx::query_scalar("SHOW transaction_read_only");
                let read_only: String = show.fetch_one(connections).await?;
                if read_only == "on" {
                    let reason = "the database cannot be written to".to_owned();
                    return Err(sqlx::Error::Protocol(reason));
                }
                Ok(())
            }
        }
    }

    async fn close(&self) {
        match self {
            Self::Sqlite {
                writer, readers, ..
            } => {
                // The writer is closed last: the last connection to close merges the write-ahead log into the file.
                readers.close().await;
                writer.close().await;
            }
            Self::Postgres { connections, .. } => connections.close().await,
        }
    }
}

fn is_retryable(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| RETRYABLE_SQLSTATES.contains(&&*code))
}

/// A connection, with or without a transaction. A transaction that is dropped is rolled back.
///
/// `'a` is how long the values live that the statements use.
pub(super) enum Connection<'a> {
    Sqlite(PoolConnection<Sqlite>),
    SqliteTransaction(Transaction<'a, Sqlite>),
    Postgres(PoolConnection<Postgres>),
    PostgresTransaction(Transaction<'a, Postgres>),
}

/// The driver's connection.
enum Driver<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Connection<'_> {
    fn driver(&mut self) -> Driver<'_> {
        match self {
            Self::Sqlite(connection) => Driver::Sqlite(connection),
            Self::SqliteTransaction(transaction) => Driver::Sqlite(transaction),
            Self::Postgres(connection) => Driver::Postgres(connection),
            Self::PostgresTransaction(transaction) => Driver::Postgres(transaction),
        }
    }

    async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::SqliteTransaction(transaction) => transaction.commit().await,
            Self::PostgresTransaction(transaction) => transaction.commit().await,
            Self::Sqlite(_) | Self::Postgres(_) => Ok(()),
        }
    }
}
