//! Which flow an identity came of, where the one-identity guard does not say it.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Store};
use crate::base::clock::{Timestamp, saturating_add};

/// Longer than any flow lives.
const KEPT_FOR: Duration = Duration::from_hours(24 * 7);

/// Records that an identity came of this flow. `false` if it came of another.
pub async fn attribute(
    store: &dyn Store,
    identity_id: Uuid,
    flow_id: Uuid,
    now: Timestamp,
) -> Result<bool, Error> {
    let name = format!("attribution:{identity_id}");
    store
        .acquire_lock(&name, flow_id, now, saturating_add(now, KEPT_FOR))
        .await
}
