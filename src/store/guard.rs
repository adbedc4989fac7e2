//! Records, for each method, whether Kratos stores the `external_id` of a `pre` response.
//!
//! Vestibule relies on the one-identity guard only after a `post` has returned Vestibule's id. Kratos before v25.4.0
//! ignores the id, and another hook can replace it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Error, Store};
use crate::base::clock::{Clock, Timestamp, saturating_add};

/// How long an instance caches a proof. Another instance may have seen the end of the proof.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
const PROVEN: &str = "proven";
const BROKEN: &str = "broken";

/// Whether the guard is proven. The store keeps the proof, and each instance caches it for some seconds.
pub struct GuardProof {
    store: Arc<dyn Store>,
    clock: Clock,
    known: Mutex<HashMap<String, (bool, Timestamp)>>,
}

impl GuardProof {
    /// Starts with an empty cache.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Mutex::new(HashMap::new()),
        }
    }

    /// Returns whether a `post` of this method has returned Vestibule's id, and no later `post` lacked it.
    pub async fn is_proven(&self, method: &str) -> Result<bool, Error> {
        let now = self.clock.now();
        if let Some((proven, until)) = self.remembered(method)
            && proven
            && now < until
        {
            return Ok(true);
        }
        let value = self.store.get_property(&property(method)).await?;
        let proven = value.as_deref() == Some(PROVEN);
        self.remember(method, proven);
        Ok(proven)
    }

    /// Records whether a `post` returned the id that `pre` had answered. Returns whether this ended a proof.
    pub async fn observe(&self, method: &str, returned: bool) -> Result<bool, Error> {
        if returned && self.is_proven(method).await? {
            return Ok(false);
        }
        let value = if returned { PROVEN } else { BROKEN };
        let before = self.store.get_property(&property(method)).await?;
        if before.as_deref() == Some(value) {
            self.remember(method, returned);
            return Ok(false);
        }
        self.store
            .set_property(&property(method), Some(value))
            .await?;
        self.remember(method, returned);
        Ok(!returned)
    }

    fn remembered(&self, method: &str) -> Option<(bool, Timestamp)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(method).copied()
    }

    fn remember(&self, method: &str, proven: bool) {
        let until = saturating_add(self.clock.now(), BELIEVED_FOR);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(method.to_owned(), (proven, until));
    }
}

fn property(method: &str) -> String {
    format!("one_identity_guard:{method}")
}
