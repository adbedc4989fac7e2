//! Checks the identities with stored data, and erases the data of those that are deleted in Kratos.

use uuid::Uuid;

use super::checkpoint::Next;
use super::{Error, Round};
use crate::outbound::kratos_admin::PAGE;

/// If this many identities are deleted and none is found, `kratos.admin_url` is probably the address of another Kratos.
pub(super) const MAX_UNCONFIRMED_DELETIONS: usize = 50;

impl Round<'_> {
    /// Checks all identities with stored data after this id.
    pub(super) async fn check_stored(&mut self, mut after: Uuid) -> Result<(), Error> {
        let reconciler = self.reconciler;
        let step = PAGE.min(reconciler.options.per_second);
        // Identities that Kratos does not have, before this Kratos is known to be the right one.
        let mut doubted = Vec::new();
        loop {
            let began = reconciler.clock.now();
            let kept = reconciler.store.identities_with_data(after, step).await?;
            let Some(last) = kept.last().copied() else {
                break;
            };
            let reported = self.reported_in_dry_run(&kept).await?;
            for id in kept.iter().filter(|id| !reported.contains(*id)) {
                self.renew_lock().await?;
                if self.is_deleted(*id).await? {
                    doubted.push(*id);
                } else {
                    self.saw_known_identity = true;
                }
                if self.saw_known_identity || reconciler.options.allow_mass_erasure {
                    self.forget(&mut doubted).await?;
                } else if doubted.len() >= MAX_UNCONFIRMED_DELETIONS {
                    self.delete_checkpoint().await?;
                    return Err(Error::UnknownKratos {
                        unconfirmed: doubted.len(),
                    });
                }
            }
            after = last;
            if kept.len() < step as usize {
                break;
            }
            if doubted.is_empty() {
                self.store_checkpoint(Next::Stored(after)).await?;
            }
            reconciler.pause(began, kept.len()).await;
        }
        self.forget(&mut doubted).await
    }

    pub(super) async fn is_deleted(&self, id: Uuid) -> Result<bool, Error> {
        let identity = self.reconciler.identities.get(id).await;
        let identity = identity.map_err(|source| Error::Identity { id, source })?;
        Ok(identity.is_none())
    }

    async fn forget(&mut self, deleted: &mut Vec<Uuid>) -> Result<(), Error> {
        for id in deleted.drain(..) {
            self.report.deleted += 1;
            self.progress.deleted(id);
            if self.reconciler.options.dry_run {
                continue;
            }
            let now = self.reconciler.clock.now();
            let erased = self.reconciler.store.forget(id, now).await?;
            self.report.erased += erased;
            tracing::info!(
                identity.id = %id, erased,
                "An identity was deleted in Kratos: Vestibule erased its data and discarded its pending deliveries"
            );
        }
        Ok(())
    }
}
