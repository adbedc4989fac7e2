//! Which deliveries a body asks to retry or discard.

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Payload;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::ApiError;
use super::query::{id, state, time};
use crate::model::delivery::State;
use crate::store::Filter;

/// The longest body that is read, in bytes.
const MOST_BYTES: usize = 256 * 1024;
/// So many deliveries are named at most; each is looked at by itself.
const MOST_IDS: usize = 1000;

/// Which deliveries: those named by `ids`, or `all` that the other members leave.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    /// These deliveries.
    #[schemars(with = "Option<Vec<String>>", length(max = MOST_IDS), extend("items" = json!({"type": "string", "format": "uuid"})))]
    ids: Option<Vec<String>>,
    /// All that the other members leave; must be said where no ids are.
    #[schemars(with = "Option<bool>")]
    all: Option<bool>,
    /// Only of this plan; or `write-back:…`, `deferred-check:…`, `late-refusal:…`, `take:…`, `confirm:…`, `release:…`.
    #[schemars(with = "Option<String>")]
    plan: Option<String>,
    /// Only in this state: `pending` or `abandoned`.
    #[schemars(with = "Option<State>")]
    state: Option<String>,
    /// Only about this identity.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    identity: Option<String>,
    /// Only made then or later: a day or a moment, `2026-11-01` or `2026-11-01T12:00:00Z`.
    #[schemars(with = "Option<String>")]
    since: Option<String>,
    /// Only made before then: a day (its beginning) or a moment.
    #[schemars(with = "Option<String>")]
    until: Option<String>,
}

/// Reads which deliveries the body of a request names.
pub(super) async fn read(request: &HttpRequest, payload: Payload) -> Result<Filter, ApiError> {
    let hint = r#"send {"ids": ["…"]}, or {"all": true} with plan, state, identity, since or until to narrow it"#;
    body::<Selection>(request, payload, hint).await?.filter()
}

/// Reads the body of a request: JSON, and said to be. `hint` says what to send.
pub(super) async fn body<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    hint: &str,
) -> Result<T, ApiError> {
    // Read to its end first: who is still writing would not see our answer.
    let body = match payload.to_bytes_limited(MOST_BYTES).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            return Err(ApiError::asked_wrongly(
                format!("the body did not arrive whole: {error}"),
                None,
            ));
        }
        Err(_) => return Err(ApiError::too_long(MOST_BYTES)),
    };
    if !is_json(request) {
        return Err(ApiError::no_json());
    }
    serde_json::from_slice(&body).map_err(|error| {
        ApiError::asked_wrongly(format!("the body cannot be read: {error}"), hint.to_owned())
    })
}

/// A page of another site can send a form or plain text from a browser without being asked, but never this.
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
            ApiError::asked_wrongly(
                message.to_owned(),
                r#"name them by `ids`, or say `"all": true` for all that plan, state, identity, since and until leave"#
                    .to_owned(),
            )
        };
        match (ids.is_empty(), self.all.unwrap_or_default()) {
            (true, false) => return Err(which("the body does not say which deliveries")),
            (false, true) => {
                return Err(which("the body names deliveries and asks for all of them"));
            }
            (true, true) | (false, false) => {}
        }
        if ids.len() > MOST_IDS {
            return Err(ApiError::asked_wrongly(
                format!("`ids` names {} deliveries", ids.len()),
                format!("name at most {MOST_IDS} at once"),
            ));
        }
        let ids = ids
            .iter()
            .enumerate()
            .map(|(index, text)| id(&format!("ids[{index}]"), text));
        let filter = Filter {
            ids: ids.collect::<Result<_, _>>()?,
            plan: self.plan,
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
