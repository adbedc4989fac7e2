//! Records, for each method, whether Kratos stores the `external_id` of a `pre` response.
//!
//! Vestibule relies on the one-identity guard only after a `post` has returned Vestibule's id. Kratos before v25.4.0
//! ignores the id, and another hook can replace it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Coordination, Error};
use crate::base::clock::{Clock, Deadline, Timestamp, saturating_add};

/// How long an instance caches a proof. Another instance may have seen the end of the proof.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// How long a `post` without the id prevents a new proof.
pub const BROKEN_FOR: Duration = Duration::from_hours(24);
const PROVEN: &str = "proven";
/// The time of the last recorded `post` without the id follows.
const BROKEN: &str = "broken";

/// Whether the guard is proven. The store keeps the proof, and each instance caches it for some seconds.
pub struct GuardProof {
    store: Arc<dyn Coordination>,
    clock: Clock,
    known: Mutex<HashMap<String, (bool, Deadline)>>,
}

impl GuardProof {
    /// Starts with an empty cache.
    #[must_use]
    pub fn new(store: Arc<dyn Coordination>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Mutex::new(HashMap::new()),
        }
    }

    /// Returns whether a `post` of this method has returned Vestibule's id, and no later `post` lacked it.
    pub async fn is_proven(&self, method: &str) -> Result<bool, Error> {
        if let Some((proven, until)) = self.remembered(method)
            && proven
            && !self.clock.time_left(until).is_zero()
        {
            return Ok(true);
        }
        let value = self.store.get_property(&property(method)).await?;
        let proven = value.as_deref() == Some(PROVEN);
        self.remember(method, proven);
        Ok(proven)
    }

    /// Records whether a `post` returned the id that `pre` had answered. Returns whether this ended a proof.
    ///
    /// Another hook may replace the id of some accounts only. So a `post` with the id proves nothing for
    /// [`BROKEN_FOR`] after a `post` without the id: a visitor could prove the guard by one sign-up, and evade it by
    /// another one.
    pub async fn observe(&self, method: &str, returned: bool) -> Result<bool, Error> {
        if returned && self.is_proven(method).await? {
            return Ok(false);
        }
        let now = self.clock.now();
        let before = self.store.get_property(&property(method)).await?;
        let broken_at = before.as_deref().and_then(broken_at);
        let was_broken_within =
            |age| broken_at.is_some_and(|broken_at| now < saturating_add(broken_at, age));
        let value = match returned {
            true if was_broken_within(BROKEN_FOR) => None,
            true => Some(PROVEN.to_owned()),
            // Each `post` of an old Kratos lacks the id, so not each one is recorded.
            false if was_broken_within(BROKEN_FOR / 24) => None,
            false => Some(format!("{BROKEN} {}", now.to_rfc3339())),
        };
        let Some(value) = value else {
            self.remember(method, false);
            return Ok(false);
        };
        self.store
            .set_property(&property(method), Some(&value))
            .await?;
        self.remember(method, returned);
        Ok(!returned && broken_at.is_none())
    }

    fn remembered(&self, method: &str) -> Option<(bool, Deadline)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(method).copied()
    }

    fn remember(&self, method: &str, proven: bool) {
        let until = self.clock.deadline(BELIEVED_FOR);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(method.to_owned(), (proven, until));
    }
}

fn property(method: &str) -> String {
    format!("one_identity_guard:{method}")
}

/// Returns when a `post` last lacked the id.
fn broken_at(value: &str) -> Option<Timestamp> {
    value.strip_prefix(BROKEN)?.trim().parse().ok()
}
