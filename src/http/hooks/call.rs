//! What every hook shares: the key, the body in time and size, one answer for one call.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::base::clock::{Timestamp, later, milliseconds};
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
pub async fn answer(
    flow: Flow,
    stage: Stage,
    request: HttpRequest,
    payload: Payload,
    door: Data<HookState>,
) -> HttpResponse {
    let at = door.clock.now();
    let until = later(at, door.deadline.saturating_sub(TO_WRITE_THE_ANSWER));
    let hook = Hook {
        flow,
        stage,
        method: method(request.query_string()),
    };
    let proved = auth::proves(&request, &door.keys);
    let body = read(payload, &door, until, if proved { MAX_BODY } else { 0 }).await;
    if !proved {
        tracing::error!(
            hook.flow = %flow, hook.stage = %stage, hook.method = hook.method,
            "A call without a valid key was refused; `auth.config.value` of this hook in kratos.yml must be one of `hooks.keys`"
        );
        if stage == Stage::Post {
            door.alarm("unauthorized");
        }
        let reply = door.refuse(RefusalStatus::Unauthorized, &door.builtin.not_possible);
        return counted(&door, &hook, at, HookResponse::new(reply, "unauthorized"));
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
        let door = Arc::clone(&door);
        async move {
            match stage {
                // On the heap, for what they hold on their way is large.
                Stage::Pre if flow.signs_in() => sign_in::answer(&door, &call),
                Stage::Pre => Box::pin(pre::answer(&door, &call)).await,
                Stage::Post => Box::pin(post::answer(&door, &call)).await,
            }
        }
    };
    let place = match stage {
        Stage::Pre if flow.signs_in() => RunOn::Caller,
        // A connection to the database must not belong to a thread that ends before it.
        Stage::Pre if door.checks.are_quick() && !door.pending.reads_record(&hook) => RunOn::Caller,
        _ => RunOn::MainRuntime,
    };
    // The work ends by itself in time, unless an expression takes too long or something in us broke.
    let latest = later(at, door.deadline.saturating_sub(TO_WRITE_THE_ANSWER / 5));
    let answer = door
        .clock
        .before(latest, door.answers.once(key, place, work))
        .await;
    let answer = answer.flatten().unwrap_or_else(|| door.broken(&hook));
    counted(&door, &hook, at, answer)
}

/// A hook's URL called with another verb than POST.
pub async fn wrong_verb(payload: Payload, door: Data<HookState>) -> HttpResponse {
    let _ = read(payload, &door, later(door.clock.now(), door.deadline), 0).await;
    tracing::error!(
        "A hook was called with another verb than POST; write `method: POST` at this hook in kratos.yml"
    );
    let reply = door.refuse(RefusalStatus::MethodNotAllowed, &door.builtin.not_possible);
    HttpResponse::from(HookResponse::new(reply, "wrong_verb"))
}

/// Any other URL.
pub async fn unknown(
    request: HttpRequest,
    payload: Payload,
    door: Data<HookState>,
) -> HttpResponse {
    let _ = read(payload, &door, later(door.clock.now(), door.deadline), 0).await;
    if request.path().starts_with("/hooks") {
        tracing::error!(
            "A hook was called that is not there; the URLs are /hooks/registration/pre, /hooks/registration/post, \
             /hooks/settings/pre, /hooks/settings/post and /hooks/login/pre, each with ?method=, /hooks/recovery/pre and \
             /hooks/verification/post"
        );
    }
    let reply = door.refuse(RefusalStatus::NotFound, &door.builtin.not_possible);
    HttpResponse::from(HookResponse::new(reply, "unknown"))
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

fn counted(door: &HookState, hook: &Hook, at: Timestamp, answer: HookResponse) -> HttpResponse {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one call")]
    let seconds = milliseconds(at, door.clock.now()) as f64 / 1000.0;
    door.count(hook, answer.outcome, seconds);
    HttpResponse::from(answer)
}

/// Reads the body to its end, also when it is longer than `most` and not kept: who is still writing would not see
/// our answer.
async fn read(
    mut payload: Payload,
    door: &HookState,
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
    door.clock
        .before(until, all)
        .await
        .unwrap_or(Err(BodyError::Incomplete))
}
