//! Retention and erasure.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;

/// Deletes old records, and the data of an identity.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Deletes up to `limit` deliveries that were delivered, superseded or discarded before this time, with their attempts.
    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Deletes up to `limit` decisions that were made before this time.
    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Deletes up to `limit` each of ended reservations and pending sign-ups whose flow expired before this time.
    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;

    /// Returns the next `limit` identities after `after` with stored personal data, ordered by id.
    async fn identities_with_data(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error>;
    /// Erases the stored data of an identity, and discards its pending or abandoned deliveries. Returns how many
    /// deliveries held data.
    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error>;
}
