//! Deliveries: pending, leased, then delivered or abandoned.

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
pub(crate) use context::null_is_a_value;
pub use queue::Queue;

/// An event of an identity that can cause deliveries.
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
    /// A password, a social sign-in or a second factor was set, changed or removed in settings.
    #[serde(rename = "credentials.changed")]
    CredentialsChanged,
    /// An address was verified.
    #[serde(rename = "identity.verified")]
    IdentityVerified,
    /// Vestibule accepted a registration, but no account was created.
    #[serde(rename = "registration.failed")]
    RegistrationFailed,
    /// A deferred check refused an existing account.
    #[serde(rename = "check.refused")]
    CheckRefused,
}

/// A subscription of the settings: which events are sent to which service, and with which request.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The name in settings, logs and metrics.
    pub name: String,
    /// The events of the subscription.
    pub events: Vec<Event>,
    /// A condition that limits the deliveries.
    pub when: Option<Expression>,
    /// The request. If the method permits a body and the body is empty, the default `{type, timestamp, data}` is sent.
    pub send: request::RequestTemplate,
    /// When a failed delivery is retried.
    pub schedule: Schedule,
    /// How long a delivery is retried before it is abandoned.
    pub max_elapsed: Duration,
    /// The condition for a success; by default any 2xx.
    pub success_when: Option<Expression>,
    /// The condition for abandoning the delivery. A 410 abandons it too, unless `success_when` is true.
    pub abandon_when: Option<Expression>,
    /// The values of the response that are written into the identity.
    pub write_back: Vec<WriteBack>,
}

/// One entry of `write_back`.
#[derive(Clone, Debug)]
pub struct WriteBack {
    /// The path of the value: `["metadata_admin", "crm_id"]`.
    pub path: Vec<String>,
    /// The value.
    pub value: JsonTemplate,
}

impl Subscription {
    /// Returns whether an expression reads the response. Then an [`EvaluationContext`] must be stored.
    #[must_use]
    pub fn reads_the_answer(&self) -> bool {
        self.success_when.is_some() || self.abandon_when.is_some() || !self.write_back.is_empty()
    }

    /// Returns whether one of the expressions reads this variable.
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

    /// Returns whether `when` can be evaluated with an identity of Kratos's admin API alone. The admin API does not
    /// return the flow, the request and the method.
    #[must_use]
    pub fn is_decided_by_the_identity(&self) -> bool {
        let hook_only = [Variable::Flow, Variable::Request, Variable::Method];
        self.when
            .as_ref()
            .is_none_or(|when| !hook_only.into_iter().any(|root| when.reads(root)))
    }
}

/// A delivery that is not stored yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    /// The id, time-ordered (UUID v7); also the `Idempotency-Key` of every attempt.
    pub id: Uuid,
    /// The name of the subscription or of another [`Queue`].
    pub subscription: String,
    /// The event.
    pub event: Event,
    /// Unique together with the queue: the identity's id for `identity.created`, the trigger id for all other events.
    pub unique_key: String,
    /// The identity; all zeros if there is no identity.
    pub identity_id: Uuid,
    /// The action. `Err` is the reason why the request could not be built; then the delivery is stored as abandoned.
    pub action: Result<Action, String>,
    /// The variables for expressions that read the response.
    pub context: Option<EvaluationContext>,
    /// When the delivery was created.
    pub created_at: Timestamp,
    /// When the first attempt is due.
    pub due_at: Timestamp,
    /// When the delivery is abandoned if it has not succeeded.
    pub keep_trying_until: Timestamp,
}

/// A delivery that a dispatcher has leased.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The id.
    pub id: Uuid,
    /// The name of the subscription or of another [`Queue`].
    pub subscription: String,
    /// The event.
    pub event: Event,
    /// The identity; all zeros if there is no identity.
    pub identity_id: Uuid,
    /// The action.
    pub action: Action,
    /// The variables for expressions that read the response.
    pub context: Option<EvaluationContext>,
    /// The number of the attempt, counted from 1. Only the holder of this attempt can settle it.
    pub attempt: u32,
    /// When the delivery was created.
    pub created_at: Timestamp,
    /// When the delivery is abandoned if it has not succeeded.
    pub keep_trying_until: Timestamp,
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The delivery succeeded.
    Delivered,
    /// The delivery is retried at this time.
    RetryAt(Timestamp),
    /// The delivery is abandoned: kept, listed, and not retried automatically.
    Abandoned,
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits until it is due, or is leased by a dispatcher.
    Pending,
    /// Delivered.
    Delivered,
    /// Abandoned. The delivery is kept until an operator retries or discards it.
    Abandoned,
    /// Not delivered any more: an operator discarded the delivery, or the identity was deleted.
    Discarded,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 6] = [
        Self::IdentityCreated,
        Self::IdentityUpdated,
        Self::CredentialsChanged,
        Self::IdentityVerified,
        Self::RegistrationFailed,
        Self::CheckRefused,
    ];

    /// Returns the name in the settings file, the default body and the store.
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

    /// Returns the event with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [
        Self::Pending,
        Self::Delivered,
        Self::Abandoned,
        Self::Discarded,
    ];

    /// Returns the name on the command line and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Abandoned => "abandoned",
            Self::Discarded => "discarded",
        }
    }

    /// Returns the state with this name.
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

/// Returns an id that is larger than all earlier ones.
#[must_use]
pub fn time_ordered_id(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    let moment = uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos());
    Uuid::new_v7(moment)
}

/// Returns an id that is larger than every id of an earlier millisecond, and smaller than all others.
#[must_use]
pub fn first_id_of(moment: Timestamp) -> Uuid {
    let milliseconds = u64::try_from(moment.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(u128::from(milliseconds) << 80)
}
