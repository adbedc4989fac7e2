//! The reasons why a round stopped, with help.

use std::sync::Arc;

use uuid::Uuid;

use crate::base::telemetry;
use crate::outbound::kratos_admin;
use crate::store;

/// Why a round stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another round is running. Only one can run at a time.
    #[error(
        "another reconciliation of this database is running; wait until it ends (the lock of a killed process expires after five minutes)"
    )]
    Busy,
    /// A page could not be read.
    #[error(
        "stopped after {checked} identities, because the next page could not be read; {}",
        help(*source)
    )]
    Page {
        /// How many identities were compared before.
        checked: u64,
        /// The cause.
        #[source]
        source: kratos_admin::Error,
    },
    /// An identity could not be read.
    #[error(
        "stopped at the identity {id}, because Kratos gave no usable answer; {}",
        help(*source)
    )]
    Identity {
        /// The identity.
        id: Uuid,
        /// The cause.
        #[source]
        source: kratos_admin::Error,
    },
    /// Kratos has none of many known identities. Probably this is another Kratos than before.
    #[error(
        "Kratos has none of {unconfirmed} known identities, so nothing was erased and no deletion was delivered; `kratos.admin_url` \
         may name another Kratos; fix it, or run `vestibule reconcile --allow-mass-erasure` if all of them were deleted"
    )]
    UnknownKratos {
        /// How many identities Kratos was asked for.
        unconfirmed: usize,
    },
    /// Database error.
    #[error("database error; completed steps are kept")]
    Store(#[source] Arc<store::Error>),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Arc<store::Error>> for Error {
    fn from(error: Arc<store::Error>) -> Self {
        Self::Store(error)
    }
}

impl Error {
    /// Returns the error and its causes in one line, for a log.
    #[must_use]
    pub fn error_chain(&self) -> String {
        telemetry::error_chain(self)
    }
}

fn help(source: kratos_admin::Error) -> &'static str {
    match source {
        kratos_admin::Error::CallError(_) => {
            "check that Kratos runs and that `kratos.admin_url` can be reached; the next round continues where this one stopped"
        }
        kratos_admin::Error::Status(401 | 403) => {
            "check that `kratos.auth` has the credentials of the admin API; the next round continues where this one stopped"
        }
        kratos_admin::Error::Status(_) | kratos_admin::Error::Concurrent => {
            "see the log of Kratos; the next round continues where this one stopped"
        }
        kratos_admin::Error::NotUnderstood => {
            "check that `kratos.admin_url` is the address of Kratos's admin API"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_cause_and_the_help() {
        let error = Error::Page {
            checked: 300,
            source: kratos_admin::Error::Status(401),
        };
        assert_eq!(
            error.error_chain(),
            "stopped after 300 identities, because the next page could not be read; check that `kratos.auth` has the \
             credentials of the admin API; the next round continues where this one stopped: Kratos's admin API answered with \
             status 401"
        );
    }
}
