//! Answers `pre`: parses the payload, evaluates the checks, and replies.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::base::clock::milliseconds;
use crate::checks::{self, Evaluated};
use crate::http::hooks::body::BodyError;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::identity_activity;
use crate::http::hooks::open_flow::{self, READ_RECORD_WITHIN};
use crate::http::hooks::pending::Held;
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::sign_in;
use crate::http::hooks::state::HookState;
use crate::kratos::fingerprint::has_nul;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Flow, Form, Payload, Reply, payload};
use crate::model::decision::{CheckRecord, Decision};
use crate::model::message::MessageTemplate;
use crate::model::pending::{FlowRecord, MAX_SUBMISSIONS};
use crate::model::verdict::{Finding, Verdict};
use crate::store::{self, WriteSet};

/// How long calls do not wait for the database after it did not answer.
const RECORD_UNREADABLE_FOR: Duration = Duration::from_secs(1);

/// Evaluates a sign-up or a change in settings. The reply is an acceptance, or a refusal with messages.
///
/// A login or a recovery is answered from memory, without waiting.
pub async fn answer(state: &Arc<HookState>, call: &HookCall) -> HookResponse {
    if call.hook.flow.signs_in() {
        state.refused.record_hook_call();
    }
    let mut payload = match read(state, call) {
        Ok(payload) => payload,
        Err(refusal) => return refusal,
    };
    if call.hook.flow.signs_in() {
        return sign_in::answer(state, call, payload);
    }
    if let Some(response) = misconfigured(state, call, &payload) {
        return response;
    }
    if call.hook.flow == Flow::Settings
        && let Some(refusal) = sign_in::refusal(state, call, &payload)
    {
        return refusal;
    }
    if state.report_old_template(&call.hook, &payload) {
        return not_possible(state);
    }
    if let Some(message) = refused_before_checks(state, call, &payload).await {
        return refuse(state, &payload, message);
    }
    state.add_client_ip(&mut payload);
    let form_used = &state.rules.messages().form_used;
    let is_guarded = is_guarded(state, call, &payload).await;
    let evaluated = evaluate(state, call, &payload, is_guarded).await;
    let (verdict, records) = match record(state, call, &payload, evaluated).await {
        Recorded::Verdict(verdict, records) => (verdict, records),
        Recorded::FlowIsClosed => return refuse(state, &payload, form_used),
    };
    if matches!(verdict, Verdict::Refuse(_)) {
        if is_guarded && has_closed(state, call, &payload).await {
            return refuse(state, &payload, form_used);
        }
        identity_activity::settings_refused(state, call, &payload);
    }
    let outcome = verdict.as_str();
    record_decision(state, call, &payload, outcome, records);
    let reply = verdict.into_reply(Form::new(payload.nodes.as_deref()));
    HookResponse::new(reply, outcome)
}

/// Refuses with one message for the visitor.
fn refuse(state: &HookState, payload: &Payload, message: &MessageTemplate) -> HookResponse {
    HookResponse::new(state.refuse_visitor(payload, message), "refused")
}

/// Parses the body. The error is the refusal of a call whose body cannot be read.
fn read(state: &HookState, call: &HookCall) -> Result<Payload, HookResponse> {
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
            let fix = format!(
                "{error}, and replace the template of {}",
                call.hook.config_path()
            );
            state.report_misconfiguration(hook, "template_version", &fix);
            return not_possible(state);
        }
        let status = RefusalStatus::BadRequest;
        unreadable(state, call, status, &error.to_string())
    })
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

/// Returns the response to a call that kratos.yml should not cause, and reports how to fix kratos.yml.
fn misconfigured(state: &HookState, call: &HookCall, payload: &Payload) -> Option<HookResponse> {
    let hook = &call.hook;
    let (problem, fix, reply) = if payload.identity.is_none() {
        let fix = format!(
            "this hook is under `selfservice.flows.{flow}.before.hooks`; move the hook to \
             `selfservice.flows.{flow}.after.<method>.hooks`, with `response: {{parse: true}}`",
            flow = hook.flow
        );
        let not_possible = &state.rules.messages().not_possible;
        let reply = state.reject(RefusalStatus::BadRequest, not_possible);
        ("pre_without_identity", fix, reply)
    } else if hook.flow == Flow::Registration && !payload.identity_id.is_nil() {
        let fix = format!(
            "the hook of {} has no `response: {{parse: true}}`, so Kratos called it after saving and nothing was \
             checked; add that line to the hook",
            call.hook.config_path()
        );
        ("pre_after_saving", fix, Reply::NoContent)
    } else {
        return None;
    };
    state.report_misconfiguration(hook, problem, &fix);
    Some(HookResponse::new(reply, "misconfigured"))
}

/// Evaluates the checks. In settings, it also closes the open flow of the identity, and records that the call began.
async fn evaluate(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    is_guarded: bool,
) -> Evaluated {
    let is_known = open_flow::close_before_settings(state, call, payload).await;
    let deferrals = open_flow::open_deferrals(state, call, payload, is_known).await;
    let refused_late = match call.hook.flow {
        Flow::Settings => state.refused.marked(payload.identity_id),
        _ => BTreeSet::new(),
    };
    let evaluation = state.evaluator.evaluate(checks::CheckInput {
        hook: &call.hook,
        payload,
        until: call.until,
        trace: call.trace,
        submission: &call.trigger,
        is_guarded,
        deferrals: &deferrals,
        refused_late: &refused_late,
    });
    let begin = identity_activity::settings_begin(state, call, payload);
    tokio::join!(evaluation, begin).0
}

/// Logs the outcome, and queues the decision for the database.
fn record_decision(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    outcome: &'static str,
    checks: Vec<CheckRecord>,
) {
    let hook = &call.hook;
    let duration_ms = milliseconds(call.at, state.clock.now());
    let (refused_by, unavailable) = (named(&checks, "refused"), named(&checks, "unavailable"));
    tracing::info!(trace.id = %call.trace, flow.id = %payload.flow_id, outcome, refused_by, unavailable, duration_ms, "Evaluated a {} by `{}`: {outcome}", hook.flow, hook.method);
    state.recorder.record(Decision {
        hook: hook.clone(),
        flow_id: payload.flow_id,
        at: call.at,
        duration_ms,
        outcome,
        checks,
        identity_id: (!payload.identity_id.is_nil()).then_some(payload.identity_id),
    });
}

/// Lists the checks with this outcome that had an effect.
fn named(checks: &[CheckRecord], outcome: &str) -> Option<String> {
    let with_outcome = |one: &&CheckRecord| one.outcome == outcome && !one.observed;
    let names: Vec<&str> = checks
        .iter()
        .filter(with_outcome)
        .map(|one| &*one.check)
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Returns a message if the submission cannot succeed, whatever the result of the checks.
async fn refused_before_checks<'d>(
    state: &'d HookState,
    call: &HookCall,
    payload: &Payload,
) -> Option<&'d MessageTemplate> {
    let traits = payload
        .identity
        .as_ref()
        .map(|identity| &identity["traits"]);
    if traits.is_some_and(has_nul) {
        tracing::info!(trace.id = %call.trace, flow.id = %payload.flow_id, "Refused traits with U+0000, which databases do not store");
        return Some(&state.rules.messages().not_valid);
    }
    if !state.pending.reads_record(&call.hook) {
        return None;
    }
    let record = read_record(state, call, payload).await?;
    let reason = if record.identity_id.is_some() {
        "its flow has an identity already"
    } else if record.submissions >= MAX_SUBMISSIONS {
        "too many submissions of its flow were accepted"
    } else {
        return None;
    };
    tracing::info!(trace.id = %call.trace, flow.id = %payload.flow_id, "Refused a submission: {reason}");
    Some(&state.rules.messages().form_used)
}

/// Reads the record of the flow. While the database does not answer, a submission that neither reserves nor
/// defers continues, because Kratos keeps the `external_id` unique. A submission that reserves or defers is refused
/// if that cannot be recorded.
async fn read_record(state: &HookState, call: &HookCall, payload: &Payload) -> Option<FlowRecord> {
    let unreadable_until = || {
        state
            .record_unreadable_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    };
    if unreadable_until().is_some_and(|until| !state.clock.time_left(until).is_zero()) {
        return None;
    }
    let until = state.clock.deadline(READ_RECORD_WITHIN).min(call.until);
    let record = state
        .clock
        .timeout_at(until, state.flow_reader.read(payload.flow_id))
        .await;
    match record {
        Some(Ok(record)) => record,
        failed => {
            let error = match failed {
                Some(Err(error)) => error.error_chain(),
                _ => "the database did not answer in time".to_owned(),
            };
            *unreadable_until() = Some(state.clock.deadline(RECORD_UNREADABLE_FOR));
            tracing::warn!(trace.id = %call.trace, flow.id = %payload.flow_id, error, "Could not read whether the flow has an identity already; the checks decide");
            None
        }
    }
}

/// Returns whether the flow got its identity while the checks ran. After a double click, a service may refuse a value
/// that the same form has just used, and that refusal would mislead the visitor.
async fn has_closed(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    let until = state.clock.deadline(READ_RECORD_WITHIN).min(call.until);
    let record = state.flow_reader.read(payload.flow_id);
    let record = state.clock.timeout_at(until, record).await;
    matches!(record, Some(Ok(Some(record))) if record.identity_id.is_some())
}

/// Returns whether it is proven that Kratos creates at most one identity of the flow.
async fn is_guarded(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    if !state.pending.holds_registrations || state.pending.guard_id(&call.hook, payload).is_none() {
        return false;
    }
    let until = state.clock.deadline(READ_RECORD_WITHIN).min(call.until);
    let proven = state.proof.is_proven(&call.hook.method);
    matches!(state.clock.timeout_at(until, proven).await, Some(Ok(true)))
}

/// The result of recording an acceptance.
enum Recorded {
    /// The verdict to answer.
    Verdict(Verdict, Vec<CheckRecord>),
    /// Kratos created an identity of the flow while the checks ran.
    FlowIsClosed,
}

/// Records an accepted submission without delaying the response. If a check deferred or reserved, the response waits,
/// because such an acceptance is valid only once it is recorded.
async fn record(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    evaluated: Evaluated,
) -> Recorded {
    let Evaluated {
        verdict,
        records,
        deferred_checks,
        reservations,
        no_longer_deferred,
        no_longer_refused,
    } = evaluated;
    if matches!(verdict, Verdict::Refuse(_)) {
        return Recorded::Verdict(verdict, records);
    }
    let guard_id = state.pending.guard_id(&call.hook, payload);
    let verdict = with_external_id(verdict, guard_id);
    let deferred = deferred_checks.iter().map(|one| one.deferred.clone());
    let used = reservations.iter().map(|id| (*id, call.ends_at)).collect();
    let held = Held {
        deferred: deferred.collect(),
        reservations,
        no_longer_deferred,
        no_longer_refused,
    };
    let (pending, now) = (&state.pending, state.clock.now());
    let acceptance = pending.acceptance(&call.hook, payload, &call.trigger, &verdict, held, now);
    let Some(acceptance) = acceptance else {
        return Recorded::Verdict(verdict, records);
    };
    let must_hold = acceptance.must_hold;
    if !must_hold && !state.pending.is_awaited(&call.hook) {
        state.outbox.record_pending(acceptance);
        return Recorded::Verdict(verdict, records);
    }
    let batch = WriteSet {
        accepted: vec![acceptance],
        used,
        ..WriteSet::default()
    };
    match store_acceptance(state, call, payload, batch, must_hold).await {
        Stored::FlowIsClosed => Recorded::FlowIsClosed,
        Stored::No if must_hold => {
            let findings = deferred_checks.into_iter().map(|one| one.otherwise);
            let refusal = refuse_unrecorded(state, payload, findings.collect());
            Recorded::Verdict(refusal, records)
        }
        Stored::Yes | Stored::No => Recorded::Verdict(verdict, records),
    }
}

/// Whether an acceptance was stored.
enum Stored {
    Yes,
    /// Kratos created an identity of the flow while the checks ran.
    FlowIsClosed,
    /// The database did not store it, which is logged.
    No,
}

/// Stores an acceptance. One that need not hold does not wait for a database that does not answer.
async fn store_acceptance(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    batch: WriteSet,
    must_hold: bool,
) -> Stored {
    let until = if must_hold {
        call.until
    } else {
        state.clock.deadline(READ_RECORD_WITHIN).min(call.until)
    };
    let written = state.outbox.write(batch);
    let error = match state.clock.timeout_at(until, written).await {
        Some(Ok(_)) => return Stored::Yes,
        Some(Err(error)) if matches!(*error, store::Error::Conflict) => {
            tracing::info!(trace.id = %call.trace, flow.id = %payload.flow_id, "Refused a submission: its flow was closed, or its reservation was released, while the checks ran");
            return Stored::FlowIsClosed;
        }
        Some(Err(error)) => error.error_chain(),
        None => "the database did not answer in time".to_owned(),
    };
    if must_hold {
        tracing::error!(trace.id = %call.trace, flow.id = %payload.flow_id, error, "Refused a sign-up: its deferred checks or reservations could not be recorded");
    } else {
        tracing::warn!(trace.id = %call.trace, flow.id = %payload.flow_id, error, "Could not record an accepted sign-up");
        state.metrics.pending_dropped.inc();
    }
    Stored::No
}

/// Returns the refusal in place of an acceptance that had to be recorded: what the deferred checks would have refused
/// with, or else a request to try again.
fn refuse_unrecorded(state: &HookState, payload: &Payload, mut findings: Vec<Finding>) -> Verdict {
    if findings.is_empty() {
        let try_again = state.visitor_message(payload, &state.rules.messages().try_again);
        findings.push(Finding {
            field: None,
            message: try_again,
        });
    }
    Verdict::Refuse(findings)
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
