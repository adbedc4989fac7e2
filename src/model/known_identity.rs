//! Known identities: what was last reported about each identity of Kratos. By comparing it with Kratos, reconciliation
//! notices changes and deletions that no hook reports.

use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::fingerprint::FingerprintKey;

/// An identity as it was last reported or seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownIdentity {
    /// The identity.
    pub id: Uuid,
    /// The fingerprint of its traits, state and schema id.
    pub fingerprint: String,
    /// When Kratos saved it, on Kratos's clock.
    pub updated_at: Timestamp,
    /// When a hook or a reconciliation saw it.
    pub seen_at: Timestamp,
}

/// A change of what is known about an identity. It is stored in one transaction with the deliveries that it causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityRecord {
    /// All subscriptions have been notified of this state. It replaces an older one.
    Reported(KnownIdentity),
    /// Reconciliation or a look-up has found the identity. An identity that is known already stays as it is.
    Found(KnownIdentity),
    /// The identity has changed from this fingerprint to this state. Fails if another fingerprint is known meanwhile.
    Changed(String, KnownIdentity),
    /// The identity was deleted in Kratos. Fails if the identity is unknown meanwhile.
    Deleted(Uuid),
}

impl KnownIdentity {
    /// Returns the state of this identity of a hook or of the admin API. `None` if the value is not an identity.
    #[must_use]
    pub fn of(key: &FingerprintKey, identity: &Value, now: Timestamp) -> Option<Self> {
        let updated_at = identity["updated_at"].as_str();
        Some(Self {
            id: identity["id"].as_str()?.parse().ok()?,
            fingerprint: key.fingerprint(identity),
            updated_at: updated_at.and_then(|text| text.parse().ok()).unwrap_or(now),
            seen_at: now,
        })
    }
}
