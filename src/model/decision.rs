//! What was decided about a sign-up and why, without any value: "why was this person refused?"

use std::sync::Arc;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::Hook;

/// One `pre` call's outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The call.
    pub hook: Hook,
    /// The flow's id.
    pub flow_id: Uuid,
    /// When the call came.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// `admitted`, `changed` or `refused`.
    pub outcome: &'static str,
    /// In the order of the settings file.
    pub checks: Vec<CheckRecord>,
}

/// One check's part in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckRecord {
    /// The check's name.
    #[serde(serialize_with = "as_text")]
    pub check: Arc<str>,
    /// `accepted`, `refused`, `unavailable`, `not_applicable`, `skipped`.
    pub outcome: &'static str,
    /// In what way unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The number of the message, if it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<u32>,
    /// Whether it only watched.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub observed: bool,
    /// How long it took, in milliseconds; left out if it was less than one.
    #[serde(skip_serializing_if = "is_zero")]
    pub duration_ms: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn as_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}
