//! Watches the database: raises an alarm when it cannot be written to, or when its file was removed or replaced.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::jobs::driver::{Job, JobError};
use crate::store::Store;

/// How often the database is checked.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Checks the database every two seconds.
pub struct WatchDatabase {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Arc<Metrics>,
    has_failed: bool,
}

impl WatchDatabase {
    /// Watches this database.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            clock,
            metrics,
            has_failed: false,
        }
    }
}

#[async_trait]
impl Job for WatchDatabase {
    fn name(&self) -> &'static str {
        "database"
    }

    async fn run(&mut self) -> Result<Timestamp, JobError> {
        let had_failed = std::mem::replace(&mut self.has_failed, true);
        self.store.ping().await?;
        self.has_failed = false;
        self.metrics.database_up.set(1);
        if had_failed {
            tracing::info!("The database can be written to again");
        }
        Ok(saturating_add(self.clock.now(), CHECK_EVERY))
    }

    fn pause(&self, _: u32) -> Duration {
        CHECK_EVERY
    }

    /// Logs only the first of several failures.
    fn log_failure(&self, failures: u32, error: &str, _: Timestamp) {
        self.metrics.database_up.set(0);
        if failures == 1 {
            self.metrics.database_failures.inc();
            tracing::error!(
                error,
                "ALARM: the database cannot be written to; Kratos gets 503 to a `post`, or a look-up stores its deliveries \
                 later"
            );
        }
    }
}
