//! Whose turn it is, where only one instance may do something at a time.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Store};
use crate::base::clock::{Clock, Timestamp, saturating_add};

/// Longer than anything that is done between two [`NamedLock::hold`]s. An instance that dies leaves a turn that ends by itself.
const LENGTH: Duration = Duration::from_mins(5);
/// How much of it may be left before it is taken anew.
const LEFT: Duration = Duration::from_mins(3);

/// A turn that was taken.
pub struct NamedLock<'a> {
    store: &'a dyn Store,
    clock: &'a Clock,
    name: &'static str,
    holder: Uuid,
    until: Timestamp,
}

impl<'a> NamedLock<'a> {
    /// Takes the turn of that name; `None` if somebody else has it.
    pub async fn take(
        store: &'a dyn Store,
        clock: &'a Clock,
        name: &'static str,
        holder: Uuid,
    ) -> Result<Option<Self>, Error> {
        let mut turn = Self {
            store,
            clock,
            name,
            holder,
            until: Timestamp::UNIX_EPOCH,
        };
        Ok(turn.hold().await?.then_some(turn))
    }

    /// Makes it last. `false` if it is somebody else's by now.
    pub async fn hold(&mut self) -> Result<bool, Error> {
        let now = self.clock.now();
        if saturating_add(now, LEFT) < self.until {
            return Ok(true);
        }
        let until = saturating_add(now, LENGTH);
        let ours = self
            .store
            .acquire_lock(self.name, self.holder, now, until)
            .await?;
        if ours {
            self.until = until;
        }
        Ok(ours)
    }

    /// Lets others have theirs.
    pub async fn end(self) -> Result<(), Error> {
        self.store.release_lock(self.name, self.holder).await
    }
}
