//! Limits how many calls to Kratos's admin API begin in a second.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);

/// Limits the calls of one instance. Some calls wait for a free slot, others are only counted.
#[derive(Debug)]
pub struct CallLimit {
    clock: Clock,
    per_second: usize,
    /// When the latest calls began, in monotonic time, oldest first; at most `per_second` of them.
    begun: Mutex<VecDeque<Duration>>,
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
        while let Some(wait) = self.try_begin() {
            self.clock.sleep(wait).await;
        }
    }

    /// Counts a call that does not wait.
    pub fn count(&self) {
        self.push(&mut self.begun(), self.clock.monotonic());
    }

    /// Begins a call, or returns how long to wait before the next try.
    fn try_begin(&self) -> Option<Duration> {
        let mut begun = self.begun();
        let now = self.clock.monotonic();
        let wait = begun
            .front()
            .filter(|_| begun.len() >= self.per_second)
            .and_then(|oldest| (*oldest + SECOND).checked_sub(now))
            .filter(|wait| !wait.is_zero());
        if wait.is_none() {
            self.push(&mut begun, now);
        }
        wait
    }

    fn push(&self, begun: &mut VecDeque<Duration>, now: Duration) {
        begun.push_back(now);
        if begun.len() > self.per_second {
            begun.pop_front();
        }
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, VecDeque<Duration>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;

    #[tokio::test]
    async fn a_call_waits_until_fewer_than_the_limit_began_within_a_second() {
        let (clock, manual) = Clock::manual(Timestamp::UNIX_EPOCH);
        let limit = CallLimit::new(3, clock);
        limit.wait().await;
        manual.advance(Duration::from_millis(400));
        // A counted call uses a slot, so that a waiting call has to wait longer.
        limit.count();
        limit.wait().await;
        let wait = Duration::from_millis;
        assert_eq!(limit.try_begin(), Some(wait(600)));
        manual.advance(Duration::from_millis(600));
        limit.wait().await;
        assert_eq!(limit.try_begin(), Some(wait(400)));
        for _ in 0..5 {
            limit.count();
        }
        assert_eq!(limit.try_begin(), Some(wait(1000)));
        manual.advance(Duration::from_secs(1));
        for _ in 0..3 {
            limit.wait().await;
        }
        assert_eq!(limit.try_begin(), Some(wait(1000)));
    }
}
