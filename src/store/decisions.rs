//! What a database keeps of the decisions about sign-ups and changes. It never holds a value of a visitor.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::decision::{Decision, DecisionOutcome};

/// The identity that a registration flow has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowIdentity {
    /// The id of the flow.
    pub flow_id: Uuid,
    /// The id of the identity.
    pub identity_id: Uuid,
}

/// Selects decisions. Each field that is set narrows the selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    /// The outcome of the call, or with `check` the outcome of that check.
    pub outcome: Option<DecisionOutcome>,
    /// A check that ran.
    pub check: Option<String>,
    /// The flow.
    pub flow_id: Option<Uuid>,
    /// The identity.
    pub identity: Option<Uuid>,
    /// The earliest time.
    pub since: Option<Timestamp>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<i64>,
}

/// A recorded decision.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RecordedDecision {
    /// The number of the record, which increases with time.
    pub id: i64,
    /// When the call arrived.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// The id of the flow.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub flow_id: Uuid,
    /// `registration` or `settings`.
    pub flow: String,
    /// The method, such as `password`.
    pub method: String,
    /// `admitted`, `changed` or `refused`.
    pub outcome: String,
    /// The duration of the call, in milliseconds.
    pub duration_ms: u64,
    /// The id of the identity; null if there is none, if its `post` did not arrive, or after its erasure.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub identity_id: Option<Uuid>,
    /// The results of the checks, in the order of the settings file.
    pub checks: Vec<RecordedCheck>,
}

/// The recorded result of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecordedCheck {
    /// The name of the check.
    pub check: String,
    /// `accepted`, `refused`, `unavailable`, `not_applicable` or `skipped`.
    pub outcome: String,
    /// The kind of unavailability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The number of the message, if the check refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<u32>,
    /// Whether the check has `mode: observe`, so that its result had no effect.
    #[serde(default)]
    pub observed: bool,
    /// The duration of the check, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
}

/// A page of decisions.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DecisionPage {
    /// The decisions, newest first.
    pub decisions: Vec<RecordedDecision>,
    /// The `cursor` of the next page; null on the last page.
    pub next_cursor: Option<i64>,
}

/// The decisions of one flow.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FlowDecisions {
    /// The decisions, oldest first: one for each submission of the form.
    pub decisions: Vec<RecordedDecision>,
}

/// Stores and lists decisions.
#[async_trait]
pub trait DecisionStore: Send + Sync {
    /// Stores decisions in one transaction.
    async fn record(&self, decisions: &[Decision]) -> Result<(), Error>;
    /// Stores the identities that flows have become. Returns the flows that had a decision.
    async fn record_identities(&self, identities: &[FlowIdentity]) -> Result<Vec<Uuid>, Error>;
    /// Lists decisions, newest first.
    async fn decisions(
        &self,
        filter: &DecisionFilter,
        limit: u32,
    ) -> Result<Vec<RecordedDecision>, Error>;
    /// Returns the decisions of a flow, oldest first.
    async fn decisions_of_flow(&self, flow_id: Uuid) -> Result<Vec<RecordedDecision>, Error>;
}

/// Returns up to `limit` decisions, newest first.
pub async fn decision_page(
    store: &dyn DecisionStore,
    filter: &DecisionFilter,
    limit: u32,
) -> Result<DecisionPage, Error> {
    // One more decision shows whether another page follows.
    let mut decisions = store.decisions(filter, limit.saturating_add(1)).await?;
    let whole = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = decisions.len() > whole;
    decisions.truncate(whole);
    let last = decisions.last().map(|decision| decision.id);
    Ok(DecisionPage {
        decisions,
        next_cursor: last.filter(|_| more),
    })
}
