//! Limits the deliveries to one target: how many run in parallel, and how many begin in a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::clock::{Timestamp, milliseconds, saturating_add};

/// Limits the deliveries to one target. Each target has a separate limiter, so that a slow target does not delay
/// deliveries to others.
pub(super) struct TargetLimiter {
    permits: Arc<Semaphore>,
    rate: Option<TokenBucket>,
}

/// A token bucket. The bucket gets `per_second` tokens each second, and a delivery takes one token.
struct TokenBucket {
    per_second: f64,
    tokens: f64,
    filled_at: Timestamp,
}

impl TargetLimiter {
    pub(super) fn new(max_concurrent: usize, per_second: Option<f64>, now: Timestamp) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_concurrent)),
            rate: per_second.map(|per_second| TokenBucket {
                per_second,
                tokens: per_second.max(1.0),
                filled_at: now,
            }),
        }
    }

    /// Returns the permits that are free now. If the rate limits their number, returns when there are more.
    pub(super) fn free_permits(
        &mut self,
        now: Timestamp,
    ) -> (Vec<OwnedSemaphorePermit>, Option<Timestamp>) {
        let mut free = Vec::new();
        loop {
            if let Some(more_at) = self.rate.as_mut().and_then(|rate| rate.empty_until(now)) {
                return (free, Some(more_at));
            }
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                return (free, None);
            };
            if let Some(rate) = &mut self.rate {
                rate.tokens -= 1.0;
            }
            free.push(permit);
        }
    }

    /// Takes back permits that were not needed, and their tokens.
    pub(super) fn give_back(&mut self, permits: Vec<OwnedSemaphorePermit>) {
        for permit in permits {
            if let Some(rate) = &mut self.rate {
                rate.tokens += 1.0;
            }
            drop(permit);
        }
    }
}

impl TokenBucket {
    /// Returns when the next token is added; `None` if there is a token now.
    fn empty_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of some seconds")]
        let seconds = milliseconds(self.filled_at, now) as f64 / 1000.0;
        self.tokens = (self.tokens + seconds * self.per_second).min(self.per_second.max(1.0));
        self.filled_at = now;
        // A thousandth less than one token is enough, because the clock of the database counts milliseconds.
        (self.tokens < 0.999).then(|| {
            let wait = (1.0 - self.tokens) / self.per_second;
            saturating_add(
                now,
                Duration::from_secs_f64(wait).max(Duration::from_millis(1)),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_limits_the_deliveries_of_a_second() {
        let start = Timestamp::UNIX_EPOCH;
        let at = |milliseconds| saturating_add(start, Duration::from_millis(milliseconds));
        let mut limiter = TargetLimiter::new(100, Some(4.0), start);
        let (first, more_at) = limiter.free_permits(start);
        assert_eq!((first.len(), more_at), (4, Some(at(250))));
        assert_eq!(limiter.free_permits(at(200)).0.len(), 0);
        assert_eq!(limiter.free_permits(at(500)).0.len(), 2);
        // After any idle time, the bucket holds the tokens of one second.
        assert_eq!(limiter.free_permits(at(60_000)).0.len(), 4);
        // Permits that were not needed can be taken again.
        limiter.give_back(first);
        assert_eq!(limiter.free_permits(at(60_000)).0.len(), 4);
    }

    #[test]
    fn a_rate_below_one_spaces_deliveries_by_several_seconds() {
        let start = Timestamp::UNIX_EPOCH;
        let mut limiter = TargetLimiter::new(8, Some(0.1), start);
        let (first, more_at) = limiter.free_permits(start);
        assert_eq!(first.len(), 1);
        assert_eq!(
            more_at,
            Some(saturating_add(start, Duration::from_secs(10)))
        );
        assert_eq!(
            limiter
                .free_permits(saturating_add(start, Duration::from_secs(10)))
                .0
                .len(),
            1
        );
    }

    #[test]
    fn without_a_rate_only_concurrency_is_limited() {
        let mut limiter = TargetLimiter::new(3, None, Timestamp::UNIX_EPOCH);
        let (first, more_at) = limiter.free_permits(Timestamp::UNIX_EPOCH);
        assert_eq!((first.len(), more_at), (3, None));
        assert_eq!(limiter.free_permits(Timestamp::UNIX_EPOCH).0.len(), 0);
        limiter.give_back(first);
        assert_eq!(limiter.free_permits(Timestamp::UNIX_EPOCH).0.len(), 3);
    }
}
