//! The resolved settings, in the types of the modules that use them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::diagnostics::Problems;
use crate::base::secret::Secret;
use crate::base::telemetry::LogFormat;
use crate::checks::{BuiltinMessages, Check, MessageCatalog, Rules};
use crate::expression::Lists;
use crate::kratos::schema::Schemas;
use crate::kratos::{BodyNeeds, ClientIpHeader, Identifiers};
use crate::model::decision::KeptDecisions;
use crate::model::delivery::{self, Event};
use crate::model::pending::ExternalId;
use crate::outbound::services::Service;

/// All settings, in the order of the settings file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address for hooks.
    pub hooks_address: Address,
    /// The address for health, version and metrics.
    pub admin_address: Address,
    /// Who may call the admin port.
    pub admin_access: AdminAccess,
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
    /// Which decisions are recorded.
    pub decisions: KeptDecisions,
    /// Settings that are valid, but probably a mistake.
    pub warnings: Problems,
}

impl Settings {
    /// Compiles the rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules::new(
            self.checks.clone(),
            self.subscriptions.clone(),
            Arc::clone(&self.lists),
            MessageCatalog {
                builtin: self.builtin.clone(),
                default_language: self.hooks.default_language.clone(),
            },
        )
    }

    /// Whether Vestibule writes into identities through Kratos's admin API.
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

    /// Whether Vestibule keeps what is known about each identity of Kratos, because a subscription wants changes or
    /// deletions that no hook reports.
    #[must_use]
    pub fn tracks_identities(&self) -> bool {
        let wants = |event| {
            let mut subscriptions = self.subscriptions.iter();
            subscriptions.any(|one| one.events.contains(&event))
        };
        self.kratos.admin.is_some()
            && (wants(Event::IdentityDeleted)
                || self.reconcile.every.is_some() && wants(Event::IdentityUpdated))
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

/// Who may call the admin port. Health, version and metrics are open to every client.
#[derive(Clone, Debug)]
pub struct AdminAccess {
    /// Host names by which operators call the port, besides IP addresses and `localhost`; in lower case.
    pub allowed_hosts: Vec<String>,
    /// The token that requests must have, if there is one.
    pub token: Option<Secret>,
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
    /// The header with the visitor's address.
    pub client_ip: Option<ClientIpHeader>,
    /// What the settings need of the body of a call.
    pub body_needs: BodyNeeds,
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
    /// The identity schemas that the settings name.
    pub schemas: Arc<Schemas>,
    /// The traits with which visitors sign in, from the identity schema.
    pub identifiers: Identifiers,
    /// Whether `pre` sets an `external_id`.
    pub external_id: ExternalId,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use async_trait::async_trait;
    use futures_util::FutureExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::base::clock::{Clock, Deadline};
    use crate::base::telemetry::Trace;
    use crate::checks::reserver::{ReserveOutcome, ReserveRequest, ReserveResult, TakeReservation};
    use crate::checks::{AskService, CheckInput, Evaluator, OpenDeferrals};
    use crate::config::{self, Environment};
    use crate::kratos::{Flow, Hook, Payload, Stage};
    use crate::model::request::Request;
    use crate::model::reservation::Reservation;
    use crate::model::verdict::Verdict;
    use crate::outbound::services::client::{Answer, CallError};

    const SETTINGS: &str = r#"
hooks: {keys: [a-key-for-tests-only]}
dsn: sqlite:///nowhere/vestibule.db
services: {register: {url: "http://register.example.com"}}
checks:
  vat_number:
    field: traits.vat_number
    ask: {service: register, get: "/{value}"}
    refuse: [{when: 404, message: {en: "{value} is not registered."}}]
    set: {traits.company: "{response.body.name}"}
  greeting:
    when: "checks.vat_number.response.body.name == 'Blocked Ltd'"
    refuse: [{when: "true"}]
"#;

    /// Answers every question with this status, and with this name in the body.
    struct CannedAnswer(u16, &'static str);

    #[async_trait]
    impl AskService for CannedAnswer {
        async fn ask(
            &self,
            _: &str,
            _: &Request,
            _: &[(&'static str, String)],
            _: Deadline,
        ) -> Result<Answer, CallError> {
            let body = json!({"name": self.1});
            Ok(Answer {
                status: self.0,
                response: json!({"status": self.0, "headers": {}, "body": body}),
                retry_after: None,
            })
        }
    }

    struct NoReservations;

    #[async_trait]
    impl TakeReservation for NoReservations {
        async fn take(&self, _: ReserveRequest<'_>) -> ReserveResult {
            ReserveResult::NotStored("there is no database".to_owned())
        }

        async fn store_reservation(
            &self,
            _: &Check,
            _: Reservation,
            _: Option<&Value>,
            _: ReserveOutcome,
            _: Deadline,
        ) -> bool {
            false
        }
    }

    fn sign_up() -> Payload {
        let body = json!({
            "version": 1,
            "flow": {"id": "16796416-e4ae-4463-99a6-be78d13a634a", "expires_at": "2026-11-23T15:32:52Z"},
            "identity": {
                "id": "00000000-0000-0000-0000-000000000000",
                "traits": {"email": "ada@example.org", "vat_number": "DE1"},
            },
            "nodes": [],
            "request": {"headers": {}},
        });
        Payload::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn rules_are_evaluated_without_a_database_services_or_a_runtime() {
        let environment = Environment::of([]);
        let settings = config::read(SETTINGS, Path::new("vestibule.yaml"), &environment)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let rules = Arc::new(settings.rules());
        let payload = sign_up();
        let hook = Hook {
            flow: Flow::Registration,
            stage: Stage::Pre,
            method: "password".to_owned(),
        };
        for (status, name, expected) in [
            (
                200,
                "Analytical Engines Ltd",
                "admit: Analytical Engines Ltd",
            ),
            (404, "", "refuse: DE1 is not registered."),
            (200, "Blocked Ltd", "refuse: This value is not valid."),
            (503, "", "refuse: "),
        ] {
            let (clock, _) = Clock::manual("2026-11-23T14:32:52Z".parse().unwrap());
            let evaluator = Evaluator {
                rules: Arc::clone(&rules),
                services: Arc::new(CannedAnswer(status, name)),
                reservations: Arc::new(NoReservations),
                observer: Arc::new(()),
                clock: clock.clone(),
            };
            let evaluated = evaluator
                .evaluate(CheckInput {
                    hook: &hook,
                    payload: &payload,
                    until: clock.deadline(Duration::from_secs(2)),
                    trace: Trace::begin(),
                    submission: "1",
                    is_guarded: false,
                    deferrals: &OpenDeferrals::default(),
                    refused_late: &BTreeSet::new(),
                })
                .now_or_never()
                .expect("nothing waits");
            let found = match evaluated.verdict {
                Verdict::Admit => "admit".to_owned(),
                Verdict::AdmitWith(changes) => {
                    format!("admit: {}", changes["traits"]["company"].as_str().unwrap())
                }
                Verdict::Refuse(findings) => format!("refuse: {}", findings[0].message.text),
            };
            assert!(found.starts_with(expected), "{found:?}, not {expected:?}");
        }
    }
}
