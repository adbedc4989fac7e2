//! Reconciliation: compares Kratos's identities with the stored deliveries, and with what was reported of each identity.
//! Finds missing, changed and deleted identities.

mod changed;
mod checkpoint;
mod cutoff;
mod deleted;
mod error;
mod known;
mod missing;
mod report;
mod schedule;
mod unseen;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::checks::Rules;
use crate::model::delivery::{Event, Subscription};
use crate::outbound::kratos_admin::KratosAdmin;
use crate::store::known_identities::{IdentityTracker, all_are_known};
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
    /// Knows what was reported of each identity; `None` if no subscription wants what no hook reports.
    pub tracker: Option<Arc<IdentityTracker>>,
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
    /// Whether changes that no hook reported are delivered as `identity.updated`. Deletions always are.
    pub reports_changes: bool,
}

/// Compares Kratos's identities with the stored deliveries.
pub struct Reconciler {
    store: Arc<dyn Store>,
    identities: KratosAdmin,
    subscriptions: Vec<Subscription>,
    /// The subscriptions that reconciliation cannot decide about, and their event.
    left_out: Vec<(String, Event)>,
    tracking: Option<Tracking>,
    rules: Arc<Rules>,
    outbox: Outbox,
    clock: Clock,
    metrics: Arc<Metrics>,
    options: RoundOptions,
    holder: Uuid,
}

/// What finds changes and deletions that no hook reported, and who wants them.
struct Tracking {
    tracker: Arc<IdentityTracker>,
    /// The subscriptions to `identity.updated`.
    changes: Vec<Subscription>,
    /// The subscriptions to `identity.deleted`.
    deletions: Vec<Subscription>,
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
    /// Whether identities are only recorded, because not all of them were known before.
    is_first: bool,
}

impl Reconciler {
    /// Reconciles the subscriptions to `identity.created`, and to changes and deletions that no hook reports.
    #[must_use]
    pub fn new(deps: Deps, options: RoundOptions) -> Self {
        let of_event = |event: Event| {
            let subscriptions = deps.rules.subscriptions().iter();
            subscriptions.filter(move |one| one.events.contains(&event))
        };
        // For a subscription that reads the flow, a missing delivery may be intended: its `post` may have decided
        // against a delivery.
        let (subscriptions, undecided) = partition(
            of_event(Event::IdentityCreated),
            Subscription::is_decided_by_the_identity,
        );
        let mut left_out = with_event(undecided, Event::IdentityCreated);
        let tracking = deps.tracker.map(|tracker| {
            let wanted = of_event(Event::IdentityUpdated).filter(|_| options.reports_changes);
            let (changes, undecided) =
                partition(wanted, Subscription::is_decided_by_the_changed_identity);
            left_out.extend(with_event(undecided, Event::IdentityUpdated));
            Tracking {
                tracker,
                changes,
                deletions: of_event(Event::IdentityDeleted).cloned().collect(),
            }
        });
        Self {
            store: deps.store,
            identities: deps.identities,
            subscriptions,
            left_out,
            tracking,
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
        for (subscription, event) in &self.left_out {
            progress.left_out(subscription, *event);
            tracing::warn!(
                subscription, %event,
                "Reconciliation leaves out the subscription `{subscription}` for `{event}`: its `when` reads {}, which only a hook has",
                only_of_hooks(*event)
            );
        }
        let cutoff = Cutoff::of(
            &*self.store,
            &self.clock,
            &self.subscriptions,
            self.options.since,
        )
        .await?;
        let is_first = !all_are_known(&*self.store).await?;
        let mut round = Round {
            reconciler: self,
            progress,
            began_at: self.clock.now(),
            cutoff,
            lock,
            report: Report::default(),
            saw_known_identity: false,
            is_first,
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
        self.check_kratos().await?;
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
            Some(Next::Unseen) => self.check_unseen().await?,
            Some(Next::Page(token)) => self.pages_and_unseen(Some(token)).await?,
            None => self.pages_and_unseen(None).await?,
        };
        self.check_stored(kept_after).await?;
        self.store_completion().await?;
        Ok(())
    }

    /// Compares all pages from this one on, and then looks for known identities that no page had. Returns the id after
    /// which the stored identities continue.
    async fn pages_and_unseen(&mut self, from: Option<String>) -> Result<Uuid, Error> {
        self.pages(from).await?;
        self.store_checkpoint(Next::Unseen).await?;
        self.check_unseen().await
    }

    /// Renews the lock. Returns an error if another instance holds the lock.
    async fn renew_lock(&mut self) -> Result<(), Error> {
        match &mut self.lock {
            Some(lock) => lock.renew().await?.then_some(()).ok_or(Error::Busy),
            None => Ok(()),
        }
    }
}

/// Returns the variables that only a hook has for an event that reconciliation finds.
#[must_use]
pub fn only_of_hooks(event: Event) -> &'static str {
    match event {
        Event::IdentityUpdated => "`previous`, `flow`, `request` or `method`",
        _ => "`flow`, `request` or `method`",
    }
}

/// Separates the subscriptions that reconciliation can decide about from the others.
fn partition<'s>(
    subscriptions: impl Iterator<Item = &'s Subscription>,
    is_decided: impl Fn(&Subscription) -> bool,
) -> (Vec<Subscription>, Vec<Subscription>) {
    subscriptions.cloned().partition(is_decided)
}

fn with_event(subscriptions: Vec<Subscription>, event: Event) -> Vec<(String, Event)> {
    let with_event = |subscription: Subscription| (subscription.name, event);
    subscriptions.into_iter().map(with_event).collect()
}
