//! payload -> verdict -> reply

use super::answer::Answer;
use super::door::Door;
use super::hook::{Call, Unread};
use crate::check;
use crate::clock::milliseconds;
use crate::decision::Decision;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Flow, Form, Payload, Reply};

/// Judges a sign-up or a change of settings. Always a yes, or a refusal with words.
pub async fn answer(door: &Door, call: &Call) -> Answer {
    let hook = &call.hook;
    let mut payload = match read(call) {
        Ok(payload) => payload,
        Err((status, error)) => {
            tracing::warn!(trace.id = %call.trace, hook.flow = %hook.flow, hook.method = hook.method, error, "`pre` refused a call that it could not read");
            return Answer::new(door.refuse(status, &door.builtin.try_again), "unreadable");
        }
    };
    if payload.identity.is_none() {
        let mend = format!(
            "this hook stands under `selfservice.flows.{flow}.before.hooks`; move it to \
             `selfservice.flows.{flow}.after.<method>.hooks`, with `response: {{parse: true}}`",
            flow = hook.flow
        );
        door.tell_wiring(hook, "pre_without_identity", &mend);
        let reply = door.refuse(RefusalStatus::BadRequest, &door.builtin.not_possible);
        return Answer::new(reply, "miswired");
    }
    if hook.flow == Flow::Registration && !payload.identity_id.is_nil() {
        let mend = format!(
            "the hook of {} has no `response: {{parse: true}}`, so Kratos called it after saving and nothing was \
             checked; add that line to it",
            place(call)
        );
        door.tell_wiring(hook, "pre_after_saving", &mend);
        return Answer::new(Reply::Yes, "miswired");
    }
    door.add_client_ip(&mut payload);
    let judgement = door
        .checks
        .judge(check::Call {
            hook,
            payload: &payload,
            until: call.until,
            trace: call.trace,
        })
        .await;
    let outcome = judgement.verdict.as_str();
    let duration_ms = milliseconds(call.at, door.clock.now());
    tracing::info!(trace.id = %call.trace, flow.id = %payload.flow_id, outcome, duration_ms, "Judged a {} by `{}`: {outcome}", hook.flow, hook.method);
    door.recorder.record(Decision {
        hook: hook.clone(),
        flow_id: payload.flow_id,
        at: call.at,
        duration_ms,
        outcome,
        checks: judgement.records,
    });
    Answer::new(
        judgement
            .verdict
            .into_reply(Form::new(payload.nodes.as_deref())),
        outcome,
    )
}

fn read(call: &Call) -> Result<Payload, (RefusalStatus, String)> {
    let body = call.body.as_ref().map_err(|unread| match unread {
        Unread::TooLarge => (RefusalStatus::TooLarge, unread.to_string()),
        Unread::Incomplete => (RefusalStatus::BadRequest, unread.to_string()),
    })?;
    Payload::parse(body).map_err(|error| (RefusalStatus::BadRequest, error.to_string()))
}

/// The place in kratos.yml at which this hook stands.
pub fn place(call: &Call) -> String {
    let method = match (call.hook.flow, call.hook.method.as_str()) {
        // Kratos has one list for all its methods.
        (Flow::Verification, _) => String::new(),
        (_, "") => ".<method>".to_owned(),
        (_, method) => format!(".{method}"),
    };
    format!("`selfservice.flows.{}.after{method}.hooks`", call.hook.flow)
}
