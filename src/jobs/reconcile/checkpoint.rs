//! How far a round has come, for the one that goes on after it was interrupted.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Round;
use crate::base::clock::{Timestamp, saturating_add};
use crate::store::Error;

/// The name of the fact.
const CHECKPOINT: &str = "reconcile:checkpoint";
/// The name of the fact that tells when a round was last done.
pub(super) const LAST_ROUND: &str = "reconcile:last_round";

/// One identity that Kratos cannot tell of must not keep us from looking at the pages again.
const PAGES_AGAIN_AFTER: Duration = Duration::from_hours(24);

/// How far a round has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// When it began.
    pub(super) began_at: Timestamp,
    /// A round that looks further back has not seen the pages before in its own way.
    pub(super) since: Option<Timestamp>,
    /// What comes next.
    pub(super) place: Place,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// The page with this token.
    Page(String),
    /// Those behind this one, of the identities that we keep something of.
    Kept(Uuid),
}

impl Round<'_> {
    /// What a round like this one has left behind.
    pub(super) async fn interrupted(&self) -> Result<Option<Checkpoint>, Error> {
        if self.reconciler.wishes.dry_run {
            return Ok(None);
        }
        let get_property = self.reconciler.store.get_property(CHECKPOINT).await?;
        let checkpoint = get_property
            .and_then(|get_property| serde_json::from_str::<Checkpoint>(&get_property).ok());
        Ok(checkpoint.filter(|checkpoint| {
            checkpoint.since == self.reconciler.wishes.since
                && (matches!(checkpoint.place, Place::Page(_))
                    || saturating_add(checkpoint.began_at, PAGES_AGAIN_AFTER) > self.began_at)
        }))
    }

    /// Writes down how far it has come.
    pub(super) async fn next_is(&self, place: Place) -> Result<(), Error> {
        if self.reconciler.wishes.dry_run {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            began_at: self.began_at,
            since: self.reconciler.wishes.since,
            place,
        };
        let checkpoint = serde_json::to_string(&checkpoint).unwrap_or_default();
        let store = &self.reconciler.store;
        store.set_property(CHECKPOINT, Some(&checkpoint)).await
    }

    /// Writes down that nothing is left to do.
    pub(super) async fn is_done(&self) -> Result<(), Error> {
        if self.reconciler.wishes.dry_run {
            return Ok(());
        }
        // In this order, because the next round must not go on at the end of this one.
        self.begins_anew().await?;
        let store = &self.reconciler.store;
        let now = self.reconciler.clock.now().to_rfc3339();
        store.set_property(LAST_ROUND, Some(&now)).await
    }

    /// Strikes out how far it has come.
    pub(super) async fn begins_anew(&self) -> Result<(), Error> {
        if self.reconciler.wishes.dry_run {
            return Ok(());
        }
        self.reconciler.store.set_property(CHECKPOINT, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for place in [
            Place::Page("a/b".to_owned()),
            Place::Kept(Uuid::from_u128(7)),
        ] {
            let checkpoint = Checkpoint {
                began_at: Timestamp::UNIX_EPOCH,
                since: None,
                place,
            };
            let written = serde_json::to_string(&checkpoint).unwrap();
            assert_eq!(
                serde_json::from_str::<Checkpoint>(&written).unwrap(),
                checkpoint
            );
        }
    }
}
