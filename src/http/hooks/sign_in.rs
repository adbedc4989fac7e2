//! Answers `pre` of logins and recoveries: refuses visitors whose account was refused late.
//!
//! The answer comes from memory, and never waits for the database.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::{Timestamp, saturating_add};
use crate::checks::activity::Activity;
use crate::checks::refused_identities::Standing;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::open_flow::close_after_sign_in;
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::form::group_by_pointer;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Field, Flow, Form, Payload, Reply};
use crate::model::late_refusal::LateRefusal;

/// The delay of a verification after a login. Kratos writes to the identity after some logins, for example with a
/// lookup secret.
const AFTER_LOGIN: Duration = Duration::from_secs(1);

/// Admits a visitor unless the account was refused late.
pub fn answer(state: &Arc<HookState>, call: &HookCall, payload: Payload) -> HookResponse {
    let hook = &call.hook;
    if payload.identity.is_none() || payload.identity_id.is_nil() {
        let fix = format!(
            "Kratos calls this hook of {} without an identity; move the hook from `before` to `after`",
            hook.config_path()
        );
        state.report_misconfiguration(hook, "pre_without_identity", &fix);
        let reply = state.reject(
            RefusalStatus::BadRequest,
            &state.rules.messages().not_possible,
        );
        return HookResponse::new(reply, "misconfigured");
    }
    if let Some(refusal) = refusal(state, call, &payload) {
        return refusal;
    }
    if state.writes_identities {
        record_activity(
            state,
            &payload,
            saturating_add(state.clock.now(), AFTER_LOGIN),
            false,
        );
    }
    close_after_sign_in(state, call, payload);
    HookResponse::new(Reply::NoContent, "admitted")
}

/// Returns the refusal of a visitor whose account was refused late; `None` if the visitor may continue.
pub fn refusal(state: &HookState, call: &HookCall, payload: &Payload) -> Option<HookResponse> {
    let refusals = match state.refused.of(payload.identity_id) {
        Standing::Free => return None,
        Standing::Unknown => {
            tracing::error!(trace.id = %call.trace, identity.id = %payload.identity_id, "The late refusals are not loaded yet; Vestibule asks the visitor to try again");
            let reply = state.reject(RefusalStatus::BadRequest, &state.rules.messages().try_again);
            return Some(HookResponse::new(reply, "not_loaded"));
        }
        Standing::Refused(refusals) => refusals,
    };
    record_activity(state, payload, state.clock.now(), true);
    let identity = payload.identity.as_ref()?;
    // In settings the identity is not saved yet, so only a login shows that an operator activated the account.
    if call.hook.flow.signs_in()
        && refusals
            .iter()
            .any(|refusal| refusal.is_overruled_by(identity))
    {
        tracing::info!(trace.id = %call.trace, identity.id = %payload.identity_id, "Admitted an account that was refused late: an operator has activated the account");
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
            &state.rules.messages().account_refused,
            language,
            Some(&refusal.check),
        )
    });
    // Only the settings form has the field.
    let field = stored
        .filter(|_| call.hook.flow == Flow::Settings)
        .and_then(|stored| Field::parse(stored.field.as_deref()?).ok());
    Form::new(payload.nodes.as_deref()).place(field.as_ref(), message)
}

fn record_activity(state: &HookState, payload: &Payload, verify_at: Timestamp, is_refused: bool) {
    if let Some(activity) = &state.activity {
        activity.note(Activity {
            identity_id: payload.identity_id,
            verify_at,
            is_refused,
        });
    }
}
