//! What became of tries, on its way into the database.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::together::{Together, Writer, together};
use super::{Settlement, Store};

/// Where what became of a try is handed in. `false` is told if the lease was no longer the caller's.
pub type Settler = Together<Settlement, bool>;

/// Both ends. Nothing is written before [`Writer::run`].
#[must_use]
pub fn settler(store: Arc<dyn Store>) -> (Settler, Writer<Settlement, bool>) {
    together(move |settlements: Vec<Settlement>| {
        let store = Arc::clone(&store);
        async move {
            match store.settle_all(&settlements).await {
                Ok(settled) => settlements
                    .iter()
                    .map(|one| Ok(settled.contains(&one.id)))
                    .collect(),
                Err(error) => {
                    let error = Arc::new(error);
                    settlements
                        .iter()
                        .map(|_| Err(Arc::clone(&error)))
                        .collect()
                }
            }
        }
        .boxed()
    })
}
