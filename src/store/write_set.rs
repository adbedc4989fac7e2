//! What is stored together or not at all.

use std::collections::HashSet;

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::Flow;
use crate::model::delivery::NewDelivery;
use crate::model::pending::{PendingKey, PendingSignUp};
use crate::model::reservation::{Details, ReleaseReason, Reservation};

/// An accepted submission that is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Acceptance {
    /// The submission.
    pub sign_up: PendingSignUp,
    /// When it is looked up for the first time. `None`: identities cannot be looked up.
    pub look_at: Option<Timestamp>,
    /// Whether the acceptance is void if the flow is closed: then the whole batch fails.
    pub must_hold: bool,
}

/// A registration flow that has brought forth its only identity.
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
    /// When it was closed.
    pub at: Timestamp,
}

/// A submission whose outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which one.
    pub key: PendingKey,
    /// When it was accepted: one that was accepted anew meanwhile stays.
    pub accepted_at: Timestamp,
    /// The outcome.
    pub end: PendingEnd,
}

impl Ending {
    /// Of a submission as it was read.
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
    /// Why.
    pub release_reason: ReleaseReason,
    /// Since then no `pre` uses it; one that began meanwhile keeps it.
    pub unused_since: Timestamp,
    /// What taking it again needs, if an account may still be found for it. It is kept until the flow is forgotten.
    pub kept: Option<Details>,
}

/// Deferred questions about an identity that need no answer any more: what is saved now was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledQuestion {
    /// `deferred-check:<name>`
    pub subscription: String,
    /// The identity.
    pub identity_id: Uuid,
    /// When that was known.
    pub at: Timestamp,
}

/// A late refusal that ends because the check has accepted what is saved now. One that deactivates is not lifted by it.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusalLift {
    /// The identity.
    pub identity_id: Uuid,
    /// The check.
    pub check: String,
    /// When that was known.
    pub at: Timestamp,
    /// Removes the mark. It is stored only if a refusal that marked was in force.
    pub write: NewDelivery,
}

/// The outcome of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingEnd {
    /// This identity came of it.
    Attributed(Uuid),
    /// No identity came of it.
    NeverCreated,
    /// It cannot be found out.
    Undecided,
}

impl PendingEnd {
    /// As the store and the metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attributed(_) => "created",
            Self::NeverCreated => "never_created",
            Self::Undecided => "undecided",
        }
    }
}

/// Everything that one transaction holds.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// Deliveries on their way. One that is there already (same plan and unique key) is passed over.
    pub deliveries: Vec<NewDelivery>,
    /// Accepted submissions.
    pub accepted: Vec<Acceptance>,
    /// Registration flows that have brought forth their only identity. All their submissions are deleted.
    pub closed: Vec<Closing>,
    /// Submissions whose outcome is known. They must be as they were when they were read.
    pub ended: Vec<Ending>,
    /// Deferred questions that need no answer any more.
    pub questions_settled: Vec<SettledQuestion>,
    /// Late refusals that end.
    pub refusals_lifted: Vec<RefusalLift>,
    /// What is about to be taken.
    pub reserved: Vec<Reservation>,
    /// Reservations that an accepted submission uses, and until when its `pre` runs. They must be taken.
    pub used: Vec<(Uuid, Timestamp)>,
    /// Reservations whose account exists. They must be taken.
    pub confirmed: Vec<Uuid>,
    /// Reservations that are released. They must be in taking, or taken; if it was unclear, in taking.
    pub released: Vec<Release>,
    /// Released reservations that a delivery takes again, so that nothing is kept of them here. Something must be kept.
    pub taken_again: Vec<Uuid>,
}

impl WriteSet {
    /// Only deliveries.
    #[must_use]
    pub fn of(deliveries: Vec<NewDelivery>) -> Self {
        Self {
            deliveries,
            ..Self::default()
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.is_only_deliveries()
    }

    /// Whether one statement holds all of it: that of the deliveries.
    #[must_use]
    pub fn is_only_deliveries(&self) -> bool {
        self.accepted.is_empty()
            && self.closed.is_empty()
            && self.ended.is_empty()
            && self.questions_settled.is_empty()
            && self.refusals_lifted.is_empty()
            && self.reserved.is_empty()
            && self.used.is_empty()
            && self.confirmed.is_empty()
            && self.released.is_empty()
            && self.taken_again.is_empty()
    }

    /// How many deliveries of the batch are among these.
    #[must_use]
    pub fn count_in(&self, stored: &HashSet<Uuid>) -> usize {
        let lifts = self.refusals_lifted.iter().map(|lift| &lift.write);
        let deliveries = self.deliveries.iter().chain(lifts);
        deliveries.filter(|one| stored.contains(&one.id)).count()
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.deliveries.extend_from_slice(&other.deliveries);
        self.accepted.extend_from_slice(&other.accepted);
        self.closed.extend_from_slice(&other.closed);
        self.ended.extend_from_slice(&other.ended);
        self.questions_settled
            .extend_from_slice(&other.questions_settled);
        self.refusals_lifted
            .extend_from_slice(&other.refusals_lifted);
        self.reserved.extend_from_slice(&other.reserved);
        self.used.extend_from_slice(&other.used);
        self.confirmed.extend_from_slice(&other.confirmed);
        self.released.extend_from_slice(&other.released);
        self.taken_again.extend_from_slice(&other.taken_again);
    }
}
