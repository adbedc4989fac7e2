//! Whether Kratos stores the `external_id` that `pre` answers, method by method.
//!
//! The one-identity guard is relied on only once a `post` has returned our id: Kratos before v25.4.0 ignores it, and another
//! hook can replace it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Error, Store};
use crate::base::clock::{Clock, Timestamp, saturating_add};

/// For how long an instance believes what it read. Another instance may have seen the proof end.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
const PROVEN: &str = "proven";
const BROKEN: &str = "broken";

/// Whether the guard is proven, kept in the store and remembered for some seconds.
pub struct GuardProof {
    store: Arc<dyn Store>,
    clock: Clock,
    known: Mutex<HashMap<String, (bool, Timestamp)>>,
}

impl GuardProof {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            known: Mutex::new(HashMap::new()),
        }
    }

    /// Whether a `post` of this method has returned our id, and none since has not.
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

    /// A `post` has returned our id, or has not although `pre` had answered it. Returns whether a proof ended just now.
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
