//! Alive, ready, which version, and the numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use serde_json::{Value, json};

use crate::telemetry::Metrics;
use crate::telemetry::metrics::CONTENT_TYPE;

/// What health is told from.
#[derive(Debug)]
pub struct Health {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Set while shutting down, so that no new calls are sent to us.
    pub leaving: AtomicBool,
}

impl Health {
    /// In good health.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, leaving: AtomicBool::new(false) }
    }
}

/// The process runs.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `pre` can be answered. A database that is down is told here and in a metric, not by 503: without us, people
/// would get Kratos's error page instead of our words.
pub async fn ready(health: Data<Health>) -> HttpResponse {
    if health.leaving.load(Ordering::Relaxed) {
        return HttpResponse::ServiceUnavailable().json(json!({"status": "shutting down"}));
    }
    let database = if health.metrics.database_up.get() == 1 { "ok" } else { "down" };
    HttpResponse::Ok().json(json!({"status": "ok", "database": database}))
}

/// Which Vestibule this is.
pub async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// All metrics.
pub async fn metrics(health: Data<Health>) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(health.metrics.encode())
}
