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
