//! What hook calls show about identities that Vestibule writes to through the admin API.

use crate::base::clock::later;
use crate::checks::activity::Activity;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::state::HookState;
use crate::kratos::{Flow, Payload};
use crate::model::identity_write::{MAX_SETTINGS_WAIT, SavedChange};

/// A settings `pre` has come: Kratos has read the identity and will write all of it, so nothing else may write to it.
pub async fn settings_begin(door: &HookState, call: &HookCall, payload: &Payload) {
    if !concerns(door, call) {
        return;
    }
    let id = payload.identity_id;
    if let Some(activity) = &door.activity {
        // In case the `post` is lost.
        activity.note(Activity {
            identity_id: id,
            verify_at: later(call.at, MAX_SETTINGS_WAIT),
            is_refused: false,
        });
    }
    let begun = door
        .clock
        .before(call.until, door.store.begin_settings_call(id, call.at));
    // Then a write may be undone, which its verification shows.
    if !matches!(begun.await, Some(Ok(()))) {
        tracing::warn!(trace.id = %call.trace, identity.id = %id, "It could not be noted that a settings call has begun");
    }
}

/// `pre` has refused: there will be no `post`.
pub fn settings_refused(door: &HookState, call: &HookCall, payload: &Payload) {
    if !concerns(door, call) {
        return;
    }
    let (store, id) = (std::sync::Arc::clone(&door.store), payload.identity_id);
    door.answers.aside(async move {
        if let Err(error) = store.end_settings_call(id).await {
            tracing::warn!(identity.id = %id, error = %error.in_full(), "It could not be noted that a settings call has ended");
        }
    });
}

/// A `post` has come: what was written to the identity is verified, and compared with what the person saved.
pub async fn post(door: &HookState, call: &HookCall, payload: &Payload) {
    if !door.writes_identities {
        return;
    }
    let id = payload.identity_id;
    if call.hook.flow != Flow::Settings {
        if let Some(activity) = &door.activity {
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
            door.store.store_saved_change(id, &change, call.at).await?;
        }
        door.store.end_settings_call(id).await
    };
    match door.clock.before(call.until, done).await {
        Some(Ok(())) => {
            if let Some(activity) = &door.activity {
                // Wakes the verifier.
                activity.note(Activity {
                    identity_id: id,
                    verify_at: call.at,
                    is_refused: false,
                });
            }
        }
        Some(Err(error)) => {
            tracing::warn!(trace.id = %call.trace, identity.id = %id, error = %error.in_full(), "It could not be noted that a settings call has ended");
        }
        None => {
            tracing::warn!(trace.id = %call.trace, identity.id = %id, "The database did not note in time that a settings call has ended");
        }
    }
}

fn concerns(door: &HookState, call: &HookCall) -> bool {
    door.writes_identities && call.hook.flow == Flow::Settings
}
