//! Notices receivers that keep timing out. Each of their deliveries is sent again and again, and may take effect each
//! time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many attempts in a row time out before a warning.
const PATIENCE: u32 = 3;
/// The time between two warnings about one subscription.
const PAUSE: Duration = Duration::from_hours(1);

/// Counts time-outs by subscription.
#[derive(Debug, Default)]
pub(super) struct SlowReceivers(Mutex<HashMap<String, TimeOuts>>);

/// The time-outs of one subscription.
#[derive(Debug, Default)]
struct TimeOuts {
    /// How many attempts in a row have timed out.
    in_a_row: u32,
    /// When the last warning was logged, as [`Clock::monotonic`](crate::base::clock::Clock::monotonic) counts.
    warned_at: Option<Duration>,
}

impl SlowReceivers {
    /// Notes the result of an attempt. Returns how many in a row have timed out, if it is time for a warning.
    pub(super) fn note(
        &self,
        subscription: &str,
        has_timed_out: bool,
        now: Duration,
    ) -> Option<u32> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_timed_out {
            if let Some(time_outs) = known.get_mut(subscription) {
                time_outs.in_a_row = 0;
            }
            return None;
        }
        let time_outs = known.entry(subscription.to_owned()).or_default();
        time_outs.in_a_row = time_outs.in_a_row.saturating_add(1);
        let may_warn = time_outs
            .warned_at
            .is_none_or(|warned_at| now >= warned_at + PAUSE);
        if time_outs.in_a_row < PATIENCE || !may_warn {
            return None;
        }
        time_outs.warned_at = Some(now);
        Some(time_outs.in_a_row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_keeps_timing_out_is_reported_once_an_hour() {
        let receivers = SlowReceivers::default();
        for (at, subscription, has_timed_out, expected) in [
            (0, "crm", true, None),
            (1, "crm", true, None),
            // Another subscription is counted by itself.
            (1, "erp", true, None),
            (2, "crm", true, Some(3)),
            (3, "crm", true, None),
            (61, "crm", true, None),
            (62, "crm", true, Some(6)),
            // An answer ends the series.
            (63, "crm", false, None),
            (200, "crm", true, None),
            (201, "crm", true, None),
            (202, "crm", true, Some(3)),
            (203, "erp", true, None),
            (204, "erp", true, Some(3)),
        ] {
            let noted = receivers.note(subscription, has_timed_out, Duration::from_mins(at));
            assert_eq!(noted, expected, "{subscription} in minute {at}");
        }
    }
}
