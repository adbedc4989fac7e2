//! Deliveries carried and settled per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use vestibule::base::clock::Clock;
use vestibule::jobs::dispatcher::{
    AttemptObserver, AttemptResult, Dispatcher, DispatcherLimits, Target, Transport,
};
use vestibule::model::delivery::{Attempt, Claimed, Outcome};
use vestibule::store::Store;

use crate::database::Database;

/// As `limit.concurrent` of a service that takes a lot.
const AT_ONCE: usize = 256;

/// Is at the service and back at once.
struct Swift;

#[async_trait]
impl Transport for Swift {
    fn target(&self, _: &str) -> Option<Target> {
        Some(Target {
            name: "swift".to_owned(),
            ..Target::default()
        })
    }

    async fn attempt(&self, _: &Claimed) -> AttemptResult {
        Attempt::answered(204).into()
    }
}

#[derive(Default)]
struct Counts {
    settled: AtomicU64,
    enough: AtomicU64,
    reached: Notify,
}

struct Counting(Arc<Counts>);

impl AttemptObserver for Counting {
    fn attempted(&self, _: &Claimed, _: &Attempt, outcome: &Outcome) {
        assert_eq!(*outcome, Outcome::Delivered);
        let settled = self.0.settled.fetch_add(1, Ordering::SeqCst) + 1;
        if settled == self.0.enough.load(Ordering::SeqCst) {
            self.0.reached.notify_one();
        }
    }
}

/// A worker on its way.
pub struct Running {
    counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    worker: JoinHandle<()>,
}

impl Running {
    /// One that is done after so many.
    pub fn start(store: &Arc<dyn Store>, enough: u64) -> Self {
        let counts = Arc::new(Counts::default());
        counts.enough.store(enough, Ordering::SeqCst);
        let worker = Dispatcher::new(
            Arc::clone(store),
            Arc::new(Swift),
            Arc::new(Counting(Arc::clone(&counts))),
            Arc::default(),
            Clock::system(),
            Arc::new(|| 0.5),
            DispatcherLimits {
                max_concurrent: AT_ONCE,
                ..DispatcherLimits::default()
            },
        );
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        Self {
            counts,
            stop,
            worker: tokio::spawn(worker.run(stopped, Duration::from_mins(1))),
        }
    }

    /// Waits until there were enough.
    pub async fn enough(&self) {
        self.counts.reached.notified().await;
    }

    /// How many there were.
    pub async fn stop(self) -> u64 {
        let _ = self.stop.send(());
        self.worker.await.expect("a worker");
        self.counts.settled.load(Ordering::SeqCst)
    }
}

/// Per second, until so many are settled.
pub async fn round(database: &Database, many: u64) -> f64 {
    let started = Instant::now();
    let running = Running::start(&database.store, many);
    running.enough().await;
    let took = started.elapsed().as_secs_f64();
    assert_eq!(running.stop().await, many, "each once");
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_second = many as f64 / took;
    per_second
}
