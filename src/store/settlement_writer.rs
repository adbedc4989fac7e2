//! What became of tries, on its way into the database.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt as _;
use uuid::Uuid;

use super::group_commit::{GroupCommit, WriteResult, Writer, group_commit};
use super::{Settlement, Store};

/// Where what became of a try is handed in. `false` is told if the lease was no longer the caller's.
pub type SettlementWriter = GroupCommit<Settlement, bool>;

/// Both ends. Nothing is written before [`Writer::run`].
#[must_use]
pub fn settler(store: Arc<dyn Store>) -> (SettlementWriter, Writer<Settlement, bool>) {
    group_commit(move |settlements: Vec<Settlement>| {
        let store = Arc::clone(&store);
        async move { settle(&*store, &settlements).await }.boxed()
    })
}

async fn settle(store: &dyn Store, settlements: &[Settlement]) -> Vec<WriteResult<bool>> {
    let told = |settled: &HashSet<Uuid>, one: &Settlement| settled.contains(&one.id);
    match store.settle_all(settlements).await {
        Ok(settled) => settlements
            .iter()
            .map(|one| Ok(told(&settled, one)))
            .collect(),
        // One of them may be to blame, and the others are not.
        Err(error) if settlements.len() > 1 && error.is_data_error() => {
            let mut said = Vec::with_capacity(settlements.len());
            for one in settlements {
                let alone = store.settle_all(std::slice::from_ref(one)).await;
                said.push(alone.map(|settled| told(&settled, one)).map_err(Arc::new));
            }
            said
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
