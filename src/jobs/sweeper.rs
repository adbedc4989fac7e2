//! The sweeper: finds the outcome of each sign-up that got no `post`, and releases unused reservations.
//!
//! Any number of instances can sweep one database: a flow is leased to the instance that looks it up.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::EndLabels;
use crate::checks::Rules;
use crate::checks::account_lookup::Lookup;
use crate::checks::follow_up::reports_traits;
use crate::jobs::driver::{Job, JobError};
use crate::kratos::Flow;
use crate::kratos::fingerprint::{fingerprint, guard_id};
use crate::model::delivery::Event;
use crate::model::pending::{FlowRecord, LookupKind, LookupTimes, PendingSignUp, PendingState};
use crate::model::reservation::ReleaseReason;
use crate::store::attribution::attribute;
use crate::store::group_commit::WriteResult;
use crate::store::known_identities::{IdentityTracker, write_found};
use crate::store::outbox::Outbox;
use crate::store::{self, FlowState, PendingEnd, Store, WriteSet};

/// How many flows are looked up in parallel.
const MAX_CONCURRENT: usize = 8;
/// How many flows are leased together.
const PAGE: u32 = 64;
/// How many flows are looked up because of an unreadable `post` before planned look-ups continue. The number is small,
/// because the calls of urgent look-ups wait for each other.
const URGENT_PAGE: u32 = 4;
/// How many calls to Kratos's admin API begin in a second because of unreadable `post` calls. Each instance has this
/// limit.
pub const URGENT_CALLS_PER_SECOND: usize = 10;
/// The length of a lease. A lease is longer than the look-ups of a page.
const LEASE: Duration = Duration::from_mins(5);
/// How often to check for new sign-ups, unused reservations, and unfinished work of other instances. Must not be
/// longer than the first look-up after an acceptance.
const SWEEP_AGAIN: Duration = Duration::from_secs(5);
/// The minimum time between two look-ups of all recent sign-ups. Visitors can cause unreadable `post` calls, so not
/// each of these calls starts a look-up.
const MIN_SWEEP_NOW_INTERVAL: Duration = Duration::from_secs(5);
/// An unreadable `post` belongs to a sign-up that was accepted within this time.
const UNREADABLE_POST_IS_ABOUT: TimeDelta = TimeDelta::minutes(5);

/// Looks up pending sign-ups, and releases unused reservations.
pub struct Sweeper {
    /// Stores pending sign-ups and reservations.
    pub store: Arc<dyn Store>,
    /// Finds identities. Without a look-up, reservations are only released by time.
    pub lookup: Option<Lookup>,
    /// The look-up for unreadable `post` calls. The calls of this look-up wait for [`URGENT_CALLS_PER_SECOND`].
    pub urgent_lookup: Option<Lookup>,
    /// Decides what to do after an outcome.
    pub rules: Arc<Rules>,
    /// When sign-ups are looked up.
    pub times: LookupTimes,
    /// Stores what follows from an outcome.
    pub outbox: Outbox,
    /// Records what is reported about identities.
    pub tracker: Option<Arc<IdentityTracker>>,
    /// Requests a look-up of all recent sign-ups.
    pub sweep_now: Arc<Notify>,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The flows that are leased to this instance and not yet looked up.
    pub leased: Mutex<BTreeMap<Uuid, FlowRecord>>,
    /// Whether Kratos did not answer the last look-up. Only the first of several failures is logged.
    pub is_unanswered: AtomicBool,
}

/// The sweeper as a background job.
pub struct Sweep {
    sweeper: Sweeper,
    /// Whether a look-up of all recent sign-ups was requested and has not been done.
    is_requested: bool,
    /// When the next look-up of all recent sign-ups may begin.
    may_sweep_now: Timestamp,
}

impl Sweep {
    /// Sweeps when something is due or requested.
    #[must_use]
    pub fn new(sweeper: Sweeper) -> Self {
        Self {
            may_sweep_now: sweeper.clock.now(),
            sweeper,
            is_requested: false,
        }
    }
}

#[async_trait]
impl Job for Sweep {
    fn name(&self) -> &'static str {
        "sweeper"
    }

    async fn run(&mut self) -> Result<Timestamp, JobError> {
        // The leases of a run that failed or panicked expire. Until then, a flow that cannot be processed does not hold
        // up the others.
        self.sweeper.leased().clear();
        let now = self.sweeper.clock.now();
        if self.is_requested && now >= self.may_sweep_now {
            self.may_sweep_now = saturating_add(now, MIN_SWEEP_NOW_INTERVAL);
            self.is_requested = !self.sweeper.look_up_all_now().await;
        }
        let next = self.sweeper.sweep().await?;
        Ok(if self.is_requested {
            next.min(self.may_sweep_now)
        } else {
            next
        })
    }

    async fn wake(&mut self) {
        if self.is_requested {
            pending::<()>().await;
        }
        self.sweeper.sweep_now.notified().await;
        self.is_requested = true;
    }

    /// Returns the leases of a run that was interrupted. The next instance repeats it.
    async fn finish(&mut self) {
        self.sweeper.return_leases().await;
    }
}

/// The result of a look-up of one submission.
enum LookedUp {
    /// The submission has this identity.
    Found(Uuid, Value),
    /// There is no identity.
    NotFound,
    /// Kratos gave no usable answer.
    NoResponse,
}

impl Sweeper {
    /// Schedules look-ups of all recent sign-ups, because an unreadable `post` reported the account of one of them.
    /// Returns `false` if the database failed.
    async fn look_up_all_now(&self) -> bool {
        let now = self.clock.now();
        let since = now - UNREADABLE_POST_IS_ABOUT;
        match self.store.look_up_all_now(now, since).await {
            // The recent sign-ups were looked up shortly before, or will be soon.
            Ok(0) => true,
            Ok(flows) => {
                tracing::warn!(flows, "Looking up {flows} recent sign-ups without a `post`");
                true
            }
            Err(error) => {
                tracing::error!(error = %error.error_chain(), "Pending sign-ups cannot be looked up");
                false
            }
        }
    }

    /// Processes what is due, and returns when to sweep again.
    async fn sweep(&self) -> Result<Timestamp, Arc<store::Error>> {
        // The time is taken before the work. What becomes due during the work then waits no longer than usual.
        let next_sweep = self.times.after_acceptance[0].min(SWEEP_AGAIN);
        let next_sweep = saturating_add(self.clock.now(), next_sweep);
        self.process_planned().await?;
        self.release_unused().await?;
        // Only one page is processed, because the calls of urgent look-ups are limited. More pages would delay the
        // rest.
        self.process_page(LookupKind::Urgent, URGENT_PAGE).await?;
        let next = self.store.next_lookup().await?;
        Ok(next.map_or(next_sweep, |next| next.min(next_sweep)))
    }

    async fn process_planned(&self) -> Result<(), Arc<store::Error>> {
        while self.process_page(LookupKind::Planned, PAGE).await? {}
        Ok(())
    }

    /// Looks up a page of flows. Returns `false` if no flow was due.
    async fn process_page(&self, kind: LookupKind, page: u32) -> Result<bool, Arc<store::Error>> {
        let now = self.clock.now();
        let flows = self.store.lease_flows(kind, now, LEASE, page).await?;
        if flows.is_empty() {
            return Ok(false);
        }
        self.leased()
            .extend(flows.iter().map(|one| (one.flow_id, one.clone())));
        let lookup = match kind {
            LookupKind::Planned => self.lookup.as_ref(),
            LookupKind::Urgent => self.urgent_lookup.as_ref(),
        };
        let done: Vec<Result<(), Arc<store::Error>>> = futures_util::stream::iter(flows)
            .map(|record| async move {
                let flow_id = record.flow_id;
                let processed = self.process(record, lookup).await;
                self.leased().remove(&flow_id);
                processed
            })
            .buffer_unordered(MAX_CONCURRENT)
            .collect()
            .await;
        done.into_iter().collect::<Result<(), _>>()?;
        Ok(true)
    }

    fn leased(&self) -> MutexGuard<'_, BTreeMap<Uuid, FlowRecord>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the leases of flows that were not looked up, so that they are due again.
    async fn return_leases(&self) {
        let leased = std::mem::take(&mut *self.leased());
        let now = self.clock.now();
        for record in leased.values() {
            // If a lease cannot be returned, it expires.
            let _ = self.store.reschedule_lookup(record, Some(now)).await;
        }
    }

    async fn process(
        &self,
        record: FlowRecord,
        lookup: Option<&Lookup>,
    ) -> Result<(), Arc<store::Error>> {
        // What becomes due during the look-up is due after it.
        let started = self.clock.now();
        let mut is_answered = true;
        let state = self.store.flow(record.flow_id).await?;
        let unattributed = || {
            let all = state.pending.iter().rev();
            all.filter(|one| one.state != PendingState::Attributed)
        };
        // If Kratos certainly keeps Vestibule's `external_id`, one look-up by this id covers all submissions of the flow,
        // because the identity is younger than the first submission.
        let mut by_guard = None;
        for one in unattributed() {
            let looked_up = match (lookup, &by_guard) {
                (Some(lookup), _) if !lookup.is_guarded(one).await => {
                    self.look_up(lookup, one).await
                }
                (Some(lookup), None) => {
                    let first = unattributed()
                        .filter(|one| one.guarded)
                        .min_by_key(|one| one.last_known_absent_at)
                        .unwrap_or(one);
                    by_guard = Some(());
                    self.look_up(lookup, first).await
                }
                (Some(_), Some(())) | (None, _) => LookedUp::NotFound,
            };
            match looked_up {
                LookedUp::Found(id, identity)
                    if !is_of_another(one, id, &state)
                        && self.can_be_of(one, &identity)
                        && self.is_attributed_to(one, id, &identity).await? =>
                {
                    if self.on_found(one, id, &identity).await? {
                        return Ok(self.store.reschedule_lookup(&record, None).await?);
                    }
                }
                LookedUp::Found(..) | LookedUp::NotFound => self.not_found(one).await?,
                LookedUp::NoResponse => is_answered = false,
            }
            if !is_answered {
                break;
            }
        }
        let next = if is_answered {
            self.report_failure(&record).await?;
            self.times.next(&record, started)
        } else {
            Some(self.times.retry(&record, self.clock.now()))
        };
        Ok(self.store.reschedule_lookup(&record, next).await?)
    }

    async fn look_up(&self, lookup: &Lookup, one: &PendingSignUp) -> LookedUp {
        let found = lookup.find(one).await;
        let was_unanswered = self.is_unanswered.swap(found.is_err(), Ordering::Relaxed);
        match found {
            Ok(found) => {
                if was_unanswered {
                    tracing::info!("Kratos's admin API answers look-ups of sign-ups again");
                }
                found.map_or(LookedUp::NotFound, |(id, identity)| {
                    LookedUp::Found(id, identity)
                })
            }
            Err(error) => {
                if !was_unanswered {
                    tracing::error!(
                        flow.id = %one.key.flow_id, %error,
                        "ALARM: Kratos's admin API does not answer, so Vestibule cannot look up accepted sign-ups without a `post`; \
                         look-ups are retried with growing intervals"
                    );
                }
                LookedUp::NoResponse
            }
        }
    }

    /// Returns whether the identity can belong to this flow, rather than to another flow of the same visitor. Without
    /// Vestibule's `external_id`, the identity must have the traits of the submission. Traits that a later hook
    /// changed count only after the end of the flow. By then, every other flow has had its look-ups.
    fn can_be_of(&self, one: &PendingSignUp, identity: &Value) -> bool {
        let has_guard_id = identity["external_id"].as_str() == Some(&guard_id(one.key.flow_id));
        let has_its_traits = fingerprint(&identity["traits"]) == one.hash.traits;
        let is_over = self.times.is_over(one.expires_at, self.clock.now());
        one.flow != Flow::Registration || has_guard_id || has_its_traits || is_over
    }

    /// Returns whether the identity is attributed to this flow, and not to another flow of the same visitor.
    async fn is_attributed_to(
        &self,
        one: &PendingSignUp,
        id: Uuid,
        identity: &Value,
    ) -> Result<bool, Arc<store::Error>> {
        let flow_id = one.key.flow_id;
        let has_guard_id = identity["external_id"].as_str() == Some(&guard_id(flow_id));
        if one.flow != Flow::Registration || has_guard_id || !self.rules.needs_attribution() {
            return Ok(true);
        }
        Ok(attribute(&*self.store, id, flow_id, self.clock.now()).await?)
    }

    /// Stores what the lost `post` would have stored. Returns whether the flow is closed.
    async fn on_found(
        &self,
        one: &PendingSignUp,
        id: Uuid,
        identity: &Value,
    ) -> Result<bool, Arc<store::Error>> {
        let flow_id = one.key.flow_id;
        let state = self.store.flow(flow_id).await?;
        let is_closed = |state: &FlowState| {
            let record = state.record.as_ref();
            record.is_some_and(|record| record.identity_id.is_some())
        };
        if !is_still(one, &state) {
            return Ok(is_closed(&state));
        }
        if is_of_another(one, id, &state) {
            self.not_found(one).await?;
            return Ok(is_closed(&state));
        }
        let attributed = if one.flow == Flow::Settings {
            self.store.attributed_to(id).await?
        } else {
            Vec::new()
        };
        let now = self.clock.now();
        let found = (id, identity);
        let resolved = self.rules.on_found(one, found, &state, &attributed, now);
        if resolved.is_stale {
            return Ok(false);
        }
        let closes = !resolved.batch.closed.is_empty();
        let known = match &self.tracker {
            Some(tracker) if reports_traits(one.flow, &one.method) => {
                tracker.state_of(identity, now).await?
            }
            _ => None,
        };
        let Some(stored) = unless_conflict(write_found(&self.outbox, resolved.batch, known).await)?
        else {
            return Ok(false);
        };
        if stored == 0 && resolved.too_late.is_empty() && resolved.doubt.is_none() {
            // The `post` has just arrived.
            return Ok(closes);
        }
        self.count("created");
        tracing::warn!(
            flow.id = %flow_id, identity.id = %id, stored,
            "Recovered a lost `post`: stored {stored} deliveries"
        );
        for check in &resolved.taken_again {
            tracing::warn!(
                flow.id = %flow_id, identity.id = %id, check,
                "The account was found after the reservation of check `{check}` was released; the reservation is taken again"
            );
        }
        for check in &resolved.too_late {
            self.metrics.posts_after_release.inc();
            tracing::error!(
                flow.id = %flow_id, identity.id = %id, check,
                "ALARM: an account was found after the reservation of check `{check}` was released, and it cannot be taken again; see \
                 `vestibule deliveries list --state abandoned`"
            );
        }
        if let Some(doubt) = resolved.doubt {
            tracing::error!(
                flow.id = %flow_id, identity.id = %id, doubt = doubt.as_str(),
                "ALARM: an account was found whose traits match no accepted submission of its flow; see \
                 `vestibule deliveries list --state abandoned`"
            );
        }
        Ok(closes)
    }

    /// Ends a submission as one without an account, once that is proven.
    async fn not_found(&self, one: &PendingSignUp) -> Result<(), Arc<store::Error>> {
        if one.state != PendingState::Open {
            return Ok(());
        }
        let now = self.clock.now();
        let is_over = self.times.is_over(one.expires_at, now);
        let (can_be_found, is_guarded) = match &self.lookup {
            Some(lookup) => (lookup.can_find(one).await, lookup.is_guarded(one).await),
            None => (false, false),
        };
        // Without the guard, Kratos can save an identity until the flow expires.
        let is_certain = (is_guarded || one.flow != Flow::Registration)
            && can_be_found
            && self.times.is_conclusive(one.accepted_at, now);
        if !is_over && !is_certain {
            return Ok(());
        }
        let end = if can_be_found {
            PendingEnd::NeverCreated
        } else {
            PendingEnd::Undecided
        };
        let state = self.store.flow(one.key.flow_id).await?;
        if !is_still(one, &state) {
            return Ok(());
        }
        let batch = self.rules.on_never_created(one, end, &state, now);
        if self.write(batch).await?.is_none() {
            return Ok(());
        }
        self.count(end.as_str());
        let flow_id = one.key.flow_id;
        if end == PendingEnd::Undecided {
            tracing::warn!(
                flow.id = %flow_id, method = one.method,
                "The outcome of an accepted sign-up cannot be determined; `vestibule reconcile` finds its account if there is one"
            );
        } else {
            tracing::info!(flow.id = %flow_id, "An accepted sign-up has no account");
        }
        Ok(())
    }

    /// Delivers `registration.failed` after the end of a registration flow if none of its submissions has an account.
    async fn report_failure(&self, record: &FlowRecord) -> Result<(), Arc<store::Error>> {
        let now = self.clock.now();
        if record.flow != Flow::Registration
            || !self.rules.wants(Event::RegistrationFailed)
            || !self.times.is_over(record.expires_at, now)
        {
            return Ok(());
        }
        let state = self.store.flow(record.flow_id).await?;
        let is_closed = state
            .record
            .as_ref()
            .is_none_or(|record| record.identity_id.is_some());
        let all_failed = state
            .pending
            .iter()
            .all(|one| one.state == PendingState::NeverCreated);
        let Some(newest) = state.pending.last().filter(|_| all_failed && !is_closed) else {
            return Ok(());
        };
        let batch = WriteSet::of(self.rules.failed(newest, now));
        self.write(batch).await?;
        Ok(())
    }

    /// Releases the reservations that no submission can use any more.
    async fn release_unused(&self) -> Result<(), Arc<store::Error>> {
        loop {
            let now = self.clock.now();
            let expired_at = saturating_add(now, Duration::ZERO) - self.times.after_expiry;
            let unused = self
                .store
                .unused_reservations(now, expired_at, PAGE)
                .await?;
            if unused.is_empty() {
                return Ok(());
            }
            for reservation in &unused {
                let because = if reservation.expires_at <= expired_at {
                    ReleaseReason::Expired
                } else {
                    ReleaseReason::NotUsed
                };
                let mut batch = WriteSet::default();
                let state = self.store.flow(reservation.flow_id).await?;
                self.rules
                    .release(&mut batch, reservation, because, &state.pending, now);
                if self.write(batch).await?.is_none() {
                    continue;
                }
                tracing::info!(
                    flow.id = %reservation.flow_id, check = reservation.check, reason = because.as_str(),
                    "Released a reservation that no submission can use any more"
                );
            }
        }
    }

    /// Stores the write set. `None`: a row has changed meanwhile, and nothing was stored.
    async fn write(&self, batch: WriteSet) -> Result<Option<usize>, Arc<store::Error>> {
        unless_conflict(self.outbox.write(batch).await)
    }

    fn count(&self, end: &'static str) {
        let labels = EndLabels { end };
        self.metrics.pending_ended.get_or_create(&labels).inc();
    }
}

/// Returns `None` after a conflict with another write.
fn unless_conflict(written: WriteResult<usize>) -> Result<Option<usize>, Arc<store::Error>> {
    match written {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if matches!(*error, store::Error::Conflict) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether the identity belongs to another submission of the registration flow. Then this submission has no
/// identity.
fn is_of_another(one: &PendingSignUp, id: Uuid, state: &FlowState) -> bool {
    one.flow == Flow::Registration
        && state
            .pending
            .iter()
            .any(|other| other.key != one.key && other.identity_id == Some(id))
}

/// Returns whether the submission is unchanged since it was read. The `post` may have arrived during the look-up.
fn is_still(one: &PendingSignUp, state: &FlowState) -> bool {
    state.pending.iter().any(|now| {
        now.key == one.key && now.accepted_at == one.accepted_at && now.state == one.state
    })
}
