//! Writes deliveries and accepted submissions into the database.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use uuid::Uuid;

use super::group_commit::{GroupCommit, WriteResult, group_commit};
use super::{Acceptance, DeliveryStore, WriteSet};
use crate::base::clock::Clock;
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::StateLabels;
use crate::model::delivery::NewDelivery;

pub use super::group_commit::Writer;

/// The number of flows whose recorded submission is cached.
const MAX_RECENT: usize = 65_536;

/// The handle through which deliveries, submissions and reservations are written.
///
/// It commits with the group, counts what was stored, and wakes the dispatcher.
#[derive(Clone)]
pub struct Outbox {
    group_commit: GroupCommit<WriteSet, usize>,
    recent: Arc<Mutex<RecentPending>>,
    due: Arc<Notify>,
    metrics: Arc<Metrics>,
}

/// Creates both ends of the queue. Nothing is written before [`Writer::run`]. The clock must run: it ends the collection
/// of submissions that no caller waits for.
#[must_use]
pub fn outbox(
    store: Arc<dyn DeliveryStore>,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> (Outbox, Writer<WriteSet, usize>) {
    let recent = Arc::new(Mutex::new(RecentPending::default()));
    let due = Arc::new(Notify::new());
    let sink = Sink {
        store,
        recent: Arc::clone(&recent),
        due: Arc::clone(&due),
        metrics: Arc::clone(&metrics),
    };
    let sink = Arc::new(sink);
    let (group_commit, writer) = group_commit(clock, move |batches| {
        let sink = Arc::clone(&sink);
        async move { sink.write(batches).await }.boxed()
    });
    let outbox = Outbox {
        group_commit,
        recent,
        due,
        metrics,
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
            lock(&self.recent).forget(flow_id);
            self.metrics.pending_dropped.inc();
        }
    }

    /// Completes once everything that was queued before is stored or has failed.
    pub async fn flush(&self) -> WriteResult<()> {
        self.write(WriteSet::default()).await.map(drop)
    }

    /// Wakes the dispatcher, because stored deliveries may have become due.
    pub fn wake_dispatcher(&self) {
        self.due.notify_one();
    }

    /// Completes once deliveries were stored or became due since the last call. Dropping the future loses nothing.
    pub async fn deliveries_due(&self) {
        self.due.notified().await;
    }

    /// Returns whether the newest submission of this flow is recorded and its identity can be found, as far as this
    /// instance knows.
    #[must_use]
    pub fn has_pending(&self, flow_id: Uuid) -> bool {
        lock(&self.recent).known.contains(&flow_id)
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

fn lock(recent: &Mutex<RecentPending>) -> MutexGuard<'_, RecentPending> {
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what the group commit has gathered.
struct Sink {
    store: Arc<dyn DeliveryStore>,
    recent: Arc<Mutex<RecentPending>>,
    due: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Sink {
    async fn write(&self, batches: Vec<WriteSet>) -> Vec<WriteResult<usize>> {
        let mut all = WriteSet::default();
        for batch in &batches {
            all.extend(batch);
        }
        let results = match self.store.write(&all).await {
            Ok(new) => batches
                .iter()
                .map(|batch| Ok(batch.count_in(&new)))
                .collect(),
            // One write set may have invalid data. Each is written alone, so that the others succeed.
            Err(error) if batches.len() > 1 && error.is_data_error() => {
                let mut results = Vec::with_capacity(batches.len());
                for batch in &batches {
                    let alone = self.store.write(batch).await;
                    results.push(alone.map(|new| new.len()).map_err(Arc::new));
                }
                results
            }
            Err(error) => {
                let error = Arc::new(error);
                batches.iter().map(|_| Err(Arc::clone(&error))).collect()
            }
        };
        self.after_write(&batches, &results);
        results
    }

    /// Remembers recorded submissions, counts, and wakes the dispatcher.
    fn after_write(&self, batches: &[WriteSet], results: &[WriteResult<usize>]) {
        let mut has_new = false;
        let mut recent = lock(&self.recent);
        for (batch, result) in batches.iter().zip(results) {
            for acceptance in &batch.accepted {
                let sign_up = &acceptance.sign_up;
                let flow_id = sign_up.key.flow_id;
                // A look-up that may not find the identity does not replace a lost `post`.
                let can_be_found =
                    acceptance.next_lookup_at.is_some() && sign_up.can_be_found(false);
                if result.is_ok() && can_be_found {
                    recent.remember(flow_id);
                } else {
                    recent.forget(flow_id);
                }
                self.metrics
                    .pending_dropped
                    .inc_by(u64::from(result.is_err()));
            }
            let Ok(new) = result else { continue };
            has_new |= *new > 0;
            for closing in &batch.closed {
                recent.forget(closing.flow_id);
            }
            for release in &batch.released {
                let state = release.release_reason.as_str();
                let labels = StateLabels { state };
                self.metrics.reservations.get_or_create(&labels).inc();
            }
        }
        drop(recent);
        if has_new {
            self.due.notify_one();
        }
    }
}
