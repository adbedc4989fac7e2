//! Logs what any client on the network can cause, without filling the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::{Timestamp, saturating_add};

/// The maximum number of remembered keys. Further keys are logged after the interval of another key.
const MAX_KEYS: usize = 100;
/// The maximum length of a remembered and logged key, in characters.
const MAX_LENGTH: usize = 200;

/// The log lines of the hooks port that have a limit.
#[derive(Debug)]
pub struct LogLimits {
    /// Calls to paths that are no hook, by path.
    pub unknown_paths: LogLimit,
    /// Calls of hooks with another HTTP method than POST, by path. An unknown path takes no place of these.
    pub wrong_verbs: LogLimit,
    /// Calls of hooks without a valid key, by path.
    pub without_key: LogLimit,
    /// Calls without the visitor's address.
    pub without_client_ip: LogLimit,
}

impl Default for LogLimits {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self {
            unknown_paths: LogLimit::new(minute),
            wrong_verbs: LogLimit::new(minute),
            without_key: LogLimit::new(minute),
            without_client_ip: LogLimit::new(Duration::from_hours(1)),
        }
    }
}

/// Permits one log line per key and interval.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    logged_until: Mutex<HashMap<String, Timestamp>>,
}

impl LogLimit {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            logged_until: Mutex::default(),
        }
    }

    /// Returns the key as it is to be logged; `None` if it was logged in the last interval, or too many keys are
    /// remembered.
    pub fn to_log(&self, key: &str, now: Timestamp) -> Option<String> {
        let key: String = key.chars().take(MAX_LENGTH).collect();
        let logged_until = self.logged_until.lock();
        let mut logged_until = logged_until.unwrap_or_else(PoisonError::into_inner);
        // A time beyond the interval means that the system clock was set back.
        let latest = saturating_add(now, self.interval);
        logged_until.retain(|_, until| *until > now && *until <= latest);
        if logged_until.contains_key(&key) || logged_until.len() >= MAX_KEYS {
            return None;
        }
        logged_until.insert(key.clone(), latest);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_logged_at_most_once_in_an_interval() {
        let limits = LogLimits::default();
        let start = Timestamp::UNIX_EPOCH;
        let at = |seconds| saturating_add(start, Duration::from_secs(seconds));
        for (path, seconds, is_logged) in [
            ("/hook", 0, true),
            ("/hook", 59, false),
            ("/other", 59, true),
            ("/hook", 60, true),
            ("/hook", 61, false),
        ] {
            let logged = limits.unknown_paths.to_log(path, at(seconds)).is_some();
            assert_eq!(logged, is_logged, "{path} {seconds}");
        }
        for (seconds, is_logged) in [(0, true), (3599, false), (3600, true)] {
            let logged = limits.without_client_ip.to_log("", at(seconds)).is_some();
            assert_eq!(logged, is_logged, "{seconds}");
        }
    }

    #[test]
    fn the_number_and_the_length_of_remembered_keys_are_bounded() {
        let limits = LogLimits::default();
        let now = Timestamp::UNIX_EPOCH;
        let long = "/x".repeat(10_000);
        let logged = limits.unknown_paths.to_log(&long, now);
        assert_eq!(logged.unwrap().len(), MAX_LENGTH);
        let logged = (0..1000).filter_map(|number| {
            let path = format!("/{number}");
            limits.unknown_paths.to_log(&path, now)
        });
        assert_eq!(logged.count(), MAX_KEYS - 1);
        assert!(limits.wrong_verbs.to_log("/hook", now).is_some());
    }
}
