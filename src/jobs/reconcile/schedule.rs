//! Runs a round at a fixed interval, with any number of instances and restarts.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::checkpoint::LAST_ROUND;
use super::{Error, Reconciler, Report};
use crate::base::clock::{Timestamp, saturating_add};
use crate::store;

/// The pause after the first failure. Each further failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// How often to check whether another instance is done.
const POLL_INTERVAL: Duration = Duration::from_mins(1);

impl Reconciler {
    /// Reconciles when the last round is longer ago than `every`, until `stop` completes. Then the current round ends
    /// immediately. The next round continues the interrupted one.
    pub async fn run(self, every: Duration, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            biased;
            () = stop => {}
            () = self.run_loop(every) => {}
        }
        // If the release fails, the lock expires.
        let _ = self.release_lock().await;
    }

    async fn run_loop(&self, every: Duration) {
        let mut failures = 0;
        loop {
            let began = self.clock.now();
            let due = AssertUnwindSafe(self.if_due(every)).catch_unwind().await;
            let Ok(due) = due else {
                // The panic hook has logged the panic. The lock is released, so that the next round need not wait for
                // its end.
                let _ = AssertUnwindSafe(self.release_lock()).catch_unwind().await;
                let next = saturating_add(began, pause(failures, every));
                failures += 1;
                tracing::error!(
                    failures,
                    "A reconciliation round panicked; next try at {next}"
                );
                self.clock.sleep_until(next).await;
                continue;
            };
            let next = match due {
                Ok(next) => {
                    failures = 0;
                    next
                }
                // A round of another instance counts for this instance too.
                Err(Error::Busy) => saturating_add(began, POLL_INTERVAL.min(every)),
                Err(error) => {
                    let next = saturating_add(began, pause(failures, every));
                    failures += 1;
                    tracing::error!(
                        error = %error.error_chain(), failures,
                        "Reconciliation failed; next try at {next}"
                    );
                    next
                }
            };
            self.clock.sleep_until(next).await;
        }
    }

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
            deleted,
            erased,
        } = self.round(&()).await?;
        tracing::info!(
            checked,
            missing,
            stored,
            unbuilt,
            deleted,
            erased,
            "Reconciled: checked {checked} identities, stored {stored} missing deliveries; {deleted} identities were deleted in Kratos"
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
    FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_interval() {
        let minutes = |minutes| Duration::from_mins(minutes);
        for (failures, every, expected) in [
            (0, minutes(60), minutes(1)),
            (1, minutes(60), minutes(2)),
            (5, minutes(60), minutes(32)),
            (6, minutes(60), minutes(60)),
            (99, minutes(60), minutes(60)),
            (0, Duration::from_secs(30), Duration::from_secs(30)),
        ] {
            assert_eq!(pause(failures, every), expected, "{failures}");
        }
    }
}
