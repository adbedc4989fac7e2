//! A time in an option: a day, a time, or an age.

use std::time::Duration;

use crate::base::clock::{Timestamp, earlier};
use crate::config::{parse_duration, parse_moment};

/// A time, or an age.
#[derive(Clone, Copy, Debug)]
pub enum When {
    At(Timestamp),
    Ago(Duration),
}

impl When {
    pub(super) fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(duration) => earlier(now, duration),
        }
    }
}

/// Parses the value of an option.
pub(super) fn when(text: &str) -> Result<When, String> {
    parse_moment(text)
        .map(When::At)
        .or_else(|_| parse_duration(text).map(When::Ago))
        .map_err(|_| {
            "expected a day, a time, or an age, such as 2026-11-01, 2026-11-01T12:00:00Z, 30m, 2h or 3d".to_owned()
        })
}
