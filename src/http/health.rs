//! Alive, ready, which version, and the numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::base::clock::{Clock, Timestamp, milliseconds, saturating_add};
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::CONTENT_TYPE;
use crate::store::Store;

/// How long the database may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(1);

/// What health is told from.
pub struct Health {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    store: Arc<dyn Store>,
    clock: Clock,
    /// When the database was last asked whether it is there.
    asked: Mutex<Option<Timestamp>>,
    /// Set while shutting down, so that no new calls are sent to us.
    pub draining: AtomicBool,
}

impl Health {
    /// In good health.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            metrics,
            store,
            clock,
            asked: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Asks the database, but not for long.
    async fn database_is_up(&self) -> bool {
        // Whoever asks often, asks us and not the database.
        let now = self.clock.now();
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| now < saturating_add(asked, PATIENCE)) {
            return self.metrics.database_up.get() == 1;
        }
        *asked = Some(now);
        let until = saturating_add(now, PATIENCE);
        let up = matches!(
            self.clock.timeout_at(until, self.store.ping()).await,
            Some(Ok(()))
        );
        self.metrics.database_up.set(i64::from(up));
        up
    }

    async fn count_backlog(&self) {
        let until = saturating_add(self.clock.now(), PATIENCE);
        if let Some(Ok(backlog)) = self.clock.timeout_at(until, self.store.backlog()).await {
            let now = self.clock.now();
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of some days")]
            let oldest = backlog
                .oldest_pending
                .map_or(0.0, |since| milliseconds(since, now) as f64 / 1000.0);
            self.metrics.oldest_pending.set(oldest);
            self.metrics
                .pending
                .set(i64::try_from(backlog.pending).unwrap_or(i64::MAX));
            self.metrics
                .abandoned
                .set(i64::try_from(backlog.abandoned).unwrap_or(i64::MAX));
        }
    }
}

/// The process runs.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `pre` can be answered. A database that is down is told here and in a metric, not by 503: without us, people
/// would get Kratos's error page instead of our words.
pub async fn ready(health: Data<Health>) -> HttpResponse {
    if health.draining.load(Ordering::Relaxed) {
        return HttpResponse::ServiceUnavailable().json(json!({"status": "shutting down"}));
    }
    let database = if health.database_is_up().await {
        "ok"
    } else {
        "down"
    };
    HttpResponse::Ok().json(json!({"status": "ok", "database": database}))
}

/// Which Vestibule this is.
pub async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// All metrics.
pub async fn metrics(health: Data<Health>) -> HttpResponse {
    health.database_is_up().await;
    health.count_backlog().await;
    HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .body(health.metrics.encode())
}
