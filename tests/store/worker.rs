//! What is stored is carried, again and again until it arrives, whatever breaks. Time is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use vestibule::base::clock::{Clock, ManualClock};
use vestibule::jobs::dispatcher::{
    AttemptObserver, AttemptResult, Dispatcher, DispatcherLimits, Jitter, Target, Transport,
};
use vestibule::model::delivery::{Attempt, Claimed, Event, NoResponse, Outcome, State};
use vestibule::store::sqlite::Sqlite;
use vestibule::store::{DeliverySummary, Filter, Store};

use crate::scenes::{DAY, Home, MINUTE, SECOND, at, delivery, start};
use crate::sqlite;

/// A worker on its way, a service that answers as the test says, and a clock moved by hand.
struct EvaluationContext {
    home: Home,
    store: Arc<dyn Store>,
    stored: Arc<Notify>,
    clock: Clock,
    hand: ManualClock,
    courier: Arc<FakeCourier>,
    calls: mpsc::UnboundedReceiver<Call>,
    observer: Arc<Watching>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    jitter: Jitter,
    /// One for each pause that the worker decided on.
    pauses: mpsc::UnboundedReceiver<()>,
}

/// One delivery at the service's door, which waits for an answer.
struct Call {
    delivery: Claimed,
    answer: oneshot::Sender<Attempt>,
}

struct FakeCourier(mpsc::UnboundedSender<Call>);

struct Watching(mpsc::UnboundedSender<Outcome>);

struct Running {
    worker: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    noticed: oneshot::Receiver<()>,
}

#[async_trait]
impl Transport for FakeCourier {
    /// `crm_contact` goes to `crm`.
    fn target(&self, plan: &str) -> Option<Target> {
        let name = plan.split('_').next()?.to_owned();
        Some(Target {
            name,
            ..Target::default()
        })
    }

    async fn attempt(&self, delivery: &Claimed) -> AttemptResult {
        let (answer, answered) = oneshot::channel();
        let delivery = delivery.clone();
        self.0.send(Call { delivery, answer }).ok().unwrap();
        answered.await.expect("the courier broke down").into()
    }
}

impl AttemptObserver for Watching {
    fn attempted(&self, _: &Claimed, _: &Attempt, outcome: &Outcome) {
        // A test that no longer looks has seen enough.
        let _ = self.0.send(outcome.clone());
    }
}

impl Call {
    fn answers(self, status: u16) {
        self.answer.send(Attempt::answered(status)).unwrap();
    }
}

impl EvaluationContext {
    async fn new() -> Self {
        let home = Home::new();
        let store = Sqlite::open(&home.database()).await.unwrap();
        let (clock, hand) = Clock::manual(start());
        let (courier, calls) = mpsc::unbounded_channel();
        let (observer, outcomes) = mpsc::unbounded_channel();
        let (pausing, pauses) = mpsc::unbounded_channel();
        Self {
            home,
            store: Arc::new(store),
            stored: Arc::new(Notify::new()),
            clock,
            hand,
            courier: Arc::new(FakeCourier(courier)),
            calls,
            observer: Arc::new(Watching(observer)),
            outcomes,
            jitter: Arc::new(move || {
                pausing.send(()).unwrap();
                0.5
            }),
            pauses,
        }
    }

    /// Starts a worker that gives what is under way a minute when it is stopped.
    fn start(&self) -> Running {
        let worker = Dispatcher::new(
            Arc::clone(&self.store),
            Arc::clone(&self.courier) as Arc<dyn Transport>,
            Arc::clone(&self.observer) as Arc<dyn AttemptObserver>,
            Arc::clone(&self.stored),
            self.clock.clone(),
            Arc::clone(&self.jitter),
            DispatcherLimits::default(),
        );
        let (stop, stopped) = oneshot::channel();
        let (noticing, noticed) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
            let _ = noticing.send(());
        };
        Running {
            worker: tokio::spawn(worker.run(stopped, MINUTE)),
            stop,
            noticed,
        }
    }

    /// A store on the same file that hardly waits for others.
    async fn hasty(&self) -> Arc<dyn Store> {
        let patience = Duration::from_millis(20);
        let store = Sqlite::open_with(&self.home.database(), patience).await;
        Arc::new(store.unwrap())
    }

    async fn store(&self, plan: &str, identities: impl Iterator<Item = u128>) {
        let mut deliveries: Vec<_> = identities.map(|number| delivery(plan, number)).collect();
        for new in &mut deliveries {
            new.created_at = self.clock.now();
        }
        self.store.accept(deliveries).await.unwrap();
        self.stored.notify_one();
    }

    async fn call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    async fn outcome(&mut self) -> Outcome {
        self.outcomes.recv().await.unwrap()
    }

    async fn only(&self) -> DeliverySummary {
        let mut all = self.store.list(&Filter::default(), 9).await.unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.worker.await.unwrap();
    }

    /// As a crash does: nothing is settled, nothing given back.
    async fn dies(self) {
        self.worker.abort();
        assert!(self.worker.await.unwrap_err().is_cancelled());
    }
}

#[tokio::test]
async fn what_is_stored_leaves_at_once() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    let call = scene.call().await;
    assert_eq!(call.delivery.event, Event::IdentityCreated);
    assert_eq!(call.delivery.id, delivery("crm", 1).id);
    call.answers(201);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    assert_eq!(scene.only().await.state, State::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn what_another_instance_stored_leaves_within_a_minute() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    // One of ours first, so that the worker has certainly looked before the other was stored.
    scene.store("crm", 1..=1).await;
    scene.call().await.answers(204);
    scene.outcome().await;
    let other = Sqlite::open(&scene.home.database()).await.unwrap();
    other.accept(vec![delivery("erp", 2)]).await.unwrap();
    scene.hand.advance(MINUTE);
    scene.call().await.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn what_fails_is_tried_again_after_growing_pauses() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    for (try_, pause) in [(1, 5), (2, 10), (3, 20), (4, 40)] {
        let call = scene.call().await;
        assert_eq!(call.delivery.attempt, try_);
        call.answers(503);
        let next = scene.hand.now() + pause * SECOND;
        assert_eq!(scene.outcome().await, Outcome::RetryAt(next));
        scene.hand.advance((pause - 1) * SECOND);
        // The worker may look as often as it likes: it is not yet due.
        let waiting = scene.only().await;
        assert_eq!(
            (waiting.attempts, waiting.next_attempt_at),
            (try_, Some(next))
        );
        scene.hand.advance(SECOND);
    }
    scene.call().await.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    assert_eq!(scene.only().await.attempts, 5);
    running.stop().await;
}

#[tokio::test]
async fn the_schedule_survives_a_restart() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    for pause in [5, 10, 20] {
        scene.call().await.answers(503);
        scene.outcome().await;
        scene.hand.advance(pause * SECOND);
    }
    scene.call().await.answers(503);
    let next = at(35 * SECOND) + 40 * SECOND;
    assert_eq!(scene.outcome().await, Outcome::RetryAt(next));
    running.stop().await;
    scene.store.close().await;

    scene.store = Arc::new(Sqlite::open(&scene.home.database()).await.unwrap());
    let running = scene.start();
    assert_eq!(scene.only().await.next_attempt_at, Some(next));
    scene.hand.advance(40 * SECOND);
    let call = scene.call().await;
    assert_eq!(call.delivery.attempt, 5);
    call.answers(503);
    let next = next + 80 * SECOND;
    assert_eq!(scene.outcome().await, Outcome::RetryAt(next));
    running.stop().await;
}

#[tokio::test]
async fn it_is_abandoned_after_its_time_and_a_retry_brings_it_back() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    let mut tries = 0;
    loop {
        scene.call().await.answers(500);
        tries += 1;
        match scene.outcome().await {
            Outcome::RetryAt(next) => {
                assert!(next <= at(DAY));
                let pause = next - scene.hand.now();
                scene.hand.advance(pause.to_std().unwrap());
            }
            outcome => {
                assert_eq!(outcome, Outcome::Abandoned);
                break;
            }
        }
    }
    // The last try was at the very end.
    assert_eq!(scene.hand.now(), at(DAY));
    let kept = scene.only().await;
    assert_eq!((kept.state, kept.attempts), (State::Abandoned, tries));
    assert_eq!(kept.last_error.as_deref(), Some("status 500"));

    let everything = Filter::default();
    scene.hand.advance(DAY);
    let now = scene.hand.now();
    scene.store.retry(&everything, now, DAY).await.unwrap();
    scene.stored.notify_one();
    scene.call().await.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn gone_is_not_asked_again() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    scene.call().await.answers(410);
    assert_eq!(scene.outcome().await, Outcome::Abandoned);
    running.stop().await;
}

#[tokio::test]
async fn when_a_worker_dies_another_takes_over_its_deliveries() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    let lost = scene.call().await;
    running.dies().await;

    let running = scene.start();
    scene.hand.advance(10 * MINUTE);
    let call = scene.call().await;
    assert_eq!(call.delivery.id, lost.delivery.id);
    assert_eq!(call.delivery.attempt, 2);
    call.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn a_breakdown_counts_as_a_try_and_the_worker_goes_on() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    drop(scene.call().await.answer);
    assert_eq!(scene.outcome().await, Outcome::RetryAt(at(5 * SECOND)));
    let broke_down = NoResponse::Panicked.as_str();
    assert_eq!(scene.only().await.last_error.as_deref(), Some(broke_down));
    scene.store("crm", 2..=2).await;
    scene.call().await.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    // It comes to an end like any other that does not arrive.
    scene.hand.advance(2 * DAY);
    drop(scene.call().await.answer);
    assert_eq!(scene.outcome().await, Outcome::Abandoned);
    running.stop().await;
}

#[tokio::test]
async fn an_attempt_without_an_end_is_a_timeout() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=1).await;
    let _hanging = scene.call().await;
    scene.hand.advance(2 * MINUTE);
    assert_eq!(
        scene.outcome().await,
        Outcome::RetryAt(at(2 * MINUTE + 5 * SECOND))
    );
    let timeout = NoResponse::Timeout.as_str();
    assert_eq!(scene.only().await.last_error.as_deref(), Some(timeout));
    running.stop().await;
}

#[tokio::test]
async fn a_slow_service_delays_nobody_else() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    // Two plans of one service share its room.
    scene.store("crm_contact", 1..=30).await;
    scene.store("crm_deal", 31..=60).await;
    let mut hanging = Vec::new();
    while hanging.len() < DispatcherLimits::default().at_once {
        hanging.push(scene.call().await);
    }
    scene.store("erp", 61..=80).await;
    for _ in 61..=80 {
        let call = scene.call().await;
        assert_eq!(call.delivery.subscription, "erp");
        call.answers(204);
        assert_eq!(scene.outcome().await, Outcome::Delivered);
    }
    // Nobody holds a lease without being under way.
    let contacts = Filter {
        state: Some(State::Pending),
        ..Filter::default()
    };
    let waiting = scene.store.list(&contacts, 100).await.unwrap();
    let tried = waiting.iter().filter(|one| one.attempts > 0).count();
    assert_eq!((waiting.len(), tried), (60, hanging.len()));
    // Each that is done makes room for one.
    for _ in 0..60 - hanging.len() {
        hanging.remove(0).answers(204);
        hanging.push(scene.call().await);
    }
    for call in hanging {
        call.answers(204);
    }
    running.stop().await;
    assert_eq!(scene.store.backlog().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_stop_waits_for_what_is_under_way_and_gives_back_the_rest() {
    let mut scene = EvaluationContext::new().await;
    let running = scene.start();
    scene.store("crm", 1..=2).await;
    let (quick, _slow) = (scene.call().await, scene.call().await);
    running.stop.send(()).unwrap();
    // All runs on one thread, so from here on the grace is counted.
    running.noticed.await.unwrap();
    quick.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    scene.store("crm", 3..=3).await;
    scene.hand.advance(MINUTE);
    running.worker.await.unwrap();
    let now = scene.hand.now();
    let again = scene.store.claim("crm", now, MINUTE, 9).await.unwrap();
    let attempts: Vec<_> = again.iter().map(|held| held.attempt).collect();
    assert_eq!(attempts, [1, 1]);
}

#[tokio::test]
async fn a_database_that_fails_is_waited_out() {
    let mut scene = EvaluationContext::new().await;
    scene.store = scene.hasty().await;
    scene.store("crm", 1..=1).await;
    let mut other = sqlite::beside(&scene.home.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    let running = scene.start();
    for _ in 0..3 {
        scene.pauses.recv().await.unwrap();
        scene.hand.advance(MINUTE);
    }
    scene.pauses.recv().await.unwrap();
    assert!(scene.calls.try_recv().is_err());
    lock.rollback().await.unwrap();
    scene.hand.advance(MINUTE);
    let call = scene.call().await;
    assert_eq!(call.delivery.attempt, 1);
    call.answers(204);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    running.stop().await;
}

#[tokio::test]
async fn what_came_of_an_attempt_is_written_down_as_soon_as_the_database_can() {
    let mut scene = EvaluationContext::new().await;
    scene.store = scene.hasty().await;
    scene.store("crm", 1..=1).await;
    let running = scene.start();
    let call = scene.call().await;
    let mut other = sqlite::beside(&scene.home.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    call.answers(204);
    // The first number is for the outcome, the second for the pause after it could not be written.
    scene.pauses.recv().await.unwrap();
    scene.pauses.recv().await.unwrap();
    lock.rollback().await.unwrap();
    scene.hand.advance(SECOND);
    assert_eq!(scene.outcome().await, Outcome::Delivered);
    assert_eq!(scene.only().await.state, State::Delivered);
    running.stop().await;
}
