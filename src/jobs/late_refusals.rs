//! Loads the late refusals in force from the database again and again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::checks::refused_identities::RefusedIdentities;
use crate::jobs::driver::{Job, JobError};

/// How often the set is loaded.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Loads the late refusals in force every second.
pub struct ReloadLateRefusals {
    refused: Arc<RefusedIdentities>,
    clock: Clock,
    metrics: Arc<Metrics>,
    has_failed: bool,
}

impl ReloadLateRefusals {
    /// Loads this set.
    #[must_use]
    pub fn new(refused: Arc<RefusedIdentities>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            refused,
            clock,
            metrics,
            has_failed: false,
        }
    }
}

#[async_trait]
impl Job for ReloadLateRefusals {
    fn name(&self) -> &'static str {
        "late_refusals"
    }

    fn first_run(&self, now: Timestamp) -> Timestamp {
        saturating_add(now, RELOAD_EVERY)
    }

    async fn run(&mut self) -> Result<Timestamp, JobError> {
        let had_failed = std::mem::replace(&mut self.has_failed, true);
        self.refused.reload().await?;
        self.has_failed = false;
        if had_failed {
            tracing::info!("Loaded the late refusals again");
        }
        Ok(saturating_add(self.clock.now(), RELOAD_EVERY))
    }

    fn pause(&self, _: u32) -> Duration {
        RELOAD_EVERY
    }

    /// Logs only the first of several failures.
    fn log_failure(&self, failures: u32, error: &str, _: Timestamp) {
        self.metrics.late_refusals_load_failures.inc();
        if failures == 1 {
            tracing::error!(
                error,
                "ALARM: late refusals cannot be loaded; Vestibule answers logins, recoveries and settings from the last \
                 loaded set until the database is available"
            );
        }
    }
}
