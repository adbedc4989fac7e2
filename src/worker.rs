//! Claim what is due, attempt it, settle it; let go on shutdown.

mod carrier;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use crate::clock::{Clock, Timestamp, later};
use crate::delivery::backoff::{Schedule, next_try};
use crate::delivery::{Attempt, Claimed, Outcome};
use crate::store::{self, Store};
use carrier::Carrier;

/// Carries a delivery to its service.
#[async_trait]
pub trait Courier: Send + Sync {
    /// The name of the service that this plan's deliveries go to; `None` if the plan has gone from the settings.
    fn service(&self, plan: &str) -> Option<String>;
    /// One exchange.
    async fn carry(&self, delivery: &Claimed) -> Attempt;
}

/// Is told of every attempt, to count it.
pub trait Observer: Send + Sync {
    /// One attempt is over, this follows from it, and it has been written down if that was possible.
    fn attempted(&self, delivery: &Claimed, attempt: &Attempt, outcome: &Outcome);
}

impl Observer for () {
    fn attempted(&self, _: &Claimed, _: &Attempt, _: &Outcome) {}
}

/// Gives a number from 0 to 1: [`random_jitter`](crate::delivery::backoff::random_jitter), or the same
/// every time in a test.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// How hard a worker works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
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

impl Default for Pace {
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
pub struct Worker {
    carrier: Arc<Carrier>,
    stored: Arc<Notify>,
    rooms: HashMap<Option<String>, Arc<Semaphore>>,
    under_way: JoinSet<()>,
    cut: watch::Sender<bool>,
}

impl Worker {
    /// A worker that has not begun. `stored.notify_one()` after something new was
    /// stored makes it leave at once.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        courier: Arc<dyn Courier>,
        observer: Arc<dyn Observer>,
        stored: Arc<Notify>,
        clock: Clock,
        jitter: Jitter,
        pace: Pace,
    ) -> Self {
        Self {
            carrier: Arc::new(Carrier {
                store,
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
            let look = self.take_up().await;
            let clock = &self.carrier.clock;
            match look {
                Ok(next_look) => {
                    failures = 0;
                    tokio::select! {
                        biased;
                        () = &mut stop => break,
                        Some(ended) = self.under_way.join_next() => report(ended),
                        () = self.stored.notified() => {}
                        () = clock.until(next_look) => {}
                    }
                }
                Err(error) => {
                    failures += 1;
                    let jitter = (self.carrier.jitter)();
                    let next_look = next_try(&Schedule::DATABASE, failures, clock.now(), jitter);
                    tracing::error!(
                        error = %error.in_full(), failures,
                        "The worker cannot reach the database; next try at {next_look}",
                    );
                    tokio::select! {
                        biased;
                        () = &mut stop => break,
                        () = clock.until(next_look) => {}
                    }
                }
            }
        }
        self.finish(grace).await;
    }

    /// Claims what is due and sends it off, and tells when to look again.
    async fn take_up(&mut self) -> Result<Timestamp, store::Error> {
        let now = self.carrier.clock.now();
        let mut next_look = later(now, self.carrier.pace.look_again);
        for due in self.carrier.store.next_due().await? {
            if due.at > now {
                next_look = next_look.min(due.at);
                continue;
            }
            let places = self.free_places(&due.plan);
            let Some(limit) = u32::try_from(places.len()).ok().filter(|limit| *limit > 0) else {
                // Whoever arrives makes room, and that wakes us.
                continue;
            };
            let lease = self.carrier.lease();
            let held = self
                .carrier
                .store
                .claim(&due.plan, now, lease, limit)
                .await?;
            for (delivery, place) in held.into_iter().zip(places) {
                self.send_off(delivery, place);
            }
            // There may be more of it.
            next_look = now;
        }
        Ok(next_look)
    }

    fn free_places(&mut self, plan: &str) -> Vec<OwnedSemaphorePermit> {
        let room = self
            .rooms
            .entry(self.carrier.courier.service(plan))
            .or_insert_with(|| Arc::new(Semaphore::new(self.carrier.pace.at_once)));
        std::iter::from_fn(|| Arc::clone(room).try_acquire_owned().ok()).collect()
    }

    fn send_off(&mut self, delivery: Claimed, place: OwnedSemaphorePermit) {
        let carrier = Arc::clone(&self.carrier);
        let cut = self.cut.subscribe();
        self.under_way.spawn(async move {
            carrier.carry(delivery, cut).await;
            drop(place);
        });
    }

    async fn finish(mut self, grace: Duration) {
        let clock = self.carrier.clock.clone();
        let end = later(clock.now(), grace);
        if clock.before(end, self.all_ended()).await.is_none() {
            tracing::info!(
                under_way = self.under_way.len(),
                "Giving back the deliveries that are still under way"
            );
            self.cut.send_replace(true);
            self.all_ended().await;
        }
    }

    async fn all_ended(&mut self) {
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
