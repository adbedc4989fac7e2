//! The store trait for late refusals.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::delivery::NewDelivery;
use crate::model::late_refusal::LateRefusal;

/// The property that changes with every change of the refusals in force.
pub const VERSION: &str = "late_refusals_version";

/// Selects late refusals in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateRefusalFilter {
    /// Only refusals of this identity.
    pub identity: Option<Uuid>,
    /// Only refusals by this check.
    pub check: Option<String>,
    /// Only refusals listed after this identity and check.
    pub after: Option<(Uuid, String)>,
}

/// Lists and lifts late refusals. [`DeliveryStore::settle_all`](super::DeliveryStore::settle_all) stores a refusal, in the
/// transaction that settles the deferred check.
#[async_trait]
pub trait LateRefusalStore: Send + Sync {
    /// Returns all refusals in force.
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error>;
    /// Returns the refusals in force against this identity.
    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error>;
    /// Returns up to `limit` refusals in force, ordered by identity and check.
    async fn late_refusals_page(
        &self,
        filter: &LateRefusalFilter,
        limit: u32,
    ) -> Result<Vec<LateRefusal>, Error>;
    /// Returns whether a refusal of this identity by this check was lifted, and no other refusal followed.
    async fn late_refusal_was_lifted(&self, identity_id: Uuid, check: &str) -> Result<bool, Error>;
    /// Lifts the refusals of these checks, and stores these deliveries in the same transaction. Returns how many
    /// refusals were in force. If the number is 0, nothing is stored.
    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        checks: &[String],
        now: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<u64, Error>;
    /// Records, for the refusals in force that deactivate, whether the identity was active before they were enforced. What
    /// is recorded already is changed only to `true`. Returns whether such a refusal is in force.
    async fn record_state_before(&self, identity_id: Uuid, was_active: bool)
    -> Result<bool, Error>;
    /// Returns what is recorded by [`LateRefusalStore::record_state_before`] for the refusal by this check, also if it is
    /// lifted.
    async fn state_before_refusal(
        &self,
        identity_id: Uuid,
        check: &str,
    ) -> Result<Option<bool>, Error>;
    /// Records that the identity was deactivated at this time of Kratos's clock, because of the refusal by this check, and
    /// of all others in force that have deactivated it before.
    async fn record_deactivation(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error>;
}
