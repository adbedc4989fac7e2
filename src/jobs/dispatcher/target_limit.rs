//! How many deliveries go to one destination: so many at once, so many a second.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::clock::{Timestamp, milliseconds, saturating_add};

/// The room that a destination has to itself, so that a slow one delays nobody else.
pub(super) struct TargetLimiter {
    permits: Arc<Semaphore>,
    rate: Option<TokenBucket>,
}

/// A bucket into which so many drops fall each second; a delivery takes one.
struct TokenBucket {
    per_second: f64,
    tokens: f64,
    filled_at: Timestamp,
}

impl TargetLimiter {
    pub(super) fn new(at_once: usize, per_second: Option<f64>, now: Timestamp) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(at_once)),
            rate: per_second.map(|per_second| TokenBucket {
                per_second,
                tokens: per_second.max(1.0),
                filled_at: now,
            }),
        }
    }

    /// The places that may be taken now, and when there are more if it is the rate that keeps them.
    pub(super) fn free_permits(
        &mut self,
        now: Timestamp,
    ) -> (Vec<OwnedSemaphorePermit>, Option<Timestamp>) {
        let mut free = Vec::new();
        loop {
            if let Some(more_at) = self.rate.as_mut().and_then(|rate| rate.empty_until(now)) {
                return (free, Some(more_at));
            }
            let Ok(place) = Arc::clone(&self.permits).try_acquire_owned() else {
                return (free, None);
            };
            if let Some(rate) = &mut self.rate {
                rate.tokens -= 1.0;
            }
            free.push(place);
        }
    }

    /// These were not needed.
    pub(super) fn give_back(&mut self, permits: Vec<OwnedSemaphorePermit>) {
        for place in permits {
            if let Some(rate) = &mut self.rate {
                rate.tokens += 1.0;
            }
            drop(place);
        }
    }
}

impl TokenBucket {
    /// When the next drop falls; `None` if there is one.
    fn empty_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of some seconds")]
        let seconds = milliseconds(self.filled_at, now) as f64 / 1000.0;
        self.tokens = (self.tokens + seconds * self.per_second).min(self.per_second.max(1.0));
        self.filled_at = now;
        // A thousandth, because the clock of the database counts milliseconds.
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
    fn a_rate_lets_so_many_go_in_a_second() {
        let start = Timestamp::UNIX_EPOCH;
        let at = |milliseconds| saturating_add(start, Duration::from_millis(milliseconds));
        let mut limiters = TargetLimiter::new(100, Some(4.0), start);
        let (first, more_at) = limiters.free_permits(start);
        assert_eq!((first.len(), more_at), (4, Some(at(250))));
        assert_eq!(limiters.free_permits(at(200)).0.len(), 0);
        assert_eq!(limiters.free_permits(at(500)).0.len(), 2);
        // However long nobody came, no more than a second's worth.
        assert_eq!(limiters.free_permits(at(60_000)).0.len(), 4);
        // What was not needed may be taken again.
        limiters.give_back(first);
        assert_eq!(limiters.free_permits(at(60_000)).0.len(), 4);
    }

    #[test]
    fn less_than_one_a_second() {
        let start = Timestamp::UNIX_EPOCH;
        let mut limiters = TargetLimiter::new(8, Some(0.1), start);
        let (first, more_at) = limiters.free_permits(start);
        assert_eq!(first.len(), 1);
        assert_eq!(
            more_at,
            Some(saturating_add(start, Duration::from_secs(10)))
        );
        assert_eq!(
            limiters
                .free_permits(saturating_add(start, Duration::from_secs(10)))
                .0
                .len(),
            1
        );
    }

    #[test]
    fn without_a_rate_only_the_places_count() {
        let mut limiters = TargetLimiter::new(3, None, Timestamp::UNIX_EPOCH);
        let (first, more_at) = limiters.free_permits(Timestamp::UNIX_EPOCH);
        assert_eq!((first.len(), more_at), (3, None));
        assert_eq!(limiters.free_permits(Timestamp::UNIX_EPOCH).0.len(), 0);
        limiters.give_back(first);
        assert_eq!(limiters.free_permits(Timestamp::UNIX_EPOCH).0.len(), 3);
    }
}
