//! The result of a round.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::OutcomeLabels;

/// The result of a round. If a round continues an interrupted one, the result counts only its own part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Report {
    /// Identities of Kratos that were compared.
    pub looked_at: u64,
    /// Deliveries that were missing.
    pub missing: u64,
    /// Missing deliveries that this round stored.
    pub stored: u64,
    /// Missing deliveries that could not be built. These deliveries are stored as abandoned.
    pub unbuilt: u64,
    /// Identities with stored data that were deleted in Kratos.
    pub gone: u64,
    /// Deliveries of deleted identities that were erased.
    pub forgotten: u64,
}

/// Receives the findings during a round. The findings are not kept.
pub trait Progress: Send + Sync {
    /// This subscription is left out, because only a hook has the data that its `when` reads.
    fn left_out(&self, plan: &str) {
        let _ = plan;
    }
    /// A delivery is missing. `unbuilt` is the reason if the delivery cannot be built.
    fn missing(&self, identity: Uuid, plan: &str, unbuilt: Option<&str>) {
        let _ = (identity, plan, unbuilt);
    }
    /// An identity with stored data was deleted in Kratos.
    fn gone(&self, identity: Uuid) {
        let _ = identity;
    }
    /// The number of identities compared until now.
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
