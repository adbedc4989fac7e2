//! Logs calls to paths that are no hook, without filling the log.

use std::collections::HashMap;
use std::time::Duration;

use crate::base::clock::{Timestamp, saturating_add};

/// The minimum time between two log lines about the same path.
const LOG_INTERVAL: Duration = Duration::from_mins(1);
/// The maximum number of remembered paths. Further paths are logged after [`LOG_INTERVAL`].
const MAX_PATHS: usize = 100;
/// The maximum length of a remembered and logged path, in characters.
const MAX_LENGTH: usize = 200;

/// The unknown paths that were logged in the last minute.
#[derive(Debug, Default)]
pub struct UnknownPaths {
    logged_until: HashMap<String, Timestamp>,
}

impl UnknownPaths {
    /// Returns the path as it is to be logged; `None` if it was logged less than a minute ago, or too many paths are
    /// remembered.
    pub fn to_log(&mut self, path: &str, now: Timestamp) -> Option<String> {
        let path: String = path.chars().take(MAX_LENGTH).collect();
        self.logged_until.retain(|_, until| *until > now);
        if self.logged_until.contains_key(&path) || self.logged_until.len() >= MAX_PATHS {
            return None;
        }
        let until = saturating_add(now, LOG_INTERVAL);
        self.logged_until.insert(path.clone(), until);
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_logged_at_most_once_a_minute() {
        let mut paths = UnknownPaths::default();
        let start = Timestamp::UNIX_EPOCH;
        let at = |seconds| saturating_add(start, Duration::from_secs(seconds));
        for (path, seconds, is_logged) in [
            ("/hook", 0, true),
            ("/hook", 59, false),
            ("/other", 59, true),
            ("/hook", 60, true),
            ("/hook", 61, false),
        ] {
            let logged = paths.to_log(path, at(seconds)).is_some();
            assert_eq!(logged, is_logged, "{path} {seconds}");
        }
    }

    #[test]
    fn the_number_and_the_length_of_remembered_paths_are_bounded() {
        let mut paths = UnknownPaths::default();
        let now = Timestamp::UNIX_EPOCH;
        let long = "/x".repeat(10_000);
        assert_eq!(paths.to_log(&long, now).unwrap().len(), MAX_LENGTH);
        let logged = (0..1000).filter_map(|number| paths.to_log(&format!("/{number}"), now));
        assert_eq!(logged.count(), MAX_PATHS - 1);
        assert_eq!(paths.logged_until.len(), MAX_PATHS);
    }
}
