//! Decisions on their way into the database. A sign-up never waits for them.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Store;
use crate::model::decision::Decision;

/// How many decisions may wait to be written.
const WAITING: usize = 4096;

/// How many are written at once.
const BATCH: usize = 256;

/// Told how many decisions were lost, because the database failed or fell behind.
pub type OnLoss = Arc<dyn Fn(u64) + Send + Sync>;

/// Where decisions are handed in.
#[derive(Clone)]
pub struct DecisionLog {
    waiting: mpsc::Sender<Decision>,
    on_loss: OnLoss,
}

/// The other end, which writes them down.
pub struct Writer {
    waiting: mpsc::Receiver<Decision>,
    store: Arc<dyn Store>,
    on_loss: OnLoss,
}

/// Both ends. Nothing is written before [`Writer::run`].
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
    /// Hands in a decision, at once. It is lost if too many are waiting already.
    pub fn record(&self, decision: Decision) {
        if self.waiting.try_send(decision).is_err() {
            (self.on_loss)(1);
        }
    }
}

impl Writer {
    /// Writes down what comes in. When `stop` is done it takes nothing more, writes what is waiting and ends.
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
