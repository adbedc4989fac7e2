//! Handles the steps that all hooks share: the key, the body within time and size, and one answer for repeated calls.

use std::sync::Arc;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;

use crate::base::clock::{Deadline, Timestamp, saturating_add};
use crate::base::telemetry::Trace;
use crate::http::hooks::auth::FromKratos;
use crate::http::hooks::body::{self, ANSWER_MARGIN, BodyError, MAX_BODY};
use crate::http::hooks::endpoint::Endpoint;
use crate::http::hooks::idempotency::{Key, RunOn};
use crate::http::hooks::post;
use crate::http::hooks::pre;
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Hook, Stage};

/// The size of a body for which checks without loops need less than a millisecond, in bytes.
const QUICK_BODY: usize = 16 * 1024;

/// One call, with the parts that both stages use.
#[derive(Clone)]
pub struct HookCall {
    /// The hook that Kratos called.
    pub hook: Hook,
    /// The body, or why it could not be read.
    pub body: Result<Bytes, BodyError>,
    /// When the call arrived.
    pub at: Timestamp,
    /// The deadline for the answer.
    pub until: Deadline,
    /// The time of the deadline, for what is stored.
    pub ends_at: Timestamp,
    /// The trace of the call.
    pub trace: Trace,
    /// An id that is the same for every repetition of the call: the trigger id, or the idempotency key in its
    /// place.
    pub trigger: String,
}

/// Answers `POST /hooks/{flow}/{stage}?method={method}`.
pub async fn handle(
    FromKratos(hook): FromKratos,
    request: HttpRequest,
    payload: Payload,
    hooks: Data<HookState>,
) -> HttpResponse {
    let at = hooks.clock.now();
    let time_limit = hooks.deadline.saturating_sub(ANSWER_MARGIN);
    let until = hooks.clock.deadline(time_limit);
    let latest = hooks
        .clock
        .deadline(hooks.deadline.saturating_sub(ANSWER_MARGIN / 5));
    let (flow, stage) = (hook.flow, hook.stage);
    let body = body::read(payload, &hooks.clock, until, MAX_BODY).await;
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let trigger = header("Ory-Webhook-Trigger-ID");
    let key = Key::new(&hook, trigger, body.as_deref().unwrap_or_default());
    let trace = header("traceparent")
        .and_then(Trace::parse)
        .unwrap_or_else(Trace::begin);
    let trigger = trigger.map_or_else(|| key.to_string(), ToOwned::to_owned);
    let call = HookCall {
        hook: hook.clone(),
        body,
        at,
        until,
        ends_at: saturating_add(at, time_limit),
        trace,
        trigger,
    };
    let is_short = call
        .body
        .as_ref()
        .is_ok_and(|body| body.len() <= QUICK_BODY);
    let execution = {
        let hooks = Arc::clone(&hooks);
        async move {
            match stage {
                // These futures are large, so they are on the heap.
                Stage::Pre => Box::pin(pre::answer(&hooks, &call)).await,
                Stage::Post => Box::pin(post::answer(&hooks, &call)).await,
            }
        }
    };
    let run_on = match stage {
        Stage::Pre if flow.signs_in() => RunOn::Caller,
        // A connection to the database must not belong to a thread that ends before it.
        Stage::Pre if is_short && hooks.rules.are_quick() && !hooks.pending.reads_record(&hook) => {
            RunOn::Caller
        }
        _ => RunOn::MainRuntime,
    };
    // The execution ends by itself in time, unless an expression takes too long or panics.
    let answer = hooks
        .clock
        .timeout_at(latest, hooks.idempotency.run_once(key, run_on, execution))
        .await;
    let answer = answer
        .flatten()
        .unwrap_or_else(|| hooks.internal_error(&hook));
    hooks.count_answer(&hook, at, &answer);
    HttpResponse::from(answer)
}

/// Answers a hook's URL that was called with another HTTP method than POST.
pub async fn method_not_allowed(
    endpoint: Endpoint,
    request: HttpRequest,
    payload: Payload,
    hooks: Data<HookState>,
) -> HttpResponse {
    let at = hooks.clock.now();
    let until = hooks.clock.deadline(hooks.deadline);
    let _ = body::read(payload, &hooks.clock, until, 0).await;
    let hook = endpoint.hook(&request);
    let limit = &hooks.log_limits.wrong_verbs;
    if limit.to_log(request.path(), at).is_some() {
        tracing::error!(
            hook.flow = %hook.flow, hook.stage = %hook.stage, hook.method = hook.method,
            "Refused a call of a hook with another HTTP method than POST; write `method: POST` at this hook in kratos.yml"
        );
    }
    let reply = hooks.reject(
        RefusalStatus::MethodNotAllowed,
        &hooks.rules.messages().not_possible,
    );
    let answer = HookResponse::new(reply, "method_not_allowed");
    hooks.count_answer(&hook, at, &answer);
    HttpResponse::from(answer)
}

/// Answers any other URL.
pub async fn not_found(
    request: HttpRequest,
    payload: Payload,
    hooks: Data<HookState>,
) -> HttpResponse {
    let now = hooks.clock.now();
    let until = hooks.clock.deadline(hooks.deadline);
    let _ = body::read(payload, &hooks.clock, until, 0).await;
    let path = hooks.log_limits.unknown_paths.to_log(request.path(), now);
    if let Some(path) = path {
        tracing::error!(
            path,
            "Refused a call of an unknown path; the URLs of the hooks are /hooks/registration/pre, /hooks/registration/post, \
             /hooks/settings/pre, /hooks/settings/post and /hooks/login/pre, each with ?method=, /hooks/recovery/pre and \
             /hooks/verification/post"
        );
    }
    let reply = hooks.reject(
        RefusalStatus::NotFound,
        &hooks.rules.messages().not_possible,
    );
    let answer = HookResponse::new(reply, "not_found");
    hooks.count_not_found();
    HttpResponse::from(answer)
}
