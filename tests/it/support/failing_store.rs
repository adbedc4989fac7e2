//! A SQLite store that fails on demand.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::decision::Decision;
use vestibule::model::delivery::{Claimed, NewDelivery};
use vestibule::model::identity_write::{IdentityWrites, SavedChange};
use vestibule::model::late_refusal::LateRefusal;
use vestibule::model::pending::{AttributedSubmission, FlowRecord, LookupKind};
use vestibule::model::reservation::{self, Reservation};
use vestibule::store::sqlite::Sqlite;
use vestibule::store::{
    Backlog, DeliveryDetails, DeliverySummary, Error, Filter, FlowState, IdentityWriteStore,
    LateRefusalFilter, LateRefusalStore, NextDue, Settlement, Store, WriteSet,
};

/// A SQLite store that fails, panics or hangs while the test says so.
pub struct FailingStore {
    store: Sqlite,
    /// Names this store in its errors, so that its log lines can be found.
    pub name: String,
    is_failing: AtomicBool,
    is_panicking: AtomicBool,
    is_unresponsive: AtomicBool,
    open_flow_calls: AtomicUsize,
    /// Closed while writes are held.
    writes: Semaphore,
    held_writes: AtomicUsize,
    conflicts: AtomicUsize,
    flow_reads: AtomicUsize,
}

impl FailingStore {
    pub async fn in_folder(folder: &Path) -> Arc<Self> {
        Arc::new(Self {
            store: Sqlite::open(&folder.join("v.db")).await.expect("a file"),
            name: Uuid::new_v4().to_string(),
            is_failing: AtomicBool::new(false),
            is_panicking: AtomicBool::new(false),
            is_unresponsive: AtomicBool::new(false),
            open_flow_calls: AtomicUsize::new(0),
            writes: Semaphore::new(1),
            held_writes: AtomicUsize::new(0),
            conflicts: AtomicUsize::new(0),
            flow_reads: AtomicUsize::new(0),
        })
    }

    /// Makes every call return an error, or stops that.
    pub fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::SeqCst);
    }

    /// Makes every call panic, or stops that.
    pub fn set_panicking(&self, is_panicking: bool) {
        self.is_panicking.store(is_panicking, Ordering::SeqCst);
    }

    /// Makes `open_flow` hang, or stops that.
    pub fn set_unresponsive(&self, is_unresponsive: bool) {
        self.is_unresponsive
            .store(is_unresponsive, Ordering::SeqCst);
    }

    /// Makes writes wait until the result is dropped.
    pub fn hold_writes(&self) -> SemaphorePermit<'_> {
        self.writes.try_acquire().expect("no write is running")
    }

    /// Returns how many writes have waited or are waiting.
    pub fn held_writes(&self) -> usize {
        self.held_writes.load(Ordering::SeqCst)
    }

    /// Makes this number of the next writes end in a conflict.
    pub fn set_conflicts(&self, conflicts: usize) {
        self.conflicts.store(conflicts, Ordering::SeqCst);
    }

    /// Returns how many times the state of a flow was read.
    pub fn flow_reads(&self) -> usize {
        self.flow_reads.load(Ordering::SeqCst)
    }

    /// Returns how many times `open_flow` was called.
    pub fn open_flow_calls(&self) -> usize {
        self.open_flow_calls.load(Ordering::SeqCst)
    }

    fn fail_if_set(&self) -> Result<(), Error> {
        assert!(
            !self.is_panicking.load(Ordering::SeqCst),
            "panics on purpose, about a canary"
        );
        if self.is_failing.load(Ordering::SeqCst) {
            let error = format!("the store {} fails on purpose", self.name);
            return Err(Error::Database(sqlx::Error::Protocol(error)));
        }
        Ok(())
    }
}

#[async_trait]
impl LateRefusalStore for FailingStore {
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error> {
        self.fail_if_set()?;
        self.store.late_refusals().await
    }
    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error> {
        self.fail_if_set()?;
        self.store.late_refusals_of(identity_id).await
    }
    async fn late_refusals_page(
        &self,
        filter: &LateRefusalFilter,
        limit: u32,
    ) -> Result<Vec<LateRefusal>, Error> {
        self.fail_if_set()?;
        self.store.late_refusals_page(filter, limit).await
    }
    async fn late_refusal_was_lifted(&self, identity_id: Uuid, check: &str) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store.late_refusal_was_lifted(identity_id, check).await
    }
    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        checks: &[String],
        now: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store
            .lift_late_refusals(identity_id, checks, now, deliveries)
            .await
    }
    async fn record_state_before(
        &self,
        identity_id: Uuid,
        was_active: bool,
    ) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store
            .record_state_before(identity_id, was_active)
            .await
    }
    async fn state_before_refusal(
        &self,
        identity_id: Uuid,
        check: &str,
    ) -> Result<Option<bool>, Error> {
        self.fail_if_set()?;
        self.store.state_before_refusal(identity_id, check).await
    }
    async fn record_deactivation(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.record_deactivation(identity_id, check, at).await
    }
}

#[async_trait]
impl IdentityWriteStore for FailingStore {
    async fn identity_writes(&self, identity_id: Uuid) -> Result<Option<IdentityWrites>, Error> {
        self.fail_if_set()?;
        self.store.identity_writes(identity_id).await
    }
    async fn store_identity_writes(&self, writes: &IdentityWrites) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.store_identity_writes(writes).await
    }
    async fn lease_identity_writes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<IdentityWrites>, Error> {
        self.fail_if_set()?;
        self.store
            .lease_identity_writes(now, lease_until, limit)
            .await
    }
    async fn reschedule_verification(
        &self,
        identity_id: Uuid,
        verified: (usize, Option<Timestamp>),
        lease_until: Timestamp,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store
            .reschedule_verification(identity_id, verified, lease_until, verify_at)
            .await
    }
    async fn end_verification(
        &self,
        identity_id: Uuid,
        lease_until: Timestamp,
    ) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.end_verification(identity_id, lease_until).await
    }
    async fn verify_identities(&self, ids: &[Uuid], at: Timestamp) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.verify_identities(ids, at).await
    }
    async fn verify_once(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.verify_once(identity_id, at).await
    }
    async fn next_verification(&self) -> Result<Option<Timestamp>, Error> {
        self.fail_if_set()?;
        self.store.next_verification().await
    }
    async fn begin_settings_call(&self, identity_id: Uuid, now: Timestamp) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.begin_settings_call(identity_id, now).await
    }
    async fn end_settings_call(&self, identity_id: Uuid) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.end_settings_call(identity_id).await
    }
    async fn settings_pending_since(&self, identity_id: Uuid) -> Result<Option<Timestamp>, Error> {
        self.fail_if_set()?;
        self.store.settings_pending_since(identity_id).await
    }
    async fn store_saved_change(
        &self,
        identity_id: Uuid,
        change: &SavedChange,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store
            .store_saved_change(identity_id, change, verify_at)
            .await
    }
}

#[async_trait]
impl Store for FailingStore {
    fn deliveries_stored(&self) -> Counter {
        self.store.deliveries_stored()
    }
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        self.fail_if_set()?;
        let conflicts = &self.conflicts;
        let is_conflict = conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1).filter(|_| !batch.is_empty())
        });
        if is_conflict.is_ok() {
            return Err(Error::Conflict);
        }
        if self.writes.available_permits() == 0 {
            self.held_writes.fetch_add(1, Ordering::SeqCst);
        }
        let _permit = self.writes.acquire().await.expect("the semaphore is open");
        self.store.write(batch).await
    }
    async fn claim(
        &self,
        subscription: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        self.fail_if_set()?;
        self.store.claim(subscription, now, lease, limit).await
    }
    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        self.fail_if_set()?;
        self.store.settle_all(settlements).await
    }
    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.give_back(held, due_at).await
    }
    async fn next_due(&self) -> Result<Vec<NextDue>, Error> {
        self.fail_if_set()?;
        self.store.next_due().await
    }
    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<DeliverySummary>, Error> {
        self.fail_if_set()?;
        self.store.list(filter, limit).await
    }
    async fn unfinished_queues(&self, identity_id: Uuid) -> Result<Vec<String>, Error> {
        self.fail_if_set()?;
        self.store.unfinished_queues(identity_id).await
    }
    async fn show(&self, id: Uuid) -> Result<Option<DeliveryDetails>, Error> {
        self.fail_if_set()?;
        self.store.show(id).await
    }
    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.retry(filter, now, keep_trying_for).await
    }
    async fn discard(&self, filter: &Filter, now: Timestamp) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.discard(filter, now).await
    }
    async fn unfinished(&self, filter: &Filter) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.unfinished(filter).await
    }
    async fn backlog(&self) -> Result<Backlog, Error> {
        self.fail_if_set()?;
        self.store.backlog().await
    }
    async fn existing_keys(
        &self,
        keys: &[(String, String)],
    ) -> Result<HashSet<(String, String)>, Error> {
        self.fail_if_set()?;
        self.store.existing_keys(keys).await
    }
    async fn is_pending(&self, subscription: &str, unique_key: &str) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store.is_pending(subscription, unique_key).await
    }
    async fn record(&self, decisions: &[Decision]) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.record(decisions).await
    }
    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error> {
        self.fail_if_set()?;
        let state = self.store.flow(flow_id).await;
        self.flow_reads.fetch_add(1, Ordering::SeqCst);
        state
    }
    async fn flow_records(&self, flow_ids: &[Uuid]) -> Result<Vec<FlowRecord>, Error> {
        self.fail_if_set()?;
        self.store.flow_records(flow_ids).await
    }
    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error> {
        self.fail_if_set()?;
        self.open_flow_calls.fetch_add(1, Ordering::SeqCst);
        if self.is_unresponsive.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        self.store.open_flow(external_id).await
    }
    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error> {
        self.fail_if_set()?;
        self.store.flows_of_change(identity_id, traits_hash).await
    }
    async fn attributed_to(&self, identity_id: Uuid) -> Result<Vec<AttributedSubmission>, Error> {
        self.fail_if_set()?;
        self.store.attributed_to(identity_id).await
    }
    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error> {
        self.fail_if_set()?;
        self.store.lease_flows(kind, now, lease, limit).await
    }
    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.reschedule_lookup(record, at).await
    }
    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.look_up_all_now(now, accepted_since).await
    }
    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error> {
        self.fail_if_set()?;
        self.store.next_lookup().await
    }
    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store.share_reservation(id, until).await
    }
    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store
            .take_over_reservation(reservation, former, submission, now, until)
            .await
    }
    async fn mark_reserved(&self, id: Uuid, details: &reservation::Details) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store.mark_reserved(id, details).await
    }
    async fn cancel_reservation(&self, id: Uuid) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.cancel_reservation(id).await
    }
    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error> {
        self.fail_if_set()?;
        self.store.unused_reservations(now, expired_at, limit).await
    }
    async fn acquire_lock(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        self.fail_if_set()?;
        self.store.acquire_lock(name, holder, now, until).await
    }
    async fn release_lock(&self, name: &str, holder: Uuid) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.release_lock(name, holder).await
    }
    async fn get_property(&self, name: &str) -> Result<Option<String>, Error> {
        self.fail_if_set()?;
        self.store.get_property(name).await
    }
    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.set_property(name, value).await
    }
    async fn get_or_insert_property(&self, name: &str, value: &str) -> Result<String, Error> {
        self.fail_if_set()?;
        self.store.get_or_insert_property(name, value).await
    }
    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.delete_settled(before, limit).await
    }
    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.delete_decisions(before, limit).await
    }
    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.delete_ended(before, limit).await
    }
    async fn identities_with_data(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        self.fail_if_set()?;
        self.store.identities_with_data(after, limit).await
    }
    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error> {
        self.fail_if_set()?;
        self.store.forget(identity_id, now).await
    }
    async fn ping(&self) -> Result<(), Error> {
        self.fail_if_set()?;
        self.store.ping().await
    }
    async fn close(&self) {
        self.store.close().await;
    }
}
