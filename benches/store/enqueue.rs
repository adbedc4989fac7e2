//! Deliveries stored per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;
use vestibule::store::outbox::outbox;

use crate::ROUND;
use crate::database::Database;
use crate::deliveries::{due, not_due};

pub const IN_FLIGHT: usize = 64;

/// Per second.
pub struct Enqueued {
    /// Each call in a transaction of its own, over as many connections as the store has.
    pub alone: f64,
    /// The same, one after the other.
    pub one_by_one: f64,
    /// Through the outbox.
    pub together: f64,
    /// How many of the latter are there to be carried.
    pub to_be_drained: u64,
}

pub async fn round(database: &Database) -> Enqueued {
    let store = Arc::clone(&database.store);
    let (alone, _) = calls(move || {
        let store = Arc::clone(&store);
        async move {
            let stored = store.accept(vec![not_due()]).await;
            stored.map(drop).expect("stored");
        }
    })
    .await;
    let store = Arc::new(Mutex::new(Arc::clone(&database.store)));
    let (one_by_one, _) = calls(move || {
        let store = Arc::clone(&store);
        async move {
            let stored = store.lock().await.accept(vec![not_due()]).await;
            stored.map(drop).expect("stored");
        }
    })
    .await;
    let (outbox, writer) = outbox(Arc::clone(&database.store), Arc::new(|_| {}));
    tokio::spawn(writer.run());
    let (together, to_be_drained) = calls(move || {
        let outbox = outbox.clone();
        async move {
            let stored = outbox.accept(vec![due()]).await;
            stored.map(drop).expect("stored");
        }
    })
    .await;
    Enqueued {
        alone,
        one_by_one,
        together,
        to_be_drained,
    }
}

/// Calls per second over one round, and how many there were.
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
    for caller in callers {
        caller.await.expect("a caller");
    }
    let calls = calls.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_second = calls as f64 / started.elapsed().as_secs_f64();
    (per_second, calls)
}
