//! payload -> deliveries stored -> reply

use crate::base::clock::{Timestamp, milliseconds};
use crate::checks::follow_up::{FollowUp, IdentityChange, event};
use crate::expression::Variables;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::identity_activity;
use crate::http::hooks::pre::place;
use crate::http::hooks::report::{Account, report};
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::fingerprint::guard_id;
use crate::kratos::{Flow, Payload, Reply};
use crate::store::{self, FlowState, attribution};

/// Stores what the saved identity calls for, and says yes once it is stored.
pub async fn answer(state: &HookState, call: &HookCall) -> HookResponse {
    let payload = match call
        .body
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|body| Payload::parse(body).map_err(|error| error.to_string()))
    {
        Ok(mut payload) => {
            state.add_client_ip(&mut payload);
            payload
        }
        Err(error) => return unread(state, &error),
    };
    if payload.identity_id.is_nil() {
        let mend = format!(
            "the hook of {} that calls `post` has `response: {{parse: true}}` (or stands under `before`), so Kratos calls \
             it before saving; take that out",
            place(call)
        );
        state.report_misconfiguration(&call.hook, "post_before_saving", &mend);
        return HookResponse::new(Reply::Yes, "misconfigured");
    }
    identity_activity::post(state, call, &payload).await;
    match store(state, call, &payload).await {
        Ok(stored) => {
            let duration_ms = milliseconds(call.at, state.clock.now());
            tracing::info!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, stored, duration_ms,
                "Stored {stored} deliveries of a {} by `{}`", call.hook.flow, call.hook.method
            );
            HookResponse::new(Reply::Yes, "stored")
        }
        // The person has an account; no need to show them an error page.
        Err(error) if is_looked_up(state, call, &payload) => {
            state.count_lost_post("not_stored");
            tracing::error!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, error,
                "ALARM: deliveries could not be stored; they are made when the sign-up is looked up, as soon as the database is back"
            );
            HookResponse::new(Reply::Yes, "pending_kept")
        }
        Err(error) => {
            tracing::error!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, error,
                "Deliveries could not be stored; Kratos is asked to call again"
            );
            HookResponse::new(Reply::Retry, "not_stored")
        }
    }
}

/// Whether the sweeper makes up for it.
fn is_looked_up(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    state.pending.looks_up
        && call.hook.flow == Flow::Registration
        && state.outbox.has_pending(payload.flow_id)
}

/// An account was made of which we were not told. A refusal would show an error page to somebody who has
/// an account, so it is a yes, and an alarm.
fn unread(state: &HookState, error: &str) -> HookResponse {
    state.count_lost_post("unreadable");
    state.sweep_now.notify_one();
    if state.pending.looks_up {
        tracing::error!(
            error,
            "ALARM: a `post` could not be read: an account was made or changed of which nothing is known; it is looked for \
             among the sign-ups that had passed"
        );
    } else {
        tracing::error!(
            error,
            "ALARM: a `post` could not be read: an account was made or changed of which nothing is known, and nothing is \
             delivered for it; compare the newest identities of Kratos with `vestibule deliveries list`, and set \
             `kratos.admin_url`, so that such accounts are found"
        );
    }
    HookResponse::new(Reply::Yes, "unreadable")
}

async fn store(state: &HookState, call: &HookCall, payload: &Payload) -> Result<usize, String> {
    let stored = state
        .clock
        .timeout_at(call.until, resolve(state, call, payload));
    let stored = stored
        .await
        .ok_or_else(|| "the database did not answer in time".to_owned())??;
    if stored > 0 {
        state.stored.notify_one();
    }
    Ok(stored)
}

/// Everything that follows, in one transaction. Several rounds, because what was reserved may be released, and another
/// submission accepted, at the same moment.
async fn resolve(state: &HookState, call: &HookCall, payload: &Payload) -> Result<usize, String> {
    let is_registration = call.hook.flow == Flow::Registration;
    if is_registration
        && state.pending.looks_up
        && state.follow_ups.needs_attribution()
        && !has_guard_id(payload)
    {
        // So that an earlier sign-up of the same visitor, which came to nothing, is not taken for this one.
        let attributed =
            attribution::attribute(&*state.store, payload.identity_id, payload.flow_id, call.at);
        attributed.await.map_err(|error| error.error_chain())?;
    }
    let mut last = String::new();
    for _ in 0..4 {
        let flow_state = if reads_state(state, call, payload) {
            let flow_state = state.store.flow(payload.flow_id).await;
            flow_state.map_err(|error| error.error_chain())?
        } else {
            FlowState::default()
        };
        let resolved = resolved(state, call, payload, &flow_state);
        if resolved.is_stale {
            "the flow changes all the time".clone_into(&mut last);
            continue;
        }
        let account = Account {
            flow_id: payload.flow_id,
            identity_id: payload.identity_id,
            trace: call.trace,
            method: &call.hook.method,
        };
        report(state, &account, &resolved);
        if resolved.batch.is_empty() {
            return Ok(0);
        }
        match state.outbox.write(resolved.batch).await {
            Ok(stored) => {
                observe_guard(state, call, resolved.guard).await;
                return Ok(stored);
            }
            Err(error) if matches!(*error, store::Error::Conflict) => last = error.error_chain(),
            Err(error) => return Err(error.error_chain()),
        }
    }
    Err(last)
}

fn has_guard_id(payload: &Payload) -> bool {
    let identity = payload.identity.as_ref();
    let external_id = identity.and_then(|identity| identity["external_id"].as_str());
    external_id == Some(&guard_id(payload.flow_id))
}

/// Whether something recorded of the flow waits for this call.
fn reads_state(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    match call.hook.flow {
        // The identity's `external_id` says everything about the flow, unless something was reserved or deferred.
        Flow::Registration => {
            state.follow_ups.needs_flow_state() || state.pending.looks_up && !has_guard_id(payload)
        }
        Flow::Settings => {
            state.follow_ups.needs_flow_state()
                || state.pending.looks_up && state.pending.wants_updates
        }
        Flow::Verification | Flow::Login | Flow::Recovery => false,
    }
}

/// Keeps whether Kratos stores our `external_id`.
async fn observe_guard(state: &HookState, call: &HookCall, returned: Option<bool>) {
    let Some(returned) = returned else { return };
    let method = &call.hook.method;
    match state.proof.observe(method, returned).await {
        Ok(true) => {
            tracing::error!(
                hook.method = method,
                "A `post` of `{method}` did not return the `external_id` that `pre` had answered: Kratos is older than v25.4.0, or \
                 another hook replaces it. Without it a form that is sent several times at the same moment can make several \
                 accounts; what is reserved belongs to one submission until this is fixed (docs/nothing-is-lost.md)"
            );
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(error = %error.error_chain(), "It could not be stored whether Kratos keeps our `external_id`");
        }
    }
}

/// When Kratos created the identity; `None` if the call does not say.
fn created_at(payload: &Payload) -> Option<Timestamp> {
    let identity = payload.identity.as_ref()?;
    let created_at: Timestamp = identity["created_at"].as_str()?.parse().ok()?;
    // Before it is saved, Kratos has a zero moment there.
    (created_at > Timestamp::UNIX_EPOCH).then_some(created_at)
}

fn resolved(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    flow_state: &FlowState,
) -> FollowUp {
    let names = Variables {
        identity: payload.identity.as_ref(),
        previous: payload.previous.as_ref(),
        value: None,
        flow: Some(&payload.flow),
        request: Some(&payload.request),
        method: &call.hook.method,
        now: call.at,
        response: None,
        checks: None,
        taken: None,
        lists: &state.lists,
    };
    let made = IdentityChange {
        event: event(&call.hook),
        identity_id: payload.identity_id,
        flow_id: payload.flow_id,
        trigger_id: &call.trigger,
        names,
        expires_at: payload.expires_at(call.at),
        created_at: created_at(payload).unwrap_or(call.at),
        in_force: &state.in_force,
    };
    let mut resolved = state.follow_ups.on_saved(&made, flow_state);
    if !state.pending.reads_record(&call.hook) {
        // No flow is recorded, so there is none to close.
        resolved.batch.closed.clear();
    }
    resolved
}
