//! Queues decisions for the database. A sign-up never waits for a decision to be stored, and no decision costs a
//! transaction of its own: those of about one second are stored together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::DecisionStore;
use super::decisions::FlowIdentity;
use crate::base::clock::Clock;
use crate::model::decision::{Decision, KeptDecisions};

/// The maximum number of decisions in the queue.
const WAITING: usize = 4096;

/// The maximum number of decisions in one write.
const BATCH: usize = 256;

/// How long decisions are gathered before they are stored.
const GATHER: Duration = Duration::from_secs(1);

/// Receives the number of decisions that were lost because the database failed or was too slow.
pub type OnLoss = Arc<dyn Fn(u64) + Send + Sync>;

/// What the queue holds.
#[derive(Debug)]
enum Entry {
    Decision(Box<Decision>),
    Identity(FlowIdentity),
}

/// The sending end of the queue.
#[derive(Clone)]
pub struct DecisionLog {
    waiting: mpsc::Sender<Entry>,
    kept: KeptDecisions,
    on_loss: OnLoss,
}

/// The receiving end of the queue, which stores the decisions.
pub struct Writer {
    waiting: mpsc::Receiver<Entry>,
    store: Arc<dyn DecisionStore>,
    clock: Clock,
    on_loss: OnLoss,
    received: Vec<Entry>,
    /// Identities of flows whose decision was not stored yet: another instance may be about to store it.
    unmatched: Vec<FlowIdentity>,
}

/// Creates both ends of the queue. Nothing is stored before [`Writer::write`].
#[must_use]
pub fn recorder(
    store: Arc<dyn DecisionStore>,
    clock: Clock,
    kept: KeptDecisions,
    on_loss: OnLoss,
) -> (DecisionLog, Writer) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recorder = DecisionLog {
        waiting: sender,
        kept,
        on_loss: Arc::clone(&on_loss),
    };
    let writer = Writer {
        waiting: receiver,
        store,
        clock,
        on_loss,
        received: Vec::with_capacity(BATCH),
        unmatched: Vec::new(),
    };
    (recorder, writer)
}

impl DecisionLog {
    /// Queues a decision without waiting. The decision is lost if the queue is full.
    pub fn record(&self, decision: Decision) {
        if !self.kept.keeps(&decision) {
            return;
        }
        if self
            .waiting
            .try_send(Entry::Decision(Box::new(decision)))
            .is_err()
        {
            (self.on_loss)(1);
        }
    }

    /// Queues the identity that the flow of earlier decisions has become. If the queue is full, the decisions stay without
    /// an identity.
    pub fn record_identity(&self, identity: FlowIdentity) {
        let _ = self.waiting.try_send(Entry::Identity(identity));
    }
}

impl Writer {
    /// Waits for decisions, and gathers them. Returns `false` if no more will come. Identities without a decision are tried
    /// again after a second.
    pub async fn wait(&mut self) -> bool {
        if self.received.is_empty()
            && self.unmatched.is_empty()
            && self.waiting.recv_many(&mut self.received, BATCH).await == 0
        {
            return false;
        }
        let until = self.clock.deadline(GATHER);
        while self.received.len() < BATCH {
            let room = BATCH - self.received.len();
            let more = self.waiting.recv_many(&mut self.received, room);
            match self.clock.timeout_at(until, more).await {
                Some(received) if received > 0 => {}
                // The time is over, or no more will come.
                _ => break,
            }
        }
        true
    }

    /// Stores what was received.
    pub async fn write(&mut self) {
        let (mut decisions, mut identities) = (Vec::new(), Vec::new());
        for entry in self.received.drain(..) {
            match entry {
                Entry::Decision(decision) => decisions.push(*decision),
                Entry::Identity(identity) => identities.push(identity),
            }
        }
        if let Err(error) = self.store.record(&decisions).await {
            let lost = decisions.len();
            tracing::warn!(lost, error = %error.error_chain(), "{lost} decisions could not be recorded");
            (self.on_loss)(u64::try_from(lost).unwrap_or(u64::MAX));
        }
        self.write_identities(identities).await;
    }

    /// An identity whose flow has no decision yet is tried once more with the next write.
    async fn write_identities(&mut self, new: Vec<FlowIdentity>) {
        let mut all = std::mem::take(&mut self.unmatched);
        all.extend(&new);
        match self.store.record_identities(&all).await {
            Ok(matched) => {
                let is_unmatched = |one: &FlowIdentity| !matched.contains(&one.flow_id);
                self.unmatched = new.into_iter().filter(is_unmatched).collect();
            }
            Err(error) => {
                tracing::warn!(error = %error.error_chain(), "The identities of decisions could not be recorded");
            }
        }
    }

    /// Accepts no more decisions, and stores the rest of the queue.
    pub async fn finish(&mut self) {
        self.waiting.close();
        self.write().await;
        while self.waiting.recv_many(&mut self.received, BATCH).await > 0 {
            self.write().await;
        }
    }
}
