//! The time source of Vestibule, and waits for a point in time.
//!
//! Only this module reads the system clock. All other code takes a [`Clock`] as an argument. So a test can advance
//! the time, and no test sleeps.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use tokio::sync::watch;

/// How often a wait for a stored moment looks whether the system clock was set forward.
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_secs(30);

/// A moment, in UTC.
pub type Timestamp = DateTime<Utc>;

/// The time source: the system clock, or a clock that a test advances.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    ManualClock(Arc<watch::Sender<ManualTime>>),
}

/// The handle that advances a clock from [`Clock::manual`].
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<watch::Sender<ManualTime>>);

/// The time of a manual clock.
#[derive(Clone, Copy, Debug)]
struct ManualTime {
    now: Timestamp,
    monotonic: Duration,
}

/// The end of a wait within this process, measured by [`Clock::monotonic`]. Setting the system clock does not change it. A
/// time that is stored or sent is a [`Timestamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Duration);

impl Deadline {
    /// Returns the deadline that comes earlier by this time.
    #[must_use]
    pub fn earlier_by(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

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
        let sender = Arc::new(watch::Sender::new(ManualTime {
            now: start,
            monotonic: Duration::ZERO,
        }));
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
            Source::ManualClock(time) => time.borrow().now,
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
            Source::ManualClock(time) => time.borrow().monotonic,
        }
    }

    /// Returns the deadline after this time from now.
    #[must_use]
    pub fn deadline(&self, after: Duration) -> Deadline {
        Deadline(self.monotonic().saturating_add(after))
    }

    /// Returns when the deadline will be, as the clock is set now.
    #[must_use]
    pub fn time_of(&self, deadline: Deadline) -> Timestamp {
        saturating_add(self.now(), self.time_left(deadline))
    }

    /// Returns the time that is left until the deadline, or zero if it is over.
    #[must_use]
    pub fn time_left(&self, until: Deadline) -> Duration {
        until.0.saturating_sub(self.monotonic())
    }

    /// Waits for a moment that is stored, such as when a delivery is due. Returns immediately if `moment` is in the past.
    ///
    /// If the system clock is set forward, the wait ends within half a minute of `moment`. If it is set back, the wait ends
    /// after the time that it would have taken.
    pub async fn sleep_until(&self, moment: Timestamp) {
        let wait = (moment - self.now()).to_std().unwrap_or_default();
        let end = self.deadline(wait);
        while self.now() < moment && !self.time_left(end).is_zero() {
            let part = self.time_left(end).min(LOOK_AT_CLOCK_EVERY);
            self.sleep_to(self.deadline(part), moment).await;
        }
    }

    /// Waits for `duration`, starting now.
    pub async fn sleep(&self, duration: Duration) {
        self.wait_until(self.deadline(duration)).await;
    }

    /// Waits until the deadline.
    pub async fn wait_until(&self, deadline: Deadline) {
        self.sleep_to(deadline, Timestamp::MAX_UTC).await;
    }

    /// Waits until the deadline. A manual clock ends the wait at `moment` too.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that waits on the system clock"
    )]
    async fn sleep_to(&self, end: Deadline, moment: Timestamp) {
        match &self.0 {
            Source::System => tokio::time::sleep(self.time_left(end)).await,
            Source::ManualClock(time) => {
                let is_over = |time: &ManualTime| time.monotonic >= end.0 || time.now >= moment;
                // This clock owns the sender, so the wait cannot end early.
                let _ = time.subscribe().wait_for(is_over).await;
            }
        }
    }

    /// Runs `work` until the deadline at the latest, and returns `None` if `work` was not finished by then.
    pub async fn timeout_at<F: Future>(&self, until: Deadline, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = work => Some(output),
            () = self.wait_until(until) => None,
        }
    }
}

impl ManualClock {
    /// Advances the time, and wakes all tasks whose waiting time is over.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|time| {
            time.now = saturating_add(time.now, by);
            time.monotonic = time.monotonic.saturating_add(by);
        });
    }

    /// Sets the clock, forward or back, as an administrator does. No time passes.
    pub fn set(&self, now: Timestamp) {
        self.0.send_modify(|time| time.now = now);
    }

    /// Returns the current time of this clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.borrow().now
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

    #[test]
    fn a_time_before_the_earliest_timestamp_is_the_earliest_timestamp() {
        let now = saturating_add(Timestamp::UNIX_EPOCH, Duration::from_hours(24));
        let day_before = earlier(now, Duration::from_hours(24));
        assert_eq!(day_before, Timestamp::UNIX_EPOCH);
        assert_eq!(earlier(now, Duration::MAX), Timestamp::MIN_UTC);
    }

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
        let end = clock.deadline(Duration::from_secs(5));
        manual.advance(Duration::from_secs(5));
        assert_eq!(
            clock.timeout_at(end, std::future::pending::<()>()).await,
            None
        );
        assert_eq!(clock.timeout_at(end, async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn a_clock_that_is_set_moves_no_deadline() {
        let hour = Duration::from_hours(1);
        let start = saturating_add(Timestamp::UNIX_EPOCH, hour * 24);
        for set_to in [earlier(start, hour), saturating_add(start, hour)] {
            let (clock, manual) = Clock::manual(start);
            let end = clock.deadline(Duration::from_secs(5));
            manual.set(set_to);
            assert_eq!(clock.now(), set_to);
            assert_eq!(clock.time_left(end), Duration::from_secs(5));
            manual.advance(Duration::from_secs(5));
            assert!(clock.time_left(end).is_zero());
        }
    }

    #[tokio::test]
    async fn a_wait_for_a_stored_moment_takes_no_longer_when_the_clock_is_set_back() {
        let hour = Duration::from_hours(1);
        let start = saturating_add(Timestamp::UNIX_EPOCH, hour * 24);
        for (set_to, passes) in [
            (earlier(start, hour), Duration::from_secs(2)),
            (saturating_add(start, hour), Duration::ZERO),
        ] {
            let (clock, manual) = Clock::manual(start);
            let due = saturating_add(start, Duration::from_secs(2));
            let sleeper = tokio::spawn(async move { clock.sleep_until(due).await });
            tokio::task::yield_now().await;
            manual.set(set_to);
            manual.advance(passes);
            vestibule_testing::join_all("the wait ends", vec![sleeper]).await;
        }
    }
}
