//! Retention: deletes old records in small steps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, earlier, saturating_add};
use crate::jobs::driver::{Job, JobError};
use crate::store::known_identities::set_all_known;
use crate::store::lock::NamedLock;
use crate::store::{Coordination, Error, Store};

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
    /// Whether known identities are kept. Otherwise nothing would ever delete them.
    keeps_identities: bool,
    clock: Clock,
    holder: Uuid,
}

/// How many records one round has deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Delivered, superseded and discarded deliveries.
    pub deliveries: u64,
    /// Decisions.
    pub decisions: u64,
    /// Ended pending sign-ups, and reservations.
    pub ended: u64,
    /// Known identities that no subscription needs any more.
    pub identities: u64,
}

/// What a step deletes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Deliveries,
    Decisions,
    Ended,
    Identities,
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
            keeps_identities: true,
            clock,
            holder: Uuid::new_v4(),
        }
    }

    /// Keeps known identities, or deletes all of them.
    #[must_use]
    pub fn keeping_identities(self, keeps_identities: bool) -> Self {
        Self {
            keeps_identities,
            ..self
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
        let identities_before = if self.keeps_identities {
            Timestamp::UNIX_EPOCH
        } else {
            set_all_known(&*self.store, None).await?;
            Timestamp::MAX_UTC
        };
        for (kind, before, count) in [
            (Kind::Deliveries, deliveries_before, &mut deleted.deliveries),
            (
                Kind::Decisions,
                earlier(now, self.decisions),
                &mut deleted.decisions,
            ),
            (Kind::Ended, earlier(now, KEEP_ENDED), &mut deleted.ended),
            (Kind::Identities, identities_before, &mut deleted.identities),
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
            Kind::Identities => self.store.delete_unseen_identities(before, STEP).await,
        }
    }
}

#[async_trait]
impl Job for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn first_run(&self, now: Timestamp) -> Timestamp {
        saturating_add(now, FIRST_AFTER)
    }

    /// Deletes, and returns when the next round is due.
    async fn run(&mut self) -> Result<Timestamp, JobError> {
        let next = saturating_add(self.clock.now(), EVERY);
        if let Some(deleted) = self.round().await?
            && deleted != Deleted::default()
        {
            let Deleted {
                deliveries,
                decisions,
                ended,
                identities,
            } = deleted;
            tracing::info!(
                deliveries,
                decisions,
                ended,
                identities,
                "Deleted records whose retention has ended"
            );
        }
        Ok(next)
    }

    fn pause(&self, _: u32) -> Duration {
        EVERY
    }

    async fn after_panic(&mut self) {
        self.finish().await;
    }

    /// Releases the lock of a round that was interrupted. If the release fails, the lock expires.
    async fn finish(&mut self) {
        let _ = self.store.release_lock(LOCK, self.holder).await;
    }
}

const LOCK: &str = "retention";

/// Returns the retention horizon: deliveries of accounts created before this time may have been deleted.
pub async fn retention_horizon(store: &dyn Coordination) -> Result<Option<Timestamp>, Error> {
    let stored = store.get_property(RETENTION_HORIZON).await?;
    Ok(stored.and_then(|stored| stored.parse().ok()))
}

/// Moves the retention horizon, and only forward. Deleted records stay deleted, even if the operator extends the
/// retention time. The horizon is stored before anything is deleted, so that reconciliation does not report deleted
/// records as missing.
async fn advance_retention_horizon(
    store: &dyn Coordination,
    before: Timestamp,
) -> Result<(), Error> {
    let stored = retention_horizon(store).await?;
    if stored.is_none_or(|stored| stored < before) {
        let before = before.to_rfc3339();
        store.set_property(RETENTION_HORIZON, Some(&before)).await?;
    }
    Ok(())
}
