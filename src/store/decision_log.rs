//! Queues decisions for the database. A sign-up never waits for a decision to be stored.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Coordination;
use crate::model::decision::Decision;

/// The maximum number of decisions in the queue.
const WAITING: usize = 4096;

/// The maximum number of decisions in one write.
const BATCH: usize = 256;

/// Receives the number of decisions that were lost because the database failed or was too slow.
pub type OnLoss = Arc<dyn Fn(u64) + Send + Sync>;

/// The sending end of the queue.
#[derive(Clone)]
pub struct DecisionLog {
    waiting: mpsc::Sender<Decision>,
    on_loss: OnLoss,
}

/// The receiving end of the queue, which stores the decisions.
pub struct Writer {
    waiting: mpsc::Receiver<Decision>,
    store: Arc<dyn Coordination>,
    on_loss: OnLoss,
    batch: Vec<Decision>,
}

/// Creates both ends of the queue. Nothing is stored before [`Writer::write`].
#[must_use]
pub fn recorder(store: Arc<dyn Coordination>, on_loss: OnLoss) -> (DecisionLog, Writer) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recorder = DecisionLog {
        waiting: sender,
        on_loss: Arc::clone(&on_loss),
    };
    let writer = Writer {
        waiting: receiver,
        store,
        on_loss,
        batch: Vec::with_capacity(BATCH),
    };
    (recorder, writer)
}

impl DecisionLog {
    /// Queues a decision without waiting. The decision is lost if the queue is full.
    pub fn record(&self, decision: Decision) {
        if self.waiting.try_send(decision).is_err() {
            (self.on_loss)(1);
        }
    }
}

impl Writer {
    /// Waits for decisions. Returns `false` if no more will come.
    pub async fn wait(&mut self) -> bool {
        self.waiting.recv_many(&mut self.batch, BATCH).await > 0
    }

    /// Stores the decisions that were received.
    pub async fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Err(error) = self.store.record(&self.batch).await {
            let lost = self.batch.len();
            tracing::warn!(lost, error = %error.error_chain(), "{lost} decisions could not be recorded");
            (self.on_loss)(u64::try_from(lost).unwrap_or(u64::MAX));
        }
        self.batch.clear();
    }

    /// Accepts no more decisions, and stores the rest of the queue.
    pub async fn finish(&mut self) {
        self.waiting.close();
        self.write().await;
        while self.wait().await {
            self.write().await;
        }
    }
}
