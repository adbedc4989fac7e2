//! Claim what is due, attempt it, settle it; let go on shutdown.

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

/// Carries a delivery to where it goes.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Where this plan's deliveries go; `None` if the plan has gone from the settings.
    fn target(&self, plan: &str) -> Option<Target>;
    /// When this plan's deliveries are tried again; `None` leaves it to the [`DispatcherLimits`].
    fn schedule(&self, plan: &str) -> Option<Schedule> {
        let _ = plan;
        None
    }
    /// One try.
    async fn attempt(&self, delivery: &Claimed) -> AttemptResult;
}

/// Where deliveries go, and how many it takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// Of the service.
    pub name: String,
    /// How many are under way to it at once; `None` leaves it to the [`DispatcherLimits`].
    pub at_once: Option<usize>,
    /// How many begin in a second.
    pub per_second: Option<f64>,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptResult {
    /// What it taught.
    pub attempt: Attempt,
    /// The first words of what went wrong, without values.
    pub words: Option<String>,
    /// What is to be delivered because of it, if it has arrived.
    pub follow_up_deliveries: Vec<NewDelivery>,
    /// The refusal that is in force because of it, if it has arrived.
    pub late_refusal: Option<LateRefusal>,
    /// The late refusal that ends because of it, if it has arrived.
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

/// Is told of every attempt, to count it.
pub trait AttemptObserver: Send + Sync {
    /// One attempt is over, this follows from it, and it has been written down if that was possible.
    fn attempted(&self, delivery: &Claimed, attempt: &Attempt, outcome: &Outcome);
}

impl AttemptObserver for () {
    fn attempted(&self, _: &Claimed, _: &Attempt, _: &Outcome) {}
}

/// Gives a number from 0 to 1: [`random_jitter`](crate::model::delivery::backoff::random_jitter), or the same
/// every time in a test.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// How hard a worker works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DispatcherLimits {
    /// When a failed delivery is tried again.
    pub schedule: Schedule,
    /// How many deliveries are under way to one service at once. Each service has this room to itself, so
    /// that a slow one delays nobody else.
    pub at_once: usize,
    /// After which an attempt counts as timed out, whatever the courier does.
    pub longest_attempt: Duration,
    /// How often to look for what another instance has stored, or left behind.
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

/// Carries deliveries until it is stopped. Any number of workers may share a database.
pub struct Dispatcher {
    runner: Arc<AttemptRunner>,
    stored: Arc<Notify>,
    rooms: HashMap<Option<String>, TargetLimiter>,
    under_way: JoinSet<()>,
    cut: watch::Sender<bool>,
}

impl Dispatcher {
    /// A worker that has not begun. `stored.notify_one()` after something new was
    /// stored makes it leave at once.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        courier: Arc<dyn Transport>,
        observer: Arc<dyn AttemptObserver>,
        stored: Arc<Notify>,
        clock: Clock,
        jitter: Jitter,
        pace: DispatcherLimits,
    ) -> Self {
        let (settler, writer) = settler(Arc::clone(&store));
        // Ends with the carrier, after everybody has an answer.
        tokio::spawn(writer.run());
        Self {
            runner: Arc::new(AttemptRunner {
                store,
                settler,
                courier,
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

    /// Works until `stop` is done. Then it claims nothing more, lets what is under way finish for `grace`,
    /// and gives back the rest.
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
                            // Who arrived meanwhile makes room as well.
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
                        "The worker cannot reach the database; next try at {next_look}",
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

    /// Claims what is due and sends it off, and tells when to look again.
    async fn claim_due(&mut self) -> Result<Timestamp, store::Error> {
        let now = self.runner.clock.now();
        let mut next_look = saturating_add(now, self.runner.pace.look_again);
        let mut due_plans = self.runner.store.next_due().await?;
        // Who waits longest goes first, so that plans which share a destination share its room.
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
                // Whoever arrives makes room, and that wakes us.
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
            // There may be more of it.
            next_look = now;
        }
        Ok(next_look)
    }

    fn limiters(&mut self, plan: &str, now: Timestamp) -> &mut TargetLimiter {
        let destination = self.runner.courier.target(plan);
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

    /// The places that may be taken now, and when there are more if it is the rate that keeps them.
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
                "Giving back the deliveries that are still under way"
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

/// A delivery whose carrying broke down is due again when its lease ends.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        // `JoinError` would print the words of the panic, and they might hold a value.
        tracing::error!(
            panicked = error.is_panic(),
            "Carrying a delivery broke down"
        );
    }
}
