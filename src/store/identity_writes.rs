//! The store trait for writes into identities, and for the settings calls that can undo writes.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::identity_write::{IdentityWrites, SavedChange};

/// Stores writes into identities until their last verification.
#[async_trait]
pub trait IdentityWriteStore: Send + Sync {
    /// Returns the writes into this identity that are still verified.
    async fn identity_writes(&self, identity_id: Uuid) -> Result<Option<IdentityWrites>, Error>;
    /// Stores the writes (not `saved` and `seen_at`) and replaces the earlier ones.
    async fn store_identity_writes(&self, writes: &IdentityWrites) -> Result<(), Error>;
    /// Leases up to `limit` due verifications to the caller until `lease_until`.
    async fn lease_identity_writes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<IdentityWrites>, Error>;
    /// Sets the next verification, unless a hook call has asked for an earlier one since the lease began. `seen_at` is the
    /// newest saved change that the verification found in the identity.
    async fn reschedule_verification(
        &self,
        identity_id: Uuid,
        (verified, seen_at): (usize, Option<Timestamp>),
        lease_until: Timestamp,
        verify_at: Timestamp,
    ) -> Result<(), Error>;
    /// Ends the verification, unless a hook call has asked for another one since the lease began.
    async fn end_verification(
        &self,
        identity_id: Uuid,
        lease_until: Timestamp,
    ) -> Result<(), Error>;
    /// Schedules a verification of these identities at that time or earlier, if writes of theirs are stored.
    async fn verify_identities(&self, ids: &[Uuid], at: Timestamp) -> Result<(), Error>;
    /// Schedules one verification of this identity at that time or earlier, also if no writes of it are stored.
    async fn verify_once(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error>;
    /// Returns when the next verification is due.
    async fn next_verification(&self) -> Result<Option<Timestamp>, Error>;

    /// Records that a settings `pre` of this identity has begun.
    async fn begin_settings_call(&self, identity_id: Uuid, now: Timestamp) -> Result<(), Error>;
    /// Records that a settings call of this identity has ended: `pre` refused it, or its `post` arrived.
    async fn end_settings_call(&self, identity_id: Uuid) -> Result<(), Error>;
    /// Returns since when a settings `pre` of this identity has had no `post`.
    async fn settings_pending_since(&self, identity_id: Uuid) -> Result<Option<Timestamp>, Error>;
    /// Stores a change that a visitor saved, and schedules a verification at that time. Does nothing if no writes into
    /// that identity are verified.
    async fn store_saved_change(
        &self,
        identity_id: Uuid,
        change: &SavedChange,
        verify_at: Timestamp,
    ) -> Result<(), Error>;
}
