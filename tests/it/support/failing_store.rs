//! A SQLite store that fails on demand.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::base::telemetry::metrics::DeliveryCounters;
use vestibule::model::decision::Decision;
use vestibule::model::delivery::subscription::Built;
use vestibule::model::delivery::{Claimed, NewDelivery};
use vestibule::model::identity_write::{IdentityWrites, SavedChange};
use vestibule::model::known_identity::KnownIdentity;
use vestibule::model::late_refusal::LateRefusal;
use vestibule::model::pending::{AttributedSubmission, FlowRecord, LookupKind};
use vestibule::model::reservation::{self, Reservation};
use vestibule::store::{
    AppliedMigration, Backlog, Coordination, Database, DeliveryDetails, DeliveryStore,
    DeliverySummary, Error, Filter, FlowState, IdentityWriteStore, KnownIdentityStore,
    LateRefusalFilter, LateRefusalStore, NextDue, PendingStore, ReservationStore, Retention,
    RetryOptions, Settlement, Store, WriteSet, sqlite,
};

/// What the store does in place of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every call returns an error.
    Error,
    /// Every call panics.
    Panic,
    /// Calls of this method panic.
    PanicIn(&'static str),
}

/// A SQLite store that fails, panics or hangs while the test says so.
pub struct FailingStore {
    store: Database,
    /// Names this store in its errors, so that its log lines can be found.
    pub name: String,
    fault: Mutex<Option<Fault>>,
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
            store: sqlite::open(&folder.join("v.db")).await.expect("a file"),
            name: Uuid::new_v4().to_string(),
            fault: Mutex::default(),
            is_unresponsive: AtomicBool::new(false),
            open_flow_calls: AtomicUsize::new(0),
            writes: Semaphore::new(1),
            held_writes: AtomicUsize::new(0),
            conflicts: AtomicUsize::new(0),
            flow_reads: AtomicUsize::new(0),
        })
    }

    /// Injects a fault into the next calls, or ends the current one.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *lock(&self.fault) = fault;
    }

    /// Makes every call return an error, or stops that.
    pub fn set_failing(&self, is_failing: bool) {
        self.set_fault(is_failing.then_some(Fault::Error));
    }

    /// Makes every call panic, or stops that.
    pub fn set_panicking(&self, is_panicking: bool) {
        self.set_fault(is_panicking.then_some(Fault::Panic));
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

    /// Runs the injected fault, if there is one for this method.
    fn run_fault(&self, method: &str) -> Result<(), Error> {
        let fault = *lock(&self.fault);
        match fault {
            Some(Fault::Error) => {
                let error = format!("the store {} fails on purpose", self.name);
                Err(Error::Database(sqlx::Error::Protocol(error)))
            }
            Some(Fault::Panic) => panic!("injected: the store panics, about a canary"),
            Some(Fault::PanicIn(name)) if name == method => {
                panic!("injected: `{method}` panics, about a canary")
            }
            Some(Fault::PanicIn(_)) | None => Ok(()),
        }
    }
}

/// A panic that a test injects can poison the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Implements traits of the store. Each method in the list fails or panics if the test says so, and otherwise asks
/// SQLite.
macro_rules! delegate {
    ($($store:ident {
        $(async fn $method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*
    } $({ $($other:tt)* })?)*) => {
        $(
            #[async_trait]
            impl $store for FailingStore {
                $(
                    async fn $method(&self, $($argument: $type),*) -> Result<$result, Error> {
                        self.run_fault(stringify!($method))?;
                        self.store.$method($($argument),*).await
                    }
                )*
                $($($other)*)?
            }
        )*
    };
}

delegate! {
    DeliveryStore {
        async fn claim(subscription: &str, now: Timestamp, lease: Duration, limit: u32) -> Vec<Claimed>;
        async fn settle_all(settlements: &[Settlement]) -> HashSet<Uuid>;
        async fn give_back(held: &[Claimed], due_at: Timestamp) -> ();
        async fn next_due() -> Vec<NextDue>;
        async fn list(filter: &Filter, limit: u32) -> Vec<DeliverySummary>;
        async fn unfinished_queues(identity_id: Uuid) -> Vec<String>;
        async fn show(id: Uuid) -> Option<DeliveryDetails>;
        async fn keep_built(held: &Claimed, built: &Result<Built, String>, now: Timestamp) -> bool;
        async fn retry(filter: &Filter, now: Timestamp, options: RetryOptions) -> u64;
        async fn out_of_order(filter: &Filter) -> u64;
        async fn discard(filter: &Filter, now: Timestamp) -> u64;
        async fn unfinished(filter: &Filter) -> u64;
        async fn backlog() -> Backlog;
        async fn existing_keys(keys: &[(String, String)]) -> HashSet<(String, String)>;
        async fn is_pending(subscription: &str, unique_key: &str) -> bool;
    } {
        fn counters(&self) -> DeliveryCounters {
            self.store.counters()
        }

        async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
            self.run_fault("write")?;
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
    }
    PendingStore {
        async fn flow_records(flow_ids: &[Uuid]) -> Vec<FlowRecord>;
        async fn flows_of_change(identity_id: Uuid, traits_hash: &str) -> Vec<Uuid>;
        async fn attributed_to(identity_id: Uuid) -> Vec<AttributedSubmission>;
        async fn lease_flows(kind: LookupKind, now: Timestamp, lease: Duration, limit: u32) -> Vec<FlowRecord>;
        async fn reschedule_lookup(record: &FlowRecord, at: Option<Timestamp>) -> ();
        async fn look_up_all_now(now: Timestamp, accepted_since: Timestamp) -> u64;
        async fn next_lookup() -> Option<Timestamp>;
    } {
        async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error> {
            self.run_fault("flow")?;
            let state = self.store.flow(flow_id).await;
            self.flow_reads.fetch_add(1, Ordering::SeqCst);
            state
        }

        async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error> {
            self.run_fault("open_flow")?;
            self.open_flow_calls.fetch_add(1, Ordering::SeqCst);
            if self.is_unresponsive.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            self.store.open_flow(external_id).await
        }
    }
    ReservationStore {
        async fn share_reservation(id: Uuid, until: Timestamp) -> bool;
        async fn take_over_reservation(
            reservation: &Reservation, former: Option<&Reservation>, submission: &str, now: Timestamp, until: Timestamp
        ) -> bool;
        async fn mark_reserved(id: Uuid, details: &reservation::Details) -> bool;
        async fn cancel_reservation(id: Uuid) -> ();
        async fn unused_reservations(now: Timestamp, expired_at: Timestamp, limit: u32) -> Vec<Reservation>;
    }
    LateRefusalStore {
        async fn late_refusals() -> Vec<LateRefusal>;
        async fn late_refusals_of(identity_id: Uuid) -> Vec<LateRefusal>;
        async fn late_refusals_page(filter: &LateRefusalFilter, limit: u32) -> Vec<LateRefusal>;
        async fn late_refusal_was_lifted(identity_id: Uuid, check: &str) -> bool;
        async fn lift_late_refusals(
            identity_id: Uuid, checks: &[String], now: Timestamp, deliveries: &[NewDelivery]
        ) -> u64;
        async fn record_state_before(identity_id: Uuid, was_active: bool) -> bool;
        async fn state_before_refusal(identity_id: Uuid, check: &str) -> Option<bool>;
        async fn record_deactivation(identity_id: Uuid, check: Option<&str>, at: Timestamp) -> ();
    }
    IdentityWriteStore {
        async fn identity_writes(identity_id: Uuid) -> Option<IdentityWrites>;
        async fn store_identity_writes(writes: &IdentityWrites) -> ();
        async fn lease_identity_writes(now: Timestamp, lease_until: Timestamp, limit: u32) -> Vec<IdentityWrites>;
        async fn reschedule_verification(
            identity_id: Uuid, verified: (usize, Option<Timestamp>), lease_until: Timestamp, verify_at: Timestamp
        ) -> ();
        async fn end_verification(identity_id: Uuid, lease_until: Timestamp) -> ();
        async fn verify_identities(ids: &[Uuid], at: Timestamp) -> ();
        async fn verify_once(identity_id: Uuid, at: Timestamp) -> ();
        async fn next_verification() -> Option<Timestamp>;
        async fn begin_settings_call(identity_id: Uuid, now: Timestamp) -> ();
        async fn end_settings_call(identity_id: Uuid) -> ();
        async fn settings_pending_since(identity_id: Uuid) -> Option<Timestamp>;
        async fn store_saved_change(identity_id: Uuid, change: &SavedChange, verify_at: Timestamp) -> ();
    }
    KnownIdentityStore {
        async fn known_identities(ids: &[Uuid]) -> HashMap<Uuid, String>;
        async fn touch_identities(ids: &[Uuid], now: Timestamp) -> ();
        async fn replace_fingerprint(from: &str, to: &KnownIdentity) -> bool;
        async fn sample_identities(from: Uuid, limit: u32) -> Vec<Uuid>;
        async fn unseen_identities(before: Timestamp, after: (Timestamp, Uuid), limit: u32) -> Vec<(Timestamp, Uuid)>;
        async fn delete_unseen_identities(before: Timestamp, limit: u32) -> u64;
        async fn has_open_change(identity_id: Uuid) -> bool;
    }
    Coordination {
        async fn acquire_lock(name: &str, holder: Uuid, now: Timestamp, until: Timestamp) -> bool;
        async fn release_lock(name: &str, holder: Uuid) -> ();
        async fn get_property(name: &str) -> Option<String>;
        async fn set_property(name: &str, value: Option<&str>) -> ();
        async fn get_or_insert_property(name: &str, value: &str) -> String;
        async fn record(decisions: &[Decision]) -> ();
    }
    Retention {
        async fn delete_settled(before: Timestamp, limit: u32) -> u64;
        async fn delete_decisions(before: Timestamp, limit: u32) -> u64;
        async fn delete_ended(before: Timestamp, limit: u32) -> u64;
        async fn identities_with_data(after: Uuid, limit: u32) -> Vec<Uuid>;
        async fn forget(identity_id: Uuid, now: Timestamp) -> u64;
    }
}

#[async_trait]
impl Store for FailingStore {
    fn changes(&self) -> &[AppliedMigration] {
        self.store.changes()
    }

    async fn ping(&self) -> Result<(), Error> {
        self.run_fault("ping")?;
        self.store.ping().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}
