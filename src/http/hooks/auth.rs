//! Authenticates calls of Kratos.

use std::fmt;

use actix_web::dev::Payload;
use actix_web::error::ErrorInternalServerError;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{Error, FromRequest, HttpRequest, HttpResponse, ResponseError};
use futures_util::FutureExt as _;
use futures_util::future::{self, Either, LocalBoxFuture, Ready};

use crate::base::secret::Secret;
use crate::http::hooks::body::{self, ANSWER_MARGIN};
use crate::http::hooks::endpoint::Endpoint;
use crate::http::hooks::response::HookResponse;
use crate::http::hooks::state::HookState;
use crate::kratos::Hook;
use crate::kratos::reply::RefusalStatus;
pub use crate::kratos::snippet::KEY_HEADER;

/// Extracts the hook that Kratos calls. A handler with this argument runs only for requests that have one of the
/// keys. All other requests are logged, counted and refused with status 401.
pub struct FromKratos(pub Hook);

impl FromRequest for FromKratos {
    type Error = Error;
    type Future = Either<Ready<Result<Self, Error>>, LocalBoxFuture<'static, Result<Self, Error>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let state = request.app_data::<Data<HookState>>();
        let endpoint = request.app_data::<Endpoint>();
        let (Some(state), Some(endpoint)) = (state, endpoint) else {
            let error = ErrorInternalServerError("this route is not the route of a hook");
            return Either::Left(future::err(error));
        };
        let hook = endpoint.hook(request);
        if has_key(request, &state.keys) {
            return Either::Left(future::ok(Self(hook)));
        }
        let (state, payload) = (Data::clone(state), payload.take());
        Either::Right(async move { Err(refuse(&state, &hook, payload).await.into()) }.boxed_local())
    }
}

/// Returns whether the request has one of the keys. All keys are compared, so that the time taken does not reveal which
/// key matched.
fn has_key(request: &HttpRequest, keys: &[Secret]) -> bool {
    let value = request
        .headers()
        .get(KEY_HEADER)
        .map_or(&b""[..], |value| value.as_bytes());
    keys.iter()
        .fold(false, |matches, key| matches | key.matches(value))
}

/// Reads the body without keeping it, then logs, counts and refuses the call.
async fn refuse(state: &HookState, hook: &Hook, payload: Payload) -> Unauthorized {
    let at = state.clock.now();
    let until = state
        .clock
        .deadline(state.deadline.saturating_sub(ANSWER_MARGIN));
    let _ = body::read(payload, &state.clock, until, 0).await;
    // Any client on the network can send such calls, so they raise no alarm.
    let path = format!("{}/{}", hook.flow, hook.stage);
    if state.log_limits.without_key.to_log(&path, at).is_some() {
        tracing::error!(
            hook.flow = %hook.flow, hook.stage = %hook.stage, hook.method = hook.method,
            "Refused a call without a valid key; `auth.config.value` of this hook in kratos.yml must be one of `hooks.keys`"
        );
    }
    let reply = state.reject(
        RefusalStatus::Unauthorized,
        &state.rules.messages().not_possible,
    );
    let answer = HookResponse::new(reply, "unauthorized");
    state.count_answer(hook, at, &answer);
    Unauthorized(answer)
}

/// The response to a call without a valid key.
#[derive(Debug)]
struct Unauthorized(HookResponse);

impl fmt::Display for Unauthorized {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the call has no valid key")
    }
}

impl ResponseError for Unauthorized {
    fn status_code(&self) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::from(self.0.clone())
    }
}
