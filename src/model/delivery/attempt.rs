//! One try, and what it teaches.

use std::fmt;
use std::time::Duration;

use super::Outcome;
use super::backoff::{Schedule, next_try};
use crate::base::clock::{Timestamp, saturating_add};

/// `Retry-After` is obeyed up to this long.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(24);

const GONE: u16 = 410;

/// What came of one exchange with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It answered.
    Response {
        /// With this status.
        status: u16,
        /// `Retry-After`, if the answer held a readable one.
        retry_after: Option<Duration>,
        /// What the settings make of it.
        judged: ResponseVerdict,
    },
    /// It did not.
    NoResponse(NoResponse),
}

/// What expressions of the settings make of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResponseVerdict {
    /// There are none: the status tells.
    #[default]
    ByStatus,
    /// It has arrived.
    Delivered,
    /// It has not arrived, and is tried again.
    NotDelivered,
    /// It has not arrived and never will.
    GiveUp,
    /// It says nothing about the question, whatever the status, so the question is asked again.
    AskAgain,
}

/// In what way there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// Not in time.
    Timeout,
    /// Not reached, or cut off.
    Connection,
    /// It could not be sent: the plan has gone from the settings, or its service's address is not allowed.
    NotSent,
    /// A defect of ours.
    Panicked,
    /// Somebody else is writing into the same identity; this was no try.
    IdentityLocked,
    /// What is to be taken again has not been released yet, so its service may count it twice.
    NotReleased,
    /// The time for an answer has ended, and the settings say what follows. Nothing more is tried.
    Expired,
}

impl Attempt {
    /// An answer of that status, without `Retry-After`.
    #[must_use]
    pub fn answered(status: u16) -> Self {
        Self::Response {
            status,
            retry_after: None,
            judged: ResponseVerdict::ByStatus,
        }
    }

    /// The status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Response { status, .. } => Some(*status),
            Self::NoResponse(_) => None,
        }
    }

    /// Whether the service has taken it over: any 2xx and nothing else, unless the settings judge otherwise.
    #[must_use]
    pub fn arrived(&self) -> bool {
        match self {
            Self::Response { status, judged, .. } => match judged {
                ResponseVerdict::ByStatus => (200..300).contains(status),
                ResponseVerdict::Delivered => true,
                ResponseVerdict::NotDelivered
                | ResponseVerdict::GiveUp
                | ResponseVerdict::AskAgain => false,
            },
            Self::NoResponse(unanswered) => *unanswered == NoResponse::Expired,
        }
    }

    /// Whether it makes no sense to try again.
    fn is_final(&self) -> bool {
        match self {
            Self::Response { status, judged, .. } => match judged {
                ResponseVerdict::GiveUp => true,
                ResponseVerdict::AskAgain => false,
                _ => *status == GONE,
            },
            Self::NoResponse(_) => false,
        }
    }

    /// What went wrong, in words without values; `None` if nothing did.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        (!self.arrived()).then(|| self.to_string())
    }

    /// What follows from it, when it was the `tries`th and ended `now`.
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
            .max(saturating_add(now, retry_after.min(LONGEST_RETRY_AFTER)));
        // The last try is at the very end, however long the pause would have been.
        Outcome::RetryAt(next.min(keep_trying_until))
    }
}

impl NoResponse {
    /// As logs, metrics and the list of deliveries write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::NotSent => "not_sent",
            Self::Panicked => "broke_down",
            Self::IdentityLocked => "busy",
            Self::NotReleased => "not_released",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response { status, judged, .. } => {
                write!(formatter, "status {status}")?;
                match judged {
                    ResponseVerdict::NotDelivered => formatter.write_str(", not delivered"),
                    ResponseVerdict::AskAgain => formatter.write_str(", no answer to the question"),
                    ResponseVerdict::GiveUp => formatter.write_str(", given up"),
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
    fn only_a_2xx_has_arrived_and_only_a_410_stops_at_once() {
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
    fn the_settings_may_judge_otherwise() {
        let judged = |status, judged| Attempt::Response {
            status,
            retry_after: None,
            judged,
        };
        let in_five_seconds = Outcome::RetryAt(after(Duration::from_secs(5)));
        let table = [
            (judged(409, ResponseVerdict::Delivered), Outcome::Delivered),
            (
                judged(200, ResponseVerdict::NotDelivered),
                in_five_seconds.clone(),
            ),
            (judged(422, ResponseVerdict::GiveUp), Outcome::Abandoned),
            (judged(200, ResponseVerdict::GiveUp), Outcome::Abandoned),
            (
                judged(410, ResponseVerdict::NotDelivered),
                Outcome::Abandoned,
            ),
            (
                judged(410, ResponseVerdict::AskAgain),
                in_five_seconds.clone(),
            ),
        ];
        for (attempt, expected) in table {
            assert_eq!(outcome(attempt, 1, DAY), expected, "{attempt}");
        }
    }

    #[test]
    fn the_last_try_is_at_the_very_end_and_a_failure_there_is_the_last() {
        let failed = Attempt::answered(503);
        let table = [
            // tries so far, time left, what follows
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
            // Retry-After, the pause that follows
            (Duration::from_secs(1), Duration::from_secs(5)),
            (10 * MINUTE, 10 * MINUTE),
            (30 * DAY, DAY),
        ];
        for (asked, expected) in table {
            let attempt = Attempt::Response {
                status: 429,
                retry_after: Some(asked),
                judged: ResponseVerdict::ByStatus,
            };
            assert_eq!(
                outcome(attempt, 1, 8 * DAY),
                Outcome::RetryAt(after(expected)),
                "{asked:?}"
            );
        }
    }

    #[test]
    fn a_failure_is_told_in_words_without_values() {
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
