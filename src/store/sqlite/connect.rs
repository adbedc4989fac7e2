//! Creates and opens the database file.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, SqliteConnection, SqlitePool};

use crate::store::inspect::{self, Inspection};
use crate::store::{AppliedMigration, Error, schema};

/// Number, name and statements of each migration, oldest first. A released migration never changes.
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "initial",
    include_str!("../../../migrations/sqlite/0001_initial.sql"),
)];

const READERS: u32 = 4;

/// Creates an empty database that only this user may read. SQLite gives the two files beside it the same permissions.
///
/// The file gets its name only after it is in WAL mode. In that step SQLite does not let one program wait for another.
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

/// Opens the one connection for writes, and applies pending migrations before it returns.
pub(super) async fn writer(
    path: &Path,
    patience: Duration,
) -> Result<(SqlitePool, Vec<AppliedMigration>), Error> {
    let options = options(path, patience)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // Deleted personal data is overwritten, not only unlinked.
        .pragma("secure_delete", "ON");
    // The flag belongs to the one connection. If a file is read-only at this moment, SQLite opens it for reading, and
    // would never write through that connection.
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
        // SQLITE_READONLY, whose variants are in the higher bytes. Any other error reaches the next write.
        Err(error) => Ok(error
            .as_database_error()
            .and_then(DatabaseError::code)
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| code & 0xff == 8)),
    }
}

/// Returns whether a connection may be used again. On a full or broken disk, SQLite rolls a transaction back by itself.
/// The driver's rollback then fails, and the driver would treat the connection as inside a transaction forever.
async fn is_outside_a_transaction(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        // The rollback may still be running.
        connection.ping().await?;
    }
    Ok(!connection.is_in_transaction())
}

/// Opens connections that cannot write. They open after the writer, which has migrated the file.
pub(super) async fn readers(path: &Path, patience: Duration) -> Result<SqlitePool, Error> {
    let options = options(path, patience).pragma("query_only", "ON");
    let readers = pool(READERS, patience).after_connect(|connection, _| {
        Box::pin(async move {
            // The first read opens the write-ahead log, so SQLite keeps it while the writer is opened again.
            sqlx::query("SELECT count(*) FROM sqlite_schema")
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    Ok(readers.connect_with(options).await?)
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
        // A file does not close idle connections.
        .idle_timeout(None)
        .max_lifetime(None)
}

fn migrations() -> Vec<Migration> {
    let migrations = MIGRATIONS.map(|(number, name, statements)| {
        Migration::new(
            number,
            Cow::Borrowed(name),
            MigrationType::Simple,
            statements.into_sql_str(),
            false,
        )
    });
    migrations.to_vec()
}

/// Inspects the file without a change.
pub(super) async fn inspect(path: &Path, patience: Duration) -> Result<Inspection, Error> {
    let mut connection = options(path, patience).connect().await?;
    let found = inspect_with(&mut connection).await;
    connection.close().await?;
    found
}

async fn inspect_with(connection: &mut SqliteConnection) -> Result<Inspection, Error> {
    let version = sqlx::query_scalar("SELECT sqlite_version()");
    let version: String = version.fetch_one(&mut *connection).await?;
    let tables =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'");
    let tables: i64 = tables.fetch_one(&mut *connection).await?;
    let migrations = migrations();
    let (missing, foreign) = if tables == 0 {
        (migrations.iter().map(|one| one.version).collect(), vec![])
    } else {
        inspect::compare(connection, &migrations).await?
    };
    let write = write_and_roll_back(connection, tables > 0).await;
    Ok(Inspection {
        missing: inspect::named(&MIGRATIONS, &missing),
        foreign,
        write: write.map_err(Error::from),
        lacking: None,
        time: None,
        version: format!("SQLite {version}"),
    })
}

async fn write_and_roll_back(
    connection: &mut SqliteConnection,
    is_migrated: bool,
) -> Result<(), sqlx::Error> {
    let statement = inspect::write_statement(is_migrated);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let written = sqlx::query(statement).execute(&mut *transaction).await;
    transaction.rollback().await?;
    written.map(drop)
}

/// Applies all migrations in one transaction, so that of two programs started together one waits for the other.
async fn migrate(writer: &SqlitePool) -> Result<Vec<AppliedMigration>, Error> {
    let mut connection = writer.acquire().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let missing = schema::missing(&mut *transaction, &MIGRATIONS).await?;
    Migrator::with_migrations(migrations())
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
    fn migrations_are_ordered_by_number() {
        let numbers = MIGRATIONS.map(|(number, _, _)| number);
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
