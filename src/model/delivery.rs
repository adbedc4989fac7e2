//! pending -> leased -> delivered or abandoned.

mod action;
pub mod attempt;
pub mod backoff;
mod context;
mod queue;
pub mod subscription;

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::expression::{Expression, JsonTemplate, Variable};
use crate::model::request;
use backoff::Schedule;

pub use action::{Action, FieldWrite};
pub use attempt::{Attempt, NoResponse, ResponseVerdict};
pub use context::EvaluationContext;
pub use queue::Queue;

/// What became of an identity, and calls for deliveries.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Event {
    /// A registration was saved.
    #[serde(rename = "identity.created")]
    IdentityCreated,
    /// A profile was changed in settings.
    #[serde(rename = "identity.updated")]
    IdentityUpdated,
    /// A password, a social sign-in or a second factor was set, changed or taken away in settings.
    #[serde(rename = "credentials.changed")]
    CredentialsChanged,
    /// An address was proved.
    #[serde(rename = "identity.verified")]
    IdentityVerified,
    /// We said yes to a registration, and no account came of it.
    #[serde(rename = "registration.failed")]
    RegistrationFailed,
    /// A check that was deferred has refused, when the account was there already.
    #[serde(rename = "check.refused")]
    CheckRefused,
}

/// A plan of the settings: such identities go to such a service with such a body.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// How settings, logs and metrics name it.
    pub name: String,
    /// The events it is for.
    pub events: Vec<Event>,
    /// Narrows it.
    pub when: Option<Expression>,
    /// The request. An empty body of a verb that may have one is the default `{type, timestamp, data}`.
    pub send: request::RequestTemplate,
    /// When it is tried again.
    pub schedule: Schedule,
    /// How long it is tried before it is abandoned.
    pub max_elapsed: Duration,
    /// What makes an answer an arrival; by default any 2xx.
    pub success_when: Option<Expression>,
    /// After which answers it is not tried again; 410 always is one.
    pub abandon_when: Option<Expression>,
    /// What of the answer is written into the identity.
    pub write_back: Vec<WriteBack>,
}

/// One entry of `write_back`.
#[derive(Clone, Debug)]
pub struct WriteBack {
    /// `["metadata_admin", "crm_id"]`.
    pub path: Vec<String>,
    /// What is put there.
    pub value: JsonTemplate,
}

impl Subscription {
    /// Whether the answer is read by an expression, for which a [`EvaluationContext`] must be kept.
    #[must_use]
    pub fn reads_the_answer(&self) -> bool {
        self.success_when.is_some() || self.abandon_when.is_some() || !self.write_back.is_empty()
    }

    /// Whether one of its expressions reads a name that begins with this root.
    #[must_use]
    pub fn reads(&self, root: Variable) -> bool {
        let conditions = [&self.when, &self.success_when, &self.abandon_when];
        let written = self
            .write_back
            .iter()
            .flat_map(|entry| entry.value.expressions());
        self.send.reads(root)
            || conditions
                .into_iter()
                .flatten()
                .chain(written)
                .any(|one| one.reads(root))
    }

    /// Whether its `when` can be told from the identity alone, as an identity of Kratos's admin API is: by what flow it came, and
    /// with which request, is not known there.
    #[must_use]
    pub fn is_decided_by_the_identity(&self) -> bool {
        let untold = [Variable::Flow, Variable::Request, Variable::Method];
        self.when
            .as_ref()
            .is_none_or(|when| !untold.into_iter().any(|root| when.reads(root)))
    }
}

/// A delivery on its way into the store.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    /// Time-ordered (UUID v7); also the `Idempotency-Key` of every attempt.
    pub id: Uuid,
    /// The plan's name, or another [`Queue`].
    pub plan: String,
    /// What happened.
    pub event: Event,
    /// Unique together with the plan: the identity's id for `identity.created`, the trigger id for all others.
    pub unique_key: String,
    /// Whom it is about; all zeros if no identity came of it.
    pub identity_id: Uuid,
    /// What is to be done; `Err` holds why it could not be built (then it is stored as abandoned).
    pub work: Result<Action, String>,
    /// What expressions about the answer may read.
    pub scene: Option<EvaluationContext>,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it is tried first.
    pub due_at: Timestamp,
    /// When it is abandoned if it has not arrived.
    pub keep_trying_until: Timestamp,
}

/// A delivery that a worker holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Its id.
    pub id: Uuid,
    /// Its plan's name, or another [`Queue`].
    pub plan: String,
    /// What happened.
    pub event: Event,
    /// Whom it is about; all zeros if no identity came of it.
    pub identity_id: Uuid,
    /// What is to be done.
    pub work: Action,
    /// What expressions about the answer may read.
    pub scene: Option<EvaluationContext>,
    /// Which try this is, counted from 1; only the holder of this try may settle it.
    pub attempt: u32,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it is abandoned if it has not arrived.
    pub keep_trying_until: Timestamp,
}

/// What follows from one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Delivered,
    /// It is tried again then.
    RetryAt(Timestamp),
    /// It is kept, to be looked at.
    Abandoned,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for its time, or held by a worker.
    Pending,
    /// Arrived.
    Delivered,
    /// Given up; kept until somebody retries or discards it.
    Abandoned,
    /// Not to be delivered any more: somebody said so, or the identity is gone.
    Discarded,
}

impl Event {
    /// Every event there is.
    pub const ALL: [Self; 6] = [
        Self::IdentityCreated,
        Self::IdentityUpdated,
        Self::CredentialsChanged,
        Self::IdentityVerified,
        Self::RegistrationFailed,
        Self::CheckRefused,
    ];

    /// As the settings file, the default body and the store write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityCreated => "identity.created",
            Self::IdentityUpdated => "identity.updated",
            Self::CredentialsChanged => "credentials.changed",
            Self::IdentityVerified => "identity.verified",
            Self::RegistrationFailed => "registration.failed",
            Self::CheckRefused => "check.refused",
        }
    }

    /// The event of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 4] = [
        Self::Pending,
        Self::Delivered,
        Self::Abandoned,
        Self::Discarded,
    ];

    /// As the command line and the store write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Abandoned => "abandoned",
            Self::Discarded => "discarded",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// An id that is larger than all earlier ones.
#[must_use]
pub fn time_ordered_id(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    let moment = uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos());
    Uuid::new_v7(moment)
}

/// Larger than every id of an earlier millisecond, and smaller than all others.
#[must_use]
pub fn first_id_of(moment: Timestamp) -> Uuid {
    let milliseconds = u64::try_from(moment.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(u128::from(milliseconds) << 80)
}
