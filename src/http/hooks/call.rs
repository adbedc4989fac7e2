//! What every hook shares: the key, the body in time and size, one answer for one call.

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

/// The longest body that is read, in bytes. What Kratos sends is at most 64 KiB.
pub const MAX_BODY: usize = 256 * 1024;

/// Kept back from the deadline, so that the answer is written by then.
const TO_WRITE_THE_ANSWER: Duration = Duration::from_millis(50);

/// One call, as far as it is the same for both stages.
#[derive(Clone)]
pub struct HookCall {
    /// Which hook it came through.
    pub hook: Hook,
    /// What it carries, or why it could not be read.
    pub body: Result<Bytes, BodyError>,
    /// When it came.
    pub at: Timestamp,
    /// By when it must be answered.
    pub until: Timestamp,
    /// The trace it belongs to.
    pub trace: Trace,
    /// The same for every repetition of the same call: the trigger id, or what stands in for one.
    pub trigger: String,
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than [`MAX_BODY`].
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLarge,
    /// The connection ended, or time ran out, before all of it was there.
    #[error("the body did not arrive whole")]
    Incomplete,
}

/// `POST /hooks/{flow}/{stage}?method={method}`
pub async fn handle(
    flow: Flow,
    stage: Stage,
    request: HttpRequest,
    payload: Payload,
    state: Data<HookState>,
) -> HttpResponse {
    let at = state.clock.now();
    let until = saturating_add(at, state.deadline.saturating_sub(TO_WRITE_THE_ANSWER));
    let hook = Hook {
        flow,
        stage,
        method: method(request.query_string()),
    };
    let proved = auth::is_authorized(&request, &state.keys);
    let body = read(payload, &state, until, if proved { MAX_BODY } else { 0 }).await;
    if !proved {
        tracing::error!(
            hook.flow = %flow, hook.stage = %stage, hook.method = hook.method,
            "A call without a valid key was refused; `auth.config.value` of this hook in kratos.yml must be one of `hooks.keys`"
        );
        if stage == Stage::Post {
            state.count_lost_post("unauthorized");
        }
        let reply = state.reject(RefusalStatus::Unauthorized, &state.builtin.not_possible);
        return counted(&state, &hook, at, HookResponse::new(reply, "unauthorized"));
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
    let work = {
        let state = Arc::clone(&state);
        async move {
            match stage {
                // On the heap, for what they hold on their way is large.
                Stage::Pre if flow.signs_in() => sign_in::answer(&state, &call),
                Stage::Pre => Box::pin(pre::answer(&state, &call)).await,
                Stage::Post => Box::pin(post::answer(&state, &call)).await,
            }
        }
    };
    let place = match stage {
        Stage::Pre if flow.signs_in() => RunOn::Caller,
        // A connection to the database must not belong to a thread that ends before it.
        Stage::Pre if state.checks.are_quick() && !state.pending.reads_record(&hook) => {
            RunOn::Caller
        }
        _ => RunOn::MainRuntime,
    };
    // The work ends by itself in time, unless an expression takes too long or something in us broke.
    let latest = saturating_add(at, state.deadline.saturating_sub(TO_WRITE_THE_ANSWER / 5));
    let answer = state
        .clock
        .timeout_at(latest, state.idempotency.run_once(key, place, work))
        .await;
    let answer = answer
        .flatten()
        .unwrap_or_else(|| state.internal_error(&hook));
    counted(&state, &hook, at, answer)
}

/// A hook's URL that is called with another HTTP method than POST.
pub async fn method_not_allowed(
    flow: Flow,
    stage: Stage,
    request: HttpRequest,
    payload: Payload,
    state: Data<HookState>,
) -> HttpResponse {
    let at = state.clock.now();
    let _ = read(payload, &state, saturating_add(at, state.deadline), 0).await;
    let hook = Hook {
        flow,
        stage,
        method: method(request.query_string()),
    };
    tracing::error!(
        hook.flow = %flow, hook.stage = %stage, hook.method = hook.method,
        "A hook was called with another HTTP method than POST; write `method: POST` at this hook in kratos.yml"
    );
    let reply = state.reject(RefusalStatus::MethodNotAllowed, &state.builtin.not_possible);
    let answer = HookResponse::new(reply, "method_not_allowed");
    counted(&state, &hook, at, answer)
}

/// Any other URL.
pub async fn not_found(
    request: HttpRequest,
    payload: Payload,
    state: Data<HookState>,
) -> HttpResponse {
    let now = state.clock.now();
    let _ = read(payload, &state, saturating_add(now, state.deadline), 0).await;
    let path = {
        let paths = state.unknown_paths.lock();
        let mut paths = paths.unwrap_or_else(PoisonError::into_inner);
        paths.to_log(request.path(), now)
    };
    if let Some(path) = path {
        tracing::error!(
            path,
            "A path was called that is no hook; the URLs are /hooks/registration/pre, /hooks/registration/post, \
             /hooks/settings/pre, /hooks/settings/post and /hooks/login/pre, each with ?method=, /hooks/recovery/pre and \
             /hooks/verification/post"
        );
    }
    let reply = state.reject(RefusalStatus::NotFound, &state.builtin.not_possible);
    let answer = HookResponse::new(reply, "not_found");
    state.count_not_found();
    HttpResponse::from(answer)
}

/// `method=` of a query. What is no name of a method is taken as missing.
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

fn counted(state: &HookState, hook: &Hook, at: Timestamp, answer: HookResponse) -> HttpResponse {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one call")]
    let seconds = milliseconds(at, state.clock.now()) as f64 / 1000.0;
    state.count(hook, answer.outcome, seconds);
    HttpResponse::from(answer)
}

/// Reads the body to its end, also when it is longer than `most` and not kept: who is still writing would not see
/// our answer.
async fn read(
    mut payload: Payload,
    state: &HookState,
    until: Timestamp,
    most: usize,
) -> Result<Bytes, BodyError> {
    let all = async {
        let mut body = BytesMut::new();
        let mut length = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
            length += chunk.len();
            if length <= most {
                body.extend_from_slice(&chunk);
            } else {
                body = BytesMut::new();
            }
        }
        if length <= most {
            Ok(body.freeze())
        } else {
            Err(BodyError::TooLarge)
        }
    };
    state
        .clock
        .timeout_at(until, all)
        .await
        .unwrap_or(Err(BodyError::Incomplete))
}
