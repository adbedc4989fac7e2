//! Keeps the late refusals in force in memory.
//!
//! Login and recovery hooks are answered from this set, so they never wait for the database. While the database is
//! unavailable, the last loaded set counts.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use uuid::Uuid;

use crate::base::clock::Clock;
use crate::base::telemetry::Metrics;
use crate::model::late_refusal::LateRefusal;
use crate::store::late_refusals::VERSION;
use crate::store::{self, Store};

/// The refusals in force, by identity.
pub struct RefusedIdentities {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Arc<Metrics>,
    known: RwLock<Option<Known>>,
    /// Whether Kratos has ever called a login or recovery hook.
    was_asked: AtomicBool,
}

struct Known {
    version: Option<String>,
    /// The refusals that keep the visitor out.
    by_identity: HashMap<Uuid, Arc<[LateRefusal]>>,
    /// The checks of the refusals that do not keep the visitor out.
    marked: HashMap<Uuid, BTreeSet<String>>,
}

/// The late refusals of an identity that keep its visitor out.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// No refusal that keeps the visitor out is in force.
    Free,
    /// These refusals keep the visitor out; at least one.
    Refused(Arc<[LateRefusal]>),
    /// The set was never loaded.
    Unknown,
}

impl RefusedIdentities {
    /// Creates an empty set; nothing is loaded yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            clock,
            metrics,
            known: RwLock::new(None),
            was_asked: AtomicBool::new(false),
        }
    }

    /// Returns the late refusals of this identity that keep its visitor out.
    #[must_use]
    pub fn of(&self, identity_id: Uuid) -> Standing {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            None => Standing::Unknown,
            Some(known) => known
                .by_identity
                .get(&identity_id)
                .map_or(Standing::Free, |refusals| {
                    Standing::Refused(Arc::clone(refusals))
                }),
        }
    }

    /// Returns the checks that refused this identity late without keeping the visitor out. A change in settings can
    /// lift these refusals.
    #[must_use]
    pub fn marked(&self, identity_id: Uuid) -> BTreeSet<String> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let marked = known
            .as_ref()
            .and_then(|known| known.marked.get(&identity_id));
        marked.cloned().unwrap_or_default()
    }

    /// Records that Kratos called a login or recovery hook.
    pub fn record_hook_call(&self) {
        self.was_asked.store(true, Ordering::Relaxed);
    }

    /// Warns the operator if Kratos has called no login or recovery hook yet.
    pub fn warn_without_hook_calls(&self) {
        if !self.was_asked.load(Ordering::Relaxed) {
            tracing::warn!(
                "An account was refused late, and Kratos has not called a hook of login or recovery at this instance yet. If these \
                 hooks are missing in kratos.yml, a profile save can set the account active again for some seconds; \
                 `vestibule kratos hooks --config` prints them"
            );
        }
    }

    /// Loads the set, if it has changed.
    pub async fn reload(&self) -> Result<(), store::Error> {
        // The version is read first. A change during the load has another version, and is loaded next time.
        let version = self.store.get_property(VERSION).await?;
        let is_current = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            known.as_ref().is_some_and(|known| known.version == version)
        };
        if !is_current {
            let mut by_identity: HashMap<Uuid, Vec<LateRefusal>> = HashMap::new();
            let mut marked: HashMap<Uuid, BTreeSet<String>> = HashMap::new();
            for refusal in self.store.late_refusals().await? {
                if !refusal.keeps_out() {
                    let checks = marked.entry(refusal.identity_id).or_default();
                    checks.insert(refusal.check);
                    continue;
                }
                by_identity
                    .entry(refusal.identity_id)
                    .or_default()
                    .push(refusal);
            }
            let identities = i64::try_from(by_identity.len()).unwrap_or(i64::MAX);
            self.metrics.late_refused_identities.set(identities);
            let by_identity = by_identity
                .into_iter()
                .map(|(id, refusals)| (id, refusals.into()))
                .collect();
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            *known = Some(Known {
                version,
                by_identity,
                marked,
            });
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let now = self.clock.now().timestamp() as f64;
        self.metrics.late_refusals_loaded_at.set(now);
        Ok(())
    }
}
