//! Which sign-up an account came of.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Store};
use crate::clock::{Timestamp, later};

/// Longer than any flow lives in which somebody else could claim it.
const CLAIM: Duration = Duration::from_hours(24 * 7);

/// Writes down that an account came of this flow. `false` if it came of another.
pub async fn claim(
    store: &dyn Store,
    identity_id: Uuid,
    flow_id: Uuid,
    now: Timestamp,
) -> Result<bool, Error> {
    let name = format!("account:{identity_id}");
    store
        .take_turn(&name, flow_id, now, later(now, CLAIM))
        .await
}
