//! Queues decisions for the database. A sign-up never waits for a decision to be stored.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Store;
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
    store: Arc<dyn Store>,
    on_loss: OnLoss,
}

/// Creates both ends of the queue. Nothing is written before [`Writer::run`].
#[must_use]
pub fn recorder(store: Arc<dyn Store>, on_loss: OnLoss) -> (DecisionLog, Writer) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recorder = DecisionLog {
        waiting: sender,
        on_loss: Arc::clone(&on_loss),
    };
    let writer = Writer {
        waiting: receiver,
        store,
        on_loss,
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
    /// Stores the queued decisions. When `stop` completes, the writer accepts no more, stores the rest of the queue and
    /// returns.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut stopped = false;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = &mut stop, if !stopped => {
                    stopped = true;
                    self.waiting.close();
                }
                count = self.waiting.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.write(&batch).await;
                    batch.clear();
                }
            }
        }
    }

    async fn write(&self, batch: &[Decision]) {
        if let Err(error) = self.store.record(batch).await {
            let lost = batch.len();
            tracing::warn!(lost, error = %error.error_chain(), "{lost} decisions could not be recorded");
            (self.on_loss)(u64::try_from(lost).unwrap_or(u64::MAX));
        }
    }
}
