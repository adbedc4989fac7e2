//! How the file is made and opened.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, SqliteConnection, SqlitePool};

use crate::store::{AppliedMigration, Error, schema};

/// Number, name and statements of each change, oldest first. One that was released is never touched again.
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "initial",
    include_str!("../../../migrations/sqlite/0001_initial.sql"),
)];

const READERS: u32 = 4;

/// Makes an empty database that only this user may read; SQLite gives its two files beside it the same rights.
///
/// It gets its name only when it is in WAL mode, because that step is the one that SQLite does not let two
/// programs wait for each other with.
pub(super) async fn create_if_missing(path: &Path, patience: Duration) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let folder = path
        .parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."));
    let not_created = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let unnamed = tempfile::NamedTempFile::new_in(folder).map_err(|error| {
        if folder.exists() {
            not_created(error)
        } else {
            Error::NoFolder {
                folder: folder.to_owned(),
            }
        }
    })?;
    let options = options(unnamed.path(), patience).journal_mode(SqliteJournalMode::Wal);
    options.connect().await?.close().await?;
    match unnamed.persist_noclobber(path) {
        Ok(_) => Ok(()),
        // Another program was faster.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(not_created(error.error)),
    }
}

/// The one connection through which everything is written; the file has its shape when this returns.
pub(super) async fn writer(
    path: &Path,
    patience: Duration,
) -> Result<(SqlitePool, Vec<AppliedMigration>), Error> {
    let options = options(path, patience)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // What was personal is overwritten, not only unlinked.
        .pragma("secure_delete", "ON");
    // Of the one connection. SQLite opens a file that is read-only at this moment for reading, and would never write through it.
    let read_only = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&read_only);
    let writer = pool(1, patience)
        .after_connect(move |connection, _| {
            let read_only = Arc::clone(&read_only);
            Box::pin(async move {
                read_only.store(is_read_only(connection).await?, Ordering::Relaxed);
                Ok(())
            })
        })
        .after_release(move |connection, _| {
            let read_only = seen.load(Ordering::Relaxed);
            Box::pin(async move { Ok(!read_only && is_outside_a_transaction(connection).await?) })
        })
        .connect_with(options)
        .await?;
    let changes = migrate(&writer).await?;
    Ok((writer, changes))
}

async fn is_read_only(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    match connection.begin_with("BEGIN IMMEDIATE").await {
        Ok(transaction) => transaction.rollback().await.map(|()| false),
        // SQLITE_READONLY, whose variants stand in the higher bytes. Whatever else there is, those who write are told.
        Err(error) => Ok(error
            .as_database_error()
            .and_then(DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| code & 0xff == 8)),
    }
}

/// Whether a connection may be used again. When the disk fails or is full, SQLite takes a transaction back by itself; rolling
/// it back fails then, and the driver would take the connection to be within it for ever.
async fn is_outside_a_transaction(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback may still be on its way.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Connections that cannot write. They come after the writer, who has made the file what it is.
pub(super) async fn readers(path: &Path, patience: Duration) -> Result<SqlitePool, Error> {
    let options = options(path, patience).pragma("query_only", "ON");
    Ok(pool(READERS, patience).connect_with(options).await?)
}

fn options(path: &Path, patience: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(patience)
        .foreign_keys(true)
        .log_statements(tracing::log::LevelFilter::Trace)
}

fn pool(connections: u32, patience: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        // A file does not hang up.
        .idle_timeout(None)
        .max_lifetime(None)
}

/// In one transaction, so that of two programs started together one waits for the other.
async fn migrate(writer: &SqlitePool) -> Result<Vec<AppliedMigration>, Error> {
    let migrations = MIGRATIONS.map(|(number, name, statements)| {
        sqlx::migrate::Migration::new(
            number,
            Cow::Borrowed(name),
            MigrationType::Simple,
            statements.into_sql_str(),
            false,
        )
    });
    let mut connection = writer.acquire().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let missing = schema::missing(&mut *transaction, &MIGRATIONS).await?;
    Migrator::with_migrations(migrations.to_vec())
        .run(&mut *transaction)
        .await
        .map_err(schema::migration_error)?;
    transaction.commit().await?;
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_in_the_order_of_their_numbers() {
        let numbers = MIGRATIONS.map(|(number, _, _)| number);
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
