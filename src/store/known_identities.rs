//! Stores what is known about the identities of Kratos, so that reconciliation notices changes and deletions that no hook
//! reports.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::group_commit::WriteResult;
use super::outbox::Outbox;
use super::{Coordination, Error, Store, WriteSet};
use crate::base::clock::Timestamp;
use crate::kratos::fingerprint::FingerprintKey;
use crate::model::known_identity::{IdentityRecord, KnownIdentity};

/// The name of the property that holds the key of the fingerprints.
const KEY: &str = "identities:key";
/// The name of the property that says since when all identities of Kratos are known.
const COMPLETE_SINCE: &str = "identities:complete_since";

/// Reads and changes known identities. [`WriteSet`](super::WriteSet) records them together with deliveries.
#[async_trait]
pub trait KnownIdentityStore: Send + Sync {
    /// Returns the fingerprints of those of these identities that are known. The fingerprint of an erased identity is
    /// empty.
    async fn known_identities(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, String>, Error>;
    /// Records that these identities exist in Kratos. Unknown ones stay unknown.
    async fn touch_identities(&self, ids: &[Uuid], now: Timestamp) -> Result<(), Error>;
    /// Replaces a fingerprint. Returns `false` if another one is known.
    async fn replace_fingerprint(&self, from: &str, to: &KnownIdentity) -> Result<bool, Error>;
    /// Returns up to `limit` known identities, ordered by id from this one on, and then those before it.
    async fn sample_identities(&self, from: Uuid, limit: u32) -> Result<Vec<Uuid>, Error>;
    /// Returns up to `limit` known identities that were last seen before this time, after the position of an earlier
    /// page.
    async fn unseen_identities(
        &self,
        before: Timestamp,
        after: (Timestamp, Uuid),
        limit: u32,
    ) -> Result<Vec<(Timestamp, Uuid)>, Error>;
    /// Deletes up to `limit` known identities that were last seen before this time, without a report.
    async fn delete_unseen_identities(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Returns whether an accepted settings change of the identity has no known outcome yet.
    async fn has_open_change(&self, identity_id: Uuid) -> Result<bool, Error>;
}

/// Computes what is known about identities, with the key of this database.
///
/// Exists only while a subscription wants changes or deletions that no hook reports.
pub struct IdentityTracker {
    store: Arc<dyn Store>,
    /// The key that is stored if the database has none.
    new_key: String,
    key: OnceCell<FingerprintKey>,
}

impl IdentityTracker {
    /// Creates a tracker. `new_key` becomes the key of a database that has none.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, new_key: String) -> Self {
        Self {
            store,
            new_key,
            key: OnceCell::new(),
        }
    }

    /// Returns the state of this identity of a hook or of the admin API. `None` if the value is not an identity.
    pub async fn state_of(
        &self,
        identity: &Value,
        now: Timestamp,
    ) -> Result<Option<KnownIdentity>, Error> {
        Ok(KnownIdentity::of(self.key().await?, identity, now))
    }

    /// Records a write of Vestibule itself, so that reconciliation does not report it. A change that was not reported
    /// before the write is still reported. `before` and `after` are the identity around the write.
    pub async fn record_own_write(
        &self,
        before: &Value,
        after: &Value,
        now: Timestamp,
    ) -> Result<(), Error> {
        let from = self.key().await?.fingerprint(before);
        if let Some(to) = self.state_of(after, now).await?
            && to.fingerprint != from
        {
            self.store.replace_fingerprint(&from, &to).await?;
        }
        Ok(())
    }

    async fn key(&self) -> Result<&FingerprintKey, Error> {
        let stored = || self.store.get_or_insert_property(KEY, &self.new_key);
        self.key
            .get_or_try_init(|| async { Ok(FingerprintKey::new(&stored().await?)) })
            .await
    }
}

/// Writes what follows from an identity that a look-up has found, and records its state if that was news. Returns how many
/// deliveries were new.
///
/// If nothing was new, the state may hold a later change that is still to be reported. So it is not recorded then.
pub async fn write_found(
    outbox: &Outbox,
    mut batch: WriteSet,
    found: Option<KnownIdentity>,
) -> WriteResult<usize> {
    batch
        .identities
        .extend(found.clone().map(IdentityRecord::Found));
    let stored = outbox.write(batch).await?;
    if let Some(found) = found
        && stored > 0
    {
        let reported = WriteSet {
            identities: vec![IdentityRecord::Reported(found)],
            ..WriteSet::default()
        };
        outbox.write(reported).await?;
    }
    Ok(stored)
}

/// Returns whether all identities are known, so that differences are changes.
pub async fn all_are_known(store: &dyn Coordination) -> Result<bool, Error> {
    Ok(store.get_property(COMPLETE_SINCE).await?.is_some())
}

/// Records since when all identities are known. `None`: what is known may be outdated, so the next reconciliation only
/// records what it finds.
pub async fn set_all_known(
    store: &dyn Coordination,
    since: Option<Timestamp>,
) -> Result<(), Error> {
    let since = since.map(|since| since.to_rfc3339());
    store.set_property(COMPLETE_SINCE, since.as_deref()).await
}
