//! Parses the body of a request: the deliveries to retry or discard.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Payload;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::ApiError;
use super::query::{id, state, time};
use crate::base::clock::Clock;
use crate::base::json::without_byte_order_mark;
use crate::http::hooks::body::{BodyError, MAX_BODY, read as read_body};
use crate::model::delivery::State;
use crate::store::Filter;

/// The time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of ids in a body. Vestibule changes each of these deliveries separately.
const MAX_IDS: usize = 1000;

/// The deliveries to change: those in `ids`, or `all` that match the other members.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// Deliveries by id.
    #[schemars(with = "Option<Vec<String>>", length(max = MAX_IDS), extend("items" = json!({"type": "string", "format": "uuid"})))]
    ids: Option<Vec<String>>,
    /// All deliveries that match the other members; required without `ids`.
    #[schemars(with = "Option<bool>")]
    all: Option<bool>,
    /// Only deliveries of this subscription; or `write-back:…`, `deferred-check:…`, `late-refusal:…`, `take:…`, `confirm:…`, `release:…`.
    #[schemars(with = "Option<String>")]
    subscription: Option<String>,
    /// Only deliveries in this state: `pending` or `abandoned`.
    #[schemars(with = "Option<State>")]
    state: Option<String>,
    /// Only deliveries of this identity.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    identity: Option<String>,
    /// Only deliveries created at this time or later: a day or a time, `2026-11-01` or `2026-11-01T12:00:00Z`.
    #[schemars(with = "Option<String>")]
    since: Option<String>,
    /// Only deliveries created before this time: a day (its beginning, in UTC) or a time.
    #[schemars(with = "Option<String>")]
    until: Option<String>,
    /// Only for a retry: also retries deliveries that are older than one that was delivered to the same subscription about the same identity.
    #[schemars(with = "Option<bool>")]
    out_of_order: Option<bool>,
}

/// What to send as a selection.
const HELP: &str =
    r#"send {"ids": ["…"]}, or {"all": true} with subscription, state, identity, since or until"#;

/// Parses the body of a discard into a filter.
pub(super) async fn read(
    request: &HttpRequest,
    payload: Payload,
    clock: &Clock,
) -> Result<Filter, ApiError> {
    let selection = body::<Selection>(request, payload, clock, HELP).await?;
    if selection.out_of_order.is_some() {
        return Err(ApiError::bad_request(
            "`out_of_order` has no meaning for a discard".to_owned(),
            "remove it".to_owned(),
        ));
    }
    selection.filter()
}

/// Parses the body of a retry into a filter, and whether to retry out of order.
pub(super) async fn read_retry(
    request: &HttpRequest,
    payload: Payload,
    clock: &Clock,
) -> Result<(Filter, bool), ApiError> {
    let selection = body::<Selection>(request, payload, clock, HELP).await?;
    let out_of_order = selection.out_of_order.unwrap_or_default();
    Ok((selection.filter()?, out_of_order))
}

/// Decodes the body of a request. The body must be JSON, with a matching `Content-Type`. `help` describes what to send.
pub(super) async fn body<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    clock: &Clock,
    help: &str,
) -> Result<T, ApiError> {
    let until = clock.deadline(BODY_TIMEOUT);
    let body = match read_body(payload, clock, until, MAX_BODY).await {
        Ok(body) => body,
        Err(error @ BodyError::Incomplete) => {
            return Err(ApiError::bad_request(error.to_string(), None));
        }
        Err(BodyError::TooLarge) => return Err(ApiError::too_long(MAX_BODY)),
    };
    if !is_json(request) {
        return Err(ApiError::no_json());
    }
    serde_json::from_slice(without_byte_order_mark(&body)).map_err(|error| {
        ApiError::bad_request(format!("the body cannot be read: {error}"), help.to_owned())
    })
}

/// Returns whether the `Content-Type` is JSON. From a browser, a page of another site can send a form or plain
/// text without a preflight request, but not JSON.
fn is_json(request: &HttpRequest) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

impl Selection {
    fn filter(self) -> Result<Filter, ApiError> {
        let ids = self.ids.unwrap_or_default();
        let which = |message: &str| {
            ApiError::bad_request(
                message.to_owned(),
                r#"send `ids`, or `"all": true` with subscription, state, identity, since or until"#
                    .to_owned(),
            )
        };
        match (ids.is_empty(), self.all.unwrap_or_default()) {
            (true, false) => return Err(which("the body selects no deliveries")),
            (false, true) => {
                return Err(which("the body has both `ids` and `all`"));
            }
            (true, true) | (false, false) => {}
        }
        if ids.len() > MAX_IDS {
            return Err(ApiError::bad_request(
                format!("`ids` has {} entries", ids.len()),
                format!("send at most {MAX_IDS}"),
            ));
        }
        let ids = ids
            .iter()
            .enumerate()
            .map(|(index, text)| id(&format!("ids[{index}]"), text));
        let filter = Filter {
            ids: ids.collect::<Result<_, _>>()?,
            subscription: self.subscription,
            state: self.state.as_deref().map(state).transpose()?,
            identity: self
                .identity
                .map(|text| id("identity", &text))
                .transpose()?,
            since: self.since.map(|text| time("since", &text)).transpose()?,
            until: self.until.map(|text| time("until", &text)).transpose()?,
            ..Filter::default()
        };
        filter.check_for_change()?;
        Ok(filter)
    }
}
