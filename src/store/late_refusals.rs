//! What a database must keep of late refusals.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::clock::Timestamp;
use crate::delivery::New;
use crate::late_refusal::LateRefusal;

/// The fact that changes with every change of the refusals in force.
pub const VERSION: &str = "late_refusals_version";

/// Late refusals. A refusal is stored by [`Store::settle_all`](super::Store::settle_all), in the transaction that settles the
/// question.
#[async_trait]
pub trait LateRefusalStore: Send + Sync {
    /// All that are in force.
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error>;
    /// Those in force against this identity.
    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error>;
    /// Lifts the refusal of this check, or of all checks, and stores these deliveries with it. Returns how many were in force;
    /// without any, nothing is stored.
    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        now: Timestamp,
        deliveries: &[New],
    ) -> Result<u64, Error>;
    /// The identity was deactivated at this moment of Kratos's clock because of the refusals in force.
    async fn record_deactivation(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error>;
}
