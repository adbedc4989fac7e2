//! Handles what all hooks share: the key, the body within time and size, and one answer for repeated calls.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::base::clock::{Timestamp, milliseconds, saturating_add};
use crate::base::telemetry::Trace;
use crate::http::hooks::auth;
use crate::http::hooks::idempotency::{Key, RunOn};
use crate::http::hooks::post;
use crate::http::hooks::pre;
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::sign_in;
use crate::http::hooks::state::HookState;
use crate::kratos::reply::RefusalStatus;
use crate::kratos::{Flow, Hook, Stage};

/// The longest body that is read, in bytes. Kratos sends at most 64 KiB.
pub const MAX_BODY: usize = 256 * 1024;

/// The time before the deadline that is kept free to write the answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// One call, with what is the same for both stages.
#[derive(Clone)]
pub struct HookCall {
    /// The hook that Kratos called.
    pub hook: Hook,
    /// The body, or why it could not be read.
    pub body: Result<Bytes, BodyError>,
    /// When the call arrived.
    pub at: Timestamp,
    /// The deadline for the answer.
    pub until: Timestamp,
    /// The trace of the call.
    pub trace: Trace,
    /// An id that is the same for every repetition of the call: the trigger id, or the idempotency key in its
    /// place.
    pub trigger: String,
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than [`MAX_BODY`].
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLarge,
    /// The connection ended, or the time ran out, before the whole body arrived.
    #[error("the body did not arrive whole")]
    Incomplete,
}

/// `POST /hooks/{flow}/{stage}?method={method}`
pub async fn handle(
    flow: Flow,
    stage: Stage,
    request: HttpRequest,
    payload: Payload,
    hooks: Data<HookState>,
) -> HttpResponse {
    let at = hooks.clock.now();
    let until = saturating_add(at, hooks.deadline.saturating_sub(ANSWER_MARGIN));
    let hook = Hook {
        flow,
        stage,
        method: method(request.query_string()),
    };
    let is_authorized = auth::is_authorized(&request, &hooks.keys);
    let body = read(
        payload,
        &hooks,
        until,
        if is_authorized { MAX_BODY } else { 0 },
    )
    .await;
    if !is_authorized {
        tracing::error!(
            hook.flow = %flow, hook.stage = %stage, hook.method = hook.method,
            "Refused a call without a valid key; `auth.config.value` of this hook in kratos.yml must be one of `hooks.keys`"
        );
        if stage == Stage::Post {
            hooks.count_lost_post("unauthorized");
        }
        let reply = hooks.reject(RefusalStatus::Unauthorized, &hooks.builtin.not_possible);
        return counted(&hooks, &hook, at, HookResponse::new(reply, "unauthorized"));
    }
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
        trace,
        trigger,
    };
    let execution = {
        let hooks = Arc::clone(&hooks);
        async move {
            match stage {
                // These futures are large, so they are on the heap.
                Stage::Pre if flow.signs_in() => sign_in::answer(&hooks, &call),
                Stage::Pre => Box::pin(pre::answer(&hooks, &call)).await,
                Stage::Post => Box::pin(post::answer(&hooks, &call)).await,
            }
        }
    };
    let run_on = match stage {
        Stage::Pre if flow.signs_in() => RunOn::Caller,
        // A connection to the database must not belong to a thread that ends before it.
        Stage::Pre if hooks.checks.are_quick() && !hooks.pending.reads_record(&hook) => {
            RunOn::Caller
        }
        _ => RunOn::MainRuntime,
    };
    // The execution ends by itself in time, unless an expression takes too long or panics.
    let latest = saturating_add(at, hooks.deadline.saturating_sub(ANSWER_MARGIN / 5));
    let answer = hooks
        .clock
        .timeout_at(latest, hooks.idempotency.run_once(key, run_on, execution))
        .await;
    let answer = answer
        .flatten()
        .unwrap_or_else(|| hooks.internal_error(&hook));
    counted(&hooks, &hook, at, answer)
}

/// Answers a hook's URL that was called with another HTTP method than POST.
pub async fn method_not_allowed(
    flow: Flow,
    stage: Stage,
    request: HttpRequest,
    payload: Payload,
    hooks: Data<HookState>,
) -> HttpResponse {
    let at = hooks.clock.now();
    let _ = read(payload, &hooks, saturating_add(at, hooks.deadline), 0).await;
    let hook = Hook {
        flow,
        stage,
        method: method(request.query_string()),
    };
    tracing::error!(
        hook.flow = %flow, hook.stage = %stage, hook.method = hook.method,
        "Refused a call of a hook with another HTTP method than POST; write `method: POST` at this hook in kratos.yml"
    );
    let reply = hooks.reject(RefusalStatus::MethodNotAllowed, &hooks.builtin.not_possible);
    let answer = HookResponse::new(reply, "method_not_allowed");
    counted(&hooks, &hook, at, answer)
}

/// Answers any other URL.
pub async fn not_found(
    request: HttpRequest,
    payload: Payload,
    hooks: Data<HookState>,
) -> HttpResponse {
    let now = hooks.clock.now();
    let _ = read(payload, &hooks, saturating_add(now, hooks.deadline), 0).await;
    let path = {
        let paths = hooks.unknown_paths.lock();
        let mut paths = paths.unwrap_or_else(PoisonError::into_inner);
        paths.to_log(request.path(), now)
    };
    if let Some(path) = path {
        tracing::error!(
            path,
            "Refused a call of an unknown path; the URLs of the hooks are /hooks/registration/pre, /hooks/registration/post, \
             /hooks/settings/pre, /hooks/settings/post and /hooks/login/pre, each with ?method=, /hooks/recovery/pre and \
             /hooks/verification/post"
        );
    }
    let reply = hooks.reject(RefusalStatus::NotFound, &hooks.builtin.not_possible);
    let answer = HookResponse::new(reply, "not_found");
    hooks.count_not_found();
    HttpResponse::from(answer)
}

/// The `method=` of a query. A value that cannot be a method's name counts as missing.
fn method(query: &str) -> String {
    let method = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("method="))
        .unwrap_or_default();
    let plain = method.len() <= 32
        && method
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if plain {
        method.to_owned()
    } else {
        String::new()
    }
}

fn counted(hooks: &HookState, hook: &Hook, at: Timestamp, answer: HookResponse) -> HttpResponse {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one call")]
    let seconds = milliseconds(at, hooks.clock.now()) as f64 / 1000.0;
    hooks.count(hook, answer.outcome, seconds);
    HttpResponse::from(answer)
}

/// Reads the body to its end, even if it is longer than `limit` and not kept. A client that is still writing would
/// not see the answer.
async fn read(
    mut payload: Payload,
    hooks: &HookState,
    until: Timestamp,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let all = async {
        let mut body = BytesMut::new();
        let mut length = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
            length += chunk.len();
            if length <= limit {
                body.extend_from_slice(&chunk);
            } else {
                body = BytesMut::new();
            }
        }
        if length <= limit {
            Ok(body.freeze())
        } else {
            Err(BodyError::TooLarge)
        }
    };
    hooks
        .clock
        .timeout_at(until, all)
        .await
        .unwrap_or(Err(BodyError::Incomplete))
}
