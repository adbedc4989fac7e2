//! Serves the admin port, for operators and their monitoring: health, version, metrics, deliveries, decisions, late refusals.
//!
//! Like Kratos's admin API, this port needs no credentials by default, so it belongs on a private network.

mod access;
mod decisions;
mod deliveries;
mod error;
mod error_text;
mod jobs;
mod late_refusals;
pub mod openapi;
mod query;
mod routes;
mod selection;

use std::future::ready;
use std::sync::Arc;

use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::{self, Data, Json, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use serde_json::Value;

use super::health::{self, Health};
use crate::base::clock::Clock;
use crate::base::telemetry::job_status::JobStatuses;
use crate::store::Store;
use crate::store::admin::RetryWindows;
use crate::store::outbox::Outbox;
use access::check_access;
use error::ApiError;
use routes::{OPERATIONS, Operation};

pub use access::AdminAccess;

/// The state shared by all handlers of the admin API.
pub struct AdminState {
    /// The store of the deliveries.
    pub store: Arc<dyn Store>,
    /// The clock.
    pub clock: Clock,
    /// How long Vestibule retries an abandoned delivery after an operator has retried it.
    pub keep_trying: RetryWindows,
    /// Wakes the dispatcher.
    pub outbox: Outbox,
    /// The status of the background jobs.
    pub jobs: Arc<JobStatuses>,
    /// Who may call.
    pub access: AdminAccess,
}

/// Configures every route of the admin port.
pub fn admin(health: Data<Health>, state: Data<AdminState>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config.app_data(health).app_data(state);
        for (index, first) in OPERATIONS.iter().enumerate() {
            if OPERATIONS[..index].iter().any(|one| one.path == first.path) {
                continue;
            }
            let mut resource = web::resource(first.path);
            let mut verbs = Vec::new();
            for operation in OPERATIONS.iter().filter(|one| one.path == first.path) {
                resource = resource.route((operation.route)());
                verbs.push(operation.verb.as_str());
            }
            let verbs = verbs.join(", ");
            let resource = resource.default_service(
                web::route()
                    .to(move |request: HttpRequest| ready(method_not_allowed(&request, &verbs))),
            );
            if first.is_open() {
                let port = DefaultHeaders::new().add((health::PORT_HEADER, "admin"));
                config.service(resource.wrap(port));
            } else {
                config.service(resource.wrap(from_fn(check_access)));
            }
        }
        config.default_service(web::route().to(not_found));
    }
}

fn method_not_allowed(request: &HttpRequest, verbs: &str) -> HttpResponse {
    let failure = ApiError::method_not_allowed(request.method().as_str(), request.path(), verbs);
    let mut response = failure.error_response();
    if let Ok(verbs) = HeaderValue::from_str(verbs) {
        response.headers_mut().insert(ALLOW, verbs);
    }
    response
}

async fn not_found(request: HttpRequest) -> ApiError {
    let mut paths: Vec<&str> = OPERATIONS
        .iter()
        .map(|Operation { path, .. }| *path)
        .collect();
    paths.dedup();
    ApiError::no_such_path(request.path(), &paths)
}

/// Answers `GET /openapi.json`.
async fn document() -> Json<Value> {
    Json(openapi::document())
}
