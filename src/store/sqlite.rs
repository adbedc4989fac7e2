//! SQLite: one database file for one instance.
//!
//! Each change is one statement or one short transaction. No transaction is open while a service is called. All writes
//! use one connection, because SQLite has one writer; reads have their own connections.

mod connect;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::Duration;

use sqlx::error::DatabaseError;

use super::adapter::{Connections, DatabaseFile, Pool};
use super::inspect::Inspection;
use super::{Database, Error};

/// How long a statement waits for another program's write, with [`open`].
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the file, or creates it for this user alone, and applies pending migrations.
pub async fn open(path: &Path) -> Result<Database, Error> {
    open_with(path, PATIENCE).await
}

/// Inspects the file, which must exist, without a change.
pub(super) async fn inspect(path: &Path, patience: Duration) -> Result<Inspection, Error> {
    let inspected = connect::inspect(path, patience.min(PATIENCE)).await;
    let mut found = inspected.map_err(|error| name_lock(path, error))?;
    found.write = found.write.map_err(|error| name_lock(path, error));
    Ok(found)
}

/// Opens the file with another limit for the wait.
pub async fn open_with(path: &Path, patience: Duration) -> Result<Database, Error> {
    let opened = open_file(path, patience).await;
    opened.map_err(|error| name_lock(path, error))
}

/// Names the file in the error of a lock that another program holds.
fn name_lock(path: &Path, error: Error) -> Error {
    match error {
        Error::Database(cause) if is_locked(&cause) => Error::Locked {
            path: path.to_owned(),
        },
        error => error,
    }
}

/// Returns whether the error is `SQLITE_BUSY` or `SQLITE_LOCKED`, whose variants are in the higher bytes.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    let code = code.and_then(|code| code.parse::<u32>().ok());
    // The driver repeats an attempt to connect until its time is over.
    matches!(error, sqlx::Error::PoolTimedOut)
        || code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

async fn open_file(path: &Path, patience: Duration) -> Result<Database, Error> {
    connect::create_if_missing(path, patience).await?;
    let (writer, changes) = connect::writer(path, patience).await?;
    let readers = connect::readers(path, patience).await?;
    let file = DatabaseFile::of_open_database(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    let connections = Connections::Sqlite {
        writer,
        readers,
        file,
    };
    Ok(Database::new(Pool::new(connections), changes))
}
