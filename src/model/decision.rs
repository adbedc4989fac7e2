//! Records the decision about a sign-up and its reasons, without any value. A decision answers the question why a
//! visitor was refused.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::Hook;

/// The decision of one `pre` call.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The hook of the call.
    pub hook: Hook,
    /// The id of the flow.
    pub flow_id: Uuid,
    /// When the call arrived.
    pub at: Timestamp,
    /// The duration of the call, in milliseconds.
    pub duration_ms: u64,
    /// `admitted`, `changed` or `refused`.
    pub outcome: &'static str,
    /// The results of the checks, in the order of the settings file.
    pub checks: Vec<CheckRecord>,
    /// The identity that changes in settings. A registration has none yet.
    pub identity_id: Option<Uuid>,
}

/// An outcome that an operator looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// The sign-up or change was refused.
    Refused,
    /// A check had no answer, whatever followed from that.
    Unavailable,
    /// The sign-up or change was admitted, with changes or without.
    Admitted,
    /// The sign-up or change was admitted with changes.
    Changed,
}

impl DecisionOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [
        Self::Refused,
        Self::Unavailable,
        Self::Admitted,
        Self::Changed,
    ];

    /// The name in options and parameters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Admitted => "admitted",
            Self::Changed => "changed",
        }
    }

    /// Returns the outcome with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// Which decisions are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeptDecisions {
    /// All decisions.
    #[default]
    All,
    /// Only refusals.
    Refused,
}

impl KeptDecisions {
    /// Returns whether the decision is recorded.
    #[must_use]
    pub fn keeps(self, decision: &Decision) -> bool {
        self == Self::All || decision.outcome == "refused"
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckRecord {
    /// The name of the check.
    #[serde(serialize_with = "as_text")]
    pub check: Arc<str>,
    /// `accepted`, `refused`, `unavailable`, `not_applicable` or `skipped`.
    pub outcome: &'static str,
    /// The kind of unavailability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The number of the message, if the check refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<u32>,
    /// Whether the check has `mode: observe`, so that its result had no effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// The duration of the check, in milliseconds; omitted if less than one.
    #[serde(skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
