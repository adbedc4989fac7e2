//! What a database must keep of late refusals.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::delivery::NewDelivery;
use crate::model::late_refusal::LateRefusal;

/// The fact that changes with every change of the refusals in force.
pub const VERSION: &str = "late_refusals_version";

/// Which late refusals in force to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateRefusalFilter {
    /// Only of this identity.
    pub identity: Option<Uuid>,
    /// Only of this check.
    pub check: Option<String>,
    /// Only those listed after this identity and check.
    pub after: Option<(Uuid, String)>,
}

/// Late refusals. A refusal is stored by [`Store::settle_all`](super::Store::settle_all), in the transaction that settles the
/// question.
#[async_trait]
pub trait LateRefusalStore: Send + Sync {
    /// All that are in force.
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error>;
    /// Those in force against this identity.
    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error>;
    /// Up to `limit` of those in force, in the order of identity and check.
    async fn late_refusals_page(
        &self,
        filter: &LateRefusalFilter,
        limit: u32,
    ) -> Result<Vec<LateRefusal>, Error>;
    /// Whether a refusal of this identity by this check was lifted, and no other one came after it.
    async fn late_refusal_was_lifted(&self, identity_id: Uuid, check: &str) -> Result<bool, Error>;
    /// Lifts the refusals of these checks, and stores these deliveries with it. Returns how many were in force; without any,
    /// nothing is stored.
    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        checks: &[String],
        now: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<u64, Error>;
    /// The identity was deactivated at this moment of Kratos's clock because of the refusals in force that deactivate.
    async fn record_deactivation(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error>;
}
