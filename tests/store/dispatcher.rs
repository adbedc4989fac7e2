//! The dispatcher attempts a stored delivery until it is delivered, whatever fails. The tests use a manual clock.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use vestibule::base::clock::{Clock, ManualClock};
use vestibule::base::telemetry::Metrics;
use vestibule::jobs::dispatcher::{
    AttemptObserver, AttemptResult, Dispatcher, DispatcherLimits, Jitter, Target, Transport,
};
use vestibule::jobs::driver::Driver;
use vestibule::model::delivery::{Attempt, Claimed, Event, NoResponse, Outcome, State};
use vestibule::store::outbox::{Outbox, outbox};
use vestibule::store::{DeliverySummary, Filter, RetryOptions, Store, sqlite};
use vestibule_testing::bounded;

use crate::fixtures::{
    DAY, DeliveryStoreExt as _, MINUTE, SECOND, TempFolder, at, delivery, start,
};
use crate::sqlite::connect;

/// A dispatcher, a fake transport that answers as the test says, and a manual clock.
struct TestCase {
    temp: TempFolder,
    store: Arc<dyn Store>,
    outbox: Outbox,
    clock: Clock,
    manual_clock: ManualClock,
    transport: Arc<FakeTransport>,
    calls: mpsc::UnboundedReceiver<Call>,
    observer: Arc<OutcomeObserver>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    jitter: Jitter,
    /// One message for each interval that the dispatcher computed.
    pauses: mpsc::UnboundedReceiver<()>,
}

/// An attempt that waits for its response.
struct Call {
    delivery: Claimed,
    response: oneshot::Sender<Response>,
}

/// What the transport does with an attempt.
enum Response {
    Result(Attempt),
    /// Panics. The test injects this.
    Panic,
}

struct FakeTransport(mpsc::UnboundedSender<Call>);

struct OutcomeObserver(mpsc::UnboundedSender<Outcome>);

struct RunningDispatcher {
    dispatcher: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    stop_noticed: oneshot::Receiver<()>,
}

#[async_trait]
impl Transport for FakeTransport {
    /// The target of `crm_contact` is `crm`.
    fn target(&self, subscription: &str) -> Option<Target> {
        let name = subscription.split('_').next()?.to_owned();
        Some(Target {
            name,
            ..Target::default()
        })
    }

    async fn attempt(&self, delivery: &Claimed) -> AttemptResult {
        let (response, responded) = oneshot::channel();
        let delivery = delivery.clone();
        self.0.send(Call { delivery, response }).ok().unwrap();
        match responded.await.expect("the test responds") {
            Response::Result(attempt) => attempt.into(),
            Response::Panic => panic!("injected: the transport panics"),
        }
    }
}

impl AttemptObserver for OutcomeObserver {
    fn attempted(&self, _: &Claimed, _: &Attempt, outcome: &Outcome) {
        // A test that has dropped the receiver needs no more outcomes.
        let _ = self.0.send(outcome.clone());
    }
}

impl Call {
    fn respond(self, status: u16) {
        let result = Response::Result(Attempt::answered(status));
        assert!(self.response.send(result).is_ok());
    }

    /// Makes the attempt panic.
    fn panic(self) {
        assert!(self.response.send(Response::Panic).is_ok());
    }
}

impl TestCase {
    async fn new() -> Self {
        let temp = TempFolder::new();
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&temp.database()).await.unwrap());
        let (outbox, writer) = outbox(store.clone(), Arc::new(Metrics::new()), Clock::system());
        tokio::spawn(writer.run());
        let (clock, manual_clock) = Clock::manual(start());
        let (transport, calls) = mpsc::unbounded_channel();
        let (observer, outcomes) = mpsc::unbounded_channel();
        let (pausing, pauses) = mpsc::unbounded_channel();
        Self {
            temp,
            store,
            outbox,
            clock,
            manual_clock,
            transport: Arc::new(FakeTransport(transport)),
            calls,
            observer: Arc::new(OutcomeObserver(observer)),
            outcomes,
            jitter: Arc::new(move || {
                pausing.send(()).unwrap();
                0.5
            }),
            pauses,
        }
    }

    /// Starts a dispatcher that gives running attempts a minute when it is stopped.
    fn start(&self) -> RunningDispatcher {
        let dispatcher = Dispatcher::new(
            self.store.clone(),
            Arc::clone(&self.transport) as Arc<dyn Transport>,
            Arc::clone(&self.observer) as Arc<dyn AttemptObserver>,
            self.outbox.clone(),
            self.clock.clone(),
            Arc::clone(&self.jitter),
            DispatcherLimits {
                grace: MINUTE,
                ..DispatcherLimits::default()
            },
        );
        let driver = Driver {
            clock: self.clock.clone(),
            statuses: Arc::default(),
            metrics: Arc::new(Metrics::new()),
        };
        let (stop, stopped) = oneshot::channel();
        let (notice, stop_noticed) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
            let _ = notice.send(());
        };
        RunningDispatcher {
            dispatcher: tokio::spawn(driver.drive(dispatcher, stopped)),
            stop,
            stop_noticed,
        }
    }

    /// A store on the same file with a short busy timeout.
    async fn impatient_store(&self) -> Arc<dyn Store> {
        let busy_timeout = Duration::from_millis(20);
        let store = sqlite::open_with(&self.temp.database(), busy_timeout).await;
        Arc::new(store.unwrap())
    }

    async fn store_deliveries(&self, subscription: &str, identities: impl Iterator<Item = u128>) {
        let mut deliveries: Vec<_> = identities
            .map(|number| delivery(subscription, number))
            .collect();
        for new in &mut deliveries {
            new.created_at = self.clock.now();
        }
        self.store.accept(deliveries).await.unwrap();
        self.outbox.wake_dispatcher();
    }

    async fn next_call(&mut self) -> Call {
        let call = bounded("the dispatcher attempts a delivery", self.calls.recv());
        call.await.unwrap()
    }

    async fn next_outcome(&mut self) -> Outcome {
        let outcome = bounded("an attempt has its outcome", self.outcomes.recv());
        outcome.await.unwrap()
    }

    /// Waits until the dispatcher computes another interval.
    async fn next_pause(&mut self) {
        let pause = bounded("the dispatcher pauses", self.pauses.recv());
        pause.await.unwrap();
    }

    async fn only_delivery(&self) -> DeliverySummary {
        let mut all = self.store.list(&Filter::default(), 9).await.unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

impl RunningDispatcher {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        ended(self.dispatcher).await.unwrap();
    }

    /// Ends as after a crash: nothing is settled and nothing is returned.
    async fn crash(self) {
        self.dispatcher.abort();
        assert!(ended(self.dispatcher).await.unwrap_err().is_cancelled());
    }
}

async fn ended(dispatcher: JoinHandle<()>) -> Result<(), JoinError> {
    bounded("the dispatcher ends", dispatcher).await
}

#[tokio::test]
async fn a_stored_delivery_is_attempted_immediately() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    let call = case.next_call().await;
    assert_eq!(call.delivery.event, Event::IdentityCreated);
    assert_eq!(call.delivery.id, delivery("crm", 1).id);
    call.respond(201);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    assert_eq!(case.only_delivery().await.state, State::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn a_delivery_stored_by_another_instance_is_attempted_within_a_minute() {
    let mut case = TestCase::new().await;
    let running = case.start();
    // The first delivery shows that the dispatcher has read the database before the second one is stored.
    case.store_deliveries("crm", 1..=1).await;
    case.next_call().await.respond(204);
    case.next_outcome().await;
    let other = sqlite::open(&case.temp.database()).await.unwrap();
    other.accept(vec![delivery("erp", 2)]).await.unwrap();
    case.manual_clock.advance(MINUTE);
    case.next_call().await.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn a_failed_delivery_is_retried_at_growing_intervals() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    for (attempt, pause) in [(1, 5), (2, 10), (3, 20), (4, 40)] {
        let call = case.next_call().await;
        assert_eq!(call.delivery.attempt, attempt);
        call.respond(503);
        let next = case.manual_clock.now() + pause * SECOND;
        assert_eq!(case.next_outcome().await, Outcome::RetryAt(next));
        case.manual_clock.advance((pause - 1) * SECOND);
        // The dispatcher may read the database at any time: the delivery is not due yet.
        let waiting = case.only_delivery().await;
        assert_eq!(
            (waiting.attempts, waiting.next_attempt_at),
            (attempt, Some(next))
        );
        case.manual_clock.advance(SECOND);
    }
    case.next_call().await.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    assert_eq!(case.only_delivery().await.attempts, 5);
    running.stop().await;
}

#[tokio::test]
async fn the_retry_schedule_survives_a_restart() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    for pause in [5, 10, 20] {
        case.next_call().await.respond(503);
        case.next_outcome().await;
        case.manual_clock.advance(pause * SECOND);
    }
    case.next_call().await.respond(503);
    let next = at(35 * SECOND) + 40 * SECOND;
    assert_eq!(case.next_outcome().await, Outcome::RetryAt(next));
    running.stop().await;
    case.store.close().await;

    case.store = Arc::new(sqlite::open(&case.temp.database()).await.unwrap());
    let running = case.start();
    assert_eq!(case.only_delivery().await.next_attempt_at, Some(next));
    case.manual_clock.advance(40 * SECOND);
    let call = case.next_call().await;
    assert_eq!(call.delivery.attempt, 5);
    call.respond(503);
    let next = next + 80 * SECOND;
    assert_eq!(case.next_outcome().await, Outcome::RetryAt(next));
    running.stop().await;
}

#[tokio::test]
async fn a_delivery_is_abandoned_at_its_end_time_and_can_be_retried() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    let mut attempts = 0;
    // The clock advances with each attempt, and the end time bounds the loop.
    loop {
        case.next_call().await.respond(500);
        attempts += 1;
        match case.next_outcome().await {
            Outcome::RetryAt(next) => {
                assert!(next <= at(DAY));
                let pause = next - case.manual_clock.now();
                case.manual_clock.advance(pause.to_std().unwrap());
            }
            outcome => {
                assert_eq!(outcome, Outcome::Abandoned);
                break;
            }
        }
    }
    // The last attempt is at the end time.
    assert_eq!(case.manual_clock.now(), at(DAY));
    let kept = case.only_delivery().await;
    assert_eq!((kept.state, kept.attempts), (State::Abandoned, attempts));
    assert_eq!(kept.last_error.as_deref(), Some("status 500"));

    let everything = Filter::default();
    case.manual_clock.advance(DAY);
    let now = case.manual_clock.now();
    case.store
        .retry(&everything, now, RetryOptions::of(DAY))
        .await
        .unwrap();
    case.outbox.wake_dispatcher();
    case.next_call().await.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn a_delivery_is_abandoned_after_a_410() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    case.next_call().await.respond(410);
    assert_eq!(case.next_outcome().await, Outcome::Abandoned);
    running.stop().await;
}

#[tokio::test]
async fn another_dispatcher_takes_over_the_deliveries_of_a_crashed_one() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    let lost = case.next_call().await;
    running.crash().await;

    let running = case.start();
    case.manual_clock.advance(10 * MINUTE);
    let call = case.next_call().await;
    assert_eq!(call.delivery.id, lost.delivery.id);
    assert_eq!(call.delivery.attempt, 2);
    call.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn a_panic_counts_as_an_attempt_and_the_dispatcher_continues() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    case.next_call().await.panic();
    assert_eq!(case.next_outcome().await, Outcome::RetryAt(at(5 * SECOND)));
    let panicked = NoResponse::Panicked.as_str();
    assert_eq!(
        case.only_delivery().await.last_error.as_deref(),
        Some(panicked)
    );
    case.store_deliveries("crm", 2..=2).await;
    case.next_call().await.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    // Panics end in a dead letter like other failures.
    case.manual_clock.advance(2 * DAY);
    case.next_call().await.panic();
    assert_eq!(case.next_outcome().await, Outcome::Abandoned);
    running.stop().await;
}

#[tokio::test]
async fn an_attempt_that_never_ends_times_out() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=1).await;
    let _hanging = case.next_call().await;
    case.manual_clock.advance(2 * MINUTE);
    assert_eq!(
        case.next_outcome().await,
        Outcome::RetryAt(at(2 * MINUTE + 5 * SECOND))
    );
    let timeout = NoResponse::Timeout.as_str();
    assert_eq!(
        case.only_delivery().await.last_error.as_deref(),
        Some(timeout)
    );
    running.stop().await;
}

#[tokio::test]
async fn a_slow_service_does_not_delay_other_targets() {
    let mut case = TestCase::new().await;
    let running = case.start();
    // Two subscriptions of one service share its limit.
    case.store_deliveries("crm_contact", 1..=30).await;
    case.store_deliveries("crm_deal", 31..=60).await;
    let mut hanging = Vec::new();
    while hanging.len() < DispatcherLimits::default().max_concurrent {
        hanging.push(case.next_call().await);
    }
    case.store_deliveries("erp", 61..=80).await;
    for _ in 61..=80 {
        let call = case.next_call().await;
        assert_eq!(call.delivery.subscription, "erp");
        call.respond(204);
        assert_eq!(case.next_outcome().await, Outcome::Delivered);
    }
    // Every leased delivery is being attempted.
    let contacts = Filter {
        state: Some(State::Pending),
        ..Filter::default()
    };
    let waiting = case.store.list(&contacts, 100).await.unwrap();
    let tried = waiting.iter().filter(|one| one.attempts > 0).count();
    assert_eq!((waiting.len(), tried), (60, hanging.len()));
    // Each finished attempt makes room for another one.
    for _ in 0..60 - hanging.len() {
        hanging.remove(0).respond(204);
        hanging.push(case.next_call().await);
    }
    for call in hanging {
        call.respond(204);
    }
    running.stop().await;
    assert_eq!(case.store.backlog().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_stop_waits_for_running_attempts_and_returns_the_rest() {
    let mut case = TestCase::new().await;
    let running = case.start();
    case.store_deliveries("crm", 1..=2).await;
    let (quick, _slow) = (case.next_call().await, case.next_call().await);
    running.stop.send(()).unwrap();
    // All tasks run on one thread, so the grace period starts here.
    let noticed = bounded("the dispatcher notices the stop", running.stop_noticed);
    noticed.await.unwrap();
    quick.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    case.store_deliveries("crm", 3..=3).await;
    case.manual_clock.advance(MINUTE);
    ended(running.dispatcher).await.unwrap();
    let now = case.manual_clock.now();
    let again = case.store.claim("crm", now, MINUTE, 9).await.unwrap();
    let attempts: Vec<_> = again.iter().map(|held| held.attempt).collect();
    assert_eq!(attempts, [1, 1]);
}

#[tokio::test]
async fn the_dispatcher_waits_until_the_database_recovers() {
    let mut case = TestCase::new().await;
    case.store = case.impatient_store().await;
    case.store_deliveries("crm", 1..=1).await;
    let mut other = connect(&case.temp.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    let running = case.start();
    for _ in 0..3 {
        case.next_pause().await;
        case.manual_clock.advance(MINUTE);
    }
    case.next_pause().await;
    assert!(case.calls.try_recv().is_err());
    lock.rollback().await.unwrap();
    case.manual_clock.advance(MINUTE);
    let call = case.next_call().await;
    assert_eq!(call.delivery.attempt, 1);
    call.respond(204);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn an_outcome_is_stored_as_soon_as_the_database_recovers() {
    let mut case = TestCase::new().await;
    case.store = case.impatient_store().await;
    case.store_deliveries("crm", 1..=1).await;
    let running = case.start();
    let call = case.next_call().await;
    let mut other = connect(&case.temp.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    call.respond(204);
    // The first message is for the outcome, the second one for the interval after the failed write.
    case.next_pause().await;
    case.next_pause().await;
    lock.rollback().await.unwrap();
    case.manual_clock.advance(SECOND);
    assert_eq!(case.next_outcome().await, Outcome::Delivered);
    assert_eq!(case.only_delivery().await.state, State::Delivered);
    running.stop().await;
}
