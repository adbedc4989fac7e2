//! The time source of Vestibule, and waits for a point in time.
//!
//! Only this module reads the system clock. All other code takes a [`Clock`] as an argument. So a test can advance
//! the time, and no test sleeps.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use tokio::sync::watch;

/// A moment, in UTC.
pub type Timestamp = DateTime<Utc>;

/// The time source: the system clock, or a clock that a test advances.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    ManualClock(Arc<watch::Sender<Timestamp>>),
}

/// The handle that advances a clock from [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<watch::Sender<Timestamp>>);

impl Clock {
    /// Returns the system clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock that starts at `start`, and the [`ManualClock`] that advances it. The clock does not run by
    /// itself.
    #[must_use]
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let sender = Arc::new(watch::Sender::new(start));
        (
            Self(Source::ManualClock(Arc::clone(&sender))),
            ManualClock(sender),
        )
    }

    /// Returns the current time.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system clock"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Utc::now(),
            Source::ManualClock(time) => *time.borrow(),
        }
    }

    /// Returns the time since a fixed moment in the past. It never goes back, also when the system clock is set back, so
    /// it measures how old something is that is not stored.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system clock"
    )]
    pub fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.0 {
            Source::System => START.elapsed(),
            Source::ManualClock(time) => {
                let since = *time.borrow() - Timestamp::UNIX_EPOCH;
                since.to_std().unwrap_or_default()
            }
        }
    }

    /// Waits until `moment`, or returns immediately if `moment` is in the past.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that waits on the system clock"
    )]
    pub async fn sleep_until(&self, moment: Timestamp) {
        match &self.0 {
            Source::System => {
                if let Ok(wait) = (moment - self.now()).to_std() {
                    tokio::time::sleep(wait).await;
                }
            }
            Source::ManualClock(time) => {
                // This clock owns the sender, so the wait cannot end early.
                let _ = time.subscribe().wait_for(|now| *now >= moment).await;
            }
        }
    }

    /// Waits for `duration`, starting now.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(saturating_add(self.now(), duration)).await;
    }

    /// Runs `work` until `moment` at the latest, and returns `None` if `work` was not finished by then.
    pub async fn timeout_at<F: Future>(&self, moment: Timestamp, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.sleep_until(moment) => None,
        }
    }
}

impl ManualClock {
    /// Advances the time, and wakes all tasks whose waiting time is over.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = saturating_add(*now, by));
    }

    /// Returns the current time of this clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.0.borrow()
    }
}

/// Returns `moment` plus `duration`, or the largest timestamp if the sum is out of range.
#[must_use]
pub fn saturating_add(moment: Timestamp, duration: Duration) -> Timestamp {
    TimeDelta::from_std(duration)
        .ok()
        .and_then(|delta| moment.checked_add_signed(delta))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// Returns `moment` minus `duration`, or the smallest timestamp if the difference is out of range.
#[must_use]
pub fn earlier(moment: Timestamp, duration: Duration) -> Timestamp {
    TimeDelta::from_std(duration)
        .ok()
        .and_then(|delta| moment.checked_sub_signed(delta))
        .unwrap_or(Timestamp::MIN_UTC)
}

/// Parses a day (`2026-11-01`) or a moment (`2026-11-01T12:00:00Z`). A day means its beginning, in UTC.
#[must_use]
pub fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>().ok().or_else(|| {
        let day = text.parse::<NaiveDate>().ok()?;
        Some(day.and_hms_opt(0, 0, 0)?.and_utc())
    })
}

/// Returns the time from `start` to `end` in whole milliseconds, or 0 if `end` is earlier.
#[must_use]
pub fn milliseconds(start: Timestamp, end: Timestamp) -> u64 {
    u64::try_from((end - start).num_milliseconds()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn advancing_a_manual_clock_wakes_sleeping_tasks() {
        let (clock, manual) = Clock::manual(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_mins(1)).await }
        });
        tokio::task::yield_now().await;
        manual.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        manual.advance(Duration::from_secs(1));
        assert!(sleeper.await.is_ok());
    }

    #[tokio::test]
    async fn timeout_at_returns_none_for_work_that_is_not_finished_in_time() {
        let (clock, manual) = Clock::manual(Timestamp::UNIX_EPOCH);
        let end = saturating_add(clock.now(), Duration::from_secs(5));
        manual.advance(Duration::from_secs(5));
        assert_eq!(
            clock.timeout_at(end, std::future::pending::<()>()).await,
            None
        );
        assert_eq!(clock.timeout_at(end, async { 7 }).await, Some(7));
    }
}
