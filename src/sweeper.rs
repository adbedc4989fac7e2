//! What became of each yes that no `post` has closed, and of what was taken for it.
//!
//! Any number of instances may sweep one database: an entry is leased to whoever looks.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::clock::{Clock, Timestamp, later};
use crate::delivery::backoff::{Schedule, next_try};
use crate::identities::shape::as_told_to_hooks;
use crate::identities::{self, Identities};
use crate::journal::{AFTER_THE_END, End, Entry};
use crate::kratos::Flow;
use crate::reservation::Because;
use crate::resolution::Resolution;
use crate::store::journal::claim;
use crate::store::{self, Batch, FlowState, Store};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ReasonLabels;

/// So many entries are looked at side by side.
const AT_ONCE: usize = 8;
/// So many are taken from the journal at a time.
const PAGE: u32 = 64;
/// Longer than looking at a page of them can take.
const LEASE: Duration = Duration::from_mins(5);
/// How often to look for what has expired, and for what other instances have left behind.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Not every unreadable `post` makes us look at everything, because a visitor can bring them about.
const HURRY_NO_MORE_OFTEN_THAN: Duration = Duration::from_secs(5);

/// Looks after the journal and the reservations.
pub struct Sweeper {
    /// Where they are.
    pub store: Arc<dyn Store>,
    /// Where accounts are looked up; without it only reservations expire.
    pub identities: Option<Identities>,
    /// What follows.
    pub resolution: Arc<Resolution>,
    /// Wakes the worker.
    pub stored: Arc<Notify>,
    /// Asks for a look at everything, at once.
    pub hurry: Arc<Notify>,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Sweeper {
    /// Sweeps until `stop` is done. What is under way then is done again by whoever comes next.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut failures = 0;
        let (mut hurries, mut may_hurry) = (false, self.clock.now());
        loop {
            if hurries && self.clock.now() >= may_hurry {
                may_hurry = later(self.clock.now(), HURRY_NO_MORE_OFTEN_THAN);
                hurries = !self.look_at_all().await;
            }
            // A defect in looking at one entry must not end the looking at all others.
            let sweep = AssertUnwindSafe(self.sweep()).catch_unwind();
            let swept = tokio::select! {
                biased;
                () = &mut stop => return,
                swept = sweep => swept,
            };
            let now = self.clock.now();
            let next = if let Ok(Ok(next)) = swept {
                failures = 0;
                next
            } else {
                let error = match swept {
                    Ok(Err(error)) => error.in_full(),
                    _ => "it broke down".to_owned(),
                };
                failures += 1;
                tracing::error!(error, "The journal cannot be looked through");
                next_try(&Schedule::DATABASE, failures, now, 0.5)
            };
            let next = if hurries { next.min(may_hurry) } else { next };
            tokio::select! {
                biased;
                () = &mut stop => return,
                () = self.hurry.notified(), if !hurries => hurries = true,
                () = self.clock.until(next) => {}
            }
        }
    }

    /// An account was made of which we were not told: whoever it was is among the open entries.
    async fn look_at_all(&self) -> bool {
        match self.store.look_at_all(self.clock.now()).await {
            Ok(entries) => {
                tracing::warn!(
                    entries,
                    "Looking at {entries} sign-ups of which no `post` has told"
                );
                true
            }
            Err(error) => {
                tracing::error!(error = %error.in_full(), "The journal cannot be looked through");
                false
            }
        }
    }

    /// Does what is due, and tells when to come again.
    async fn sweep(&self) -> Result<Timestamp, store::Error> {
        // Time goes on meanwhile, and what becomes due then must not wait for longer.
        let again = later(self.clock.now(), LOOK_AGAIN);
        self.look().await?;
        self.expire().await?;
        let next = self.store.next_look().await?;
        Ok(next.map_or(again, |next| next.min(again)))
    }

    async fn look(&self) -> Result<(), store::Error> {
        loop {
            let now = self.clock.now();
            let entries = self.store.take_entries(now, LEASE, PAGE).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let looks = futures_util::stream::iter(entries)
                .map(|entry| self.look_at(entry))
                .buffer_unordered(AT_ONCE);
            let failed: Vec<store::Error> =
                looks.filter_map(async |look| look.err()).collect().await;
            if let Some(error) = failed.into_iter().next() {
                return Err(error);
            }
        }
    }

    async fn look_at(&self, entry: Entry) -> Result<(), store::Error> {
        let found = match &self.identities {
            Some(identities) => find(identities, &entry).await,
            // Nobody can be asked any more.
            None => Ok(None),
        };
        let now = self.clock.now();
        match found {
            Ok(Some((id, identity))) if self.came_of(&entry, id, now).await? => {
                self.made(&entry, id, &identity, now).await
            }
            Ok(_) if entry.is_over(now) => self.ended(&entry, now).await,
            Ok(_) => {
                self.store
                    .look_again(entry.flow_id, entry.next_look(now))
                    .await
            }
            Err(error) => {
                tracing::warn!(flow.id = %entry.flow_id, %error, "It cannot be looked up what became of a sign-up; it is tried again");
                self.store
                    .look_again(entry.flow_id, entry.next_look(now))
                    .await
            }
        }
    }

    /// Whether the account came of this sign-up, and not of another of the same person.
    async fn came_of(&self, entry: &Entry, id: Uuid, now: Timestamp) -> Result<bool, store::Error> {
        if entry.flow != Flow::Registration || !self.resolution.tells_flows_apart() {
            return Ok(true);
        }
        claim(&*self.store, id, entry.flow_id, now).await
    }

    async fn made(
        &self,
        entry: &Entry,
        id: Uuid,
        identity: &Value,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let state = self.store.flow(entry.flow_id).await?;
        if !is_still(entry, &state) {
            return Ok(());
        }
        let resolved = self
            .resolution
            .found(entry, (id, identity), &state.reservations, now);
        let stored = self.write(&resolved.batch).await?;
        self.count("created");
        tracing::warn!(
            flow.id = %entry.flow_id, identity.id = %id, stored,
            "No `post` told of an account; it was found, and {stored} deliveries are made for it"
        );
        Ok(())
    }

    async fn ended(&self, entry: &Entry, now: Timestamp) -> Result<(), store::Error> {
        let end = if entry.is_conclusive() && self.identities.is_some() {
            End::NeverCreated
        } else {
            End::Undecided
        };
        let state = self.store.flow(entry.flow_id).await?;
        if !is_still(entry, &state) {
            return Ok(());
        }
        let batch = self.resolution.ended(entry, end, &state.reservations, now);
        self.write(&batch).await?;
        self.count(end.as_str());
        match end {
            End::NeverCreated => {
                tracing::info!(flow.id = %entry.flow_id, "No account came of a sign-up that had passed");
            }
            End::Undecided => tracing::warn!(
                flow.id = %entry.flow_id, method = entry.method,
                "It cannot be told whether an account came of a sign-up; `vestibule reconcile` finds it if so"
            ),
        }
        Ok(())
    }

    /// What was taken for flows that have expired, and of which the journal tells nothing more.
    async fn expire(&self) -> Result<(), store::Error> {
        loop {
            let now = self.clock.now();
            // Kratos may have begun to save at the very end of a flow's life.
            let expired = self.store.expired(now - AFTER_THE_END, PAGE).await?;
            if expired.is_empty() {
                return Ok(());
            }
            for reservation in &expired {
                let mut batch = Batch::default();
                self.resolution
                    .release(&mut batch, reservation, Because::Expired, now);
                self.write(&batch).await?;
                tracing::info!(flow.id = %reservation.flow_id, check = reservation.check, "A flow has expired; what was taken for it is released");
            }
        }
    }

    /// Stores it, unless somebody else has done so meanwhile.
    async fn write(&self, batch: &Batch) -> Result<usize, store::Error> {
        let stored = match self.store.write(batch).await {
            Ok(stored) => stored.len(),
            Err(store::Error::Changed) => return Ok(0),
            Err(error) => return Err(error),
        };
        for (_, because) in &batch.released {
            let reason = because.as_str();
            let labels = ReasonLabels { reason };
            self.metrics.reservations.get_or_create(&labels).inc();
        }
        if stored > 0 {
            self.metrics.deliveries_stored.inc_by(stored as u64);
            self.stored.notify_one();
        }
        Ok(stored)
    }

    fn count(&self, reason: &'static str) {
        let labels = ReasonLabels { reason };
        self.metrics.journal_ended.get_or_create(&labels).inc();
    }
}

/// Whether it is the entry still: while we looked, `post` may have come, or another yes to the same flow, which will be looked
/// at in its turn.
fn is_still(entry: &Entry, state: &FlowState) -> bool {
    let now = state.entry.as_ref();
    now.is_some_and(|now| now.opened_at == entry.opened_at)
}

/// The account that came of it, if there is one, as hooks are told of it.
async fn find(
    identities: &Identities,
    entry: &Entry,
) -> Result<Option<(Uuid, Value)>, identities::Error> {
    let clues = &entry.details.clues;
    let mut found = Vec::new();
    if let Some(id) = clues.identity_id {
        found.extend(identities.get(id).await?);
    }
    if let Some(external_id) = &clues.external_id {
        found.extend(identities.with_external_id(external_id).await?);
    }
    for identifier in &clues.identifiers {
        if found.iter().any(|identity| entry.is_about(identity)) {
            break;
        }
        found.extend(identities.with_identifier(identifier).await?);
    }
    let ours = found.iter().find(|identity| entry.is_about(identity));
    Ok(ours.and_then(|identity| {
        let id = Uuid::parse_str(identity["id"].as_str()?).ok()?;
        Some((id, as_told_to_hooks(identity)))
    }))
}
