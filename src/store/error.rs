//! Errors of a database.

use std::path::PathBuf;

use crate::base::telemetry;

/// A database error. The text never holds a value from a request or an identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database reported an error, or cannot be reached.
    #[error("database error")]
    Database(#[from] sqlx::Error),
    /// The database has not answered for longer than any statement takes. The statement may have succeeded.
    #[error("the database did not answer in time")]
    Timeout,
    /// Another program holds a lock on the database file.
    #[error(
        "another program has locked the database file {}\n  \
         help: end what holds the lock, such as a backup or a `sqlite3` shell with an open transaction, and try again",
        path.display()
    )]
    Locked {
        /// The path of the file.
        path: PathBuf,
    },
    /// A migration failed.
    #[error("the database could not be migrated")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Another version of Vestibule has migrated the database.
    #[error(
        "the database belongs to another version of Vestibule: migration {number} in it is not one of this version; run that \
         version, or use an empty database"
    )]
    OtherVersion {
        /// The number of the migration.
        number: i64,
    },
    /// The database file could not be created.
    #[error("the database file {} could not be created", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The database file was removed or replaced after Vestibule had opened it.
    #[error(
        "the database file {} was removed or replaced; what Vestibule writes is lost when it stops; put the file back, or \
         restart Vestibule",
        path.display()
    )]
    Replaced {
        /// The path of the file.
        path: PathBuf,
    },
    /// A reservation, flow, submission or known identity has changed since it was read.
    #[error("a reservation, a flow or a known identity has changed since it was read")]
    Conflict,
    /// The folder of the database file does not exist.
    #[error("the folder {} of the database file does not exist; create the folder", folder.display())]
    NoFolder {
        /// The path of the folder.
        folder: PathBuf,
    },
}

impl Error {
    /// Formats the error and its causes in one line, for a log.
    #[must_use]
    pub fn error_chain(&self) -> String {
        telemetry::error_chain(self)
    }

    /// Returns whether the database rejected the data. `false` means that the database is unreachable, locked or full.
    pub(crate) fn is_data_error(&self) -> bool {
        use sqlx::error::ErrorKind::{
            CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation,
        };
        match self {
            Self::Conflict => true,
            Self::Database(error) => error.as_database_error().is_some_and(|error| {
                // PostgreSQL's class 22: data exceptions.
                error
                    .code()
                    .is_some_and(|code| code.starts_with("22") && code.len() == 5)
                    || matches!(
                        error.kind(),
                        UniqueViolation | NotNullViolation | CheckViolation | ForeignKeyViolation
                    )
            }),
            _ => false,
        }
    }
}
