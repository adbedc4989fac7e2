//! What is done now and then: identities are reconciled, what is settled is deleted.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::settings::{Reconcile, Retention};
use crate::delivery::Plan;
use crate::reconcile::{Knows, Reconciler, Wishes, note_births};
use crate::retention;
use crate::store::Store;

/// Writes down, at the first start, from when on somebody counts who was not delivered.
pub(super) async fn note_the_start(store: &dyn Store, clock: &Clock, plans: &[Plan]) {
    if let Err(error) = note_births(store, clock, plans).await {
        // The first reconciliation does it, then.
        tracing::error!(
            error = %error.in_full(),
            "It could not be written down when this database and its plans were first seen"
        );
    }
}

/// Reconciles every so often, if that is wanted.
pub(super) fn reconcile(
    knows: Option<Knows>,
    settings: Reconcile,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Option<JoinHandle<()>> {
    let every = settings.every?;
    let wishes = Wishes {
        since: settings.since,
        per_second: settings.per_second,
        dry_run: false,
        believe_all_gone: false,
    };
    Some(tokio::spawn(
        Reconciler::new(knows?, wishes).run(every, stop),
    ))
}

/// Deletes what has been kept long enough.
pub(super) fn retain(
    store: Arc<dyn Store>,
    settings: Retention,
    clock: Clock,
    stop: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let Retention {
        deliveries,
        decisions,
    } = settings;
    tokio::spawn(retention::Retention::new(store, deliveries, decisions, clock).run(stop))
}
