//! Retention: deletes old records in small steps.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::FutureExt as _;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::store::lock::NamedLock;
use crate::store::{Error, Store};

/// The first round begins after this time, so that it does not run during the start.
const FIRST_AFTER: Duration = Duration::from_mins(1);
/// The time between two rounds.
const EVERY: Duration = Duration::from_hours(1);
/// How many rows one statement deletes. A small number keeps waits of other writers short.
const STEP: u32 = 500;
/// The pause between two steps, in which other writers write.
const PAUSE: Duration = Duration::from_millis(100);
/// How long ended pending sign-ups and reservations are kept for a late `post`.
const KEEP_ENDED: Duration = Duration::from_hours(24);
/// The name of the property that holds the retention horizon.
const RETENTION_HORIZON: &str = "retention_horizon";

/// Deletes records whose retention time is over.
pub struct Retention {
    store: Arc<dyn Store>,
    deliveries: Duration,
    decisions: Duration,
    began_at: Timestamp,
    clock: Clock,
    holder: Uuid,
}

/// How many records one round has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Delivered and discarded deliveries.
    pub deliveries: u64,
    /// Decisions.
    pub decisions: u64,
    /// Ended pending sign-ups, and reservations.
    pub ended: u64,
}

/// What a step deletes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Deliveries,
    Decisions,
    Ended,
}

impl Retention {
    /// Keeps deliveries and decisions for these times.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        deliveries: Duration,
        decisions: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            deliveries,
            decisions,
            began_at: clock.now(),
            clock,
            holder: Uuid::new_v4(),
        }
    }

    /// Deletes every hour until `stop` completes. Then the current round ends immediately.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            biased;
            () = stop => {}
            () = self.run_loop() => {}
        }
        // Releases the lock of a round that was interrupted. If the release fails, the lock expires.
        let _ = self.store.release_lock(LOCK, self.holder).await;
    }

    async fn run_loop(&self) {
        let mut next = saturating_add(self.began_at, FIRST_AFTER);
        loop {
            self.clock.sleep_until(next).await;
            next = saturating_add(self.clock.now(), EVERY);
            let round = AssertUnwindSafe(self.round()).catch_unwind().await;
            let Ok(round) = round else {
                // The panic hook has logged the panic. The lock is released, so that the next round need not wait for
                // its end.
                let _ = AssertUnwindSafe(self.store.release_lock(LOCK, self.holder))
                    .catch_unwind()
                    .await;
                tracing::error!("A retention round panicked; the next round starts in an hour");
                continue;
            };
            match round {
                Ok(Some(deleted)) if deleted != Deleted::default() => {
                    let Deleted {
                        deliveries,
                        decisions,
                        ended,
                    } = deleted;
                    tracing::info!(
                        deliveries,
                        decisions,
                        ended,
                        "Deleted records whose retention has ended"
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::error!(
                    error = %error.error_chain(),
                    "Retention failed; the next round starts in an hour"
                ),
            }
        }
    }

    /// Deletes all records whose retention time is over. `None` if another instance is deleting.
    pub async fn round(&self) -> Result<Option<Deleted>, Error> {
        let lock = NamedLock::acquire(&*self.store, &self.clock, LOCK, self.holder).await?;
        let Some(mut lock) = lock else {
            return Ok(None);
        };
        let now = self.clock.now();
        let deliveries_before = earlier(now, self.deliveries);
        advance_retention_horizon(&*self.store, deliveries_before).await?;
        let mut deleted = Deleted::default();
        for (kind, before, count) in [
            (Kind::Deliveries, deliveries_before, &mut deleted.deliveries),
            (
                Kind::Decisions,
                earlier(now, self.decisions),
                &mut deleted.decisions,
            ),
            (Kind::Ended, earlier(now, KEEP_ENDED), &mut deleted.ended),
        ] {
            loop {
                let step = self.step(kind, before).await?;
                *count += step;
                if step < u64::from(STEP) || !lock.renew().await? {
                    break;
                }
                self.clock.sleep(PAUSE).await;
            }
        }
        lock.release().await?;
        Ok(Some(deleted))
    }

    async fn step(&self, kind: Kind, before: Timestamp) -> Result<u64, Error> {
        match kind {
            Kind::Deliveries => self.store.delete_settled(before, STEP).await,
            Kind::Decisions => self.store.delete_decisions(before, STEP).await,
            Kind::Ended => self.store.delete_ended(before, STEP).await,
        }
    }
}

const LOCK: &str = "retention";

/// Returns the retention horizon: deliveries of accounts created before this time may have been deleted.
pub async fn retention_horizon(store: &dyn Store) -> Result<Option<Timestamp>, Error> {
    let stored = store.get_property(RETENTION_HORIZON).await?;
    Ok(stored.and_then(|stored| stored.parse().ok()))
}

/// Moves the retention horizon, and only forward. Deleted records stay deleted, even if the operator extends the
/// retention time. The horizon is stored before anything is deleted, so that reconciliation does not report deleted
/// records as missing.
async fn advance_retention_horizon(store: &dyn Store, before: Timestamp) -> Result<(), Error> {
    let stored = retention_horizon(store).await?;
    if stored.is_none_or(|stored| stored < before) {
        let before = before.to_rfc3339();
        store.set_property(RETENTION_HORIZON, Some(&before)).await?;
    }
    Ok(())
}

fn earlier(now: Timestamp, duration: Duration) -> Timestamp {
    TimeDelta::from_std(duration)
        .ok()
        .and_then(|delta| now.checked_sub_signed(delta))
        .unwrap_or(Timestamp::MIN_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_earliest_timestamp_is_the_earliest_timestamp() {
        let now = saturating_add(Timestamp::UNIX_EPOCH, Duration::from_hours(24));
        assert_eq!(
            earlier(now, Duration::from_hours(24)),
            Timestamp::UNIX_EPOCH
        );
        assert_eq!(earlier(now, Duration::MAX), Timestamp::MIN_UTC);
    }
}
