//! payload -> verdict -> reply

use super::answer::Answer;
use super::door::Door;
use super::hook::{Call, Unread};
use super::{sign_in, writes};
use crate::check::{self, Judgement};
use crate::clock::milliseconds;
use crate::decision::{CheckRecord, Decision};
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Flow, Form, Payload, Reply};
use crate::store::Batch;
use crate::verdict::Verdict;

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
    if hook.flow == Flow::Settings
        && let Some(refusal) = sign_in::refusal(door, call, &payload)
    {
        return refusal;
    }
    door.add_client_ip(&mut payload);
    let judged = door.checks.judge(check::Call {
        hook,
        payload: &payload,
        until: call.until,
        trace: call.trace,
    });
    let (judgement, ()) = tokio::join!(judged, writes::settings_begin(door, call, &payload));
    let (verdict, records) = write_down(door, call, &payload, judgement).await;
    if matches!(verdict, Verdict::Refuse(_)) {
        writes::settings_refused(door, call, &payload);
    }
    let outcome = verdict.as_str();
    let duration_ms = milliseconds(call.at, door.clock.now());
    tracing::info!(trace.id = %call.trace, flow.id = %payload.flow_id, outcome, duration_ms, "Judged a {} by `{}`: {outcome}", hook.flow, hook.method);
    door.recorder.record(Decision {
        hook: hook.clone(),
        flow_id: payload.flow_id,
        at: call.at,
        duration_ms,
        outcome,
        checks: records,
    });
    Answer::new(
        verdict.into_reply(Form::new(payload.nodes.as_deref())),
        outcome,
    )
}

/// A yes goes into the journal, which holds nobody up; unless something was deferred: then the yes holds only once that is
/// written down.
async fn write_down(
    door: &Door,
    call: &Call,
    payload: &Payload,
    judgement: Judgement,
) -> (Verdict, Vec<CheckRecord>) {
    let Judgement {
        verdict,
        records,
        postponed,
    } = judgement;
    if matches!(verdict, Verdict::Refuse(_)) {
        return (verdict, records);
    }
    let external_id = door.journal.external_id(&call.hook, payload);
    let verdict = with_external_id(verdict, external_id);
    let deferred = postponed.iter().map(|one| one.deferred.clone()).collect();
    let entry = door
        .journal
        .entry(&call.hook, payload, &verdict, deferred, call.at);
    match entry {
        Some(entry) if postponed.is_empty() => door.intake.open(entry),
        Some(entry) => {
            let batch = Batch {
                opened: vec![entry],
                ..Batch::default()
            };
            let stored = door
                .clock
                .before(call.until, door.intake.write(batch))
                .await;
            if !matches!(stored, Some(Ok(_))) {
                tracing::error!(trace.id = %call.trace, flow.id = %payload.flow_id, "A check cannot be deferred, because that could not be written down; the sign-up is refused");
                let findings = postponed.into_iter().map(|one| one.otherwise);
                return (Verdict::Refuse(findings.collect()), records);
            }
        }
        None => {}
    }
    (verdict, records)
}

fn with_external_id(verdict: Verdict, external_id: Option<String>) -> Verdict {
    let Some(external_id) = external_id else {
        return verdict;
    };
    let mut changes = match verdict {
        Verdict::Admit => serde_json::Map::new(),
        Verdict::AdmitWith(changes) => changes,
        refusal @ Verdict::Refuse(_) => return refusal,
    };
    changes.insert("external_id".to_owned(), external_id.into());
    Verdict::AdmitWith(changes)
}

/// Reads the body.
pub fn read(call: &Call) -> Result<Payload, (RefusalStatus, String)> {
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
        (Flow::Verification | Flow::Recovery, _) | (Flow::Login, "") => String::new(),
        (_, "") => ".<method>".to_owned(),
        (_, method) => format!(".{method}"),
    };
    format!("`selfservice.flows.{}.after{method}.hooks`", call.hook.flow)
}
