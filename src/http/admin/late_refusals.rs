//! Handlers that list and lift late refusals in force. No handler shows the message of a refusal, because the
//! message may hold a value.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Payload};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::error::ApiError;
use super::query::Parameter;
use super::{AdminState, query, selection};
use crate::base::clock::Timestamp;
use crate::checks::deferred::{self, Lifted};
use crate::model::late_refusal::{LateRefusal, OnLateRefusal};
use crate::store::LateRefusalFilter;

/// The query parameters of `GET /late-refusals`.
pub(super) const PARAMETERS: [Parameter; 4] = [
    Parameter {
        name: "identity",
        is: "Only late refusals of this identity.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
    Parameter {
        name: "check",
        is: "Only late refusals by this check.",
        schema: || json!({"type": "string"}),
    },
    query::LIMIT_PARAMETER,
    Parameter {
        name: "cursor",
        is: "The start of the page: the `next_cursor` of the previous page.",
        schema: || json!({"type": "string"}),
    },
];

/// A page of late refusals.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LateRefusalPage {
    /// The late refusals in force, ordered by identity and check.
    late_refusals: Vec<ListedLateRefusal>,
    /// The `cursor` of the next page; null on the last page.
    next_cursor: Option<String>,
}

/// A late refusal in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ListedLateRefusal {
    /// The identity.
    #[schemars(with = "String", extend("format" = "uuid"))]
    identity_id: Uuid,
    /// The check that refused.
    check: String,
    /// The effect of the refusal.
    effect: OnLateRefusal,
    /// When the check refused.
    #[schemars(with = "String", extend("format" = "date-time"))]
    refused_at: Timestamp,
    /// When Vestibule deactivated the identity, on Kratos's clock; null if Vestibule did not deactivate it.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    deactivated_at: Option<Timestamp>,
}

/// The late refusals to lift.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LateRefusalLift {
    /// The identity.
    #[schemars(extend("format" = "uuid"))]
    identity: String,
    /// Only the refusal by this check; all checks if absent.
    #[schemars(with = "Option<String>")]
    check: Option<String>,
}

impl From<LateRefusal> for ListedLateRefusal {
    fn from(refusal: LateRefusal) -> Self {
        Self {
            identity_id: refusal.identity_id,
            check: refusal.check,
            effect: refusal.effect,
            refused_at: refusal.refused_at,
            deactivated_at: refusal.deactivated_at,
        }
    }
}

/// Answers `GET /late-refusals`.
pub(super) async fn list(
    request: HttpRequest,
    state: Data<AdminState>,
) -> Result<Json<LateRefusalPage>, ApiError> {
    let values = query::values(request.query_string(), &PARAMETERS)?;
    let value = |name: &str| values.get(name).map(String::as_str);
    let limit = value("limit").map_or(Ok(query::DEFAULT_LIMIT), query::limit)?;
    let filter = LateRefusalFilter {
        identity: value("identity")
            .map(|text| query::id("identity", text))
            .transpose()?,
        check: value("check").map(ToOwned::to_owned),
        after: value("cursor").map(parse_cursor).transpose()?,
    };
    // One row more than the page shows whether there is a next page.
    let store = &state.store;
    let mut refusals = store
        .late_refusals_page(&filter, limit.saturating_add(1))
        .await?;
    let whole = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = refusals.len() > whole;
    refusals.truncate(whole);
    let last = refusals.last().filter(|_| has_more);
    let next_cursor = last.map(|last| format!("{}:{}", last.identity_id, last.check));
    Ok(Json(LateRefusalPage {
        late_refusals: refusals.into_iter().map(Into::into).collect(),
        next_cursor,
    }))
}

/// Parses a `next_cursor`.
fn parse_cursor(text: &str) -> Result<(Uuid, String), ApiError> {
    let parse_cursor = text
        .split_once(':')
        .and_then(|(id, check)| Some((Uuid::parse_str(id).ok()?, check.to_owned())));
    parse_cursor.ok_or_else(|| {
        ApiError::bad_request(
            format!("`cursor`: `{text}` is not the `next_cursor` of a page"),
            "use the `next_cursor` of the previous page, unchanged".to_owned(),
        )
    })
}

/// Answers `POST /late-refusals/lift`.
pub(super) async fn lift(
    request: HttpRequest,
    payload: Payload,
    state: Data<AdminState>,
) -> Result<Json<Lifted>, ApiError> {
    let help = r#"send {"identity": "…"}, and "check" to lift the refusal of one check"#;
    let request_body: LateRefusalLift =
        selection::body(&request, payload, &state.clock, help).await?;
    let id = query::id("identity", &request_body.identity)?;
    let check = request_body.check.as_deref();
    let lifted = deferred::lift(&*state.store, id, check, state.clock.now()).await?;
    if lifted.checks.is_empty() {
        return Err(ApiError::no_such_late_refusal(id, check));
    }
    state.outbox.wake_dispatcher();
    tracing::info!(identity.id = %id, checks = ?lifted.checks, "Lifted late refusals through the admin API");
    Ok(Json(lifted))
}
