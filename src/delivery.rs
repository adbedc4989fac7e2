//! pending -> leased -> delivered or abandoned.

pub mod attempt;
pub mod backoff;
pub mod plan;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::expression::Expression;
use crate::request::{self, Request};

pub use attempt::{Attempt, Unanswered};

/// What became of an identity, and calls for deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
}

/// A plan of the settings: such identities go to such a service with such a body.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How settings, logs and metrics name it.
    pub name: String,
    /// The events it is for.
    pub events: Vec<Event>,
    /// Narrows it.
    pub when: Option<Expression>,
    /// The request. An empty body of a verb that may have one is the default `{type, timestamp, data}`.
    pub send: request::Plan,
    /// How long it is tried before it is abandoned.
    pub keep_trying_for: Duration,
}

/// A delivery on its way into the store.
#[derive(Clone, Debug, PartialEq)]
pub struct New {
    /// Time-ordered (UUID v7); also the `Idempotency-Key` of every attempt.
    pub id: Uuid,
    /// The plan's name.
    pub plan: String,
    /// What happened.
    pub event: Event,
    /// Unique together with the plan: the identity's id for `identity.created`, the trigger id for all others.
    pub unique_key: String,
    /// Whom it is about.
    pub identity_id: Uuid,
    /// What is sent; `Err` holds why it could not be built (then it is stored as abandoned).
    pub request: Result<Request, String>,
    /// When it came into being.
    pub created_at: Timestamp,
    /// When it is abandoned if it has not arrived.
    pub keep_trying_until: Timestamp,
}

/// A delivery that a worker holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// Its id.
    pub id: Uuid,
    /// Its plan's name.
    pub plan: String,
    /// What happened.
    pub event: Event,
    /// What is sent.
    pub request: Request,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waiting for its time, or held by a worker.
    Pending,
    /// Arrived.
    Delivered,
    /// Given up; kept until somebody retries it.
    Abandoned,
}

impl Event {
    /// Every event there is.
    pub const ALL: [Self; 4] = [
        Self::IdentityCreated,
        Self::IdentityUpdated,
        Self::CredentialsChanged,
        Self::IdentityVerified,
    ];

    /// As the settings file, the default body and the store write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdentityCreated => "identity.created",
            Self::IdentityUpdated => "identity.updated",
            Self::CredentialsChanged => "credentials.changed",
            Self::IdentityVerified => "identity.verified",
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
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Abandoned];

    /// As the command line and the store write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Abandoned => "abandoned",
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
