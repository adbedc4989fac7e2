//! What a database must keep of writes into identities, and of the settings calls that can undo them.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::identity_write::{IdentityWrites, SavedChange};

/// Writes into identities until they are verified for the last time.
#[async_trait]
pub trait IdentityWriteStore: Send + Sync {
    /// The writes into this identity that are still verified.
    async fn identity_writes(&self, identity_id: Uuid) -> Result<Option<IdentityWrites>, Error>;
    /// Stores the writes (not `saved`) in place of what is stored.
    async fn store_identity_writes(&self, writes: &IdentityWrites) -> Result<(), Error>;
    /// Takes up to `limit` that are due, and gives them to the caller until `lease_until`.
    async fn lease_identity_writes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<IdentityWrites>, Error>;
    /// The next verification, unless a hook call has asked for an earlier one since the lease began.
    async fn reschedule_verification(
        &self,
        identity_id: Uuid,
        verified: usize,
        lease_until: Timestamp,
        verify_at: Timestamp,
    ) -> Result<(), Error>;
    /// The last verification is done, unless a hook call has asked for another one since the lease began.
    async fn end_verification(
        &self,
        identity_id: Uuid,
        lease_until: Timestamp,
    ) -> Result<(), Error>;
    /// Verifies these identities at that moment or earlier, if writes of theirs are stored.
    async fn verify_identities(&self, ids: &[Uuid], at: Timestamp) -> Result<(), Error>;
    /// When the next verification is due.
    async fn next_verification(&self) -> Result<Option<Timestamp>, Error>;

    /// A settings `pre` of this identity has begun.
    async fn begin_settings_call(&self, identity_id: Uuid, now: Timestamp) -> Result<(), Error>;
    /// A settings call of this identity has ended: `pre` refused it, or its `post` came.
    async fn end_settings_call(&self, identity_id: Uuid) -> Result<(), Error>;
    /// Since when a settings `pre` of this identity has had no `post`.
    async fn settings_pending_since(&self, identity_id: Uuid) -> Result<Option<Timestamp>, Error>;
    /// Stores a change that a person saved, if writes of that identity are being verified, and verifies them at that moment.
    async fn store_saved_change(
        &self,
        identity_id: Uuid,
        change: &SavedChange,
        verify_at: Timestamp,
    ) -> Result<(), Error>;
}
