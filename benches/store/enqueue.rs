//! Deliveries stored per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::store::WriteSet;
use vestibule::store::outbox::outbox;
use vestibule_testing::join_all;

use crate::ROUND;
use crate::database::Database;
use crate::deliveries::{due, not_due};

pub const IN_FLIGHT: usize = 64;

/// Deliveries stored per second.
pub struct Enqueued {
    /// With a transaction for each call, on all connections of the store.
    pub separate: f64,
    /// With a transaction for each call, one at a time.
    pub sequential: f64,
    /// With the group commit of the outbox.
    pub grouped: f64,
    /// The number of due deliveries that the outbox stored.
    pub due_count: u64,
}

pub async fn round(database: &Database) -> Enqueued {
    let store = Arc::clone(&database.store);
    let (separate, _) = calls(move || {
        let store = Arc::clone(&store);
        async move {
            let stored = store.write(&WriteSet::of(vec![not_due()])).await;
            stored.map(drop).expect("the delivery is stored");
        }
    })
    .await;
    let store = Arc::new(Mutex::new(Arc::clone(&database.store)));
    let (sequential, _) = calls(move || {
        let store = Arc::clone(&store);
        async move {
            let not_due = WriteSet::of(vec![not_due()]);
            let stored = store.lock().await.write(&not_due).await;
            stored.map(drop).expect("the delivery is stored");
        }
    })
    .await;
    let (outbox, writer) = outbox(
        database.store.clone(),
        Arc::new(Metrics::new()),
        Clock::system(),
    );
    tokio::spawn(writer.run());
    let (grouped, due_count) = calls(move || {
        let outbox = outbox.clone();
        async move {
            let stored = outbox.accept(vec![due()]).await;
            stored.map(drop).expect("the delivery is stored");
        }
    })
    .await;
    Enqueued {
        separate,
        sequential,
        grouped,
        due_count,
    }
}

/// Runs one round. Returns the calls per second and their number.
async fn calls<F: Future<Output = ()> + Send + 'static>(
    call: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> (f64, u64) {
    let running = Arc::new(AtomicBool::new(true));
    let calls = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (call, running, calls) = (call.clone(), Arc::clone(&running), Arc::clone(&calls));
            tokio::spawn(async move {
                while running.load(Ordering::Relaxed) {
                    call().await;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    running.store(false, Ordering::Relaxed);
    join_all("each caller ends", callers).await;
    let calls = calls.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_second = calls as f64 / started.elapsed().as_secs_f64();
    (per_second, calls)
}
