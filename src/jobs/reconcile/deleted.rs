//! Checks the identities with stored data, and erases the data of those that are deleted in Kratos.

use uuid::Uuid;

use super::checkpoint::Place;
use super::{Error, Round};
use crate::outbound::kratos_admin::PAGE;

/// If this many identities are deleted and none is found, `kratos.admin_url` probably names another Kratos.
const TOO_MANY: usize = 50;

impl Round<'_> {
    /// Checks all identities with stored data after this id.
    pub(super) async fn those_we_keep(&mut self, mut after: Uuid) -> Result<(), Error> {
        let reconciler = self.reconciler;
        let step = PAGE.min(reconciler.wishes.per_second);
        // Identities that Kratos does not have, before this Kratos is known to be the right one.
        let mut doubted = Vec::new();
        loop {
            let began = reconciler.clock.now();
            let kept = reconciler.store.identities_with_data(after, step).await?;
            let Some(last) = kept.last().copied() else {
                break;
            };
            for id in &kept {
                self.hold().await?;
                if self.is_gone(*id).await? {
                    doubted.push(*id);
                } else {
                    self.saw_known_identity = true;
                }
                if self.saw_known_identity || reconciler.wishes.believe_all_gone {
                    self.forget(&mut doubted).await?;
                } else if doubted.len() >= TOO_MANY {
                    self.begins_anew().await?;
                    return Err(Error::Unfamiliar {
                        asked: doubted.len(),
                    });
                }
            }
            after = last;
            if kept.len() < step as usize {
                break;
            }
            if doubted.is_empty() {
                self.next_is(Place::Kept(after)).await?;
            }
            reconciler.pause(began, kept.len()).await;
        }
        self.forget(&mut doubted).await
    }

    async fn is_gone(&self, id: Uuid) -> Result<bool, Error> {
        let identity = self.reconciler.identities.get(id).await;
        let identity = identity.map_err(|source| Error::Identity { id, source })?;
        Ok(identity.is_none())
    }

    async fn forget(&mut self, gone: &mut Vec<Uuid>) -> Result<(), Error> {
        for id in gone.drain(..) {
            self.report.gone += 1;
            self.witness.gone(id);
            if self.reconciler.wishes.dry_run {
                continue;
            }
            let now = self.reconciler.clock.now();
            let forgotten = self.reconciler.store.forget(id, now).await?;
            self.report.forgotten += forgotten;
            tracing::info!(
                identity.id = %id, forgotten,
                "An identity was deleted in Kratos: Vestibule erased its data and discarded its pending deliveries"
            );
        }
        Ok(())
    }
}
