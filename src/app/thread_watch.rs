//! Measures how long a ready task waits for a thread of its runtime.
//!
//! A thread that computes or blocks keeps the other tasks of its runtime waiting, also the sign-ups of other visitors. A task
//! on each runtime measures waits that end. A thread of its own notices a wait that does not end.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::RuntimeName;

/// How often the wait is measured.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// How often waits that have not ended are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest wait without an alarm.
const LONG: Duration = Duration::from_millis(200);
/// The time without a measurement after which a thread counts as blocked.
const BLOCKED: Duration = Duration::from_secs(2);
/// The time between two alarms of one runtime.
const ALARM_EVERY: Duration = Duration::from_mins(1);

/// Measures the wait on each runtime on which [`ThreadWatch::run`] runs. The clock must be the system clock.
#[derive(Clone)]
pub(super) struct ThreadWatch {
    clock: Clock,
    metrics: Arc<Metrics>,
    measurements: Measurements,
    /// The thread that looks for blocked runtimes ends when the last of these is dropped.
    _watches: Sender<()>,
}

/// The measurements that run now.
type Measurements = Arc<Mutex<Vec<Weak<Measurement>>>>;

/// The measurement of one runtime.
#[derive(Debug)]
struct Measurement {
    runtime: &'static str,
    times: Mutex<Times>,
}

/// Moments of a measurement, as [`Clock::monotonic`] counts.
#[derive(Clone, Copy, Debug)]
struct Times {
    measured_at: Duration,
    alarmed_at: Option<Duration>,
}

impl ThreadWatch {
    /// Starts the thread that looks for blocked runtimes.
    pub(super) fn start(clock: Clock, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (watches, ended) = channel();
        let watch = Self {
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
            measurements: Arc::default(),
            _watches: watches,
        };
        let measurements = Arc::clone(&watch.measurements);
        std::thread::Builder::new()
            .name("thread-watch".to_owned())
            .spawn(move || look_for_blocked(&clock, &metrics, &measurements, &ended))?;
        Ok(watch)
    }

    /// Measures until the future is dropped. `runtime` is `main`, or `http` for a thread of the hooks port.
    pub(super) async fn run(self, runtime: &'static str) {
        let waits = self
            .metrics
            .thread_wait_seconds
            .get_or_create_owned(&RuntimeName { runtime });
        let measurement = Arc::new(Measurement::new(runtime, self.clock.monotonic()));
        locked(&self.measurements).push(Arc::downgrade(&measurement));
        loop {
            let began = self.clock.monotonic();
            self.clock.sleep(MEASURE_EVERY).await;
            let now = self.clock.monotonic();
            let wait = now.saturating_sub(began + MEASURE_EVERY);
            waits.observe(wait.as_secs_f64());
            if measurement.measured(now, wait) {
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

impl Measurement {
    fn new(runtime: &'static str, now: Duration) -> Self {
        let times = Times {
            measured_at: now,
            alarmed_at: None,
        };
        Self {
            runtime,
            times: Mutex::new(times),
        }
    }

    /// Notes a wait that has ended. Returns whether it is time for an alarm.
    fn measured(&self, now: Duration, wait: Duration) -> bool {
        let mut times = locked(&self.times);
        times.measured_at = now;
        wait > LONG && times.may_alarm(now)
    }

    /// Returns how long the thread has been blocked, and whether it is time for an alarm.
    fn blocked(&self, now: Duration) -> (Duration, bool) {
        let mut times = locked(&self.times);
        let since = now.saturating_sub(times.measured_at);
        if since < BLOCKED {
            return (Duration::ZERO, false);
        }
        (since, times.may_alarm(now))
    }
}

impl Times {
    fn may_alarm(&mut self, now: Duration) -> bool {
        let is_quiet = self.alarmed_at.is_some_and(|last| now < last + ALARM_EVERY);
        if !is_quiet {
            self.alarmed_at = Some(now);
        }
        !is_quiet
    }
}

/// Looks for threads that do not end their work, until `ended` is disconnected.
fn look_for_blocked(
    clock: &Clock,
    metrics: &Metrics,
    measurements: &Measurements,
    ended: &Receiver<()>,
) {
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK_EVERY) {
        let now = clock.monotonic();
        let mut running = Vec::new();
        locked(measurements).retain(|one| match one.upgrade() {
            Some(one) => {
                running.push(one);
                true
            }
            None => false,
        });
        let mut count = 0;
        for one in running {
            let (since, is_alarm) = one.blocked(now);
            count += i64::from(!since.is_zero());
            if is_alarm {
                tracing::error!(
                    runtime = one.runtime,
                    blocked_ms = since.as_millis(),
                    "ALARM: a thread of the runtime `{}` has run no task for {} s; restart Vestibule if this does not end",
                    one.runtime,
                    since.as_secs()
                );
            }
        }
        metrics.blocked_threads.set(count);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> (ThreadWatch, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let watch = ThreadWatch::start(crate::app::system_clock(), Arc::clone(&metrics));
        (watch.expect("a thread"), metrics)
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

    /// The thread is freed only after the metric has shown that it is blocked.
    #[tokio::test]
    async fn a_thread_that_stays_blocked_is_noticed() {
        let (watch, metrics) = watch();
        let watching = tokio::spawn(watch.run("http"));
        tokio::task::yield_now().await;
        vestibule_testing::wait_until("the blocked thread is counted", || {
            (metrics.blocked_threads.get() == 1).then_some(())
        });
        vestibule_testing::eventually("no thread is blocked", async || {
            (metrics.blocked_threads.get() == 0).then_some(())
        })
        .await;
        watching.abort();
    }

    #[test]
    fn an_alarm_is_raised_once_a_minute() {
        let second = Duration::from_secs;
        let one = Measurement::new("http", second(0));
        assert_eq!(one.blocked(second(1)), (Duration::ZERO, false));
        assert_eq!(one.blocked(second(2)), (second(2), true));
        assert_eq!(one.blocked(second(61)), (second(61), false));
        assert_eq!(one.blocked(second(62)), (second(62), true));
        assert!(!one.measured(second(63), second(63)), "it is known already");
        assert_eq!(one.blocked(second(64)), (Duration::ZERO, false));
        assert!(one.measured(second(122), Duration::from_millis(201)));
        assert!(!one.measured(second(200), Duration::from_millis(200)));
    }
}
