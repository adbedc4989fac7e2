//! Reads records of flows. Calls that arrive during one query share the next query.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::PendingStore;
use super::group_commit::{GroupCommit, WriteResult, Writer, group_commit};
use crate::base::clock::Clock;
use crate::model::pending::FlowRecord;

/// Reads records of flows.
#[derive(Clone)]
pub struct FlowReader(GroupCommit<Uuid, Option<FlowRecord>>);

/// Creates both ends of the queue. Nothing is read before [`Writer::run`].
#[must_use]
pub fn flow_reader(
    store: Arc<dyn PendingStore>,
    clock: Clock,
) -> (FlowReader, Writer<Uuid, Option<FlowRecord>>) {
    let (queue, reader) = group_commit(clock, move |flow_ids: Vec<Uuid>| {
        let store = Arc::clone(&store);
        async move { read(&*store, &flow_ids).await }.boxed()
    });
    (FlowReader(queue), reader)
}

impl FlowReader {
    /// Returns the record of the flow, as it was stored after the call began.
    pub async fn read(&self, flow_id: Uuid) -> WriteResult<Option<FlowRecord>> {
        self.0.write(flow_id).await
    }
}

async fn read(store: &dyn PendingStore, flow_ids: &[Uuid]) -> Vec<WriteResult<Option<FlowRecord>>> {
    match store.flow_records(flow_ids).await {
        Ok(records) => {
            let by_id: HashMap<Uuid, FlowRecord> = records
                .into_iter()
                .map(|record| (record.flow_id, record))
                .collect();
            let found = flow_ids.iter().map(|id| Ok(by_id.get(id).cloned()));
            found.collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            flow_ids.iter().map(|_| Err(Arc::clone(&error))).collect()
        }
    }
}
