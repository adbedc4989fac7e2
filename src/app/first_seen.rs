//! Records when parts of the settings were first seen.

use crate::base::clock::Clock;
use crate::checks::follow_up::InForce;
use crate::jobs::reconcile::record_first_seen;
use crate::model::delivery::Subscription;
use crate::store::known_identities::set_all_known;
use crate::store::{self, Coordination, Store};

/// Records, at the first start, when this database and its subscriptions were first seen. Reconciliation delivers no
/// identity from before that time.
pub(super) async fn record_first_start(
    store: &dyn Store,
    clock: &Clock,
    subscriptions: &[Subscription],
) {
    if let Err(error) = record_first_seen(store, clock, subscriptions).await {
        // The first reconciliation then records it.
        tracing::error!(
            error = %error.error_chain(),
            "Could not store when this database and its subscriptions were first seen"
        );
    }
}

/// Records that nothing is recorded about identities any more. If that begins again, what was known is outdated.
pub(super) async fn record_untracked(store: &dyn Coordination) {
    if let Err(error) = set_all_known(store, None).await {
        // Retention records it too.
        tracing::warn!(error = %error.error_chain(), "Could not store that known identities are outdated");
    }
}

/// The name of the property that lists the checks that reserve or defer, with the hash of each rule and its start time.
const HOLDING_CHECKS: &str = "holding_checks";

/// Returns the time from which the checks that reserve or defer are in force, and stores this time.
pub(super) async fn in_force(
    store: &dyn Coordination,
    clock: &Clock,
    rules: &[(String, String)],
) -> InForce {
    stored_in_force(store, clock, rules)
        .await
        .unwrap_or_else(|error| {
            tracing::error!(error = %error.error_chain(), "Could not store the time from which the checks are in force");
            InForce::since(rules, clock.now())
        })
}

async fn stored_in_force(
    store: &dyn Coordination,
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
