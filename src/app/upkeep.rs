//! What is done now and then: identities are reconciled, what is settled is deleted.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::{Clock, Timestamp, later};
use crate::config::settings::{Reconcile, Retention};
use crate::delivery::Plan;
use crate::reconcile::{Knows, Reconciler, Wishes, note_births};
use crate::retention;
use crate::store::{self, Store};

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

/// The property: which checks reserve or defer, and since when.
const HOLDING_CHECKS: &str = "holding_checks";
/// A sign-up that was accepted before these checks came into force may be saved so much later.
const OLD_SIGN_UPS_END_WITHIN: Duration = Duration::from_mins(10);

/// From when on an account without a recorded sign-up is a fault: some time after the checks that reserve or defer came into
/// force.
pub(super) async fn holding_checks_count_from(
    store: &dyn Store,
    clock: &Clock,
    checks: &str,
) -> Timestamp {
    let since = match in_force_since(store, clock, checks).await {
        Ok(since) => since,
        Err(error) => {
            tracing::error!(error = %error.in_full(), "It could not be stored since when the checks are in force");
            clock.now()
        }
    };
    later(since, OLD_SIGN_UPS_END_WITHIN)
}

async fn in_force_since(
    store: &dyn Store,
    clock: &Clock,
    checks: &str,
) -> Result<Timestamp, store::Error> {
    if let Some(known) = store.fact(HOLDING_CHECKS).await?
        && let Some((at, names)) = known.split_once(' ')
        && names == checks
        && let Ok(at) = at.parse()
    {
        return Ok(at);
    }
    let now = clock.now();
    let value = format!("{} {checks}", now.to_rfc3339());
    store.set_fact(HOLDING_CHECKS, Some(&value)).await?;
    Ok(now)
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
