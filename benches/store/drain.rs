//! Deliveries attempted and settled per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::jobs::dispatcher::{
    AttemptObserver, AttemptResult, Dispatcher, DispatcherLimits, Target, Transport,
};
use vestibule::jobs::driver::Driver;
use vestibule::model::delivery::{Attempt, Claimed, Outcome};
use vestibule::store::Store;
use vestibule::store::outbox::outbox;
use vestibule_testing::wait::bounded_by;

use crate::database::Database;

/// A high concurrency limit of a service.
const CONCURRENCY: usize = 256;
/// How long a round may take.
const PATIENCE: Duration = Duration::from_mins(10);

/// A transport that does nothing and reports success.
struct NoopTransport;

#[async_trait]
impl Transport for NoopTransport {
    fn target(&self, _: &str) -> Option<Target> {
        Some(Target {
            name: "noop".to_owned(),
            ..Target::default()
        })
    }

    async fn attempt(&self, _: &Claimed) -> AttemptResult {
        Attempt::answered(204).into()
    }
}

#[derive(Default)]
struct Progress {
    settled: AtomicU64,
    target: AtomicU64,
    reached: Notify,
}

struct Counter(Arc<Progress>);

impl AttemptObserver for Counter {
    fn attempted(&self, _: &Claimed, _: &Attempt, outcome: &Outcome) {
        assert_eq!(*outcome, Outcome::Delivered);
        let settled = self.0.settled.fetch_add(1, Ordering::SeqCst) + 1;
        if settled == self.0.target.load(Ordering::SeqCst) {
            self.0.reached.notify_one();
        }
    }
}

/// A running dispatcher.
pub struct RunningDispatcher {
    progress: Arc<Progress>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl RunningDispatcher {
    /// Starts a dispatcher. [`RunningDispatcher::target_reached`] waits for `target` settled deliveries.
    pub fn start(store: &Arc<dyn Store>, target: u64) -> Self {
        let progress = Arc::new(Progress::default());
        progress.target.store(target, Ordering::SeqCst);
        let metrics = Arc::new(Metrics::new());
        let (outbox, writer) = outbox(store.clone(), Arc::clone(&metrics), Clock::system());
        tokio::spawn(writer.run());
        let dispatcher = Dispatcher::new(
            store.clone(),
            Arc::new(NoopTransport),
            Arc::new(Counter(Arc::clone(&progress))),
            outbox,
            Clock::system(),
            Arc::new(|| 0.5),
            DispatcherLimits {
                max_concurrent: CONCURRENCY,
                grace: Duration::from_mins(1),
                ..DispatcherLimits::default()
            },
        );
        let driver = Driver {
            clock: Clock::system(),
            statuses: Arc::default(),
            metrics,
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        Self {
            progress,
            stop,
            task: tokio::spawn(driver.drive(dispatcher, stopped)),
        }
    }

    /// Waits until the dispatcher has settled the target number.
    pub async fn target_reached(&self) {
        let reached = self.progress.reached.notified();
        bounded_by(PATIENCE, "the dispatcher settles every delivery", reached).await;
    }

    /// Stops the dispatcher. Returns the number of settled deliveries.
    pub async fn stop(self) -> u64 {
        let _ = self.stop.send(());
        let stopped = bounded_by(PATIENCE, "the dispatcher stops", self.task).await;
        stopped.expect("the dispatcher stops");
        self.progress.settled.load(Ordering::SeqCst)
    }
}

/// Settles this number of deliveries. Returns the rate per second.
pub async fn round(database: &Database, number: u64) -> f64 {
    let started = Instant::now();
    let dispatcher = RunningDispatcher::start(&database.store, number);
    dispatcher.target_reached().await;
    let took = started.elapsed().as_secs_f64();
    assert_eq!(
        dispatcher.stop().await,
        number,
        "each delivery is settled once"
    );
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_second = number as f64 / took;
    per_second
}
