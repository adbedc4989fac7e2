//! Handlers that list, show, retry and discard deliveries. No handler shows the payload of a delivery,
//! or a text that a receiver wrote.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path, Payload};

use super::error::ApiError;
use super::error_text::{without_texts, without_texts_of_attempts};
use super::{AdminState, query, selection};
use crate::store::DeliveryDetails;
use crate::store::admin::{self, ActionResult, Page};

/// Answers `GET /deliveries`.
pub(super) async fn list(
    request: HttpRequest,
    state: Data<AdminState>,
) -> Result<Json<Page>, ApiError> {
    let (filter, limit) = query::list_query(request.query_string())?;
    let page = admin::page(&*state.store, &filter, limit).await?;
    Ok(Json(without_texts(page)))
}

/// Answers `GET /deliveries/{id}`.
pub(super) async fn show(
    id: Path<String>,
    state: Data<AdminState>,
) -> Result<Json<DeliveryDetails>, ApiError> {
    let id = query::id("id", &id)?;
    let shown = state.store.show(id).await?;
    shown
        .map(|shown| Json(without_texts_of_attempts(shown)))
        .ok_or_else(|| ApiError::no_such_delivery(id))
}

/// Answers `POST /deliveries/retry`.
pub(super) async fn retry(
    request: HttpRequest,
    payload: Payload,
    state: Data<AdminState>,
) -> Result<Json<ActionResult>, ApiError> {
    let (filter, out_of_order) = selection::read_retry(&request, payload, &state.clock).await?;
    let now = state.clock.now();
    let keep_trying = state.keep_trying.clone().out_of_order(out_of_order);
    let done = admin::retry(&*state.store, &filter, now, &keep_trying).await?;
    state.outbox.wake_dispatcher();
    tracing::info!(
        changed = done.changed,
        out_of_order = done.out_of_order,
        "Retried deliveries through the admin API"
    );
    Ok(Json(done))
}

/// Answers `POST /deliveries/discard`.
pub(super) async fn discard(
    request: HttpRequest,
    payload: Payload,
    state: Data<AdminState>,
) -> Result<Json<ActionResult>, ApiError> {
    let filter = selection::read(&request, payload, &state.clock).await?;
    let done = admin::discard(&*state.store, &filter, state.clock.now()).await?;
    tracing::info!(
        changed = done.changed,
        "Discarded deliveries through the admin API"
    );
    Ok(Json(done))
}
