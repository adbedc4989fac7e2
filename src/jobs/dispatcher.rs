//! The dispatcher: claims due deliveries, runs an attempt of each, and settles the delivery. On shutdown the
//! dispatcher returns the deliveries in progress.

mod attempt_runner;
mod target_limit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{JoinError, JoinSet};

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::jobs::driver::{Job, JobError};
use crate::model::delivery::backoff::Schedule;
use crate::model::delivery::subscription::Built;
use crate::model::delivery::{Attempt, Claimed, NewDelivery, Outcome, Unbuilt};
use crate::model::late_refusal::LateRefusal;
use crate::store::outbox::Outbox;
use crate::store::settlement_writer::settlement_writer;
use crate::store::{self, DeliveryStore, RefusalLift, SettledQuestion};
use attempt_runner::AttemptRunner;
use target_limit::TargetLimiter;

/// Sends deliveries to their targets.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Returns the target of a subscription's deliveries. `None` if the settings do not have the subscription any
    /// more.
    fn target(&self, subscription: &str) -> Option<Target>;
    /// Returns the retry schedule of a subscription. `None`: the schedule of [`DispatcherLimits`] applies.
    fn schedule(&self, subscription: &str) -> Option<Schedule> {
        let _ = subscription;
        None
    }
    /// Builds the request of a delivery that could not be built before. The error is the reason, without values. `None`
    /// if the settings do not have the subscription any more.
    fn build(&self, delivery: &Claimed, unbuilt: &Unbuilt) -> Option<Result<Built, String>> {
        let _ = (delivery, unbuilt);
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
    pub max_concurrent: Option<usize>,
    /// How many deliveries to the target begin in a second.
    pub per_second: Option<f64>,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptResult {
    /// The response of the service, or why there is none.
    pub attempt: Attempt,
    /// An excerpt of the error message, without values.
    pub error_excerpt: Option<String>,
    /// Deliveries to store if the attempt succeeded.
    pub follow_up_deliveries: Vec<NewDelivery>,
    /// The late refusal to store if the attempt succeeded.
    pub late_refusal: Option<LateRefusal>,
    /// The late refusal to lift if the attempt succeeded.
    pub refusal_lift: Option<RefusalLift>,
    /// The questions of a deferred check to discard if the attempt succeeded.
    pub question_settled: Option<SettledQuestion>,
}

impl From<Attempt> for AttemptResult {
    fn from(attempt: Attempt) -> Self {
        Self {
            attempt,
            error_excerpt: None,
            follow_up_deliveries: Vec::new(),
            late_refusal: None,
            refusal_lift: None,
            question_settled: None,
        }
    }
}

/// Observes attempts, to count them.
pub trait AttemptObserver: Send + Sync {
    /// Called after an attempt with this outcome. The outcome has been stored, unless the database failed.
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
    /// How many deliveries to one service run in parallel. The limit applies to each service separately, so that a slow
    /// service does not delay deliveries to others.
    pub max_concurrent: usize,
    /// The time after which an attempt counts as timed out, whatever the transport does.
    pub max_attempt_duration: Duration,
    /// How often to check for deliveries that another instance stored or did not finish.
    pub poll_interval: Duration,
    /// How long attempts may take after the stop began.
    pub grace: Duration,
}

impl Default for DispatcherLimits {
    fn default() -> Self {
        Self {
            schedule: Schedule::DELIVERIES,
            max_concurrent: 8,
            max_attempt_duration: Duration::from_mins(2),
            poll_interval: Duration::from_mins(1),
            grace: Duration::from_secs(20),
        }
    }
}

/// Runs attempts of due deliveries until the dispatcher is stopped. Any number of dispatchers can share a database.
pub struct Dispatcher {
    runner: Arc<AttemptRunner>,
    outbox: Outbox,
    limiters: HashMap<Option<String>, TargetLimiter>,
    in_progress: JoinSet<()>,
    abort: watch::Sender<bool>,
}

impl Dispatcher {
    /// Returns a dispatcher that does not run yet. Deliveries that the outbox stores are claimed immediately.
    #[must_use]
    pub fn new(
        store: Arc<dyn DeliveryStore>,
        transport: Arc<dyn Transport>,
        observer: Arc<dyn AttemptObserver>,
        outbox: Outbox,
        clock: Clock,
        jitter: Jitter,
        limits: DispatcherLimits,
    ) -> Self {
        let (settlement_writer, writer) = settlement_writer(Arc::clone(&store), clock.clone());
        // The writer ends with the runner, after every settlement has its result.
        tokio::spawn(writer.run());
        Self {
            runner: Arc::new(AttemptRunner {
                store,
                settlement_writer,
                transport,
                observer,
                clock,
                jitter,
                limits,
            }),
            outbox,
            limiters: HashMap::new(),
            in_progress: JoinSet::new(),
            abort: watch::Sender::new(false),
        }
    }

    /// Claims what is due, starts the attempts, and returns when to check again.
    async fn claim_due(&mut self) -> Result<Timestamp, store::Error> {
        let now = self.runner.clock.now();
        let mut next_check = saturating_add(now, self.runner.limits.poll_interval);
        let mut due_queues = self.runner.store.next_due().await?;
        // The delivery that waits longest comes first, so that subscriptions with the same target share its permits.
        due_queues.sort_by_key(|due| due.at);
        for due in due_queues {
            if due.at > now {
                next_check = next_check.min(due.at);
                continue;
            }
            let (mut permits, more_at) = self.free_permits(&due.subscription, now);
            if let Some(more_at) = more_at {
                next_check = next_check.min(more_at);
            }
            let Some(limit) = u32::try_from(permits.len()).ok().filter(|limit| *limit > 0) else {
                // An attempt that ends frees a permit and wakes this loop.
                continue;
            };
            let lease = self.runner.lease();
            let claimed = self
                .runner
                .store
                .claim(&due.subscription, now, lease, limit)
                .await?;
            let unused = permits.split_off(claimed.len().min(permits.len()));
            self.limiter(&due.subscription, now).give_back(unused);
            for (delivery, permit) in claimed.into_iter().zip(permits) {
                self.spawn_attempt(delivery, permit);
            }
            // The queue may hold more due deliveries.
            next_check = now;
        }
        Ok(next_check)
    }

    fn limiter(&mut self, subscription: &str, now: Timestamp) -> &mut TargetLimiter {
        let target = self.runner.transport.target(subscription);
        let max_concurrent = self.runner.limits.max_concurrent;
        self.limiters
            .entry(target.as_ref().map(|to| to.name.clone()))
            .or_insert_with(|| {
                let target = target.unwrap_or_default();
                TargetLimiter::new(
                    target.max_concurrent.unwrap_or(max_concurrent),
                    target.per_second,
                    now,
                )
            })
    }

    /// Returns the permits that are free now. If the rate limits their number, returns when there are more.
    fn free_permits(
        &mut self,
        subscription: &str,
        now: Timestamp,
    ) -> (Vec<OwnedSemaphorePermit>, Option<Timestamp>) {
        self.limiter(subscription, now).free_permits(now)
    }

    fn spawn_attempt(&mut self, delivery: Claimed, permit: OwnedSemaphorePermit) {
        let runner = Arc::clone(&self.runner);
        let abort = self.abort.subscribe();
        self.in_progress.spawn(async move {
            runner.attempt(delivery, abort).await;
            drop(permit);
        });
    }

    async fn join_all(&mut self) {
        while let Some(ended) = self.in_progress.join_next().await {
            report(ended);
        }
    }
}

#[async_trait]
impl Job for Dispatcher {
    fn name(&self) -> &'static str {
        "dispatcher"
    }

    /// Claims what is due, and starts the attempts.
    async fn run(&mut self) -> Result<Timestamp, JobError> {
        Ok(self.claim_due().await?)
    }

    /// Completes if deliveries became due, or if an attempt ended and freed its permit.
    async fn wake(&mut self) {
        tokio::select! {
            Some(ended) = self.in_progress.join_next() => {
                report(ended);
                // Attempts that ended meanwhile free their permits too.
                while let Some(ended) = self.in_progress.try_join_next() {
                    report(ended);
                }
            }
            () = self.outbox.deliveries_due() => {}
        }
    }

    /// A claim is not interrupted, because claimed deliveries would wait for the end of their leases.
    fn is_interruptible(&self) -> bool {
        false
    }

    fn pause(&self, failures: u32) -> Duration {
        Schedule::DATABASE.pause(failures, (self.runner.jitter)())
    }

    /// Waits for the attempts in progress until the end of the grace period, and returns the other deliveries.
    async fn finish(&mut self) {
        let clock = self.runner.clock.clone();
        let end = clock.deadline(self.runner.limits.grace);
        if clock.timeout_at(end, self.join_all()).await.is_none() {
            tracing::info!(
                in_progress = self.in_progress.len(),
                "Returning the deliveries that are still in progress"
            );
            self.abort.send_replace(true);
            self.join_all().await;
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
