//! Delivers changes of identities that no hook reported.

use serde_json::Value;
use uuid::Uuid;

use super::missing::MIN_AGE;
use super::{Error, Round, Tracking};
use crate::base::clock::saturating_add;
use crate::jobs::identity_writer::{LOCK, lock_name};
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::delivery::{Event, NewDelivery, time_ordered_id};
use crate::model::known_identity::{IdentityRecord, KnownIdentity};
use crate::outbound::kratos_admin::hook_view::hook_view;
use crate::store::{self, WriteSet};

impl Round<'_> {
    /// Compares an identity of a page again, and delivers its change. The page may be older than what a hook has reported
    /// meanwhile.
    pub(super) async fn report_change(&mut self, id: Uuid) -> Result<(), Error> {
        let reconciler = self.reconciler;
        let Some(tracking) = &reconciler.tracking else {
            return Ok(());
        };
        self.renew_lock().await?;
        let began = reconciler.clock.now();
        if reconciler.options.dry_run {
            self.compare_again(tracking, id).await?;
        } else {
            // Without the lock, a write of Vestibule itself could be in Kratos, and not recorded yet.
            let (lock, until) = (lock_name(id), saturating_add(began, LOCK));
            let acquired = reconciler
                .store
                .acquire_lock(&lock, reconciler.holder, began, until);
            if !acquired.await? {
                // The next round compares the identity.
                return Ok(());
            }
            let compared = self.compare_again(tracking, id).await;
            // If the release fails, the lock expires.
            let _ = reconciler
                .store
                .release_lock(&lock, reconciler.holder)
                .await;
            compared?;
        }
        Ok(())
    }

    async fn compare_again(&mut self, tracking: &Tracking, id: Uuid) -> Result<(), Error> {
        let reconciler = self.reconciler;
        // What was reported is read first. If a hook reports another state after that, the write below fails.
        let known = reconciler.store.known_identities(&[id]).await?;
        let Some(from) = known.get(&id) else {
            return Ok(());
        };
        let identity = reconciler.identities.get(id).await;
        let identity = identity.map_err(|source| Error::Identity { id, source })?;
        let Some(identity) = identity else {
            // The next round finds the deletion.
            return Ok(());
        };
        let now = reconciler.clock.now();
        let Some(to) = tracking.tracker.state_of(&identity, now).await? else {
            return Ok(());
        };
        if to.fingerprint == *from || self.is_left_to_others(&to).await? {
            return Ok(());
        }
        let deliveries = self.deliveries_of_change(tracking, id, &identity);
        self.store_change(deliveries, from, to).await
    }

    /// Returns whether a hook, a look-up or a verification may still report or undo the change. The next round compares
    /// the identity again.
    async fn is_left_to_others(&self, state: &KnownIdentity) -> Result<bool, Error> {
        let reconciler = self.reconciler;
        // A hook may be reporting a change of the last seconds now. An accepted change may be saved or not.
        let is_recent = state.updated_at > reconciler.clock.now() - MIN_AGE;
        if is_recent || reconciler.store.has_open_change(state.id).await? {
            return Ok(true);
        }
        // A write of Vestibule may have undone what a visitor saved. Its verification restores that.
        let writes = reconciler.store.identity_writes(state.id).await?;
        Ok(writes.is_some_and(|writes| !writes.saved.is_empty()))
    }

    fn deliveries_of_change(
        &self,
        tracking: &Tracking,
        id: Uuid,
        identity: &Value,
    ) -> Vec<NewDelivery> {
        let view = hook_view(identity);
        let variables = self.reconciler.variables(&view);
        // The write fails if the change was delivered before, so its id need not be the same again.
        let trigger_id = format!("change:{}", time_ordered_id(variables.now));
        let trigger = Trigger {
            event: Event::IdentityUpdated,
            identity_id: id,
            trigger_id: &trigger_id,
            check: None,
        };
        deliveries_for(&tracking.changes, &trigger, &variables)
    }

    async fn store_change(
        &mut self,
        deliveries: Vec<NewDelivery>,
        from: &str,
        to: KnownIdentity,
    ) -> Result<(), Error> {
        let id = to.id;
        let unbuilt = deliveries
            .iter()
            .filter(|one| one.unbuilt_reason().is_some());
        let unbuilt = unbuilt.count() as u64;
        for one in &deliveries {
            self.progress
                .changed(id, &one.subscription, one.unbuilt_reason());
        }
        let stored = if self.reconciler.options.dry_run {
            deliveries.len()
        } else {
            let batch = WriteSet {
                identities: vec![IdentityRecord::Changed(from.to_owned(), to)],
                ..WriteSet::of(deliveries)
            };
            match self.reconciler.outbox.write(batch).await {
                Ok(stored) => stored,
                // A hook has reported the identity meanwhile.
                Err(error) if matches!(*error, store::Error::Conflict) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        };
        self.report.unbuilt += unbuilt;
        self.report.changes_reported += stored as u64;
        if !self.reconciler.options.dry_run {
            tracing::info!(
                identity.id = %id, stored,
                "An identity was changed, and no hook reported it: stored {stored} deliveries"
            );
        }
        Ok(())
    }
}
