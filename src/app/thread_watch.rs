//! Measures how long a ready task waits for a thread of its runtime.
//!
//! A thread that computes or blocks keeps the other tasks of its runtime waiting, also the sign-ups of other visitors.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::RuntimeName;

/// How often the wait is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// The longest wait without an alarm.
const LONG: Duration = Duration::from_millis(200);
/// The time between two alarms of one runtime.
const ALARM_EVERY: Duration = Duration::from_mins(1);

/// Measures the wait on the runtime on which [`ThreadWatch::run`] runs. The clock must be the system clock.
#[derive(Clone)]
pub(super) struct ThreadWatch {
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl ThreadWatch {
    pub(super) fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { clock, metrics }
    }

    /// Measures until the future is dropped. `runtime` is `main`, or `http` for a thread of the hooks port.
    pub(super) async fn run(self, runtime: &'static str) {
        let waits = self
            .metrics
            .thread_wait_seconds
            .get_or_create_owned(&RuntimeName { runtime });
        let mut alarmed_at = None;
        loop {
            let began = self.clock.monotonic();
            self.clock.sleep(MEASURE_EVERY).await;
            let now = self.clock.monotonic();
            let wait = now.saturating_sub(began + MEASURE_EVERY);
            waits.observe(wait.as_secs_f64());
            let is_quiet = alarmed_at.is_some_and(|last: Duration| now < last + ALARM_EVERY);
            if wait > LONG && !is_quiet {
                alarmed_at = Some(now);
                tracing::error!(
                    runtime,
                    wait_ms = wait.as_millis(),
                    "ALARM: a ready task waited {} ms for a thread of the runtime `{runtime}`: the machine is overloaded, or \
                     something blocks or computes on the thread",
                    wait.as_millis()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> (ThreadWatch, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let watch = ThreadWatch::new(crate::app::system_clock(), Arc::clone(&metrics));
        (watch, metrics)
    }

    /// Returns how many measurements of a runtime were longer than about half a second.
    fn long_waits(metrics: &Metrics) -> u64 {
        let text = metrics.encode();
        let value = |line: &str| -> u64 {
            let value = text.lines().find_map(|known| known.strip_prefix(line));
            value.map_or(0, |value| value.trim().parse().expect("a number"))
        };
        value("vestibule_thread_wait_seconds_count{runtime=\"http\"}")
            - value("vestibule_thread_wait_seconds_bucket{le=\"0.512\",runtime=\"http\"}")
    }

    #[tokio::test]
    async fn a_thread_that_is_blocked_on_purpose_is_noticed() {
        let (watch, metrics) = watch();
        let watching = tokio::spawn(watch.run("http"));
        let blocks = async {
            // The measurement begins before the thread is blocked.
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(900));
        };
        blocks.await;
        vestibule_testing::eventually("the wait is measured", async || {
            (long_waits(&metrics) > 0).then_some(())
        })
        .await;
        watching.abort();
    }
}
