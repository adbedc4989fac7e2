//! Kratos's identities beside what we have seen: whom nobody told of, and who is gone.

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

/// The name of the turn.
const TURN: &str = "reconcile";

/// What reconciling needs.
pub struct Deps {
    /// Where deliveries are kept.
    pub store: Arc<dyn Store>,
    /// The way to Kratos's identities.
    pub identities: KratosAdmin,
    /// The plans of the settings.
    pub plans: Vec<Subscription>,
    /// The lists of the settings.
    pub lists: Arc<Lists>,
    /// Wakes the worker.
    pub stored: Arc<Notify>,
    /// The time.
    pub clock: Clock,
    /// Where findings are counted.
    pub metrics: Arc<Metrics>,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct RoundOptions {
    /// Accounts made from then on are delivered to all plans; `None` leaves the past alone.
    pub since: Option<Timestamp>,
    /// So many identities are looked at in a second.
    pub per_second: u32,
    /// Only look.
    pub dry_run: bool,
    /// Believe Kratos even if it knows none of many that we know.
    pub believe_all_gone: bool,
}

/// Reconciles.
pub struct Reconciler {
    store: Arc<dyn Store>,
    identities: KratosAdmin,
    plans: Vec<Subscription>,
    /// The names of those that it cannot decide about.
    left_out: Vec<String>,
    lists: Arc<Lists>,
    stored: Arc<Notify>,
    clock: Clock,
    metrics: Arc<Metrics>,
    wishes: RoundOptions,
    holder: Uuid,
}

/// One round under way.
struct Round<'a> {
    reconciler: &'a Reconciler,
    witness: &'a dyn Progress,
    began_at: Timestamp,
    past: Past,
    turn: Option<NamedLock<'a>>,
    report: Report,
    /// Whether this is the Kratos that we know: it has an identity of which we have heard before.
    saw_known_identity: bool,
}

impl Reconciler {
    /// Reconciles for those of the plans that new identities are for.
    #[must_use]
    pub fn new(knows: Deps, wishes: RoundOptions) -> Self {
        let of_new_identities = knows
            .plans
            .into_iter()
            .filter(|plan| plan.events.contains(&Event::IdentityCreated));
        // Of an account without a delivery it cannot be told whether its `post` decided against one.
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

    /// Looks at every identity once. A round that was interrupted goes on where it was.
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
                "Plan `{plan}` is left out of the reconciliation: its `when` reads `flow`, `request` or `method`, which only a hook \
                 knows, so it cannot be told which identities it is for"
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
            // If it cannot be ended, the turn ends by itself.
            let _ = self.release_lock().await;
        }
        done.map(|()| report)
    }

    /// Ends the turn of a round that was cut off, so that the next need not wait.
    pub async fn release_lock(&self) -> Result<(), store::Error> {
        self.store.release_lock(TURN, self.holder).await
    }

    /// Waits as long as looking at `number` identities takes, since it began.
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
                "A reconciliation that was interrupted goes on"
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

    /// Goes on only while it is our turn.
    async fn hold(&mut self) -> Result<(), Error> {
        match &mut self.turn {
            Some(turn) => turn.hold().await?.then_some(()).ok_or(Error::Busy),
            None => Ok(()),
        }
    }
}
