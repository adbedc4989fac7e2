//! What is done now and then: identities are reconciled, what is settled is deleted.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::base::clock::Clock;
use crate::checks::follow_up::InForce;
use crate::config::settings::{Reconcile, Retention};
use crate::jobs::reconcile::{Deps, Reconciler, RoundOptions, record_first_seen};
use crate::jobs::retention;
use crate::model::delivery::Subscription;
use crate::store::{self, Store};

/// Writes down, at the first start, from when on somebody counts who was not delivered.
pub(super) async fn record_first_start(store: &dyn Store, clock: &Clock, plans: &[Subscription]) {
    if let Err(error) = record_first_seen(store, clock, plans).await {
        // The first reconciliation does it, then.
        tracing::error!(
            error = %error.error_chain(),
            "It could not be written down when this database and its plans were first seen"
        );
    }
}

/// The property: which checks reserve or defer, by what rule, and since when.
const HOLDING_CHECKS: &str = "holding_checks";

/// Since when the checks that reserve or defer are in force.
pub(super) async fn in_force(
    store: &dyn Store,
    clock: &Clock,
    rules: &[(String, String)],
) -> InForce {
    stored_in_force(store, clock, rules)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(error = %error.error_chain(), "The time since which the checks are in force could not be stored");
            InForce::since(rules, clock.now())
        })
}

async fn stored_in_force(
    store: &dyn Store,
    clock: &Clock,
    rules: &[(String, String)],
) -> Result<InForce, store::Error> {
    let stored = store.get_property(HOLDING_CHECKS).await?;
    let in_force = InForce::after(stored.as_deref(), rules, clock.now());
    let text = in_force.text();
    if stored.as_ref() != Some(&text) {
        store.set_property(HOLDING_CHECKS, Some(&text)).await?;
    }
    Ok(in_force)
}

/// Reconciles every so often, if that is wanted.
pub(super) fn reconcile(
    knows: Option<Deps>,
    settings: Reconcile,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Option<JoinHandle<()>> {
    let every = settings.every?;
    let wishes = RoundOptions {
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
