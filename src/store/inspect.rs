//! Inspects a database for `vestibule doctor`: whether it can be reached and written to, and which migrations it has.
//!
//! An inspection changes nothing: no migration is applied, and what it writes is rolled back. It may run while `vestibule
//! serve` uses the database.

use std::path::Path;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{Migrate, MigrateError, Migration};

use super::schema::TABLE;
use super::{AppliedMigration, Error};
use crate::base::clock::{Clock, Timestamp};

/// What was written and rolled back: a row in a migrated database, and a table in an empty one.
const WRITE_ROW: &str = "INSERT INTO properties (name, value) VALUES ('doctor', '1')";
const WRITE_TABLE: &str = "CREATE TABLE vestibule_doctor (name TEXT)";

/// Returns the statement that is rolled back.
pub(super) fn write_statement(is_migrated: bool) -> &'static str {
    if is_migrated { WRITE_ROW } else { WRITE_TABLE }
}

/// What was found in a database.
#[derive(Debug)]
pub struct Inspection {
    /// The migrations of this version of Vestibule that are not applied.
    pub missing: Vec<AppliedMigration>,
    /// The numbers of applied migrations that this version does not have, or has with other statements.
    pub foreign: Vec<i64>,
    /// Whether a write succeeded, which was rolled back.
    pub write: Result<(), Error>,
    /// The privileges that the user lacks. `None` if the database has no users.
    pub lacking: Option<Vec<String>>,
    /// The clock of the database server, when the time was asked for, and when its answer arrived.
    pub time: Option<ServerTime>,
    /// The version of the database.
    pub version: String,
}

/// The time of a database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTime {
    /// When the server was asked.
    pub asked: Timestamp,
    /// The time of the server.
    pub server: Timestamp,
    /// When the answer arrived.
    pub answered: Timestamp,
}

/// Inspects a SQLite file, which must exist. `patience` is the longest wait of one statement for another program.
pub async fn sqlite(path: &Path, patience: Duration) -> Result<Inspection, Error> {
    super::sqlite::inspect(path, patience).await
}

/// Inspects a PostgreSQL database.
pub async fn postgres(url: &str, clock: &Clock) -> Result<Inspection, Error> {
    super::postgres::inspect(url, clock).await
}

/// Compares the applied migrations with those of this version. The table of migrations must exist.
pub(super) async fn compare(
    connection: &mut impl Migrate,
    migrations: &[Migration],
) -> Result<(Vec<i64>, Vec<i64>), MigrateError> {
    let applied = connection.list_applied_migrations(TABLE).await?;
    let missing = migrations
        .iter()
        .filter(|one| applied.iter().all(|other| other.version != one.version));
    let foreign = applied.iter().filter(|one| {
        !migrations
            .iter()
            .any(|other| other.version == one.version && other.checksum == one.checksum)
    });
    Ok((
        missing.map(|one| one.version).collect(),
        foreign.map(|one| one.version).collect(),
    ))
}

/// Returns those of `changes` (number, name, statements) with these numbers.
pub(super) fn named(
    changes: &[(i64, &'static str, &str)],
    numbers: &[i64],
) -> Vec<AppliedMigration> {
    let named = changes
        .iter()
        .filter(|(number, ..)| numbers.contains(number));
    named
        .map(|&(number, name, _)| AppliedMigration { number, name })
        .collect()
}

impl Error {
    /// Returns what an operator can do about a database that cannot be opened or written to.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        let Self::Database(error) = self else {
            return None;
        };
        if matches!(
            error,
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_)
        ) {
            return Some("check that the server runs, and its host, port and `sslmode` in `dsn`");
        }
        let code = error.as_database_error().and_then(DatabaseError::code)?;
        help_for(&code)
    }
}

/// Returns the help for a SQLSTATE of PostgreSQL, or for a result code of SQLite.
fn help_for(code: &str) -> Option<&'static str> {
    match code {
        "28P01" | "28000" => return Some("check the user and the password in `dsn`"),
        "3D000" => return Some("create the database, or correct its name in `dsn`"),
        "42501" => return Some("grant the user of `dsn` its rights on the database"),
        "25006" => return Some("`dsn` names a server for reading only; name the primary server"),
        "53300" => return Some("the server has too many connections; raise `max_connections`"),
        "53100" => return Some("free space on the disk of the server"),
        _ => {}
    }
    // The variants of SQLite's codes are in the higher bytes.
    match code.parse::<u32>().ok()? & 0xff {
        8 => Some("make the file and its folder writable for the user that runs Vestibule"),
        11 | 26 => Some("the file is damaged or no database; restore it from a backup"),
        13 => Some("free space on the disk"),
        14 => Some("check the path in `dsn`, and the permissions of the file and its folder"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_usual_error_of_a_database_has_its_help() {
        for (code, expected) in [
            ("28P01", Some("password")),
            ("3D000", Some("create the database")),
            ("42501", Some("rights")),
            ("25006", Some("primary")),
            ("8", Some("writable")),
            ("776", Some("writable")),
            ("14", Some("path")),
            ("26", Some("backup")),
            ("13", Some("space")),
            ("5", None),
            ("XX000", None),
        ] {
            let found = help_for(code);
            assert_eq!(found.is_some(), expected.is_some(), "{code}: {found:?}");
            let part = expected.unwrap_or_default();
            assert!(
                found.unwrap_or_default().contains(part),
                "{code}: {found:?}"
            );
        }
    }
}
