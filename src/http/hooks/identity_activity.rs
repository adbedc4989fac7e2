//! Records hook calls about identities into which Vestibule writes through the admin API.

use crate::base::clock::saturating_add;
use crate::checks::activity::Activity;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::state::HookState;
use crate::kratos::{Flow, Payload};
use crate::model::identity_write::{MAX_SETTINGS_WAIT, SavedChange};

/// Records that a settings `pre` has arrived. Kratos has read the identity and will write all of it, so no other write
/// may happen meanwhile.
pub async fn settings_begin(state: &HookState, call: &HookCall, payload: &Payload) {
    if !concerns(state, call) {
        return;
    }
    let id = payload.identity_id;
    if let Some(activity) = &state.activity {
        // In case the `post` is lost.
        activity.note(Activity {
            identity_id: id,
            verify_at: saturating_add(call.at, MAX_SETTINGS_WAIT),
            is_refused: false,
        });
    }
    let begun = state
        .clock
        .timeout_at(call.until, state.store.begin_settings_call(id, call.at));
    // Without this record Kratos may overwrite a write, which the verification of the write detects.
    if !matches!(begun.await, Some(Ok(()))) {
        tracing::warn!(trace.id = %call.trace, identity.id = %id, "Could not record that a settings call has begun");
    }
}

/// Records that `pre` has refused, so that no `post` will arrive.
pub fn settings_refused(state: &HookState, call: &HookCall, payload: &Payload) {
    if !concerns(state, call) {
        return;
    }
    let (store, id) = (std::sync::Arc::clone(&state.store), payload.identity_id);
    state.idempotency.spawn(async move {
        if let Err(error) = store.end_settings_call(id).await {
            tracing::warn!(identity.id = %id, error = %error.error_chain(), "Could not record that a settings call has ended");
        }
    });
}

/// Records that a `post` has arrived. What was written into the identity is verified, and compared with what the
/// visitor saved.
pub async fn post(state: &HookState, call: &HookCall, payload: &Payload) {
    if !state.writes_identities {
        return;
    }
    let id = payload.identity_id;
    if call.hook.flow != Flow::Settings {
        if let Some(activity) = &state.activity {
            activity.note(Activity {
                identity_id: id,
                verify_at: call.at,
                is_refused: false,
            });
        }
        return;
    }
    let done = async {
        if let (Some(identity), Some(previous)) = (&payload.identity, &payload.previous) {
            let data = |of: &serde_json::Value| serde_json::json!({"traits": of["traits"], "metadata_public": of["metadata_public"]});
            let change = SavedChange {
                saved_at: call.at,
                previous: data(previous),
                identity: data(identity),
            };
            state.store.store_saved_change(id, &change, call.at).await?;
        }
        state.store.end_settings_call(id).await
    };
    match state.clock.timeout_at(call.until, done).await {
        Some(Ok(())) => {
            if let Some(activity) = &state.activity {
                // The activity wakes the verifier.
                activity.note(Activity {
                    identity_id: id,
                    verify_at: call.at,
                    is_refused: false,
                });
            }
        }
        Some(Err(error)) => {
            tracing::warn!(trace.id = %call.trace, identity.id = %id, error = %error.error_chain(), "Could not record that a settings call has ended");
        }
        None => {
            tracing::warn!(trace.id = %call.trace, identity.id = %id, "Could not record in time that a settings call has ended");
        }
    }
}

fn concerns(state: &HookState, call: &HookCall) -> bool {
    state.writes_identities && call.hook.flow == Flow::Settings
}
