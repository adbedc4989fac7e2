//! The shape of the database: the numbered changes that make it.

use sqlx::migrate::{Migrate, MigrateError};

use super::Error;

/// Where is written down which changes were made.
const TABLE: &str = "_sqlx_migrations";

/// A change of the database's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its number, from 1.
    pub number: i64,
    /// What it is for, in a few words.
    pub name: &'static str,
}

/// Those of `changes` (number, name, statements) that have not been made yet.
pub(super) async fn missing(
    connection: &mut impl Migrate,
    changes: &[(i64, &'static str, &str)],
) -> Result<Vec<AppliedMigration>, MigrateError> {
    connection.ensure_migrations_table(TABLE).await?;
    let made = connection.list_applied_migrations(TABLE).await?;
    let missing = changes
        .iter()
        .filter(|(number, ..)| made.iter().all(|made| made.version != *number));
    Ok(missing
        .map(|&(number, name, _)| AppliedMigration { number, name })
        .collect())
}

/// Says so if the database was migrated by another version of Vestibule.
pub(super) fn migration_error(error: MigrateError) -> Error {
    match error {
        MigrateError::VersionMissing(number) | MigrateError::VersionMismatch(number) => {
            Error::OtherVersion { number }
        }
        error => Error::Migration(error),
    }
}
