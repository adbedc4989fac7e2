//! The status of background jobs, for the admin API and the metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

use super::Metrics;
use super::metrics::{JobLabels, JobName};
use crate::base::clock::{Timestamp, milliseconds};

/// The result of one run of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// The run did its work.
    Succeeded,
    /// The run ended with an error.
    Failed,
    /// The run panicked. The job goes on with its next run.
    Panicked,
}

impl RunOutcome {
    /// Returns the value of the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
        }
    }
}

/// The status of a background job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct JobStatus {
    /// Whether the job runs at this moment. Otherwise it waits for its next run.
    pub is_running: bool,
    /// Whether the job has ended, because Vestibule stops.
    pub has_ended: bool,
    /// The number of runs since the start of this process.
    pub runs: u64,
    /// The number of runs that panicked since the start of this process.
    pub panics: u64,
    /// The number of runs that failed or panicked since the last run that succeeded.
    pub failures_in_a_row: u32,
    /// When the last run began.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_started_at: Option<Timestamp>,
    /// The duration of the last finished run in milliseconds.
    pub last_duration_ms: Option<u64>,
    /// The result of the last finished run.
    pub last_outcome: Option<RunOutcome>,
    /// The error of the last finished run. It holds no value of a visitor.
    pub last_error: Option<String>,
    /// When the next run is due. An event can start it earlier.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_run_at: Option<Timestamp>,
}

/// The status of every background job of this process.
#[derive(Debug, Default)]
pub struct JobStatuses(Mutex<BTreeMap<&'static str, JobStatus>>);

impl JobStatuses {
    /// Returns the status of every job, by name.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, JobStatus> {
        self.lock().clone()
    }

    /// Records that a run begins.
    pub fn started(&self, job: &'static str, now: Timestamp) {
        let mut all = self.lock();
        let status = all.entry(job).or_default();
        status.is_running = true;
        status.last_started_at = Some(now);
    }

    /// Records and counts a finished run. Returns the number of failures in a row.
    pub fn finished(
        &self,
        job: &'static str,
        outcome: RunOutcome,
        error: Option<String>,
        now: Timestamp,
        metrics: &Metrics,
    ) -> u32 {
        let labels = JobLabels {
            job,
            outcome: outcome.as_str(),
        };
        metrics.job_runs.get_or_create(&labels).inc();
        if outcome == RunOutcome::Succeeded {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
            let seconds = now.timestamp() as f64;
            let gauge = metrics.job_succeeded_at.get_or_create(&JobName { job });
            gauge.set(seconds);
        }
        let mut all = self.lock();
        let status = all.entry(job).or_default();
        status.is_running = false;
        status.runs += 1;
        status.panics += u64::from(outcome == RunOutcome::Panicked);
        status.failures_in_a_row = match outcome {
            RunOutcome::Succeeded => 0,
            RunOutcome::Failed | RunOutcome::Panicked => status.failures_in_a_row + 1,
        };
        status.last_duration_ms = status
            .last_started_at
            .map(|started| milliseconds(started, now));
        status.last_outcome = Some(outcome);
        status.last_error = error;
        status.failures_in_a_row
    }

    /// Records when the next run is due.
    pub fn waits_until(&self, job: &'static str, next: Timestamp) {
        let next = (next < Timestamp::MAX_UTC).then_some(next);
        self.lock().entry(job).or_default().next_run_at = next;
    }

    /// Records that the job has ended.
    pub fn ended(&self, job: &'static str) {
        let mut all = self.lock();
        let status = all.entry(job).or_default();
        status.is_running = false;
        status.has_ended = true;
        status.next_run_at = None;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, JobStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
