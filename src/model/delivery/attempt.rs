//! Decides the outcome of an attempt from its result.

use std::fmt;
use std::time::Duration;

use super::Outcome;
use super::backoff::{Schedule, next_try};
use crate::base::clock::{Timestamp, saturating_add};

/// The maximum `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

const GONE: u16 = 410;

/// The result of one call to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The service answered.
    Response {
        /// The status of the response.
        status: u16,
        /// `Retry-After`, if the response has a valid one.
        retry_after: Option<Duration>,
        /// The verdict of the settings about the response.
        verdict: ResponseVerdict,
    },
    /// The service did not answer.
    NoResponse(NoResponse),
}

/// The verdict that expressions of the settings give about a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResponseVerdict {
    /// The settings have no expression for the response: the status decides.
    #[default]
    ByStatus,
    /// The delivery succeeded.
    Delivered,
    /// The delivery failed, and is retried.
    Failed,
    /// The delivery failed, and is abandoned.
    Abandon,
    /// The response does not answer the deferred check, whatever the status. The delivery is retried.
    Retry,
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// No response in time.
    Timeout,
    /// The service was not reached, or the connection was closed.
    Connection,
    /// The request could not be sent: the settings do not have the subscription any more, or the address of its
    /// service is forbidden.
    NotSent,
    /// The attempt panicked, which is a defect of Vestibule.
    Panicked,
    /// Another write into the same identity is in progress. The delivery is retried without counting an attempt.
    IdentityLocked,
    /// The reservation to take again has not been released yet, so the service may count it twice.
    NotReleased,
    /// The time for an answer is over, and what `on_expiry` says has been done. The delivery counts as delivered.
    Expired,
    /// The database failed before a service was asked. The delivery is retried without counting an attempt.
    StoreFailed,
}

impl Attempt {
    /// Returns a response with this status, without `Retry-After`.
    #[must_use]
    pub fn answered(status: u16) -> Self {
        Self::Response {
            status,
            retry_after: None,
            verdict: ResponseVerdict::ByStatus,
        }
    }

    /// Returns the status if there is a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Response { status, .. } => Some(*status),
            Self::NoResponse(_) => None,
        }
    }

    /// Returns whether the delivery succeeded: any 2xx and nothing else, unless the settings decide otherwise.
    #[must_use]
    pub fn arrived(&self) -> bool {
        match self {
            Self::Response {
                status, verdict, ..
            } => match verdict {
                ResponseVerdict::ByStatus => (200..300).contains(status),
                ResponseVerdict::Delivered => true,
                ResponseVerdict::Failed | ResponseVerdict::Abandon | ResponseVerdict::Retry => {
                    false
                }
            },
            Self::NoResponse(unanswered) => *unanswered == NoResponse::Expired,
        }
    }

    /// Returns whether a retry is pointless.
    fn is_final(&self) -> bool {
        match self {
            Self::Response {
                status, verdict, ..
            } => match verdict {
                ResponseVerdict::Abandon => true,
                ResponseVerdict::Retry => false,
                _ => *status == GONE,
            },
            Self::NoResponse(_) => false,
        }
    }

    /// Returns a description of the failure, without values; `None` after success.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        (!self.arrived()).then(|| self.to_string())
    }

    /// Returns the outcome of attempt number `tries`, which ended `now`.
    #[must_use]
    pub fn outcome(
        &self,
        schedule: &Schedule,
        tries: u32,
        keep_trying_until: Timestamp,
        now: Timestamp,
        jitter: f64,
    ) -> Outcome {
        if self.arrived() {
            return Outcome::Delivered;
        }
        if self.is_final() || now >= keep_trying_until {
            return Outcome::Abandoned;
        }
        let retry_after = match self {
            Self::Response { retry_after, .. } => retry_after.unwrap_or_default(),
            Self::NoResponse(_) => Duration::ZERO,
        };
        let next = next_try(schedule, tries, now, jitter)
            .max(saturating_add(now, retry_after.min(MAX_RETRY_AFTER)));
        // The last attempt is at the end of the retry time, even if the backoff is longer.
        Outcome::RetryAt(next.min(keep_trying_until))
    }
}

impl NoResponse {
    /// Returns whether the attempt had not begun, so that it does not count.
    #[must_use]
    pub fn is_uncounted(self) -> bool {
        matches!(self, Self::IdentityLocked | Self::StoreFailed)
    }

    /// Returns the name for logs, metrics and the list of deliveries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::NotSent => "not_sent",
            Self::Panicked => "panicked",
            Self::IdentityLocked => "identity_locked",
            Self::NotReleased => "not_released",
            Self::Expired => "expired",
            Self::StoreFailed => "store_failed",
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response {
                status, verdict, ..
            } => {
                write!(formatter, "status {status}")?;
                match verdict {
                    ResponseVerdict::Failed => formatter.write_str(", not delivered"),
                    ResponseVerdict::Retry => formatter.write_str(", no usable answer"),
                    ResponseVerdict::Abandon => formatter.write_str(", abandoned"),
                    ResponseVerdict::ByStatus | ResponseVerdict::Delivered => Ok(()),
                }
            }
            Self::NoResponse(unanswered) => formatter.write_str(unanswered.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const DAY: Duration = Duration::from_hours(24);

    fn after(duration: Duration) -> Timestamp {
        saturating_add(Timestamp::UNIX_EPOCH, duration)
    }

    fn outcome(attempt: Attempt, tries: u32, max_elapsed: Duration) -> Outcome {
        let now = Timestamp::UNIX_EPOCH;
        attempt.outcome(&Schedule::DELIVERIES, tries, after(max_elapsed), now, 0.5)
    }

    #[test]
    fn only_a_2xx_is_delivered_and_only_a_410_is_abandoned_immediately() {
        let in_five_seconds = Outcome::RetryAt(after(Duration::from_secs(5)));
        let table = [
            (Attempt::answered(200), Outcome::Delivered),
            (Attempt::answered(202), Outcome::Delivered),
            (Attempt::answered(204), Outcome::Delivered),
            (Attempt::answered(299), Outcome::Delivered),
            (Attempt::answered(410), Outcome::Abandoned),
            (Attempt::answered(101), in_five_seconds.clone()),
            (Attempt::answered(302), in_five_seconds.clone()),
            (Attempt::answered(400), in_five_seconds.clone()),
            (Attempt::answered(404), in_five_seconds.clone()),
            (Attempt::answered(409), in_five_seconds.clone()),
            (Attempt::answered(429), in_five_seconds.clone()),
            (Attempt::answered(500), in_five_seconds.clone()),
            (Attempt::answered(503), in_five_seconds.clone()),
            (
                Attempt::NoResponse(NoResponse::Timeout),
                in_five_seconds.clone(),
            ),
            (
                Attempt::NoResponse(NoResponse::Connection),
                in_five_seconds.clone(),
            ),
            (Attempt::NoResponse(NoResponse::NotSent), in_five_seconds),
        ];
        for (attempt, expected) in table {
            assert_eq!(outcome(attempt, 1, DAY), expected, "{attempt}");
        }
    }

    #[test]
    fn settings_override_the_verdict_by_status() {
        let verdict = |status, verdict| Attempt::Response {
            status,
            retry_after: None,
            verdict,
        };
        let in_five_seconds = Outcome::RetryAt(after(Duration::from_secs(5)));
        let table = [
            (verdict(409, ResponseVerdict::Delivered), Outcome::Delivered),
            (
                verdict(200, ResponseVerdict::Failed),
                in_five_seconds.clone(),
            ),
            (verdict(422, ResponseVerdict::Abandon), Outcome::Abandoned),
            (verdict(200, ResponseVerdict::Abandon), Outcome::Abandoned),
            (verdict(410, ResponseVerdict::Failed), Outcome::Abandoned),
            (
                verdict(410, ResponseVerdict::Retry),
                in_five_seconds.clone(),
            ),
        ];
        for (attempt, expected) in table {
            assert_eq!(outcome(attempt, 1, DAY), expected, "{attempt}");
        }
    }

    #[test]
    fn the_last_attempt_is_at_the_end_of_the_retry_time() {
        let failed = Attempt::answered(503);
        let table = [
            // Attempts until now, remaining time, outcome.
            (12, 2 * DAY, Outcome::RetryAt(after(60 * MINUTE))),
            (12, 59 * MINUTE, Outcome::RetryAt(after(59 * MINUTE))),
            (
                12,
                Duration::from_millis(1),
                Outcome::RetryAt(after(Duration::from_millis(1))),
            ),
            (12, Duration::ZERO, Outcome::Abandoned),
            (1, Duration::ZERO, Outcome::Abandoned),
        ];
        for (tries, left, expected) in table {
            assert_eq!(outcome(failed, tries, left), expected, "{left:?}");
        }
        assert_eq!(
            outcome(Attempt::answered(204), 12, Duration::ZERO),
            Outcome::Delivered
        );
    }

    #[test]
    fn retry_after_is_obeyed_within_bounds() {
        let table = [
            // `Retry-After`, the resulting pause.
            (Duration::from_secs(1), Duration::from_secs(5)),
            (10 * MINUTE, 10 * MINUTE),
            (30 * DAY, DAY),
        ];
        for (asked, expected) in table {
            let attempt = Attempt::Response {
                status: 429,
                retry_after: Some(asked),
                verdict: ResponseVerdict::ByStatus,
            };
            assert_eq!(
                outcome(attempt, 1, 8 * DAY),
                Outcome::RetryAt(after(expected)),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn a_failure_is_described_without_values() {
        assert_eq!(Attempt::answered(204).error(), None);
        assert_eq!(
            Attempt::answered(503).error().as_deref(),
            Some("status 503")
        );
        assert_eq!(
            Attempt::NoResponse(NoResponse::Timeout).error().as_deref(),
            Some("timeout")
        );
    }
}
