//! How far the clock of another system is from this machine's clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use serde_json::Value;

use super::report::{Finding, Section};
use crate::base::clock::Timestamp;

/// The resolution of the header `Date`.
const SECOND: TimeDelta = TimeDelta::seconds(1);

/// What depends on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stakes {
    /// Nothing that Vestibule knows of.
    None,
    /// Standard Webhooks: a receiver rejects a signature that is five minutes old.
    Signatures,
    /// Kratos: the times of look-ups, and reconciliation, which leaves accounts of the last ten seconds to their hook.
    Kratos,
}

impl Stakes {
    fn limits(self) -> (TimeDelta, Option<TimeDelta>) {
        match self {
            Self::None => (TimeDelta::seconds(5), None),
            Self::Signatures => (TimeDelta::seconds(5), Some(TimeDelta::minutes(5))),
            Self::Kratos => (TimeDelta::seconds(3), Some(TimeDelta::seconds(10))),
        }
    }

    fn consequence(self) -> &'static str {
        match self {
            Self::None => "times in logs and data differ",
            Self::Signatures => "the service may reject signatures as too old or from the future",
            Self::Kratos => {
                "look-ups and reconciliation compare the times of Kratos with this clock"
            }
        }
    }
}

/// Returns the time of the header `Date`. A cached response has an old one, so its time is not known.
pub(super) fn date_of(response: &Value) -> Option<Timestamp> {
    let headers = &response["headers"];
    if headers["age"].is_string() {
        return None;
    }
    let date = DateTime::parse_from_rfc2822(headers["date"].as_str()?).ok()?;
    Some(date.to_utc())
}

/// Returns how far the other clock is ahead: the smallest difference that explains the time that it gave between these
/// two moments. `resolution` is the unit to which that time was cut.
pub(super) fn skew(
    other: Timestamp,
    resolution: TimeDelta,
    (asked, answered): (Timestamp, Timestamp),
) -> TimeDelta {
    let (least, most) = (other - answered, other + resolution - asked);
    if least > TimeDelta::zero() {
        least
    } else if most < TimeDelta::zero() {
        most
    } else {
        TimeDelta::zero()
    }
}

/// Judges the clock that a response shows.
pub(super) fn of_response(
    section: Section,
    response: &Value,
    asked_and_answered: (Timestamp, Timestamp),
    stakes: Stakes,
) -> Finding {
    match date_of(response) {
        Some(date) => judge(section, skew(date, SECOND, asked_and_answered), stakes),
        None => section.not_checked("clock", "the response has no usable header `Date`"),
    }
}

/// Judges a difference.
pub(super) fn judge(section: Section, skew: TimeDelta, stakes: Stakes) -> Finding {
    let (warning, problem) = stakes.limits();
    let size = skew.abs();
    let shown = shown(size.to_std().unwrap_or_default());
    let direction = if skew > TimeDelta::zero() {
        "ahead of"
    } else {
        "behind"
    };
    let message = format!("its clock is {shown} {direction} the clock of this machine");
    let consequence = format!("{message}; {}", stakes.consequence());
    let help = "synchronise both clocks, for example with chrony or systemd-timesyncd";
    if problem.is_some_and(|limit| size > limit) {
        section.problem("clock", consequence).help(help)
    } else if size > warning {
        section.warning("clock", consequence).help(help)
    } else if size < SECOND {
        section.ok("clock", "it agrees with the clock of this machine")
    } else {
        section.ok("clock", message)
    }
}

fn shown(size: Duration) -> String {
    match size.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-27T12:{text}Z").parse().unwrap()
    }

    #[test]
    fn the_resolution_and_the_round_trip_are_no_skew() {
        for (date, asked, answered, expected) in [
            ("00:10", "00:10.000", "00:10.100", 0),
            ("00:10", "00:10.900", "00:11.100", 0),
            // The server answered at 00:10.999, before the answer travelled for 4 s.
            ("00:10", "00:10.500", "00:15.000", 0),
            ("00:20", "00:10.000", "00:10.000", 10_000),
            ("00:20", "00:10.000", "00:12.000", 8_000),
            ("00:00", "00:10.000", "00:12.000", -9_000),
        ] {
            let found = skew(at(date), SECOND, (at(asked), at(answered)));
            assert_eq!(found.num_milliseconds(), expected, "{date} {asked}");
        }
    }

    #[test]
    fn what_depends_on_the_clocks_decides_how_bad_a_difference_is() {
        use Level::{Ok, Problem, Warning};
        for (seconds, none, signatures, kratos) in [
            (0, Ok, Ok, Ok),
            (3, Ok, Ok, Ok),
            (-4, Ok, Ok, Warning),
            (6, Warning, Warning, Warning),
            (11, Warning, Warning, Problem),
            (-301, Warning, Problem, Problem),
        ] {
            for (stakes, expected) in [
                (Stakes::None, none),
                (Stakes::Signatures, signatures),
                (Stakes::Kratos, kratos),
            ] {
                let found = judge(Section::Services, TimeDelta::seconds(seconds), stakes);
                assert_eq!(found.level, expected, "{seconds} {stakes:?}");
            }
        }
    }

    #[test]
    fn the_date_of_a_cached_response_is_not_used() {
        for (headers, expected) in [
            (
                json!({"date": "Fri, 27 Nov 2026 12:00:10 GMT"}),
                Some(at("00:10")),
            ),
            (
                json!({"date": "Fri, 27 Nov 2026 12:00:10 GMT", "age": "3"}),
                None,
            ),
            (json!({"date": "now"}), None),
            (json!({}), None),
        ] {
            assert_eq!(date_of(&json!({"headers": headers})), expected, "{headers}");
        }
    }

    #[test]
    fn a_difference_is_shown_in_a_readable_unit() {
        for (seconds, expected) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(shown(Duration::from_secs(seconds)), expected);
        }
    }
}
