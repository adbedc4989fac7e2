//! Locks in the database, for jobs that only one instance may run at a time.

use std::time::Duration;

use uuid::Uuid;

use super::{Coordination, Error};
use crate::base::clock::{Clock, Timestamp, saturating_add};

/// How long a lock is valid. No step between two [`NamedLock::renew`] calls takes longer. The lock of a killed instance
/// expires.
const DURATION: Duration = Duration::from_mins(5);
/// The remaining time below which a lock is renewed.
const RENEW_BELOW: Duration = Duration::from_mins(3);

/// A lock that this instance has acquired.
pub struct NamedLock<'a> {
    store: &'a dyn Coordination,
    clock: &'a Clock,
    name: &'static str,
    holder: Uuid,
    until: Timestamp,
}

impl<'a> NamedLock<'a> {
    /// Acquires the lock of that name. Returns `None` if another holder has the lock.
    pub async fn acquire(
        store: &'a dyn Coordination,
        clock: &'a Clock,
        name: &'static str,
        holder: Uuid,
    ) -> Result<Option<Self>, Error> {
        let mut lock = Self {
            store,
            clock,
            name,
            holder,
            until: Timestamp::UNIX_EPOCH,
        };
        Ok(lock.renew().await?.then_some(lock))
    }

    /// Renews the lock if it expires soon. Returns `false` if another holder has the lock.
    pub async fn renew(&mut self) -> Result<bool, Error> {
        let now = self.clock.now();
        if saturating_add(now, RENEW_BELOW) < self.until {
            return Ok(true);
        }
        let until = saturating_add(now, DURATION);
        let is_ours = self
            .store
            .acquire_lock(self.name, self.holder, now, until)
            .await?;
        if is_ours {
            self.until = until;
        }
        Ok(is_ours)
    }

    /// Releases the lock.
    pub async fn release(self) -> Result<(), Error> {
        self.store.release_lock(self.name, self.holder).await
    }
}
