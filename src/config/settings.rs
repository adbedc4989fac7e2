//! What the program runs on: values of the modules that use them, nothing left to doubt.

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

/// Everything, in order of the settings file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where hooks are answered.
    pub hooks_address: Address,
    /// Where health, version and metrics are answered.
    pub admin_address: Address,
    /// How long to go on, not ready any more, before stopping.
    pub shutdown_delay: Duration,
    /// How hooks are answered.
    pub hooks: Hooks,
    /// Where everything is stored.
    pub dsn: Dsn,
    /// What is logged.
    pub log: Log,
    /// The Kratos beside us.
    pub kratos: Kratos,
    /// Named, and those made of whole URLs.
    pub services: Vec<Service>,
    /// The built-in messages by name, as they are or replaced by the operator.
    pub builtin: BuiltinMessages,
    /// The lists, ready for expressions.
    pub lists: Arc<Lists>,
    /// In order of the file.
    pub checks: Vec<Check>,
    /// In order of the file.
    pub deliveries: Vec<delivery::Subscription>,
    /// Looking for accounts that nobody told of.
    pub reconcile: Reconcile,
    /// How long is kept what is settled.
    pub retention: Retention,
    /// Settings that are valid and probably a mistake.
    pub warnings: Problems,
}

impl Settings {
    /// Whether something is written into identities through Kratos's admin API.
    #[must_use]
    pub fn writes_identities(&self) -> bool {
        let refuses_late = |check: &Check| match self.kratos.admin {
            Some(_) => check.can_refuse_late(),
            None => check.defers(),
        };
        self.checks.iter().any(refuses_late)
            || self.deliveries.iter().any(|plan| !plan.save.is_empty())
    }

    /// Whether a late refusal can deactivate an account, so that logins and recoveries must be refused.
    #[must_use]
    pub fn can_deactivate(&self) -> bool {
        self.checks.iter().any(Check::can_deactivate)
    }
}

/// `reconcile:`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconcile {
    /// How often; `None` is never by itself.
    pub every: Option<Duration>,
    /// Accounts made before are left alone.
    pub since: Option<Timestamp>,
    /// So many identities are looked at in a second.
    pub per_second: u32,
}

/// `retention:`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Of deliveries that arrived or were discarded.
    pub deliveries: Duration,
    /// Of decisions.
    pub decisions: Duration,
}

/// A host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Of a network interface.
    pub host: IpAddr,
    /// 0 takes a free one.
    pub port: u16,
}

/// `hooks:`
#[derive(Clone, Debug)]
pub struct Hooks {
    /// Any of them opens the door.
    pub keys: Vec<Secret>,
    /// By when `pre` has answered.
    pub deadline: Duration,
    /// For visitors whose language we do not have.
    pub default_language: String,
    /// The header of the visitor's request that holds their address.
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
    /// How a line looks.
    pub format: LogFormat,
}

/// `kratos:`
#[derive(Clone, Debug)]
pub struct Kratos {
    /// Its admin API.
    pub admin: Option<Service>,
    /// The traits by which people sign in, as the identity schema says.
    pub identifiers: Identifiers,
    /// Whether sign-ups are given an `external_id`.
    pub external_id: ExternalId,
}
