//! Deliveries: listed, shown, tried again, discarded. What they hold is never shown here.

use actix_web::HttpRequest;
use actix_web::web::{Data, Json, Path, Payload};

use super::error::Failure;
use super::{Operator, query, selection};
use crate::store::Shown;
use crate::store::admin::{self, Done, Page};

/// `GET /deliveries`
pub(super) async fn list(
    request: HttpRequest,
    operator: Data<Operator>,
) -> Result<Json<Page>, Failure> {
    let (filter, limit) = query::read(request.query_string())?;
    Ok(Json(admin::page(&*operator.store, &filter, limit).await?))
}

/// `GET /deliveries/{id}`
pub(super) async fn show(
    id: Path<String>,
    operator: Data<Operator>,
) -> Result<Json<Shown>, Failure> {
    let id = query::id("id", &id)?;
    let shown = operator.store.show(id).await?;
    shown.map(Json).ok_or_else(|| Failure::no_such_delivery(id))
}

/// `POST /deliveries/retry`
pub(super) async fn retry(
    request: HttpRequest,
    payload: Payload,
    operator: Data<Operator>,
) -> Result<Json<Done>, Failure> {
    let filter = selection::read(&request, payload).await?;
    let now = operator.clock.now();
    let done = admin::retry(&*operator.store, &filter, now, &operator.keep_trying).await?;
    operator.stored.notify_one();
    tracing::info!(count = done.count, "An operator had deliveries tried again");
    Ok(Json(done))
}

/// `POST /deliveries/discard`
pub(super) async fn discard(
    request: HttpRequest,
    payload: Payload,
    operator: Data<Operator>,
) -> Result<Json<Done>, Failure> {
    let filter = selection::read(&request, payload).await?;
    let done = admin::discard(&*operator.store, &filter, operator.clock.now()).await?;
    tracing::info!(count = done.count, "An operator discarded deliveries");
    Ok(Json(done))
}
