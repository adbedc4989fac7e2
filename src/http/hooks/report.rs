//! Logs and counts faults of an attributed account.

use uuid::Uuid;

use crate::base::telemetry::Trace;
use crate::checks::follow_up::{Doubt, FollowUp};
use crate::http::hooks::state::HookState;

/// An account, and the call that reported it.
pub struct Account<'a> {
    /// The flow of the account.
    pub flow_id: Uuid,
    /// The account's id.
    pub identity_id: Uuid,
    /// The trace of the call.
    pub trace: Trace,
    /// The method of the flow.
    pub method: &'a str,
}

/// Reports what is wrong with the attribution, and which reservations were released too early.
pub fn report(state: &HookState, account: &Account<'_>, follow_up: &FollowUp) {
    for check in &follow_up.taken_again {
        tracing::warn!(
            flow.id = %account.flow_id, identity.id = %account.identity_id, check,
            "An account became known after the reservation of check `{check}` was released; Vestibule takes the reservation again"
        );
    }
    for check in &follow_up.too_late {
        state.metrics.posts_after_release.inc();
        tracing::error!(
            flow.id = %account.flow_id, identity.id = %account.identity_id, check,
            "ALARM: an account became known after the reservation of check `{check}` was released, and the reservation cannot be taken \
             again; see `vestibule deliveries list --state abandoned`"
        );
    }
    let Some(doubt) = follow_up.doubt else { return };
    if doubt != Doubt::OtherTraits {
        state.count_lost_post(doubt.as_str());
    }
    let (flow_id, identity_id, trace) = (account.flow_id, account.identity_id, account.trace);
    match doubt {
        Doubt::OtherTraits => tracing::warn!(
            flow.id = %flow_id, identity.id = %identity_id, trace.id = %trace,
            "The account has other traits than the accepted sign-up of its flow; put Vestibule's `pre` hook after the other \
             blocking hooks in kratos.yml"
        ),
        Doubt::Ambiguous => tracing::error!(
            flow.id = %flow_id, identity.id = %identity_id, trace.id = %trace,
            "ALARM: the account has the traits of none of the accepted submissions of its flow; see \
             `vestibule deliveries list --state abandoned`"
        ),
        Doubt::NotRecorded => tracing::error!(
            flow.id = %flow_id, identity.id = %identity_id, trace.id = %trace, hook.method = account.method,
            "ALARM: Kratos created an account without a recorded accepted sign-up, although a check could have reserved or deferred; \
             see `vestibule deliveries list --state abandoned`"
        ),
        Doubt::SecondIdentity => tracing::error!(
            flow.id = %flow_id, identity.id = %identity_id, trace.id = %trace, hook.method = account.method,
            "ALARM: Kratos created a second account from one form, because the `external_id` of the first account was changed or \
             removed before; see `vestibule deliveries list --state abandoned`"
        ),
    }
}
