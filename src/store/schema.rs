//! Migrations: the numbered changes of the database schema.

use sqlx::migrate::{Migrate, MigrateError};

use super::Error;

/// The table of applied migrations.
pub(super) const TABLE: &str = "_sqlx_migrations";

/// A migration that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// The migration's number, from 1.
    pub number: i64,
    /// A short description.
    pub name: &'static str,
}

/// Returns those of `changes` (number, name, statements) that are not applied yet.
pub(super) async fn missing(
    connection: &mut impl Migrate,
    changes: &[(i64, &'static str, &str)],
) -> Result<Vec<AppliedMigration>, MigrateError> {
    connection.ensure_migrations_table(TABLE).await?;
    let applied = connection.list_applied_migrations(TABLE).await?;
    let missing = changes
        .iter()
        .filter(|(number, ..)| applied.iter().all(|applied| applied.version != *number));
    Ok(missing
        .map(|&(number, name, _)| AppliedMigration { number, name })
        .collect())
}

/// Converts a migration error. Reports separately that another version of Vestibule migrated the database.
pub(super) fn migration_error(error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(number) | MigrateError::VersionMismatch(number) => {
            Error::OtherVersion { number }
        }
        error => Error::Migration(error),
    }
}
