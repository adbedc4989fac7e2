//! The resolved settings, in the types of the modules that use them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::diagnostics::Problems;
use crate::base::secret::Secret;
use crate::base::telemetry::LogFormat;
use crate::checks::{BuiltinMessages, Check};
use crate::expression::Lists;
use crate::kratos::Identifiers;
use crate::model::delivery;
use crate::model::pending::ExternalId;
use crate::outbound::services::Service;

/// All settings, in the order of the settings file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address for hooks.
    pub hooks_address: Address,
    /// The address for health, version and metrics.
    pub admin_address: Address,
    /// The time between the signal and the stop, in which Vestibule reports that it is not ready.
    pub shutdown_delay: Duration,
    /// Settings of the hooks.
    pub hooks: Hooks,
    /// The database.
    pub dsn: Dsn,
    /// Logging.
    pub log: Log,
    /// The Kratos that calls Vestibule.
    pub kratos: Kratos,
    /// The named services, and those of whole URLs.
    pub services: Vec<Service>,
    /// The built-in messages by name, with the operator's replacements.
    pub builtin: BuiltinMessages,
    /// The lists, for expressions.
    pub lists: Arc<Lists>,
    /// In the order of the file.
    pub checks: Vec<Check>,
    /// In the order of the file.
    pub subscriptions: Vec<delivery::Subscription>,
    /// The reconciliation with Kratos's identities.
    pub reconcile: Reconcile,
    /// How long finished records are kept.
    pub retention: Retention,
    /// Settings that are valid, but probably a mistake.
    pub warnings: Problems,
}

impl Settings {
    /// Returns whether Vestibule writes into identities through Kratos's admin API.
    #[must_use]
    pub fn writes_identities(&self) -> bool {
        let refuses_late = |check: &Check| match self.kratos.admin {
            Some(_) => check.can_refuse_late(),
            None => check.defers(),
        };
        self.checks.iter().any(refuses_late)
            || self
                .subscriptions
                .iter()
                .any(|subscription| !subscription.write_back.is_empty())
    }

    /// Returns whether a late refusal can deactivate an account, so that logins and recoveries must be refused.
    #[must_use]
    pub fn can_deactivate(&self) -> bool {
        self.checks.iter().any(Check::can_deactivate)
    }
}

/// `reconcile:`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconcile {
    /// The interval; `None` if there are no automatic runs.
    pub every: Option<Duration>,
    /// Identities created before this time are skipped.
    pub since: Option<Timestamp>,
    /// The maximum number of identities per second.
    pub per_second: u32,
}

/// `retention:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// For delivered and discarded deliveries.
    pub deliveries: Duration,
    /// For decisions.
    pub decisions: Duration,
}

/// A host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address of a network interface.
    pub host: IpAddr,
    /// The port; 0 is a free port.
    pub port: u16,
}

/// `hooks:`
#[derive(Clone, Debug)]
pub struct Hooks {
    /// The accepted keys.
    pub keys: Vec<Secret>,
    /// The maximum time until `pre` responds.
    pub deadline: Duration,
    /// The language for visitors without a text in their own language.
    pub default_language: String,
    /// The header of the visitor's request that holds the visitor's address.
    pub client_ip_header: Option<String>,
}

/// `dsn:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dsn {
    /// `sqlite:///var/lib/vestibule/vestibule.db`
    Sqlite(PathBuf),
    /// `postgres://user:password@host:5432/database`
    Postgres(Secret),
}

/// `log:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: tracing::Level,
    /// The format of a line.
    pub format: LogFormat,
}

/// `kratos:`
#[derive(Clone, Debug)]
pub struct Kratos {
    /// The admin API.
    pub admin: Option<Service>,
    /// The traits with which visitors sign in, from the identity schema.
    pub identifiers: Identifiers,
    /// Whether `pre` sets an `external_id`.
    pub external_id: ExternalId,
}
