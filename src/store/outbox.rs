//! Writes deliveries and accepted submissions into the database.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::group_commit::{GroupCommit, WriteResult, group_commit};
use super::{Acceptance, Store, WriteSet};
use crate::model::delivery::NewDelivery;

pub use super::group_commit::Writer;

/// The number of flows whose recorded submission is cached.
const MAX_RECENT: usize = 65_536;

/// Receives the number of submissions that could not be recorded.
pub type OnLoss = Arc<dyn Fn(u64) + Send + Sync>;

/// The handle that stores deliveries and accepted submissions durably.
#[derive(Clone)]
pub struct Outbox {
    group_commit: GroupCommit<WriteSet, usize>,
    recent: Arc<Mutex<RecentPending>>,
    on_loss: OnLoss,
}

/// Creates both ends of the queue. Nothing is written before [`Writer::run`].
#[must_use]
pub fn outbox(store: Arc<dyn Store>, on_loss: OnLoss) -> (Outbox, Writer<WriteSet, usize>) {
    let recent = Arc::new(Mutex::new(RecentPending::default()));
    let (memory, lost) = (Arc::clone(&recent), Arc::clone(&on_loss));
    let (group_commit, writer) = group_commit(move |batches| {
        let store = Arc::clone(&store);
        let (memory, lost) = (Arc::clone(&memory), Arc::clone(&lost));
        async move { write(&*store, batches, &memory, &lost).await }.boxed()
    });
    let outbox = Outbox {
        group_commit,
        recent,
        on_loss,
    };
    (outbox, writer)
}

impl Outbox {
    /// Stores all deliveries durably, in one transaction, before it returns. Returns how many were new.
    pub async fn accept(&self, deliveries: Vec<NewDelivery>) -> WriteResult<usize> {
        self.write(WriteSet::of(deliveries)).await
    }

    /// Stores the whole write set durably, in one transaction, before it returns. Returns how many deliveries were new.
    pub async fn write(&self, batch: WriteSet) -> WriteResult<usize> {
        self.group_commit.write(batch).await
    }

    /// Queues an accepted submission without waiting for the database. The submission is lost if the queue is full or
    /// the database fails.
    pub fn record_pending(&self, acceptance: Acceptance) {
        let flow_id = acceptance.sign_up.key.flow_id;
        let batch = WriteSet {
            accepted: vec![acceptance],
            ..WriteSet::default()
        };
        if !self.group_commit.try_submit(batch) {
            // An earlier submission of the flow does not prove that this one is recorded.
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.forget(flow_id);
            (self.on_loss)(1);
        }
    }

    /// Returns whether the newest submission of this flow is recorded and its identity can be found, as far as this
    /// instance knows.
    #[must_use]
    pub fn has_pending(&self, flow_id: Uuid) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.known.contains(&flow_id)
    }
}

/// The latest flows with a recorded submission whose identity can be found.
#[derive(Debug, Default)]
struct RecentPending {
    known: HashSet<Uuid>,
    in_order: VecDeque<Uuid>,
}

impl RecentPending {
    fn forget(&mut self, flow_id: Uuid) {
        self.known.remove(&flow_id);
    }

    fn remember(&mut self, flow_id: Uuid) {
        if !self.known.insert(flow_id) {
            return;
        }
        // A flow that was removed and added again is in the queue twice, and is evicted a little early.
        self.in_order.push_back(flow_id);
        if self.in_order.len() > MAX_RECENT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

async fn write(
    store: &dyn Store,
    batches: Vec<WriteSet>,
    memory: &Mutex<RecentPending>,
    on_loss: &OnLoss,
) -> Vec<WriteResult<usize>> {
    let mut all = WriteSet::default();
    for batch in &batches {
        all.extend(batch);
    }
    let results = match store.write(&all).await {
        Ok(new) => batches
            .iter()
            .map(|batch| Ok(batch.count_in(&new)))
            .collect(),
        // One write set may have invalid data. Each is written alone, so that the others succeed.
        Err(error) if batches.len() > 1 && error.is_data_error() => {
            let mut results = Vec::with_capacity(batches.len());
            for batch in &batches {
                let alone = store.write(batch).await;
                results.push(alone.map(|new| new.len()).map_err(Arc::new));
            }
            results
        }
        Err(error) => {
            let error = Arc::new(error);
            batches.iter().map(|_| Err(Arc::clone(&error))).collect()
        }
    };
    remember_recorded(&batches, &results, memory, on_loss);
    results
}

fn remember_recorded(
    batches: &[WriteSet],
    results: &[WriteResult<usize>],
    memory: &Mutex<RecentPending>,
    on_loss: &OnLoss,
) {
    let mut lost = 0;
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    for (batch, results) in batches.iter().zip(results) {
        for acceptance in &batch.accepted {
            let sign_up = &acceptance.sign_up;
            let flow_id = sign_up.key.flow_id;
            // A look-up that may not find the identity does not replace a lost `post`.
            let can_be_found = acceptance.next_lookup_at.is_some() && sign_up.can_be_found(false);
            if results.is_ok() && can_be_found {
                memory.remember(flow_id);
            } else {
                memory.forget(flow_id);
            }
            lost += u64::from(results.is_err());
        }
        if results.is_ok() {
            for closing in &batch.closed {
                memory.forget(closing.flow_id);
            }
        }
    }
    drop(memory);
    if lost > 0 {
        on_loss(lost);
    }
}
