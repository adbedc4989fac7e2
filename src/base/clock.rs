//! What time is it, and when is it time to go on?
//!
//! Only this module asks the system. Everything else is given a [`Clock`], so that a test can move
//! time by hand and no test ever sleeps.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use tokio::sync::watch;

/// A moment, in UTC.
pub type Timestamp = DateTime<Utc>;

/// Tells the time and waits for it: the system's, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    ManualClock(Arc<watch::Sender<Timestamp>>),
}

/// The other end of [`Clock::manual`]: moves the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<watch::Sender<Timestamp>>);

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still at `start` until its [`ManualClock`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let sender = Arc::new(watch::Sender::new(start));
        (
            Self(Source::ManualClock(Arc::clone(&sender))),
            ManualClock(sender),
        )
    }

    /// The present moment.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Utc::now(),
            Source::ManualClock(time) => *time.borrow(),
        }
    }

    /// Waits until `moment` has come; at once if it is past.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that waits for the system"
    )]
    pub async fn sleep_until(&self, moment: Timestamp) {
        match &self.0 {
            Source::System => {
                if let Ok(wait) = (moment - self.now()).to_std() {
                    tokio::time::sleep(wait).await;
                }
            }
            Source::ManualClock(time) => {
                // The sender lives as long as this clock, so this cannot end early.
                let _ = time.subscribe().wait_for(|now| *now >= moment).await;
            }
        }
    }

    /// Waits for `duration` from now on.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(saturating_add(self.now(), duration)).await;
    }

    /// Runs `work` until `moment` at the latest; `None` if it was not done by then.
    pub async fn timeout_at<F: Future>(&self, moment: Timestamp, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.sleep_until(moment) => None,
        }
    }
}

impl ManualClock {
    /// Moves the time forward and wakes whoever waited for it.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|now| *now = saturating_add(*now, by));
    }

    /// The moment at which the clock stands.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.0.borrow()
    }
}

/// `moment` plus `duration`; the end of time if that cannot be told.
#[must_use]
pub fn saturating_add(moment: Timestamp, duration: Duration) -> Timestamp {
    TimeDelta::from_std(duration)
        .ok()
        .and_then(|delta| moment.checked_add_signed(delta))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// The moment `duration` before `moment`.
#[must_use]
pub fn earlier(moment: Timestamp, duration: Duration) -> Timestamp {
    TimeDelta::from_std(duration)
        .ok()
        .and_then(|delta| moment.checked_sub_signed(delta))
        .unwrap_or(Timestamp::MIN_UTC)
}

/// Reads a day (its beginning, in UTC) or a moment: `2026-11-01` or `2026-11-01T12:00:00Z`.
#[must_use]
pub fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>().ok().or_else(|| {
        let day = text.parse::<NaiveDate>().ok()?;
        Some(day.and_hms_opt(0, 0, 0)?.and_utc())
    })
}

/// The time from `start` to `end` in whole milliseconds; 0 if `end` is earlier.
#[must_use]
pub fn milliseconds(start: Timestamp, end: Timestamp) -> u64 {
    u64::try_from((end - start).num_milliseconds()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_moved_by_hand_wakes_whoever_waited() {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_mins(1)).await }
        });
        tokio::task::yield_now().await;
        hand.advance(Duration::from_secs(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        hand.advance(Duration::from_secs(1));
        assert!(sleeper.await.is_ok());
    }

    #[tokio::test]
    async fn work_that_is_not_done_in_time_is_given_up() {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        let end = saturating_add(clock.now(), Duration::from_secs(5));
        hand.advance(Duration::from_secs(5));
        assert_eq!(
            clock.timeout_at(end, std::future::pending::<()>()).await,
            None
        );
        assert_eq!(clock.timeout_at(end, async { 7 }).await, Some(7));
    }
}
