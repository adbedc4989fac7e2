//! Reconciliation: compares Kratos's identities with the stored deliveries. Finds missing and deleted identities.

mod checkpoint;
mod cutoff;
mod deleted;
mod error;
mod missing;
mod report;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::checks::Rules;
use crate::model::delivery::{Event, Subscription};
use crate::outbound::kratos_admin::KratosAdmin;
use crate::store::lock::NamedLock;
use crate::store::outbox::Outbox;
use crate::store::{self, Store};
use checkpoint::Next;
use cutoff::Cutoff;

pub use cutoff::record_first_seen;
pub use error::Error;
pub use report::{Progress, Report};
pub use schedule::Reconciliation;

/// The name of the lock.
const LOCK: &str = "reconcile";

/// What reconciliation needs.
pub struct Deps {
    /// Stores deliveries.
    pub store: Arc<dyn Store>,
    /// The client of Kratos's admin API.
    pub identities: KratosAdmin,
    /// The rules.
    pub rules: Arc<Rules>,
    /// Stores missing deliveries.
    pub outbox: Outbox,
    /// The clock.
    pub clock: Clock,
    /// The metrics that count findings.
    pub metrics: Arc<Metrics>,
}

/// The options of a round.
#[derive(Clone, Copy, Debug)]
pub struct RoundOptions {
    /// Accounts created from this time on are delivered to all subscriptions. `None`: only accounts that are newer
    /// than the database and the subscription.
    pub since: Option<Timestamp>,
    /// How many identities are compared in a second.
    pub per_second: u32,
    /// Only report, and change nothing.
    pub dry_run: bool,
    /// Erase data even if Kratos has none of many stored identities.
    pub allow_mass_erasure: bool,
}

/// Compares Kratos's identities with the stored deliveries.
pub struct Reconciler {
    store: Arc<dyn Store>,
    identities: KratosAdmin,
    subscriptions: Vec<Subscription>,
    /// The names of subscriptions that reconciliation cannot decide about.
    left_out: Vec<String>,
    rules: Arc<Rules>,
    outbox: Outbox,
    clock: Clock,
    metrics: Arc<Metrics>,
    options: RoundOptions,
    holder: Uuid,
}

/// A round in progress.
struct Round<'a> {
    reconciler: &'a Reconciler,
    progress: &'a dyn Progress,
    began_at: Timestamp,
    cutoff: Cutoff,
    lock: Option<NamedLock<'a>>,
    report: Report,
    /// Whether this Kratos is the right one: it has an identity with stored data.
    saw_known_identity: bool,
}

impl Reconciler {
    /// Reconciles the subscriptions to `identity.created`.
    #[must_use]
    pub fn new(deps: Deps, options: RoundOptions) -> Self {
        let subscriptions = deps.rules.subscriptions().iter();
        let of_new_identities = subscriptions
            .filter(|subscription| subscription.events.contains(&Event::IdentityCreated))
            .cloned();
        // For a subscription that reads the flow, a missing delivery may be intended: its `post` may have decided
        // against a delivery.
        let (subscriptions, left_out): (Vec<Subscription>, Vec<Subscription>) =
            of_new_identities.partition(Subscription::is_decided_by_the_identity);
        Self {
            store: deps.store,
            identities: deps.identities,
            subscriptions,
            left_out: left_out
                .into_iter()
                .map(|subscription| subscription.name)
                .collect(),
            rules: deps.rules,
            outbox: deps.outbox,
            clock: deps.clock,
            metrics: deps.metrics,
            options,
            holder: Uuid::new_v4(),
        }
    }

    /// Compares every identity once. A round that was interrupted is continued.
    pub async fn round(&self, progress: &dyn Progress) -> Result<Report, Error> {
        let lock = if self.options.dry_run {
            None
        } else {
            let lock = NamedLock::acquire(&*self.store, &self.clock, LOCK, self.holder).await?;
            Some(lock.ok_or(Error::Busy)?)
        };
        for subscription in &self.left_out {
            progress.left_out(subscription);
            tracing::warn!(
                subscription,
                "Reconciliation leaves out the subscription `{subscription}`: its `when` reads `flow`, `request` or `method`, which only \
                 a hook has"
            );
        }
        let cutoff = Cutoff::of(
            &*self.store,
            &self.clock,
            &self.subscriptions,
            self.options.since,
        )
        .await?;
        let mut round = Round {
            reconciler: self,
            progress,
            began_at: self.clock.now(),
            cutoff,
            lock,
            report: Report::default(),
            saw_known_identity: false,
        };
        let done = round.run_to_end().await;
        let report = round.report;
        if !self.options.dry_run {
            report.count(&self.metrics);
            // If the release fails, the lock expires.
            let _ = self.release_lock().await;
        }
        done.map(|()| report)
    }

    /// Releases the lock of an interrupted round, so that the next round does not have to wait.
    pub async fn release_lock(&self) -> Result<(), store::Error> {
        self.store.release_lock(LOCK, self.holder).await
    }

    /// Waits for the time that `number` identities take at the permitted rate, counted from `began`.
    async fn pause(&self, began: Timestamp, number: usize) {
        let pause = Duration::from_secs(number as u64) / self.options.per_second.max(1);
        self.clock.sleep_until(saturating_add(began, pause)).await;
    }
}

impl Round<'_> {
    async fn run_to_end(&mut self) -> Result<(), Error> {
        let next = self.interrupted().await?.map(|checkpoint| {
            self.began_at = checkpoint.began_at;
            tracing::info!(
                began_at = %self.began_at,
                "Continuing an interrupted reconciliation"
            );
            checkpoint.next
        });
        let kept_after = match next {
            Some(Next::Stored(after)) => after,
            Some(Next::Page(token)) => self.pages(Some(token)).await?,
            None => self.pages(None).await?,
        };
        self.check_stored(kept_after).await?;
        self.store_completion().await?;
        Ok(())
    }

    /// Renews the lock. Returns an error if another instance holds the lock.
    async fn renew_lock(&mut self) -> Result<(), Error> {
        match &mut self.lock {
            Some(lock) => lock.renew().await?.then_some(()).ok_or(Error::Busy),
            None => Ok(()),
        }
    }
}
