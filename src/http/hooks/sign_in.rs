//! Logins and recoveries: people whose account was refused late are kept out.
//!
//! The answer comes from memory. It never waits for the database.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Timestamp, saturating_add};
use crate::checks::activity::Activity;
use crate::checks::refused_identities::Standing;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::open_flow::close_after_sign_in;
use crate::http::hooks::pre::{place, read};
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::form::group_by_pointer;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Field, Flow, Form, Payload, Reply};
use crate::model::late_refusal::LateRefusal;

/// Kratos writes to the identity after some logins, as by a lookup secret.
const AFTER_LOGIN: Duration = Duration::from_secs(1);

/// Lets a person in unless their account was refused late.
pub fn answer(state: &Arc<HookState>, call: &HookCall) -> HookResponse {
    let hook = &call.hook;
    state.refused.asked();
    let payload = match read(call) {
        Ok(payload) => payload,
        Err((status, error)) => {
            tracing::warn!(trace.id = %call.trace, hook.flow = %hook.flow, hook.method = hook.method, error, "`pre` refused a call that it could not read");
            return HookResponse::new(state.reject(status, &state.builtin.try_again), "unreadable");
        }
    };
    if payload.identity.is_none() || payload.identity_id.is_nil() {
        let mend = format!(
            "this hook of {} is called without an identity; move it from `before` to `after`",
            place(call)
        );
        state.report_misconfiguration(hook, "pre_without_identity", &mend);
        let reply = state.reject(RefusalStatus::BadRequest, &state.builtin.not_possible);
        return HookResponse::new(reply, "misconfigured");
    }
    if let Some(refusal) = refusal(state, call, &payload) {
        return refusal;
    }
    if state.writes_identities {
        note(
            state,
            &payload,
            saturating_add(state.clock.now(), AFTER_LOGIN),
            false,
        );
    }
    close_after_sign_in(state, call, payload);
    HookResponse::new(Reply::Yes, "admit")
}

/// The refusal of a person whose account was refused late; `None` if they may go on.
pub fn refusal(state: &HookState, call: &HookCall, payload: &Payload) -> Option<HookResponse> {
    let refusals = match state.refused.of(payload.identity_id) {
        Standing::Free => return None,
        Standing::Unknown => {
            tracing::error!(trace.id = %call.trace, identity.id = %payload.identity_id, "It is not known yet who was refused late; the person is asked to try again");
            let reply = state.reject(RefusalStatus::BadRequest, &state.builtin.try_again);
            return Some(HookResponse::new(reply, "not_loaded"));
        }
        Standing::Refused(refusals) => refusals,
    };
    note(state, payload, state.clock.now(), true);
    let identity = payload.identity.as_ref()?;
    // In settings the identity is the one that is to be saved, so only a login shows an operator's act.
    if call.hook.flow.signs_in()
        && refusals
            .iter()
            .any(|refusal| refusal.is_overruled_by(identity))
    {
        tracing::info!(trace.id = %call.trace, identity.id = %payload.identity_id, "An operator has activated an account that had been refused late");
        return None;
    }
    let check = refusals.first().map(|refusal| refusal.check.as_str());
    tracing::info!(
        trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, check,
        "Refused a {} by `{}`: the account was refused late", call.hook.flow, call.hook.method
    );
    let messages = refusals
        .iter()
        .flat_map(|refusal| message(state, call, payload, refusal));
    Some(HookResponse::new(
        Reply::refused(group_by_pointer(messages.collect())),
        "refused_late",
    ))
}

fn message(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    refusal: &LateRefusal,
) -> Vec<crate::kratos::reply::PlacedMessages> {
    let language = payload.header("accept-language");
    let stored = refusal.message.as_ref();
    let message = stored.and_then(|stored| {
        state
            .reader(language)
            .stored_message(stored, &refusal.check)
    });
    let message = message.unwrap_or_else(|| {
        state.message(
            &state.builtin.account_refused,
            language,
            Some(&refusal.check),
        )
    });
    // Only in settings the form has the field.
    let field = stored
        .filter(|_| call.hook.flow == Flow::Settings)
        .and_then(|stored| Field::parse(stored.field.as_deref()?).ok());
    Form::new(payload.nodes.as_deref()).place(field.as_ref(), message)
}

fn note(state: &HookState, payload: &Payload, verify_at: Timestamp, is_refused: bool) {
    if let Some(activity) = &state.activity {
        activity.note(Activity {
            identity_id: payload.identity_id,
            verify_at,
            is_refused,
        });
    }
}
