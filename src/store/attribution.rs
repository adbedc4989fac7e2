//! Attributes identities to flows without the one-identity guard.

use std::time::Duration;

use uuid::Uuid;

use super::{Coordination, Error};
use crate::base::clock::{Timestamp, saturating_add};

/// How long an attribution is kept. No flow lives longer.
const KEPT_FOR: Duration = Duration::from_hours(24 * 7);

/// Attributes an identity to this flow. Returns `false` if the identity is attributed to another flow.
pub async fn attribute(
    store: &dyn Coordination,
    identity_id: Uuid,
    flow_id: Uuid,
    now: Timestamp,
) -> Result<bool, Error> {
    let name = format!("attribution:{identity_id}");
    store
        .acquire_lock(&name, flow_id, now, saturating_add(now, KEPT_FOR))
        .await
}
