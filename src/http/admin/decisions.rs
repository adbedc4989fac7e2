//! Handlers that list and show decisions. A decision holds no value of a visitor.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path};
use serde_json::json;

use super::error::ApiError;
use super::query::Parameter;
use super::{AdminState, query};
use crate::model::decision::DecisionOutcome;
use crate::store::decisions::{DecisionFilter, DecisionPage, FlowDecisions, decision_page};

/// The query parameters of `GET /decisions`.
pub(super) const PARAMETERS: [Parameter; 7] = [
    Parameter {
        name: "outcome",
        is: "Only decisions with this outcome. `unavailable`: a check had no answer. `admitted`: with changes or without. With `check`, the outcome `refused` or `unavailable` is that of the check.",
        schema: || json!({"type": "string", "enum": DecisionOutcome::ALL.map(DecisionOutcome::as_str)}),
    },
    Parameter {
        name: "check",
        is: "Only decisions for which this check ran.",
        schema: || json!({"type": "string"}),
    },
    Parameter {
        name: "flow_id",
        is: "Only decisions about this flow.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
    Parameter {
        name: "identity",
        is: "Only decisions about this identity.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
    Parameter {
        name: "since",
        is: "Only decisions at this time or later: a day or a time, `2026-11-01` or `2026-11-01T12:00:00Z`.",
        schema: || json!({"type": "string"}),
    },
    query::LIMIT_PARAMETER,
    Parameter {
        name: "cursor",
        is: "The start of the page: the `next_cursor` of the previous page.",
        schema: || json!({"type": "integer"}),
    },
];

/// Answers `GET /decisions`.
pub(super) async fn list(
    request: HttpRequest,
    state: Data<AdminState>,
) -> Result<Json<DecisionPage>, ApiError> {
    let values = query::values(request.query_string(), &PARAMETERS)?;
    let value = |name: &str| values.get(name).map(String::as_str);
    let id = |name: &'static str| value(name).map(|text| query::id(name, text)).transpose();
    let filter = DecisionFilter {
        outcome: value("outcome").map(outcome).transpose()?,
        check: value("check").map(ToOwned::to_owned),
        flow_id: id("flow_id")?,
        identity: id("identity")?,
        since: value("since")
            .map(|text| query::time("since", text))
            .transpose()?,
        cursor: value("cursor").map(cursor).transpose()?,
    };
    let limit = value("limit").map_or(Ok(query::DEFAULT_LIMIT), query::limit)?;
    Ok(Json(decision_page(&*state.store, &filter, limit).await?))
}

/// Answers `GET /decisions/{flow_id}`.
pub(super) async fn show(
    flow_id: Path<String>,
    state: Data<AdminState>,
) -> Result<Json<FlowDecisions>, ApiError> {
    let flow_id = query::id("flow_id", &flow_id)?;
    let decisions = state.store.decisions_of_flow(flow_id).await?;
    if decisions.is_empty() {
        return Err(ApiError::no_such_decision(flow_id));
    }
    Ok(Json(FlowDecisions { decisions }))
}

fn outcome(text: &str) -> Result<DecisionOutcome, ApiError> {
    DecisionOutcome::named(text).ok_or_else(|| {
        let known = DecisionOutcome::ALL.map(DecisionOutcome::as_str).join(", ");
        ApiError::bad_request(
            format!("`outcome`: `{text}` is not an outcome"),
            format!("use one of {known}"),
        )
    })
}

fn cursor(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(
            format!("`cursor`: `{text}` is not a number"),
            "use the `next_cursor` of the previous page".to_owned(),
        )
    })
}
