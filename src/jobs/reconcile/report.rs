//! What a round came to.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::OutcomeLabels;

/// What a round came to. Of one that goes on where another was interrupted, only what it did itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// Identities of Kratos that were looked at.
    pub looked_at: u64,
    /// Deliveries that were missing.
    pub missing: u64,
    /// Of these, those that were stored now.
    pub stored: u64,
    /// Of these, those that could not be built: they are stored as abandoned.
    pub unbuilt: u64,
    /// Identities of which we keep something, and which are gone from Kratos.
    pub gone: u64,
    /// Deliveries of theirs that were forgotten.
    pub forgotten: u64,
}

/// Sees the findings as they come. Nothing of them is kept.
pub trait Progress: Send + Sync {
    /// This plan is left out, because only a hook knows whether an identity is for it.
    fn left_out(&self, plan: &str) {
        let _ = plan;
    }
    /// A delivery is missing; `unbuilt` says why it cannot be built, if it cannot.
    fn missing(&self, identity: Uuid, plan: &str, unbuilt: Option<&str>) {
        let _ = (identity, plan, unbuilt);
    }
    /// An identity of which we keep something is gone from Kratos.
    fn gone(&self, identity: Uuid) {
        let _ = identity;
    }
    /// So many identities were looked at so far.
    fn looked_at(&self, number: u64) {
        let _ = number;
    }
}

impl Progress for () {}

impl Report {
    pub(super) fn count(&self, metrics: &Metrics) {
        for (outcome, number) in [
            ("looked_at", self.looked_at),
            ("stored", self.stored),
            ("unbuilt", self.unbuilt),
            ("gone", self.gone),
            ("forgotten", self.forgotten),
        ] {
            let labels = OutcomeLabels { outcome };
            metrics.reconciled.get_or_create(&labels).inc_by(number);
        }
    }
}
