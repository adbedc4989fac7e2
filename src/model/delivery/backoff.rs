//! Retry schedules: the times of the next attempts.

use std::time::Duration;

use crate::base::clock::{Timestamp, saturating_add};

/// How pauses between attempts grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The pause after the first attempt. Each further pause is twice as long.
    pub first: Duration,
    /// The maximum pause, without jitter.
    pub longest: Duration,
    /// The jitter, as a fraction of the pause: 0.2 means up to 20 % shorter or longer. With jitter, deliveries that
    /// failed together are not retried together.
    pub spread: f64,
}

impl Schedule {
    /// The schedule of deliveries: ten attempts in the first 90 minutes, then about one per hour. That is about 200
    /// attempts in eight days.
    pub const DELIVERIES: Self = Self {
        first: Duration::from_secs(5),
        longest: Duration::from_hours(1),
        spread: 0.2,
    };

    /// The schedule for Vestibule's own database after an error.
    pub const DATABASE: Self = Self {
        first: Duration::from_millis(200),
        longest: Duration::from_secs(30),
        spread: 0.2,
    };

    /// Returns the pause after this number of attempts. `jitter` is a number from 0 (shortest) to 1 (longest).
    #[must_use]
    pub fn pause(&self, tries: u32, jitter: f64) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        let pause = self.first.saturating_mul(1 << doublings).min(self.longest);
        pause.mul_f64(1.0 - self.spread + 2.0 * self.spread * jitter.clamp(0.0, 1.0))
    }
}

/// Returns when the next attempt is due, after this number of attempts. The last attempt ended `now`.
#[must_use]
pub fn next_try(schedule: &Schedule, tries: u32, now: Timestamp, jitter: f64) -> Timestamp {
    saturating_add(now, schedule.pause(tries, jitter))
}

/// Returns a random number from 0 to 1 for `jitter`.
#[must_use]
pub fn random_jitter() -> f64 {
    // Without a source of randomness, all pauses have the middle of the range, which is harmless.
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds = |tries| Schedule::DELIVERIES.pause(tries, 0.5).as_secs();
        assert_eq!(
            [1, 2, 3, 4, 10, 11, 12, 200].map(seconds),
            [5, 10, 20, 40, 2560, 3600, 3600, 3600]
        );
    }

    #[test]
    fn eight_days_hold_about_two_hundred_attempts() {
        let mut tries = 0;
        let mut waited = Duration::ZERO;
        while waited.as_secs() < 8 * DAY {
            tries += 1;
            waited += Schedule::DELIVERIES.pause(tries, 0.5);
        }
        assert_eq!(tries, 201);
    }

    proptest! {
        #[test]
        fn a_pause_stays_within_its_bounds(tries: u32, jitter: f64) {
            let schedule = Schedule::DELIVERIES;
            let pause = schedule.pause(tries, jitter);
            prop_assert!(pause >= schedule.first.mul_f64(0.8));
            prop_assert!(pause <= schedule.longest.mul_f64(1.2));
        }

        #[test]
        fn a_later_try_never_waits_less(tries in 0..u32::MAX, jitter in 0.0..=1.0) {
            let schedule = Schedule::DELIVERIES;
            prop_assert!(schedule.pause(tries, jitter) <= schedule.pause(tries + 1, jitter));
        }

        #[test]
        fn the_next_try_is_in_the_future(tries: u32, jitter in 0.0..=1.0) {
            let now = Timestamp::UNIX_EPOCH;
            prop_assert!(next_try(&Schedule::DATABASE, tries, now, jitter) > now);
        }
    }

    #[test]
    fn a_random_number_is_between_0_and_1() {
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&random_jitter()));
        }
    }
}
