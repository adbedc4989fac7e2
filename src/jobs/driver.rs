//! The driver of all background jobs: runs a job when it is due, and catches panics.
//!
//! A job never ends by itself. A run that fails or panics is logged and counted, and the job runs again after a pause.

use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::job_status::{JobStatuses, RunOutcome};
use crate::base::telemetry::{Metrics, error_chain};
use crate::model::delivery::backoff::Schedule;

/// Why a run of a job failed.
pub type JobError = Box<dyn std::error::Error + Send + Sync>;

/// Work that is repeated in the background.
#[async_trait]
pub trait Job: Send {
    /// The name of the job in logs, metrics and the admin API.
    fn name(&self) -> &'static str;

    /// Does what is due. Returns when the next run is due.
    async fn run(&mut self) -> Result<Timestamp, JobError>;

    /// When the first run is due.
    fn first_run(&self, now: Timestamp) -> Timestamp {
        now
    }

    /// Completes if the job must run before the next run is due. The driver drops this future when the next run is due,
    /// so dropping it must lose nothing.
    async fn wake(&mut self) {
        pending::<()>().await;
    }

    /// Whether a stop may interrupt a run. The driver drops the future of [`Job::run`] then.
    fn is_interruptible(&self) -> bool {
        true
    }

    /// The pause after this number of failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        Schedule::DATABASE.pause(failures, 0.5)
    }

    /// Logs a run that failed or panicked.
    fn log_failure(&self, failures: u32, error: &str, next: Timestamp) {
        let job = self.name();
        tracing::error!(
            job,
            error,
            failures,
            "Job `{job}` failed; next run at {next}"
        );
    }

    /// Releases what a run that panicked has left, such as a lock.
    async fn after_panic(&mut self) {}

    /// Ends the job: completes or returns what is in progress.
    async fn finish(&mut self) {}
}

/// Runs background jobs, and records their status.
#[derive(Clone)]
pub struct Driver {
    /// The clock.
    pub clock: Clock,
    /// The status of the jobs.
    pub statuses: Arc<JobStatuses>,
    /// Counts runs.
    pub metrics: Arc<Metrics>,
}

impl Driver {
    /// Runs the job until `stop` completes, and finishes the job. The time of the first run counts from this call.
    pub fn drive(
        self,
        job: impl Job,
        stop: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = ()> + Send {
        let first = job.first_run(self.clock.now());
        self.drive_from(first, job, stop)
    }

    async fn drive_from(
        self,
        first: Timestamp,
        mut job: impl Job,
        stop: impl Future<Output = ()> + Send,
    ) {
        tokio::pin!(stop);
        let mut next = first;
        let mut has_failed = false;
        loop {
            self.statuses.waits_until(job.name(), next);
            let stopped = tokio::select! {
                biased;
                () = &mut stop => true,
                // After a failure the job waits for its pause, whatever happens.
                () = wake(&mut job), if !has_failed => false,
                () = self.clock.sleep_until(next) => false,
            };
            if stopped {
                break;
            }
            self.statuses.started(job.name(), self.clock.now());
            let is_interruptible = job.is_interruptible();
            let run = AssertUnwindSafe(job.run()).catch_unwind();
            let ended = tokio::select! {
                biased;
                () = &mut stop, if is_interruptible => None,
                ended = run => Some(ended),
            };
            let Some(ended) = ended else { break };
            has_failed = !matches!(ended, Ok(Ok(_)));
            next = match ended {
                Ok(Ok(next)) => {
                    self.record(&job, RunOutcome::Succeeded, None);
                    next
                }
                Ok(Err(error)) => self.failed(&job, RunOutcome::Failed, &error_chain(&*error)),
                Err(_) => {
                    // The message of the panic can hold a value, so it is not logged.
                    let next = self.failed(&job, RunOutcome::Panicked, "the run panicked");
                    let _ = AssertUnwindSafe(job.after_panic()).catch_unwind().await;
                    next
                }
            };
        }
        let _ = AssertUnwindSafe(job.finish()).catch_unwind().await;
        self.statuses.ended(job.name());
    }

    /// Records and logs a run that did not succeed. Returns when the next run is due.
    fn failed(&self, job: &impl Job, outcome: RunOutcome, error: &str) -> Timestamp {
        let failures = self.record(job, outcome, Some(error.to_owned()));
        let next = saturating_add(self.clock.now(), job.pause(failures));
        job.log_failure(failures, error, next);
        next
    }

    fn record(&self, job: &impl Job, outcome: RunOutcome, error: Option<String>) -> u32 {
        let now = self.clock.now();
        self.statuses
            .finished(job.name(), outcome, error, now, &self.metrics)
    }
}

/// Waits for the job's event. An event that panics never completes, so the job runs at its next time.
async fn wake(job: &mut impl Job) {
    if AssertUnwindSafe(job.wake()).catch_unwind().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::{Notify, oneshot};

    /// A job whose runs end as the test says.
    struct Scripted {
        runs: Arc<AtomicU32>,
        script: fn(u32) -> Result<Duration, JobError>,
        clock: Clock,
        woken: Arc<Notify>,
    }

    #[async_trait]
    impl Job for Scripted {
        fn name(&self) -> &'static str {
            "scripted"
        }

        async fn run(&mut self) -> Result<Timestamp, JobError> {
            let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
            let wait = (self.script)(run)?;
            Ok(saturating_add(self.clock.now(), wait))
        }

        async fn wake(&mut self) {
            self.woken.notified().await;
        }
    }

    struct Running {
        runs: Arc<AtomicU32>,
        woken: Arc<Notify>,
        clock: ManualClock,
        driver: Driver,
        stop: Option<oneshot::Sender<()>>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Running {
        fn start(script: fn(u32) -> Result<Duration, JobError>) -> Self {
            let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
            let (runs, woken) = (Arc::default(), Arc::default());
            let job = Scripted {
                runs: Arc::clone(&runs),
                script,
                clock: clock.clone(),
                woken: Arc::clone(&woken),
            };
            let driver = Driver {
                clock,
                statuses: Arc::default(),
                metrics: Arc::new(Metrics::new()),
            };
            let (stop, stopped) = oneshot::channel();
            let stopped = async move { drop(stopped.await) };
            let task = tokio::spawn(driver.clone().drive(job, stopped));
            Self {
                runs,
                woken,
                clock: hand,
                driver,
                stop: Some(stop),
                task,
            }
        }

        /// Lets every task run until it waits, and returns the number of runs.
        async fn runs(&self) -> u32 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            self.runs.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn a_job_runs_when_it_is_due_and_when_it_is_woken() {
        let running = Running::start(|_| Ok(Duration::from_mins(1)));
        assert_eq!(running.runs().await, 1);
        running.clock.advance(Duration::from_secs(59));
        assert_eq!(running.runs().await, 1);
        running.clock.advance(Duration::from_secs(1));
        assert_eq!(running.runs().await, 2);
        running.woken.notify_one();
        assert_eq!(running.runs().await, 3);
    }

    #[tokio::test]
    async fn a_job_that_panics_runs_again_and_is_counted() {
        let running = Running::start(|run| {
            assert!(run != 2, "injected: the second run panics");
            Ok(Duration::from_mins(1))
        });
        assert_eq!(running.runs().await, 1);
        running.clock.advance(Duration::from_mins(1));
        assert_eq!(running.runs().await, 2);
        let status = running.driver.statuses.all()["scripted"].clone();
        assert_eq!((status.panics, status.failures_in_a_row), (1, 1));
        assert_eq!(status.last_outcome, Some(RunOutcome::Panicked));
        assert_eq!(status.last_error.as_deref(), Some("the run panicked"));
        running.clock.advance(Duration::from_millis(200));
        assert_eq!(running.runs().await, 3);
        let status = running.driver.statuses.all()["scripted"].clone();
        assert_eq!((status.panics, status.failures_in_a_row), (1, 0));
        let text = running.driver.metrics.encode();
        for line in [
            "vestibule_job_runs_total{job=\"scripted\",outcome=\"panicked\"} 1",
            "vestibule_job_runs_total{job=\"scripted\",outcome=\"succeeded\"} 2",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[tokio::test]
    async fn pauses_after_failures_grow_and_events_do_not_shorten_them() {
        let running = Running::start(|_| Err("out of order".into()));
        assert_eq!(running.runs().await, 1);
        running.woken.notify_one();
        assert_eq!(running.runs().await, 1, "a pause is not shortened");
        running.clock.advance(Duration::from_millis(200));
        assert_eq!(running.runs().await, 2);
        running.clock.advance(Duration::from_millis(200));
        assert_eq!(running.runs().await, 2, "the second pause is longer");
        running.clock.advance(Duration::from_millis(200));
        assert_eq!(running.runs().await, 3);
        let status = running.driver.statuses.all()["scripted"].clone();
        assert_eq!(status.failures_in_a_row, 3);
        assert_eq!(status.last_error.as_deref(), Some("out of order"));
    }

    #[tokio::test]
    async fn a_stop_ends_a_job_that_waits() {
        let mut running = Running::start(|_| Ok(Duration::from_mins(1)));
        assert_eq!(running.runs().await, 1);
        drop(running.stop.take());
        running.task.await.unwrap();
        assert!(running.driver.statuses.all()["scripted"].has_ended);
    }
}
