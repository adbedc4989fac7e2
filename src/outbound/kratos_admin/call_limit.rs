//! Limits how many calls to Kratos's admin API begin in a second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp, saturating_add};

const SECOND: Duration = Duration::from_secs(1);

/// Limits the calls of one instance. Some calls wait for a free slot, others are only counted.
#[derive(Debug)]
pub struct CallLimit {
    clock: Clock,
    per_second: usize,
    /// When the latest calls began, oldest first; at most `per_second` of them.
    begun: Mutex<VecDeque<Timestamp>>,
}

impl CallLimit {
    /// Returns a limit without calls. A `per_second` of 0 counts as 1.
    #[must_use]
    pub fn new(per_second: usize, clock: Clock) -> Self {
        Self {
            clock,
            per_second: per_second.max(1),
            begun: Mutex::default(),
        }
    }

    /// Completes when a call may begin: when fewer than `per_second` calls began within the last second.
    pub async fn wait(&self) {
        while let Some(free_at) = self.try_begin() {
            self.clock.sleep_until(free_at).await;
        }
    }

    /// Counts a call that does not wait.
    pub fn count(&self) {
        self.push(&mut self.begun(), self.clock.now());
    }

    /// Begins a call, or returns when to try again.
    fn try_begin(&self) -> Option<Timestamp> {
        let mut begun = self.begun();
        let now = self.clock.now();
        let free_at = begun
            .front()
            .filter(|_| begun.len() >= self.per_second)
            .map(|oldest| saturating_add(*oldest, SECOND))
            .filter(|free_at| *free_at > now);
        if free_at.is_none() {
            self.push(&mut begun, now);
        }
        free_at
    }

    fn push(&self, begun: &mut VecDeque<Timestamp>, now: Timestamp) {
        begun.push_back(now);
        if begun.len() > self.per_second {
            begun.pop_front();
        }
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, VecDeque<Timestamp>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_waits_until_fewer_than_the_limit_began_within_a_second() {
        let (clock, manual) = Clock::manual(Timestamp::UNIX_EPOCH);
        let limit = CallLimit::new(3, clock);
        limit.wait().await;
        manual.advance(Duration::from_millis(400));
        // A counted call uses a slot, so that a waiting call has to wait longer.
        limit.count();
        limit.wait().await;
        let free_at = |millis| saturating_add(Timestamp::UNIX_EPOCH, Duration::from_millis(millis));
        assert_eq!(limit.try_begin(), Some(free_at(1000)));
        manual.advance(Duration::from_millis(600));
        limit.wait().await;
        assert_eq!(limit.try_begin(), Some(free_at(1400)));
        for _ in 0..5 {
            limit.count();
        }
        assert_eq!(limit.try_begin(), Some(free_at(2000)));
        manual.advance(Duration::from_secs(1));
        for _ in 0..3 {
            limit.wait().await;
        }
        assert_eq!(limit.try_begin(), Some(free_at(3000)));
    }
}
