//! Stores the queued decisions.

use async_trait::async_trait;

use crate::base::clock::Timestamp;
use crate::jobs::driver::{Job, JobError};
use crate::store::decision_log::Writer;

/// Stores decisions in batches. A stop stores the rest of the queue.
pub struct StoreDecisions(pub Writer);

#[async_trait]
impl Job for StoreDecisions {
    fn name(&self) -> &'static str {
        "decision_log"
    }

    async fn run(&mut self) -> Result<Timestamp, JobError> {
        self.0.write().await;
        Ok(Timestamp::MAX_UTC)
    }

    /// Without a sender no decision follows.
    async fn wake(&mut self) {
        if !self.0.wait().await {
            std::future::pending::<()>().await;
        }
    }

    /// A batch is written to its end.
    fn is_interruptible(&self) -> bool {
        false
    }

    async fn finish(&mut self) {
        self.0.finish().await;
    }
}
