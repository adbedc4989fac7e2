//! Compares the identities of a page with what was reported of them.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use super::deleted::MAX_UNCONFIRMED_DELETIONS;
use super::{Error, Round};
use crate::base::clock::Timestamp;
use crate::model::known_identity::IdentityRecord;

/// If Kratos has none of the known identities, and there are at least this many, Kratos is probably another one. With
/// fewer, their deletion is more probable, as in a test installation.
const MIN_DOUBTED: usize = 10;

/// The result of comparing a page.
#[derive(Default)]
pub(super) struct Compared {
    /// What is known from now on.
    pub(super) records: Vec<IdentityRecord>,
    /// The identities that differ from what was reported.
    pub(super) changed: Vec<Uuid>,
}

impl Round<'_> {
    /// Checks that this Kratos is the right one, before anything is recorded: it has one of the known identities. An
    /// identity of another Kratos that was recorded would be a known one in the next round.
    pub(super) async fn check_kratos(&mut self) -> Result<(), Error> {
        let reconciler = self.reconciler;
        if reconciler.tracking.is_none() || reconciler.options.allow_mass_erasure || self.is_first {
            return Ok(());
        }
        // Ids are random, so the identities behind a random id are a random sample.
        let limit = u32::try_from(MAX_UNCONFIRMED_DELETIONS).unwrap_or(u32::MAX);
        let sample = reconciler.store.sample_identities(Uuid::new_v4(), limit);
        let sample = sample.await?;
        for id in &sample {
            self.renew_lock().await?;
            if !self.is_deleted(*id).await? {
                self.saw_known_identity = true;
                return Ok(());
            }
        }
        if sample.len() < MIN_DOUBTED {
            return Ok(());
        }
        self.delete_checkpoint().await?;
        Err(Error::UnknownKratos {
            unconfirmed: sample.len(),
        })
    }

    /// Compares the identities of a page with what was reported of them. An identity that was created after `just_now`
    /// is left to its hook.
    pub(super) async fn compare(
        &self,
        identities: &[Value],
        just_now: Timestamp,
    ) -> Result<Compared, Error> {
        let reconciler = self.reconciler;
        let mut compared = Compared::default();
        let Some(tracking) = &reconciler.tracking else {
            return Ok(compared);
        };
        let now = reconciler.clock.now();
        let mut states = Vec::with_capacity(identities.len());
        for identity in identities {
            let state = tracking.tracker.state_of(identity, now).await?;
            states.extend(state.map(|state| (identity, state)));
        }
        let ids: Vec<Uuid> = states.iter().map(|(_, state)| state.id).collect();
        let known = reconciler.store.known_identities(&ids).await?;
        // A dry run does this too: how else would it know which identities Kratos does not have any more?
        reconciler.store.touch_identities(&ids, now).await?;
        for (identity, state) in states {
            match known.get(&state.id).map(String::as_str) {
                None if was_created_before(identity, just_now) => {
                    compared.records.push(IdentityRecord::Found(state));
                }
                None => {}
                Some(fingerprint) if fingerprint == state.fingerprint => {}
                Some(fingerprint) if self.is_unreported(fingerprint) => {
                    compared.records.push(IdentityRecord::Reported(state));
                }
                Some(_) => compared.changed.push(state.id),
            }
        }
        Ok(compared)
    }

    /// Returns whether a change from this state is only recorded: in the first round, after an erasure, and if no
    /// subscription wants it.
    fn is_unreported(&self, fingerprint: &str) -> bool {
        let tracking = self.reconciler.tracking.as_ref();
        let is_unwanted = tracking.is_none_or(|tracking| tracking.changes.is_empty());
        self.is_first || is_unwanted || fingerprint.is_empty()
    }

    /// Returns those of these identities whose deletion a dry run has listed already. Otherwise they are erased by then.
    pub(super) async fn reported_in_dry_run(&self, ids: &[Uuid]) -> Result<HashSet<Uuid>, Error> {
        let reconciler = self.reconciler;
        if !reconciler.options.dry_run || reconciler.tracking.is_none() || self.is_first {
            return Ok(HashSet::new());
        }
        let known = reconciler.store.known_identities(ids).await?;
        Ok(known.into_keys().collect())
    }
}

/// Returns whether the identity was created before this time. An identity without a creation time was not.
fn was_created_before(identity: &Value, before: Timestamp) -> bool {
    let created_at = identity["created_at"].as_str();
    created_at.is_some_and(|text| text.parse().is_ok_and(|at: Timestamp| at <= before))
}
