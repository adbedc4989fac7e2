//! What a database keeps of reservations.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::reservation::{Details, Reservation};

/// Changes reservations while a `pre` takes them. [`DeliveryStore::write`](super::DeliveryStore::write) stores, confirms
/// and releases them.
#[async_trait]
pub trait ReservationStore: Send + Sync {
    /// Records that another `pre` uses an open reservation until this time at the latest. Returns `false` if the
    /// reservation is not open any more.
    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error>;
    /// Gives an open reservation that no `pre` uses to another submission. `former` is stored with it: the released row
    /// of the former submission. Returns `false` if the reservation has changed meanwhile.
    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error>;
    /// Records that a reservation was taken, perhaps by two calls at the same time. Returns `false` if the reservation
    /// is not open any more.
    async fn mark_reserved(&self, id: Uuid, details: &Details) -> Result<bool, Error>;
    /// Records that the service refused a reservation, so that there is nothing to release.
    async fn cancel_reservation(&self, id: Uuid) -> Result<(), Error>;
    /// Returns up to `limit` open reservations that no running `pre` uses and nothing will confirm. Their flow is
    /// closed, or it expired by `expired_at` and none of its submissions is looked up any more.
    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error>;
}
