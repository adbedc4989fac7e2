//! Runs a round at a fixed interval, with any number of instances and restarts.

use std::time::Duration;

use async_trait::async_trait;

use super::checkpoint::LAST_ROUND;
use super::{Error, Reconciler, Report};
use crate::base::clock::{Timestamp, saturating_add};
use crate::jobs::driver::{Job, JobError};
use crate::store;

/// The pause after the first failure. Each further failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// How often to check whether another instance is done.
const POLL_INTERVAL: Duration = Duration::from_mins(1);

/// Reconciles when the last round is longer ago than an interval.
pub struct Reconciliation {
    reconciler: Reconciler,
    every: Duration,
}

impl Reconciliation {
    /// Reconciles at this interval.
    #[must_use]
    pub fn new(reconciler: Reconciler, every: Duration) -> Self {
        Self { reconciler, every }
    }
}

#[async_trait]
impl Job for Reconciliation {
    fn name(&self) -> &'static str {
        "reconciliation"
    }

    async fn run(&mut self) -> Result<Timestamp, JobError> {
        let began = self.reconciler.clock.now();
        match self.reconciler.if_due(self.every).await {
            // A round of another instance counts for this instance too.
            Err(Error::Busy) => Ok(saturating_add(began, POLL_INTERVAL.min(self.every))),
            result => Ok(result?),
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        pause(failures, self.every)
    }

    async fn after_panic(&mut self) {
        self.finish().await;
    }

    /// Releases the lock of a round that was interrupted; the next round continues it. If the release fails, the lock
    /// expires.
    async fn finish(&mut self) {
        let _ = self.reconciler.release_lock().await;
    }
}

impl Reconciler {
    /// Runs a round if it is due. Returns when the next round is due.
    async fn if_due(&self, every: Duration) -> Result<Timestamp, Error> {
        let due = self.due(every).await?;
        if due > self.clock.now() {
            return Ok(due);
        }
        let Report {
            checked,
            missing,
            stored,
            unbuilt,
            changes_reported,
            deletions_reported,
            deleted,
            erased,
        } = self.round(&()).await?;
        tracing::info!(
            checked,
            missing,
            stored,
            unbuilt,
            changes_reported,
            deletions_reported,
            deleted,
            erased,
            "Reconciled: checked {checked} identities, stored {stored} missing deliveries, {changes_reported} of changes and \
             {deletions_reported} of deletions that no hook reported; {deleted} identities were deleted in Kratos"
        );
        Ok(self.due(every).await?)
    }

    /// Returns when the next round is due: immediately if there was none.
    async fn due(&self, every: Duration) -> Result<Timestamp, store::Error> {
        let last = self.store.get_property(LAST_ROUND).await?;
        let last = last.and_then(|last| last.parse::<Timestamp>().ok());
        Ok(last.map_or(Timestamp::UNIX_EPOCH, |last| saturating_add(last, every)))
    }
}

fn pause(failures: u32, every: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_interval() {
        let minutes = |minutes| Duration::from_mins(minutes);
        for (failures, every, expected) in [
            (1, minutes(60), minutes(1)),
            (2, minutes(60), minutes(2)),
            (6, minutes(60), minutes(32)),
            (7, minutes(60), minutes(60)),
            (99, minutes(60), minutes(60)),
            (1, Duration::from_secs(30), Duration::from_secs(30)),
        ] {
            assert_eq!(pause(failures, every), expected, "{failures}");
        }
    }
}
