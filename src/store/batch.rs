//! What is stored together or not at all.

use uuid::Uuid;

use crate::delivery::New;
use crate::journal::{End, Entry, Yes};
use crate::reservation::{Because, Reservation};

/// Everything that one transaction holds.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Deliveries on their way. One that is there already (same plan and unique key) is passed over.
    pub deliveries: Vec<New>,
    /// Yeses of `pre`. Of one flow the latest counts.
    pub opened: Vec<Entry>,
    /// The flows whose account is known.
    pub closed: Vec<Uuid>,
    /// Yeses whose account was found by a look. They must be open still, and not given anew meanwhile.
    pub found: Vec<Yes>,
    /// Yeses that ended without an account being known. They must be open still, and not given anew meanwhile.
    pub ended: Vec<(Yes, End)>,
    /// What is about to be taken.
    pub reserved: Vec<Reservation>,
    /// Reservations whose account exists. They must be taken.
    pub confirmed: Vec<Uuid>,
    /// Reservations that are given back. They must be in taking, or taken; if it was unclear, in taking.
    pub released: Vec<(Uuid, Because)>,
}

impl Batch {
    /// Only deliveries.
    #[must_use]
    pub fn of(deliveries: Vec<New>) -> Self {
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
        self.opened.is_empty() && self.is_only_deliveries_and_opened()
    }

    /// Whether one statement holds all of it: that of the yeses.
    #[must_use]
    pub fn is_only_opened(&self) -> bool {
        self.deliveries.is_empty() && self.is_only_deliveries_and_opened()
    }

    fn is_only_deliveries_and_opened(&self) -> bool {
        self.closed.is_empty()
            && self.found.is_empty()
            && self.ended.is_empty()
            && self.reserved.is_empty()
            && self.confirmed.is_empty()
            && self.released.is_empty()
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.deliveries.extend_from_slice(&other.deliveries);
        self.opened.extend_from_slice(&other.opened);
        self.closed.extend_from_slice(&other.closed);
        self.found.extend_from_slice(&other.found);
        self.ended.extend_from_slice(&other.ended);
        self.reserved.extend_from_slice(&other.reserved);
        self.confirmed.extend_from_slice(&other.confirmed);
        self.released.extend_from_slice(&other.released);
    }
}
