//! The dispatcher: claims due deliveries, runs an attempt of each, and settles the delivery. On shutdown the
//! dispatcher returns the deliveries in progress.

mod attempt_runner;
mod target_limit;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio::task::{JoinError, JoinSet};

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::model::delivery::backoff::{Schedule, next_try};
use crate::model::delivery::{Attempt, Claimed, NewDelivery, Outcome};
use crate::model::late_refusal::LateRefusal;
use crate::store::settlement_writer::settler;
use crate::store::{self, RefusalLift, Store};
use attempt_runner::AttemptRunner;
use target_limit::TargetLimiter;

/// Sends deliveries to their targets.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Returns the target of a subscription's deliveries. `None` if the settings do not have the subscription any
    /// more.
    fn target(&self, plan: &str) -> Option<Target>;
    /// Returns the retry schedule of a subscription. `None`: the schedule of [`DispatcherLimits`] applies.
    fn schedule(&self, plan: &str) -> Option<Schedule> {
        let _ = plan;
        None
    }
    /// Runs one attempt.
    async fn attempt(&self, delivery: &Claimed) -> AttemptResult;
}

/// The target of deliveries, and its limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// The name of the service.
    pub name: String,
    /// How many deliveries to the target run in parallel. `None`: the limit of [`DispatcherLimits`] applies.
    pub at_once: Option<usize>,
    /// How many deliveries to the target begin in a second.
    pub per_second: Option<f64>,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptResult {
    /// The response of the service, or why there is none.
    pub attempt: Attempt,
    /// An excerpt of the error message, without values.
    pub words: Option<String>,
    /// Deliveries to store if the attempt succeeded.
    pub follow_up_deliveries: Vec<NewDelivery>,
    /// The late refusal to store if the attempt succeeded.
    pub late_refusal: Option<LateRefusal>,
    /// The late refusal to lift if the attempt succeeded.
    pub refusal_lift: Option<RefusalLift>,
}

impl From<Attempt> for AttemptResult {
    fn from(attempt: Attempt) -> Self {
        Self {
            attempt,
            words: None,
            follow_up_deliveries: Vec::new(),
            late_refusal: None,
            refusal_lift: None,
        }
    }
}

/// Is notified of every attempt, to count attempts.
pub trait AttemptObserver: Send + Sync {
    /// An attempt has ended with this outcome. The outcome has been stored, unless the database failed.
    fn attempted(&self, delivery: &Claimed, attempt: &Attempt, outcome: &Outcome);
}

impl AttemptObserver for () {
    fn attempted(&self, _: &Claimed, _: &Attempt, _: &Outcome) {}
}

/// Returns a number from 0 to 1: [`random_jitter`](crate::model::delivery::backoff::random_jitter), or a fixed number
/// in a test.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The limits and intervals of a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DispatcherLimits {
    /// When a failed delivery is retried.
    pub schedule: Schedule,
    /// How many deliveries to one service run in parallel. Each service has this limit to itself, so that a slow
    /// service does not delay deliveries to others.
    pub at_once: usize,
    /// The time after which an attempt counts as timed out, whatever the transport does.
    pub longest_attempt: Duration,
    /// How often to check for deliveries that another instance stored or did not finish.
    pub look_again: Duration,
}

impl Default for DispatcherLimits {
    fn default() -> Self {
        Self {
            schedule: Schedule::DELIVERIES,
            at_once: 8,
            longest_attempt: Duration::from_mins(2),
            look_again: Duration::from_mins(1),
        }
    }
}

/// Runs attempts of due deliveries until the dispatcher is stopped. Any number of dispatchers can share a database.
pub struct Dispatcher {
    runner: Arc<AttemptRunner>,
    stored: Arc<Notify>,
    rooms: HashMap<Option<String>, TargetLimiter>,
    under_way: JoinSet<()>,
    cut: watch::Sender<bool>,
}

impl Dispatcher {
    /// Returns a dispatcher that does not run yet. `stored.notify_one()` after storing a delivery makes the dispatcher
    /// claim it immediately.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        transport: Arc<dyn Transport>,
        observer: Arc<dyn AttemptObserver>,
        stored: Arc<Notify>,
        clock: Clock,
        jitter: Jitter,
        pace: DispatcherLimits,
    ) -> Self {
        let (settler, writer) = settler(Arc::clone(&store));
        // The writer ends with the runner, after every settlement has its result.
        tokio::spawn(writer.run());
        Self {
            runner: Arc::new(AttemptRunner {
                store,
                settler,
                transport,
                observer,
                clock,
                jitter,
                pace,
            }),
            stored,
            rooms: HashMap::new(),
            under_way: JoinSet::new(),
            cut: watch::Sender::new(false),
        }
    }

    /// Runs until `stop` completes. Then the dispatcher claims nothing more, waits up to `grace` for the attempts in
    /// progress, and returns the other deliveries.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send, grace: Duration) {
        tokio::pin!(stop);
        let mut failures = 0;
        loop {
            let look = self.claim_due().await;
            let clock = &self.runner.clock;
            match look {
                Ok(next_look) => {
                    failures = 0;
                    tokio::select! {
                        biased;
                        () = &mut stop => break,
                        Some(ended) = self.under_way.join_next() => {
                            report(ended);
                            // Attempts that ended meanwhile free their permits too.
                            while let Some(ended) = self.under_way.try_join_next() {
                                report(ended);
                            }
                        }
                        () = self.stored.notified() => {}
                        () = clock.sleep_until(next_look) => {}
                    }
                }
                Err(error) => {
                    failures += 1;
                    let jitter = (self.runner.jitter)();
                    let next_look = next_try(&Schedule::DATABASE, failures, clock.now(), jitter);
                    tracing::error!(
                        error = %error.error_chain(), failures,
                        "The dispatcher cannot reach the database; next attempt at {next_look}",
                    );
                    tokio::select! {
                        biased;
                        () = &mut stop => break,
                        () = clock.sleep_until(next_look) => {}
                    }
                }
            }
        }
        self.finish(grace).await;
    }

    /// Claims what is due, starts the attempts, and returns when to check again.
    async fn claim_due(&mut self) -> Result<Timestamp, store::Error> {
        let now = self.runner.clock.now();
        let mut next_look = saturating_add(now, self.runner.pace.look_again);
        let mut due_plans = self.runner.store.next_due().await?;
        // The delivery that waits longest comes first, so that subscriptions with the same target share its permits.
        due_plans.sort_by_key(|due| due.at);
        for due in due_plans {
            if due.at > now {
                next_look = next_look.min(due.at);
                continue;
            }
            let (mut permits, more_at) = self.free_permits(&due.subscription, now);
            if let Some(more_at) = more_at {
                next_look = next_look.min(more_at);
            }
            let Some(limit) = u32::try_from(permits.len()).ok().filter(|limit| *limit > 0) else {
                // An attempt that ends frees a permit and wakes this loop.
                continue;
            };
            let lease = self.runner.lease();
            let held = self
                .runner
                .store
                .claim(&due.subscription, now, lease, limit)
                .await?;
            let unused = permits.split_off(held.len().min(permits.len()));
            self.limiters(&due.subscription, now).give_back(unused);
            for (delivery, place) in held.into_iter().zip(permits) {
                self.spawn_attempt(delivery, place);
            }
            // The queue may hold more due deliveries.
            next_look = now;
        }
        Ok(next_look)
    }

    fn limiters(&mut self, plan: &str, now: Timestamp) -> &mut TargetLimiter {
        let destination = self.runner.transport.target(plan);
        let at_once = self.runner.pace.at_once;
        self.rooms
            .entry(destination.as_ref().map(|to| to.name.clone()))
            .or_insert_with(|| {
                let destination = destination.unwrap_or_default();
                TargetLimiter::new(
                    destination.at_once.unwrap_or(at_once),
                    destination.per_second,
                    now,
                )
            })
    }

    /// Returns the permits that are free now. If the rate limits their number, returns when there are more.
    fn free_permits(
        &mut self,
        plan: &str,
        now: Timestamp,
    ) -> (Vec<OwnedSemaphorePermit>, Option<Timestamp>) {
        self.limiters(plan, now).free_permits(now)
    }

    fn spawn_attempt(&mut self, delivery: Claimed, place: OwnedSemaphorePermit) {
        let runner = Arc::clone(&self.runner);
        let cut = self.cut.subscribe();
        self.under_way.spawn(async move {
            runner.attempt(delivery, cut).await;
            drop(place);
        });
    }

    async fn finish(mut self, grace: Duration) {
        let clock = self.runner.clock.clone();
        let end = saturating_add(clock.now(), grace);
        if clock.timeout_at(end, self.join_all()).await.is_none() {
            tracing::info!(
                under_way = self.under_way.len(),
                "Returning the deliveries that are still in progress"
            );
            self.cut.send_replace(true);
            self.join_all().await;
        }
    }

    async fn join_all(&mut self) {
        while let Some(ended) = self.under_way.join_next().await {
            report(ended);
        }
    }
}

/// Logs an attempt that panicked. The delivery is due again when its lease ends.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        // `JoinError` would print the message of the panic, and that message can hold a value.
        tracing::error!(
            panicked = error.is_panic(),
            "An attempt of a delivery panicked"
        );
    }
}
