//! Writes the results of attempts into the database.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::group_commit::{GroupCommit, WriteResult, Writer, group_commit};
use super::{DeliveryStore, Settlement};
use crate::base::clock::Clock;

/// Accepts results of attempts. A caller gets `false` if it no longer held the lease.
pub type SettlementWriter = GroupCommit<Settlement, bool>;

/// Creates both ends of the queue. Nothing is written before [`Writer::run`].
#[must_use]
pub fn settlement_writer(
    store: Arc<dyn DeliveryStore>,
    clock: Clock,
) -> (SettlementWriter, Writer<Settlement, bool>) {
    group_commit(clock, move |settlements: Vec<Settlement>| {
        let store = Arc::clone(&store);
        async move { settle(&*store, &settlements).await }.boxed()
    })
}

async fn settle(store: &dyn DeliveryStore, settlements: &[Settlement]) -> Vec<WriteResult<bool>> {
    let was_settled = |settled: &HashSet<Uuid>, one: &Settlement| settled.contains(&one.id);
    match store.settle_all(settlements).await {
        Ok(settled) => settlements
            .iter()
            .map(|one| Ok(was_settled(&settled, one)))
            .collect(),
        // One settlement may have invalid data. Each is written alone, so that the others succeed.
        Err(error) if settlements.len() > 1 && error.is_data_error() => {
            let mut results = Vec::with_capacity(settlements.len());
            for one in settlements {
                let alone = store.settle_all(std::slice::from_ref(one)).await;
                results.push(
                    alone
                        .map(|settled| was_settled(&settled, one))
                        .map_err(Arc::new),
                );
            }
            results
        }
        Err(error) => {
            let error = Arc::new(error);
            settlements
                .iter()
                .map(|_| Err(Arc::clone(&error)))
                .collect()
        }
    }
}
