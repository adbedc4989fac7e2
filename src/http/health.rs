//! Serves liveness, readiness, the version and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Data, Json};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::base::clock::{Clock, milliseconds};
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::CONTENT_TYPE;
use crate::store::Store;

/// The header of health responses that names the port: `hooks` or `admin`. `vestibule doctor` reads it.
pub const PORT_HEADER: &str = "x-vestibule-port";

/// The time limit for a ping of the database.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// What the health handlers need.
pub struct Health {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    store: Arc<dyn Store>,
    clock: Clock,
    /// When the database was last pinged, in monotonic time.
    last_ping: Mutex<Option<Duration>>,
    /// Set during shutdown, so that no new calls are sent to Vestibule.
    pub draining: AtomicBool,
}

impl Health {
    /// Creates the state of an instance that is ready.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, store: Arc<dyn Store>, clock: Clock) -> Self {
        Self {
            metrics,
            store,
            clock,
            last_ping: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Pings the database, with a time limit.
    async fn database_is_up(&self) -> bool {
        // A client that asks often must not burden the database.
        let now = self.clock.monotonic();
        let mut last_ping = self.last_ping.lock().await;
        if last_ping.is_some_and(|last_ping| now < last_ping + PING_TIMEOUT) {
            return self.metrics.database_up.get() == 1;
        }
        *last_ping = Some(now);
        let until = self.clock.deadline(PING_TIMEOUT);
        let up = matches!(
            self.clock.timeout_at(until, self.store.ping()).await,
            Some(Ok(()))
        );
        self.metrics.database_up.set(i64::from(up));
        up
    }

    async fn count_backlog(&self) {
        let until = self.clock.deadline(PING_TIMEOUT);
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

/// Reports that the process runs.
pub async fn alive() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Reports that Vestibule can answer `pre`. If the database is down, the body and a metric report that, but the status
/// is not 503: without Vestibule, visitors would get Kratos's error page instead of a message.
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

/// Reports Vestibule's version.
pub async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// Returns all metrics.
pub async fn metrics(health: Data<Health>) -> HttpResponse {
    health.database_is_up().await;
    health.count_backlog().await;
    HttpResponse::Ok()
        .content_type(CONTENT_TYPE)
        .body(health.metrics.encode())
}
