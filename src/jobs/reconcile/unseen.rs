//! Looks for known identities that no page of Kratos had, and delivers their deletion.

use serde_json::json;
use uuid::Uuid;

use super::checkpoint::Next;
use super::{Error, Round, Tracking};
use crate::base::clock::Timestamp;
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::delivery::{Event, NewDelivery};
use crate::model::known_identity::IdentityRecord;
use crate::outbound::kratos_admin::PAGE;
use crate::store::known_identities::set_all_known;
use crate::store::{self, WriteSet};

/// How many known identities one statement deletes.
const STEP: u32 = 500;

impl Round<'_> {
    /// Checks the known identities that no page of this round had. All pages have been read without an error. Returns the
    /// id after which the stored identities continue.
    pub(super) async fn check_unseen(&mut self) -> Result<Uuid, Error> {
        let reconciler = self.reconciler;
        if let Some(tracking) = &reconciler.tracking {
            if !self.is_first {
                self.check_each_unseen(tracking).await?;
            } else if !reconciler.options.dry_run {
                self.forget_unseen().await?;
                set_all_known(&*reconciler.store, Some(self.began_at)).await?;
                tracing::info!(
                    "All identities of Kratos are known now; changes and deletions that no hook reports are delivered from now on"
                );
            }
        }
        self.store_checkpoint(Next::Stored(Uuid::nil())).await?;
        Ok(Uuid::nil())
    }

    /// Deletes what was known about identities that Kratos does not have any more.
    async fn forget_unseen(&mut self) -> Result<(), Error> {
        let store = &self.reconciler.store;
        while store.delete_unseen_identities(self.began_at, STEP).await? == u64::from(STEP) {
            self.renew_lock().await?;
        }
        Ok(())
    }

    async fn check_each_unseen(&mut self, tracking: &Tracking) -> Result<(), Error> {
        let reconciler = self.reconciler;
        let step = PAGE.min(reconciler.options.per_second);
        let mut after = (Timestamp::UNIX_EPOCH, Uuid::nil());
        loop {
            let began = reconciler.clock.now();
            let unseen = reconciler
                .store
                .unseen_identities(self.began_at, after, step)
                .await?;
            let mut exist = Vec::new();
            for (_, id) in &unseen {
                self.renew_lock().await?;
                if self.is_deleted(*id).await? {
                    self.report_deletion(tracking, *id).await?;
                } else {
                    exist.push(*id);
                }
            }
            // Kratos created these identities, or moved them to another page, while the pages were read.
            reconciler.store.touch_identities(&exist, began).await?;
            match unseen.last() {
                Some(last) if unseen.len() == step as usize => after = *last,
                _ => return Ok(()),
            }
            reconciler.pause(began, unseen.len()).await;
        }
    }

    /// Erases what is stored about a deleted identity, and delivers the deletion. What was pending is discarded first, so
    /// that no receiver hears of the account after its deletion.
    async fn report_deletion(&mut self, tracking: &Tracking, id: Uuid) -> Result<(), Error> {
        let reconciler = self.reconciler;
        let deliveries = self.deliveries_of_deletion(tracking, id);
        self.report.deleted += 1;
        self.progress.deleted(id);
        for delivery in &deliveries {
            self.progress.deletion(id, &delivery.subscription);
        }
        let unbuilt = deliveries
            .iter()
            .filter(|one| one.unbuilt_reason().is_some());
        let unbuilt = unbuilt.count() as u64;
        if reconciler.options.dry_run {
            self.report.unbuilt += unbuilt;
            self.report.deletions_reported += deliveries.len() as u64;
            return Ok(());
        }
        let erased = reconciler.store.forget(id, reconciler.clock.now()).await?;
        self.report.erased += erased;
        let batch = WriteSet {
            identities: vec![IdentityRecord::Deleted(id)],
            ..WriteSet::of(deliveries)
        };
        match reconciler.outbox.write(batch).await {
            Ok(stored) => {
                self.report.unbuilt += unbuilt;
                self.report.deletions_reported += stored as u64;
                tracing::info!(
                    identity.id = %id, erased, stored,
                    "An identity was deleted in Kratos: Vestibule erased its data, and stored {stored} deliveries of `identity.deleted`"
                );
                Ok(())
            }
            // Another instance has stored the deletion, because the lock of this one had expired.
            Err(error) if matches!(*error, store::Error::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn deliveries_of_deletion(&self, tracking: &Tracking, id: Uuid) -> Vec<NewDelivery> {
        let identity = json!({ "id": id });
        let variables = self.reconciler.variables(&identity);
        let trigger = Trigger {
            event: Event::IdentityDeleted,
            identity_id: id,
            trigger_id: "",
            check: None,
        };
        deliveries_for(&tracking.deletions, &trigger, &variables)
    }
}
