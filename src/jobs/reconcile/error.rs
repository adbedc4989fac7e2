//! Why a round stopped, and how to mend it.

use uuid::Uuid;

use crate::base::telemetry;
use crate::outbound::kratos_admin;
use crate::store;

/// Why a round stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only one may do it at a time.
    #[error(
        "another reconciliation of this database is under way; wait until it is done (one that died lets go after five minutes)"
    )]
    Busy,
    /// A page could not be read.
    #[error(
        "stopped after {looked_at} identities, because the next page of them could not be read; {}",
        mend(*source)
    )]
    Page {
        /// How many were looked at before.
        looked_at: u64,
        /// Why.
        #[source]
        source: kratos_admin::Error,
    },
    /// It could not be seen whether somebody is still there.
    #[error(
        "stopped at the identity {id}, because it could not be seen whether it is still there; {}",
        mend(*source)
    )]
    Identity {
        /// Whom it is about.
        id: Uuid,
        /// Why.
        #[source]
        source: kratos_admin::Error,
    },
    /// Rather another Kratos than that everybody is gone.
    #[error(
        "Kratos has none of {asked} identities with stored deliveries, so nothing was erased; `kratos.admin_url` may name \
         another Kratos; fix it, or run `vestibule reconcile --allow-mass-erasure` if all of them were deleted"
    )]
    Unfamiliar {
        /// How many it was asked for.
        asked: usize,
    },
    /// The database did not do it.
    #[error("database error; what was done before it is kept")]
    Store(#[from] store::Error),
}

impl Error {
    /// Itself and its causes in one line, for a log.
    #[must_use]
    pub fn error_chain(&self) -> String {
        telemetry::error_chain(self)
    }
}

fn mend(source: kratos_admin::Error) -> &'static str {
    match source {
        kratos_admin::Error::CallError(_) => {
            "see that Kratos runs and that `kratos.admin_url` can be reached from here; the next round goes on where this one stopped"
        }
        kratos_admin::Error::Status(401 | 403) => {
            "see that `kratos.auth` holds what the admin API wants; the next round goes on where this one stopped"
        }
        kratos_admin::Error::Status(_) | kratos_admin::Error::Concurrent => {
            "see the log of Kratos; the next round goes on where this one stopped"
        }
        kratos_admin::Error::NotUnderstood => "see who answers there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_happened_and_how_to_mend_it() {
        let error = Error::Page {
            looked_at: 300,
            source: kratos_admin::Error::Status(401),
        };
        assert_eq!(
            error.error_chain(),
            "stopped after 300 identities, because the next page of them could not be read; see that `kratos.auth` holds \
             what the admin API wants; the next round goes on where this one stopped: Kratos's admin API answered with \
             status 401"
        );
    }
}
