//! Answers `post`: parses the payload, stores deliveries, and replies.

use crate::base::clock::{Timestamp, milliseconds};
use crate::checks::follow_up::{FollowUp, IdentityChange, event, reports_traits};
use crate::expression::Variables;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::identity_activity;
use crate::http::hooks::report::{Account, report};
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::fingerprint::guard_id;
use crate::kratos::{Flow, Payload, Reply};
use crate::model::known_identity::{IdentityRecord, KnownIdentity};
use crate::model::pending::AttributedSubmission;
use crate::model::reservation::State;
use crate::store::decisions::FlowIdentity;
use crate::store::{self, FlowState, attribution};

/// Stores the deliveries of the saved identity, and answers once they are stored.
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
        Err(error) => return unreadable(state, &error),
    };
    if payload.identity_id.is_nil() {
        let fix = format!(
            "the hook of {} that calls `post` has `response: {{parse: true}}` (or is under `before`), so Kratos calls \
             it before saving; remove that line, or move the hook to `after`",
            call.hook.config_path()
        );
        state.report_misconfiguration(&call.hook, "post_before_saving", &fix);
        return HookResponse::new(Reply::NoContent, "misconfigured");
    }
    // The account exists, so its deliveries are stored all the same.
    state.report_old_template(&call.hook, &payload);
    identity_activity::post(state, call, &payload).await;
    match store(state, call, &payload).await {
        Ok(stored) => {
            record_identity(state, call, &payload);
            let duration_ms = milliseconds(call.at, state.clock.now());
            tracing::info!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, stored, duration_ms,
                "Stored {stored} deliveries of a {} by `{}`", call.hook.flow, call.hook.method
            );
            HookResponse::new(Reply::NoContent, "stored")
        }
        // The visitor has an account, and an error page would not help.
        Err(error) if is_looked_up(state, call, &payload) => {
            state.count_lost_post("not_stored");
            tracing::error!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, error,
                "ALARM: could not store deliveries; a look-up of the sign-up stores them once the database is available"
            );
            HookResponse::new(Reply::NoContent, "pending_kept")
        }
        Err(error) => {
            tracing::error!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, error,
                "Could not store deliveries; Vestibule asks Kratos to call again"
            );
            HookResponse::new(Reply::Retry, "not_stored")
        }
    }
}

/// Queues the identity of a registration for its decisions. Those of a settings change have it already.
fn record_identity(state: &HookState, call: &HookCall, payload: &Payload) {
    if call.hook.flow == Flow::Registration {
        state.recorder.record_identity(FlowIdentity {
            flow_id: payload.flow_id,
            identity_id: payload.identity_id,
        });
    }
}

/// Returns whether the sweeper will store the missing deliveries. It cannot if the record is in a file that was removed.
fn is_looked_up(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    state.pending.looks_up
        && !state.store.is_file_replaced()
        && call.hook.flow == Flow::Registration
        && state.outbox.has_pending(payload.flow_id)
}

/// Answers a `post` that could not be read, and raises an alarm. Kratos saved an account that Vestibule does not know.
/// The answer is 204, because a refusal would show an error page to a visitor who has an account.
fn unreadable(state: &HookState, error: &str) -> HookResponse {
    state.count_lost_post("unreadable");
    state.sweep_now.notify_one();
    if state.pending.looks_up {
        tracing::error!(
            error,
            "ALARM: could not read a `post`: Kratos created or changed an account that Vestibule does not know; Vestibule looks \
             it up among the accepted sign-ups"
        );
    } else {
        tracing::error!(
            error,
            "ALARM: could not read a `post`: Kratos created or changed an account that Vestibule does not know, and nothing is \
             delivered for this account; compare the newest identities of Kratos with `vestibule deliveries list`, and set \
             `kratos.admin_url`, so that Vestibule finds such accounts"
        );
    }
    HookResponse::new(Reply::NoContent, "unreadable")
}

async fn store(state: &HookState, call: &HookCall, payload: &Payload) -> Result<usize, String> {
    let stored = state
        .clock
        .timeout_at(call.until, store_follow_up(state, call, payload));
    stored
        .await
        .ok_or_else(|| "the database did not answer in time".to_owned())?
}

/// Stores everything that follows from the account in one transaction. Tries several times, because another call may
/// release a reservation or accept another submission meanwhile.
async fn store_follow_up(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
) -> Result<usize, String> {
    let is_of_another_flow = !is_attributed_to_flow(state, call, payload).await?;
    let mut guard = None;
    let stored = write_follow_up(state, call, payload, is_of_another_flow, &mut guard).await;
    // What the `post` shows about the guard does not depend on the write.
    observe_guard(state, call, guard).await;
    stored
}

/// Attributes the account of a registration without the guard to this flow. Returns `false` if a look-up has attributed
/// the account to an earlier sign-up of the same visitor.
async fn is_attributed_to_flow(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
) -> Result<bool, String> {
    let is_needed = call.hook.flow == Flow::Registration
        && state.pending.looks_up
        && state.rules.needs_attribution()
        && !has_guard_id(payload);
    if !is_needed {
        return Ok(true);
    }
    let (identity_id, flow_id) = (payload.identity_id, payload.flow_id);
    let attributed = attribution::attribute(&*state.store, identity_id, flow_id, call.at);
    attributed.await.map_err(|error| error.error_chain())
}

async fn write_follow_up(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    is_of_another_flow: bool,
    guard: &mut Option<bool>,
) -> Result<usize, String> {
    let mut last = String::new();
    let mut has_waited = false;
    let known = reported_state(state, call, payload).await?;
    for round in 0..5 {
        // After a conflict, the flow may be closed already.
        let reads_state = reads_state(state, call, payload) || round > 0;
        let flow_state = if reads_state {
            let flow_state = state.store.flow(payload.flow_id).await;
            flow_state.map_err(|error| error.error_chain())?
        } else {
            FlowState::default()
        };
        let attributed = if is_of_another_flow || has_open_reservation(call, &flow_state) {
            let attributed = state.store.attributed_to(payload.identity_id).await;
            attributed.map_err(|error| error.error_chain())?
        } else {
            Vec::new()
        };
        let follow_up = follow_up(state, call, payload, &flow_state, &attributed);
        if follow_up.is_unmatched && reads_state && !has_waited {
            // `pre` does not wait long for its record, so the record may still be queued.
            has_waited = true;
            let flushed = state.outbox.flush().await;
            flushed.map_err(|error| error.error_chain())?;
            continue;
        }
        *guard = follow_up.guard;
        if follow_up.is_stale {
            "other calls keep changing the flow".clone_into(&mut last);
            continue;
        }
        let mut batch = follow_up.batch.clone();
        if let Some(known) = &known {
            batch
                .identities
                .push(IdentityRecord::Reported(known.clone()));
        }
        let stored = if batch.is_empty() {
            Ok(0)
        } else {
            state.outbox.write(batch).await
        };
        match stored {
            Ok(stored) => {
                let account = Account {
                    flow_id: payload.flow_id,
                    identity_id: payload.identity_id,
                    trace: call.trace,
                    method: &call.hook.method,
                };
                report(state, &account, &follow_up);
                return Ok(stored);
            }
            Err(error) if matches!(*error, store::Error::Conflict) => last = error.error_chain(),
            Err(error) => return Err(error.error_chain()),
        }
    }
    Err(last)
}

/// Returns the state of the identity that this `post` reports to all subscriptions, if changes that no hook reports are
/// wanted.
async fn reported_state(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
) -> Result<Option<KnownIdentity>, String> {
    match (&state.tracker, &payload.identity) {
        (Some(tracker), Some(identity)) if reports_traits(call.hook.flow, &call.hook.method) => {
            let known = tracker.state_of(identity, call.at).await;
            known.map_err(|error| error.error_chain())
        }
        _ => Ok(None),
    }
}

/// Returns whether a settings form has an open reservation. Then another form may have confirmed the same reservation.
fn has_open_reservation(call: &HookCall, flow_state: &FlowState) -> bool {
    let mut reservations = flow_state.reservations.iter();
    call.hook.flow == Flow::Settings && reservations.any(|one| one.state != State::Confirmed)
}

fn has_guard_id(payload: &Payload) -> bool {
    let identity = payload.identity.as_ref();
    let external_id = identity.and_then(|identity| identity["external_id"].as_str());
    external_id == Some(&guard_id(payload.flow_id))
}

/// Returns whether the recorded state of the flow is needed.
fn reads_state(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    match call.hook.flow {
        // The identity's `external_id` is enough, unless a check reserved or deferred.
        Flow::Registration => {
            state.rules.needs_flow_state() || state.pending.looks_up && !has_guard_id(payload)
        }
        Flow::Settings => {
            state.rules.needs_flow_state() || state.pending.looks_up && state.pending.wants_updates
        }
        Flow::Verification | Flow::Login | Flow::Recovery => false,
    }
}

/// Records whether Kratos stores Vestibule's `external_id`.
async fn observe_guard(state: &HookState, call: &HookCall, returned: Option<bool>) {
    let Some(returned) = returned else { return };
    let method = &call.hook.method;
    match state.proof.observe(method, returned).await {
        Ok(true) => {
            tracing::error!(
                hook.method = method,
                "A `post` of `{method}` did not return the `external_id` that `pre` answered: Kratos is older than v25.4.0, or \
                 another hook replaces the id. Without the id, a form that is submitted several times in parallel can create several \
                 accounts; until this is fixed, a reservation belongs to one submission (docs/nothing-is-lost.md)"
            );
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(error = %error.error_chain(), "Could not store whether Kratos keeps Vestibule's `external_id`");
        }
    }
}

/// Returns when Kratos created the identity; `None` if the payload does not contain the time.
fn created_at(payload: &Payload) -> Option<Timestamp> {
    let identity = payload.identity.as_ref()?;
    let created_at: Timestamp = identity["created_at"].as_str()?.parse().ok()?;
    // Before Kratos saves the identity, this time is zero.
    (created_at > Timestamp::UNIX_EPOCH).then_some(created_at)
}

fn follow_up(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    flow_state: &FlowState,
    attributed: &[AttributedSubmission],
) -> FollowUp {
    let variables = Variables {
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
        lists: state.rules.lists(),
    };
    let change = IdentityChange {
        event: event(&call.hook),
        identity_id: payload.identity_id,
        flow_id: payload.flow_id,
        trigger_id: &call.trigger,
        variables,
        expires_at: payload.expires_at(call.at),
        created_at: created_at(payload).unwrap_or(call.at),
        in_force: &state.in_force,
    };
    let mut follow_up = state.rules.on_saved(&change, flow_state, attributed);
    if !state.pending.reads_record(&call.hook) {
        // No flow is recorded, so there is none to close.
        follow_up.batch.closed.clear();
    }
    follow_up
}
