//! Reads the body of a `pre`, or refuses the call.

use crate::http::hooks::body::BodyError;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Flow, Payload, payload};

/// Parses the body. The error is the refusal of a call whose body cannot be read.
pub fn read(state: &HookState, call: &HookCall) -> Result<Payload, HookResponse> {
    let hook = &call.hook;
    let parsed = match &call.body {
        Ok(body) => Payload::parse(body),
        Err(error) => {
            let status = match error {
                BodyError::TooLarge => RefusalStatus::TooLarge,
                BodyError::Incomplete => RefusalStatus::BadRequest,
            };
            return Err(unreadable(state, call, status, &error.to_string()));
        }
    };
    parsed.map_err(|error| {
        // Trying again would not help the visitor.
        if let payload::Error::Version(_) = error {
            let fix = format!("{error}, and replace the template of {}", config_path(call));
            state.report_misconfiguration(hook, "template_version", &fix);
            return not_possible(state);
        }
        let status = RefusalStatus::BadRequest;
        unreadable(state, call, status, &error.to_string())
    })
}

/// Returns the refusal of a call whose body lacks what the settings need; `None` if the body has everything.
pub fn refusal_of_old_template(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
) -> Option<HookResponse> {
    report_old_template(state, call, payload).then(|| not_possible(state))
}

/// Reports a body that lacks what the settings need. Returns whether it does.
pub fn report_old_template(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    let Some(missing) = state.body_needs.missing_in(payload) else {
        return false;
    };
    let fix = format!(
        "the settings need {missing}, which the template of {} does not send, because it is old or was printed for other \
         settings; print it again with `vestibule kratos hooks --config FILE`, and replace it",
        config_path(call)
    );
    state.report_misconfiguration(&call.hook, "old_template", &fix);
    true
}

fn unreadable(
    state: &HookState,
    call: &HookCall,
    status: RefusalStatus,
    error: &str,
) -> HookResponse {
    let hook = &call.hook;
    tracing::warn!(trace.id = %call.trace, hook.flow = %hook.flow, hook.method = hook.method, error, "Refused a `pre` whose body could not be read");
    let reply = state.reject(status, &state.rules.messages().try_again);
    HookResponse::new(reply, "unreadable")
}

fn not_possible(state: &HookState) -> HookResponse {
    let message = &state.rules.messages().not_possible;
    let reply = state.reject(RefusalStatus::BadRequest, message);
    HookResponse::new(reply, "misconfigured")
}

/// Returns the key in kratos.yml that configures this hook.
pub fn config_path(call: &HookCall) -> String {
    let method = match (call.hook.flow, call.hook.method.as_str()) {
        // Kratos has one list for all its methods.
        (Flow::Verification | Flow::Recovery, _) | (Flow::Login, "") => String::new(),
        (_, "") => ".<method>".to_owned(),
        (_, method) => format!(".{method}"),
    };
    format!("`selfservice.flows.{}.after{method}.hooks`", call.hook.flow)
}
