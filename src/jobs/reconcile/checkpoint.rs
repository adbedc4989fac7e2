//! Stores the progress of a round, so that an interrupted round can be continued.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Round;
use crate::base::clock::{Timestamp, saturating_add};
use crate::store::Error;

/// The name of the property that holds the checkpoint.
const CHECKPOINT: &str = "reconcile:checkpoint";
/// The name of the property that holds the time of the last complete round.
pub(super) const LAST_ROUND: &str = "reconcile:last_round";

/// An older checkpoint in the second half of a round is ignored. Otherwise one identity that Kratos cannot return
/// would prevent all further reading of pages.
const MAX_CHECKPOINT_AGE: Duration = Duration::from_hours(24);

/// The progress of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// When the round began.
    pub(super) began_at: Timestamp,
    /// The `since` of the round. A round with another `since` has evaluated the earlier pages differently.
    pub(super) since: Option<Timestamp>,
    /// Whether the round records what it finds. Otherwise the identities of the earlier pages are not known.
    #[serde(default)]
    pub(super) tracks: bool,
    /// The next step.
    pub(super) next: Next,
}

/// The next step of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Next {
    /// The page with this token.
    Page(String),
    /// The known identities that no page had.
    Unseen,
    /// The identities with stored data after this id.
    Stored(Uuid),
}

impl Round<'_> {
    /// Returns the checkpoint of an interrupted round with the same options.
    pub(super) async fn interrupted(&self) -> Result<Option<Checkpoint>, Error> {
        if self.reconciler.options.dry_run {
            return Ok(None);
        }
        let get_property = self.reconciler.store.get_property(CHECKPOINT).await?;
        let checkpoint = get_property
            .and_then(|get_property| serde_json::from_str::<Checkpoint>(&get_property).ok());
        Ok(checkpoint.filter(|checkpoint| {
            checkpoint.since == self.reconciler.options.since
                && checkpoint.tracks == self.reconciler.tracking.is_some()
                && (matches!(checkpoint.next, Next::Page(_))
                    || saturating_add(checkpoint.began_at, MAX_CHECKPOINT_AGE) > self.began_at)
        }))
    }

    /// Stores the progress.
    pub(super) async fn store_checkpoint(&self, next: Next) -> Result<(), Error> {
        if self.reconciler.options.dry_run {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            began_at: self.began_at,
            since: self.reconciler.options.since,
            tracks: self.reconciler.tracking.is_some(),
            next,
        };
        let checkpoint = serde_json::to_string(&checkpoint).unwrap_or_default();
        let store = &self.reconciler.store;
        store.set_property(CHECKPOINT, Some(&checkpoint)).await
    }

    /// Stores that the round is complete.
    pub(super) async fn store_completion(&self) -> Result<(), Error> {
        if self.reconciler.options.dry_run {
            return Ok(());
        }
        // The checkpoint is deleted first, because the next round must not continue at the end of this one.
        self.delete_checkpoint().await?;
        let store = &self.reconciler.store;
        let now = self.reconciler.clock.now().to_rfc3339();
        store.set_property(LAST_ROUND, Some(&now)).await
    }

    /// Deletes the checkpoint.
    pub(super) async fn delete_checkpoint(&self) -> Result<(), Error> {
        if self.reconciler.options.dry_run {
            return Ok(());
        }
        self.reconciler.store.set_property(CHECKPOINT, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_checkpoint_is_read_back() {
        for next in [
            Next::Page("a/b".to_owned()),
            Next::Unseen,
            Next::Stored(Uuid::from_u128(7)),
        ] {
            let checkpoint = Checkpoint {
                began_at: Timestamp::UNIX_EPOCH,
                since: None,
                tracks: true,
                next,
            };
            let written = serde_json::to_string(&checkpoint).unwrap();
            assert_eq!(
                serde_json::from_str::<Checkpoint>(&written).unwrap(),
                checkpoint
            );
        }
    }
}
