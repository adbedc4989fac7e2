//! Write sets: changes that are stored together or not at all.

use std::collections::HashSet;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::Flow;
use crate::model::delivery::NewDelivery;
use crate::model::known_identity::IdentityRecord;
use crate::model::pending::{PendingKey, PendingSignUp};
use crate::model::reservation::{Details, ReleaseReason, Reservation};

/// An accepted submission that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptance {
    /// The submission.
    pub sign_up: PendingSignUp,
    /// When the first look-up is due. `None`: identities cannot be looked up.
    pub next_lookup_at: Option<Timestamp>,
    /// Whether the acceptance is void if the flow is closed. The whole write set fails then.
    pub must_hold: bool,
}

/// A registration flow whose only identity is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The flow.
    pub flow_id: Uuid,
    /// Always a registration.
    pub flow: Flow,
    /// The identity.
    pub identity_id: Uuid,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// When the flow was closed.
    pub at: Timestamp,
}

/// A submission whose outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The submission's key.
    pub key: PendingKey,
    /// When the submission was accepted. A submission that was accepted again meanwhile is not changed.
    pub accepted_at: Timestamp,
    /// The outcome.
    pub end: PendingEnd,
}

impl Ending {
    /// Creates the ending of a submission as it was read.
    #[must_use]
    pub fn of(sign_up: &PendingSignUp, end: PendingEnd) -> Self {
        Self {
            key: sign_up.key.clone(),
            accepted_at: sign_up.accepted_at,
            end,
        }
    }
}

/// A reservation that is released.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The reservation.
    pub id: Uuid,
    /// The reason.
    pub release_reason: ReleaseReason,
    /// The time since which no `pre` uses the reservation. If a later `pre` uses it, it is not released.
    pub unused_since: Timestamp,
    /// The data that taking the reservation again needs, if an account may still be found for it. The store keeps it
    /// until the flow is deleted.
    pub kept: Option<Details>,
}

/// A deferred check of an identity that is no longer needed, because the check has accepted the current value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledQuestion {
    /// The queue: `deferred-check:<name>`.
    pub subscription: String,
    /// The identity.
    pub identity_id: Uuid,
    /// When the check accepted.
    pub at: Timestamp,
}

/// The lift of a late refusal whose check has accepted the current value. An acceptance does not lift a refusal that
/// deactivates.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusalLift {
    /// The identity.
    pub identity_id: Uuid,
    /// The check.
    pub check: String,
    /// When the check accepted.
    pub at: Timestamp,
    /// The write that removes the mark. It is stored only if a refusal that marked was in force.
    pub write: NewDelivery,
}

/// The outcome of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingEnd {
    /// The submission created this identity.
    Attributed(Uuid),
    /// The submission created no identity.
    NeverCreated,
    /// The outcome cannot be found.
    Undecided,
}

impl PendingEnd {
    /// Returns the value for the store and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attributed(_) => "created",
            Self::NeverCreated => "never_created",
            Self::Undecided => "undecided",
        }
    }
}

/// All changes of one transaction.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// New deliveries. A delivery whose subscription and unique key are stored already is skipped.
    pub deliveries: Vec<NewDelivery>,
    /// Accepted submissions.
    pub accepted: Vec<Acceptance>,
    /// Registration flows whose only identity is known. All submissions of these flows are deleted.
    pub closed: Vec<Closing>,
    /// Submissions whose outcome is known. They must be as they were when they were read.
    pub ended: Vec<Ending>,
    /// Reservations that are about to be taken.
    pub reserved: Vec<Reservation>,
    /// Reservations that an accepted submission uses, and until when its `pre` runs. They must be taken.
    pub used: Vec<(Uuid, Timestamp)>,
    /// Reservations whose account exists. They must be taken.
    pub confirmed: Vec<Uuid>,
    /// Reservations that are released. Their state must be taking or taken. With an unclear take it must be taking.
    pub released: Vec<Release>,
    /// Released reservations that a delivery takes again, so that the store deletes their details. They must have
    /// details.
    pub taken_again: Vec<Uuid>,
    /// What is known about identities from now on.
    pub identities: Vec<IdentityRecord>,
}

impl WriteSet {
    /// Creates a write set with only deliveries.
    #[must_use]
    pub fn of(deliveries: Vec<NewDelivery>) -> Self {
        Self {
            deliveries,
            ..Self::default()
        }
    }

    /// Returns whether the write set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.is_only_deliveries()
    }

    /// Returns whether the write set contains only deliveries.
    #[must_use]
    pub fn is_only_deliveries(&self) -> bool {
        self.accepted.is_empty()
            && self.closed.is_empty()
            && self.ended.is_empty()
            && self.reserved.is_empty()
            && self.used.is_empty()
            && self.confirmed.is_empty()
            && self.released.is_empty()
            && self.taken_again.is_empty()
            && self.identities.is_empty()
    }

    /// Returns how many deliveries of the write set are among these.
    #[must_use]
    pub fn count_in(&self, stored: &HashSet<Uuid>) -> usize {
        let deliveries = self.deliveries.iter();
        deliveries.filter(|one| stored.contains(&one.id)).count()
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.deliveries.extend_from_slice(&other.deliveries);
        self.accepted.extend_from_slice(&other.accepted);
        self.closed.extend_from_slice(&other.closed);
        self.ended.extend_from_slice(&other.ended);
        self.reserved.extend_from_slice(&other.reserved);
        self.used.extend_from_slice(&other.used);
        self.confirmed.extend_from_slice(&other.confirmed);
        self.released.extend_from_slice(&other.released);
        self.taken_again.extend_from_slice(&other.taken_again);
        self.identities.extend_from_slice(&other.identities);
    }
}
