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
    pub checked: u64,
    /// Deliveries that were missing.
    pub missing: u64,
    /// Missing deliveries that this round stored.
    pub stored: u64,
    /// Missing deliveries that could not be built. These deliveries are stored as abandoned, unless they were before.
    pub unbuilt: u64,
    /// Identities with stored data that were deleted in Kratos.
    pub deleted: u64,
    /// Deliveries of deleted identities that were erased.
    pub erased: u64,
}

/// Receives the findings during a round. The findings are not kept.
pub trait Progress: Send + Sync {
    /// This subscription is left out, because only a hook has the data that its `when` reads.
    fn left_out(&self, subscription: &str) {
        let _ = subscription;
    }
    /// A delivery is missing. `unbuilt` is the reason if the delivery cannot be built.
    fn missing(&self, identity: Uuid, subscription: &str, unbuilt: Option<&str>) {
        let _ = (identity, subscription, unbuilt);
    }
    /// An identity with stored data was deleted in Kratos.
    fn deleted(&self, identity: Uuid) {
        let _ = identity;
    }
    /// The number of identities compared until now.
    fn checked(&self, number: u64) {
        let _ = number;
    }
}

impl Progress for () {}

impl Report {
    pub(super) fn count(&self, metrics: &Metrics) {
        for (outcome, number) in [
            ("checked", self.checked),
            ("stored", self.stored),
            ("unbuilt", self.unbuilt),
            ("deleted", self.deleted),
            ("erased", self.erased),
        ] {
            let labels = OutcomeLabels { outcome };
            metrics.reconciled.get_or_create(&labels).inc_by(number);
        }
    }
}
