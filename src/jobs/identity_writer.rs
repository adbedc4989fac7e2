//! Writes into identities through Kratos's admin API.
//!
//! Kratos reads, changes and writes whole rows without a lock. So an identity has only one write at a time, and none
//! during a settings call of that identity. Each write is verified afterwards.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::OutcomeLabels;
use crate::checks::refused_identities::RefusedIdentities;
use crate::model::delivery::{EntryWrite, FieldWrite};
use crate::model::identity_write::{IdentityWrites, MAX_SETTINGS_WAIT, Write};
use crate::model::late_refusal::LateRefusal;
use crate::outbound::kratos_admin::{Error, KratosAdmin, patch};
use crate::store::{self, Store};

/// How long the lock on an identity is valid. This time is longer than all calls to the admin API under the lock.
const LOCK: Duration = Duration::from_mins(1);
/// How many writes of one identity are verified together. Only the newest writes are verified.
const MAX_WRITES: usize = 50;
/// How many of these writes can be repairs. More repairs mean that each write is undone.
const MAX_REPAIRS: usize = 20;
/// When to verify again if another write or a settings call is in progress.
const BUSY: Duration = Duration::from_secs(1);
/// When to verify again if Kratos or the database does not answer.
const UNREACHABLE: Duration = Duration::from_secs(30);

/// Writes into identities, and verifies the writes.
pub struct IdentityWriter {
    identities: KratosAdmin,
    store: Arc<dyn Store>,
    refused: Arc<RefusedIdentities>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Wakes the verifier after a write.
    written: Notify,
    /// The locks on the identities that this instance is writing to.
    own: OwnLocks,
}

/// Locks within this instance. With these locks, writes of one instance wait for each other instead of being retried
/// later.
#[derive(Default)]
struct OwnLocks(std::sync::Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>);

impl OwnLocks {
    async fn run_locked<T>(&self, id: Uuid, work: BoxFuture<'_, T>) -> T {
        let lock = Arc::clone(self.known().entry(id).or_default());
        let held = lock.lock().await;
        let done = work.await;
        drop(held);
        let mut known = self.known();
        // Only the map and this function hold the lock.
        if Arc::strong_count(&lock) == 2 {
            known.remove(&id);
        }
        done
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing was written, or why the result of the write is unknown.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another write into the identity or a settings call of the identity is in progress.
    #[error("another write into the identity is in progress")]
    Busy,
    /// The identity does not exist.
    #[error("the identity does not exist")]
    NotFound,
    /// Kratos's admin API failed.
    #[error(transparent)]
    Kratos(#[from] Error),
    /// Database error.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Another request wrote into the identity at the same moment.
    #[error("another write has overwritten the values")]
    Overwritten,
    /// A list of the identity has another entry at this path than the event had.
    #[error("the entry `{0}` is not the entry of the event any more")]
    OtherEntry(String),
}

impl IdentityWriter {
    /// Returns a writer for the identities of this Kratos.
    #[must_use]
    pub fn new(
        identities: KratosAdmin,
        store: Arc<dyn Store>,
        refused: Arc<RefusedIdentities>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            identities,
            store,
            refused,
            clock,
            metrics,
            written: Notify::new(),
            own: OwnLocks::default(),
        }
    }

    /// Returns the client of Kratos's admin API.
    #[must_use]
    pub fn identities(&self) -> &KratosAdmin {
        &self.identities
    }

    /// Completes when a write has been recorded since the last call.
    pub async fn written(&self) {
        self.written.notified().await;
    }

    /// Writes these values into the identity, and into these entries of its lists. If one of the entries is not the entry
    /// of the event any more, nothing is written.
    pub async fn write(
        &self,
        id: Uuid,
        fields: &[FieldWrite],
        entries: &[EntryWrite],
    ) -> Result<(), WriteError> {
        if fields.iter().any(|field| field.path == ["state"]) {
            // This write activates an account after its refusal was lifted. The hooks must admit the visitor before
            // the account is active.
            self.refused.reload().await?;
        }
        let write = async {
            let identity = self.get(id).await?;
            if let Some(list) = patch::list_on_the_way(&identity, fields) {
                return Err(WriteError::OtherEntry(list));
            }
            let mut fields = fields.to_vec();
            for entry in entries {
                let Some(value) = entry.written_into(&identity) else {
                    return Err(WriteError::OtherEntry(entry.path.join(".")));
                };
                fields.push(FieldWrite {
                    path: entry.path.clone(),
                    value: Some(value),
                });
            }
            self.patch(id, &identity, &fields, false).await
        };
        self.locked(id, write.boxed()).await
    }

    /// Enforces a late refusal of this check: all sessions are deleted, and the account becomes inactive. Does nothing
    /// if the refusal has been lifted, or if an operator has activated the account since an earlier enforcement.
    pub async fn enforce(
        &self,
        id: Uuid,
        check: &str,
        fields: &[FieldWrite],
    ) -> Result<(), WriteError> {
        // The hooks come first, so that no new session can begin.
        self.refused.reload().await?;
        let is_of_check = |refusal: &&LateRefusal| refusal.check == check && refusal.keeps_out();
        let refusals = self.store.late_refusals_of(id).await?;
        let Some(refusal) = refusals.iter().find(is_of_check) else {
            return Ok(());
        };
        if !refusal.is_overruled_by(&self.get(id).await?) {
            self.refused.warn_without_hook_calls();
            self.identities.delete_sessions(id).await?;
        }
        let deactivate = async {
            let identity = self.get(id).await?;
            let in_force = self.lift_overruled(id, &identity).await?;
            if !in_force.iter().any(|one| is_of_check(&one)) {
                return Ok(());
            }
            // An account that another refusal deactivated was active before.
            let was_active = identity["state"] == "active"
                || in_force
                    .iter()
                    .any(|refusal| refusal.was_active == Some(true));
            if !self.store.record_state_before(id, was_active).await? {
                return Ok(());
            }
            self.deactivate(id, &identity, fields, Some(check)).await
        };
        self.locked(id, deactivate.boxed()).await
    }

    /// Deactivates the account, because of this check or to repair the enforcement of all refusals. The caller holds the
    /// lock of the identity.
    async fn deactivate(
        &self,
        id: Uuid,
        identity: &Value,
        fields: &[FieldWrite],
        check: Option<&str>,
    ) -> Result<(), WriteError> {
        let patched = self.patch(id, identity, fields, check.is_none()).await;
        // Sessions are also deleted if Kratos refused the write. Then only the hooks keep the visitor out.
        self.identities.delete_sessions(id).await?;
        patched?;
        let identity = self.get(id).await?;
        if identity["state"] != "inactive" {
            return Err(WriteError::Overwritten);
        }
        let changed_at = moment(&identity["state_changed_at"]).unwrap_or(self.clock.now());
        self.store
            .record_deactivation(id, check, changed_at)
            .await?;
        // The next hook call needs this time. If loading fails here, the set is loaded within a second.
        let _ = self.refused.reload().await;
        Ok(())
    }

    async fn get(&self, id: Uuid) -> Result<Value, WriteError> {
        self.identities.get(id).await?.ok_or(WriteError::NotFound)
    }

    /// Sends one PATCH. The write is recorded before the PATCH is sent, so that it is verified in any case. The caller
    /// holds the lock of the identity.
    async fn patch(
        &self,
        id: Uuid,
        identity: &Value,
        fields: &[FieldWrite],
        is_repair: bool,
    ) -> Result<(), WriteError> {
        let values = fields.iter().map(|field| {
            let path = field.path.iter().map(String::as_str).collect();
            (path, field.value.as_ref())
        });
        let operations = patch::diff(identity, values);
        let now = self.clock.now();
        let known = self.store.identity_writes(id).await?;
        if operations.is_empty() {
            // The answer to an earlier attempt may be lost.
            if let Some(mut writes) = known
                && writes
                    .writes
                    .last()
                    .is_some_and(|last| last.ended_at.is_none())
            {
                writes.ended(now);
                self.store.store_identity_writes(&writes).await?;
            }
            return Ok(());
        }
        let before = known.clone();
        let mut writes = known.unwrap_or_else(|| IdentityWrites::new(id, now));
        writes.add(Write {
            is_repair,
            ..Write::new(identity, fields, now)
        });
        writes.drop_oldest(MAX_WRITES);
        self.store.store_identity_writes(&writes).await?;
        self.written.notify_one();
        match self.identities.patch(id, &operations).await {
            Ok(true) => {
                writes.ended(self.clock.now());
                self.store.store_identity_writes(&writes).await?;
                Ok(())
            }
            Ok(false) => Err(WriteError::NotFound),
            Err(error @ (Error::Status(400..=499) | Error::Concurrent)) => {
                if error == Error::Status(400) {
                    self.count("refused_by_kratos");
                    tracing::error!(
                        identity.id = %id,
                        "ALARM: Kratos refuses to change an identity (status 400): its traits violate the current identity \
                         schema; correct the traits or the schema"
                    );
                }
                // Kratos wrote nothing.
                match before {
                    Some(before) => self.store.store_identity_writes(&before).await?,
                    None => self.store.end_verification(id, writes.verify_at).await?,
                }
                Err(if error == Error::Concurrent {
                    WriteError::Busy
                } else {
                    error.into()
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs `work` as the only writer into the identity.
    async fn locked(
        &self,
        id: Uuid,
        work: BoxFuture<'_, Result<(), WriteError>>,
    ) -> Result<(), WriteError> {
        self.own
            .run_locked(id, self.with_lock(id, work).boxed())
            .await
    }

    async fn with_lock(
        &self,
        id: Uuid,
        work: BoxFuture<'_, Result<(), WriteError>>,
    ) -> Result<(), WriteError> {
        let now = self.clock.now();
        if self.settings_call_is_pending(id, now).await? {
            return Err(WriteError::Busy);
        }
        let (lock, holder) = (format!("identity:{id}"), Uuid::new_v4());
        if !self
            .store
            .acquire_lock(&lock, holder, now, saturating_add(now, LOCK))
            .await?
        {
            return Err(WriteError::Busy);
        }
        let done = work.await;
        if let Err(error) = self.store.release_lock(&lock, holder).await {
            tracing::warn!(error = %error.error_chain(), "The lock on an identity could not be released; the lock expires within a minute");
        }
        done
    }

    async fn settings_call_is_pending(
        &self,
        id: Uuid,
        now: Timestamp,
    ) -> Result<bool, store::Error> {
        let since = self.store.settings_pending_since(id).await?;
        Ok(since.is_some_and(|since| now < saturating_add(since, MAX_SETTINGS_WAIT)))
    }

    /// Verifies the writes into one identity. The caller has leased the identity until `lease_until`.
    pub async fn verify(
        &self,
        leased: &IdentityWrites,
        lease_until: Timestamp,
    ) -> Result<(), store::Error> {
        let id = leased.identity_id;
        let now = self.clock.now();
        let at = match self.verified(leased).await {
            // A write that Kratos refuses is retried with the planned verifications.
            Err(WriteError::NotFound | WriteError::Kratos(Error::Status(400..=499))) => {
                return self.plan_verification(leased, None, lease_until).await;
            }
            Ok(seen_at) => return self.plan_verification(leased, seen_at, lease_until).await,
            Err(WriteError::Busy | WriteError::Overwritten) => saturating_add(now, BUSY),
            Err(error) => {
                tracing::warn!(
                    identity.id = %id, error = %crate::base::telemetry::error_chain(&error),
                    "A write into an identity could not be verified; next attempt in {} s", UNREACHABLE.as_secs()
                );
                saturating_add(now, UNREACHABLE)
            }
        };
        self.store
            .reschedule_verification(id, (leased.verified, None), lease_until, at)
            .await
    }

    /// Plans the next verification, if there is one.
    async fn plan_verification(
        &self,
        leased: &IdentityWrites,
        seen_at: Option<Timestamp>,
        lease_until: Timestamp,
    ) -> Result<(), store::Error> {
        let id = leased.identity_id;
        let Some((verified, at)) = leased.next_verification(self.clock.now()) else {
            return self.store.end_verification(id, lease_until).await;
        };
        self.store
            .reschedule_verification(id, (verified, seen_at), lease_until, at)
            .await
    }

    /// Verifies the writes. Returns when the newest saved change was saved that is in place.
    async fn verified(&self, leased: &IdentityWrites) -> Result<Option<Timestamp>, WriteError> {
        let id = leased.identity_id;
        let identity = self.get(id).await?;
        let refusals = self.store.late_refusals_of(id).await?;
        let is_overruled = refusals
            .iter()
            .any(|refusal| refusal.keeps_out() && refusal.is_overruled_by(&identity));
        let finding = leased.compare(&identity);
        if finding.keeps_other_value && !is_overruled {
            self.count("kept");
        }
        let is_active_again = is_active_again(&refusals, &identity);
        let is_as_written = finding.undone.is_empty() && finding.restore.is_empty();
        if is_as_written && !is_active_again && !is_overruled {
            self.count("verified");
            return Ok(leased.newest_in_place(&identity, self.clock.now()));
        }
        self.locked(id, self.repair(id).boxed()).await?;
        Ok(None)
    }

    /// Compares the identity again, as the only writer, and writes again.
    async fn repair(&self, id: Uuid) -> Result<(), WriteError> {
        // The identity is read after the changes that visitors saved. So the identity holds these changes, unless a
        // write undid them.
        let now = self.clock.now();
        let writes = self.store.identity_writes(id).await?;
        let mut writes = writes.unwrap_or_else(|| IdentityWrites::new(id, now));
        let identity = self.get(id).await?;
        let before = self.store.late_refusals_of(id).await?.len();
        let refusals = self.lift_overruled(id, &identity).await?;
        if refusals.len() < before {
            let stored = self.store.identity_writes(id).await?;
            writes = stored.unwrap_or_else(|| IdentityWrites::new(id, now));
        }
        let finding = writes.compare(&identity);
        let is_active_again = is_active_again(&refusals, &identity);
        if writes.repairs() >= MAX_REPAIRS && !is_active_again {
            self.count("abandoned");
            tracing::error!(
                identity.id = %id,
                "ALARM: writes into an identity were undone repeatedly; Vestibule does not repeat them any more"
            );
            return Ok(());
        }
        if !finding.restore.is_empty() {
            self.count("change_restored");
            tracing::warn!(
                identity.id = %id,
                "A write through Kratos's admin API undid a change that the visitor saved at the same moment; Vestibule restores the change"
            );
        }
        let mut fields = finding.restore;
        let undone = finding
            .undone
            .into_iter()
            .filter(|field| fields.iter().all(|other| other.path != field.path))
            .collect::<Vec<_>>();
        if !undone.is_empty() || is_active_again {
            self.count("repeated");
            tracing::warn!(
                identity.id = %id,
                "A concurrent save has undone a write into an identity; Vestibule repeats the write"
            );
        }
        fields.extend(undone);
        if is_active_again {
            fields.push(FieldWrite {
                path: vec!["state".to_owned()],
                value: Some("inactive".into()),
            });
            self.identities.delete_sessions(id).await?;
            return self.deactivate(id, &identity, &fields, None).await;
        }
        self.patch(id, &identity, &fields, true).await
    }

    /// Lifts the refusals that an operator has overruled by an activation of the account. The identity stays as it is.
    /// Returns the refusals that are still in force. The caller holds the lock of the identity.
    async fn lift_overruled(
        &self,
        id: Uuid,
        identity: &Value,
    ) -> Result<Vec<LateRefusal>, WriteError> {
        let in_force = self.store.late_refusals_of(id).await?;
        let is_overruled =
            |refusal: &LateRefusal| refusal.keeps_out() && refusal.is_overruled_by(identity);
        let (overruled, others): (Vec<_>, Vec<_>) = in_force.into_iter().partition(is_overruled);
        if overruled.is_empty() {
            return Ok(others);
        }
        let checks: Vec<String> = overruled.into_iter().map(|refusal| refusal.check).collect();
        let now = self.clock.now();
        let lifted = self.store.lift_late_refusals(id, &checks, now, &[]).await?;
        if lifted > 0 {
            self.count("lifted_by_operator");
            tracing::warn!(
                identity.id = %id, ?checks,
                "An operator has activated an account that had been refused late; the refusal is lifted"
            );
        }
        if let Some(mut writes) = self.store.identity_writes(id).await? {
            writes.exclude_marks(&checks);
            self.store.store_identity_writes(&writes).await?;
        }
        let _ = self.refused.reload().await;
        Ok(others)
    }

    /// Schedules a verification of an identity whose refusal is in force, although the planned verifications are done.
    pub async fn verify_refused(&self, id: Uuid, at: Timestamp) -> Result<(), store::Error> {
        self.store.verify_once(id, at).await
    }

    fn count(&self, outcome: &'static str) {
        self.metrics
            .identity_writes
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
    }
}

/// Returns whether a save has restored the state from before the account was deactivated.
fn is_active_again(refusals: &[LateRefusal], identity: &Value) -> bool {
    identity["state"] == "active"
        && refusals
            .iter()
            .any(|refusal| refusal.deactivated_at.is_some())
}

fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|text| text.parse().ok())
}
