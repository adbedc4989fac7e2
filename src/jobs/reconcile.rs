//! Reconciliation: compares Kratos's identities with what was delivered. Finds missing and deleted identities.

mod checkpoint;
mod cutoff;
mod deleted;
mod error;
mod missing;
mod report;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::expression::Lists;
use crate::model::delivery::{Event, Subscription};
use crate::outbound::kratos_admin::KratosAdmin;
use crate::store::lock::NamedLock;
use crate::store::{self, Store};
use checkpoint::Place;
use cutoff::Past;

pub use cutoff::record_first_seen;
pub use error::Error;
pub use report::{Progress, Report};

/// The name of the lock.
const TURN: &str = "reconcile";

/// What reconciliation needs.
pub struct Deps {
    /// Stores deliveries.
    pub store: Arc<dyn Store>,
    /// The client of Kratos's admin API.
    pub identities: KratosAdmin,
    /// The subscriptions of the settings.
    pub plans: Vec<Subscription>,
    /// The lists of the settings.
    pub lists: Arc<Lists>,
    /// Wakes the dispatcher.
    pub stored: Arc<Notify>,
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
    pub believe_all_gone: bool,
}

/// Compares Kratos's identities with what was delivered.
pub struct Reconciler {
    store: Arc<dyn Store>,
    identities: KratosAdmin,
    plans: Vec<Subscription>,
    /// The names of subscriptions that reconciliation cannot decide about.
    left_out: Vec<String>,
    lists: Arc<Lists>,
    stored: Arc<Notify>,
    clock: Clock,
    metrics: Arc<Metrics>,
    wishes: RoundOptions,
    holder: Uuid,
}

/// A round in progress.
struct Round<'a> {
    reconciler: &'a Reconciler,
    witness: &'a dyn Progress,
    began_at: Timestamp,
    past: Past,
    turn: Option<NamedLock<'a>>,
    report: Report,
    /// Whether this Kratos is the right one: it has an identity with stored data.
    saw_known_identity: bool,
}

impl Reconciler {
    /// Reconciles the subscriptions to `identity.created`.
    #[must_use]
    pub fn new(knows: Deps, wishes: RoundOptions) -> Self {
        let of_new_identities = knows
            .plans
            .into_iter()
            .filter(|plan| plan.events.contains(&Event::IdentityCreated));
        // For a subscription that reads the flow, a missing delivery may be intended: its `post` may have decided
        // against a delivery.
        let (plans, left_out): (Vec<Subscription>, Vec<Subscription>) =
            of_new_identities.partition(Subscription::is_decided_by_the_identity);
        Self {
            store: knows.store,
            identities: knows.identities,
            plans,
            left_out: left_out.into_iter().map(|plan| plan.name).collect(),
            lists: knows.lists,
            stored: knows.stored,
            clock: knows.clock,
            metrics: knows.metrics,
            wishes,
            holder: Uuid::new_v4(),
        }
    }

    /// Compares every identity once. A round that was interrupted is continued.
    pub async fn round(&self, witness: &dyn Progress) -> Result<Report, Error> {
        let turn = if self.wishes.dry_run {
            None
        } else {
            let turn = NamedLock::take(&*self.store, &self.clock, TURN, self.holder).await?;
            Some(turn.ok_or(Error::Busy)?)
        };
        for plan in &self.left_out {
            witness.left_out(plan);
            tracing::warn!(
                plan,
                "Reconciliation leaves out the subscription `{plan}`: its `when` reads `flow`, `request` or `method`, which only \
                 a hook has"
            );
        }
        let past = Past::of(&*self.store, &self.clock, &self.plans, self.wishes.since).await?;
        let mut round = Round {
            reconciler: self,
            witness,
            began_at: self.clock.now(),
            past,
            turn,
            report: Report::default(),
            saw_known_identity: false,
        };
        let done = round.go().await;
        let report = round.report;
        if !self.wishes.dry_run {
            report.count(&self.metrics);
            // If the release fails, the lock expires.
            let _ = self.release_lock().await;
        }
        done.map(|()| report)
    }

    /// Releases the lock of an interrupted round, so that the next round does not have to wait.
    pub async fn release_lock(&self) -> Result<(), store::Error> {
        self.store.release_lock(TURN, self.holder).await
    }

    /// Waits for the time that `number` identities take at the permitted rate, counted from `began`.
    async fn pause(&self, began: Timestamp, number: usize) {
        let pause = Duration::from_secs(number as u64) / self.wishes.per_second.max(1);
        self.clock.sleep_until(saturating_add(began, pause)).await;
    }
}

impl Round<'_> {
    async fn go(&mut self) -> Result<(), Error> {
        let place = self.interrupted().await?.map(|checkpoint| {
            self.began_at = checkpoint.began_at;
            tracing::info!(
                began_at = %self.began_at,
                "Continuing an interrupted reconciliation"
            );
            checkpoint.place
        });
        let kept_after = match place {
            Some(Place::Kept(after)) => after,
            Some(Place::Page(token)) => self.pages(Some(token)).await?,
            None => self.pages(None).await?,
        };
        self.those_we_keep(kept_after).await?;
        self.is_done().await?;
        Ok(())
    }

    /// Extends the lock. An error if another instance holds the lock.
    async fn hold(&mut self) -> Result<(), Error> {
        match &mut self.turn {
            Some(turn) => turn.hold().await?.then_some(()).ok_or(Error::Busy),
            None => Ok(()),
        }
    }
}
