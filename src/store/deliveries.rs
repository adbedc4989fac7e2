//! What a database keeps of deliveries.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Error, RefusalLift, SettledQuestion, WriteSet};
use crate::base::clock::Timestamp;
use crate::base::telemetry::metrics::DeliveryCounters;
use crate::model::delivery::subscription::Built;
use crate::model::delivery::{AbandonReason, Action, Claimed, Event, NewDelivery, Outcome, State};
use crate::model::late_refusal::LateRefusal;

/// Stores write sets and deliveries, leases deliveries to dispatchers, and lists and changes them for an operator.
#[async_trait]
pub trait DeliveryStore: Send + Sync {
    /// Stores the whole write set durably, in one transaction, before it returns. Returns the ids of the new
    /// deliveries.
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error>;
    /// Counts deliveries since the store was opened, whatever stored or superseded them.
    fn counters(&self) -> DeliveryCounters;
    /// Claims up to `limit` due deliveries of the subscription, those due longest first, and counts the attempt. The
    /// caller holds them for `lease`. When a lease expires, its delivery is due again.
    ///
    /// Of the deliveries of an identity that have an order, at most one is leased, and only the first that is pending.
    async fn claim(
        &self,
        subscription: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error>;
    /// Stores the request that was built for a leased delivery with [`Action::Build`]. With an error, the delivery is
    /// abandoned again, and the attempt is not counted. Returns `false` if the caller no longer held the lease.
    async fn keep_built(
        &self,
        held: &Claimed,
        built: &Result<Built, String>,
        now: Timestamp,
    ) -> Result<bool, Error>;
    /// Stores the results of attempts in one transaction. Returns the ids whose lease the caller still held; the others
    /// are not changed.
    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error>;
    /// Returns leases without an attempt. Another dispatcher may claim the deliveries from `due_at`.
    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error>;
    /// Returns the next due time of each subscription with pending deliveries. One time per subscription lets the
    /// dispatcher leave out a subscription whose service is busy.
    async fn next_due(&self) -> Result<Vec<NextDue>, Error>;

    /// Lists up to `limit` deliveries, newest first.
    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<DeliverySummary>, Error>;
    /// Returns the subscriptions and other queues with pending or abandoned deliveries about this identity.
    async fn unfinished_queues(&self, identity_id: Uuid) -> Result<Vec<String>, Error>;
    /// Returns one delivery with its attempts.
    async fn show(&self, id: Uuid) -> Result<Option<DeliveryDetails>, Error>;
    /// Makes pending or abandoned deliveries due now. Leased deliveries, those without an action and those
    /// [out of order](Self::out_of_order) are not changed. Returns the number of changed deliveries.
    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        options: RetryOptions,
    ) -> Result<u64, Error>;
    /// Returns how many abandoned deliveries are older than one that was delivered to the same subscription about the
    /// same identity.
    async fn out_of_order(&self, filter: &Filter) -> Result<u64, Error>;
    /// Discards pending or abandoned deliveries and deletes their payloads. Leased deliveries are not changed. Returns
    /// the number of discarded deliveries.
    async fn discard(&self, filter: &Filter, now: Timestamp) -> Result<u64, Error>;
    /// Returns how many deliveries [`Self::discard`] would discard, or [`Self::retry`] would check.
    async fn unfinished(&self, filter: &Filter) -> Result<u64, Error>;
    /// Returns numbers for metrics and health.
    async fn backlog(&self) -> Result<Backlog, Error>;
    /// Returns those of these subscriptions and unique keys that are stored. A delivery that could not be built does not
    /// count.
    async fn existing_keys(
        &self,
        keys: &[(String, String)],
    ) -> Result<HashSet<(String, String)>, Error>;
    /// Returns whether the delivery with this subscription and unique key is pending.
    async fn is_pending(&self, subscription: &str, unique_key: &str) -> Result<bool, Error>;
}

/// How an operator retries deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// How long an abandoned delivery is retried.
    pub keep_trying_for: Duration,
    /// Whether a delivery is retried although a newer one of its subscription and identity has been delivered.
    pub out_of_order: bool,
}

impl RetryOptions {
    /// Retries for this long, in order.
    #[must_use]
    pub fn of(keep_trying_for: Duration) -> Self {
        Self {
            keep_trying_for,
            out_of_order: false,
        }
    }
}

/// The time at which a delivery of a subscription is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextDue {
    /// The name of the subscription or of another queue.
    pub subscription: String,
    /// The earliest time at which one of its deliveries is tried, or a lease on one ends.
    pub at: Timestamp,
}

/// The stored record of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// When the attempt began.
    pub began_at: Timestamp,
    /// When the attempt ended.
    pub ended_at: Timestamp,
    /// The HTTP status, if there was a response.
    pub status: Option<u16>,
    /// The error without values: `timeout`, `connection`, or `status 503` with the beginning of the response body.
    pub error: Option<String>,
}

/// The result of an attempt, as it is stored.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The delivery's id.
    pub id: Uuid,
    /// The number of the attempt. Only the holder of its lease may settle it.
    pub attempt: u32,
    /// The record of the attempt.
    pub record: AttemptRecord,
    /// The outcome.
    pub outcome: Outcome,
    /// Deliveries that follow from this outcome.
    pub follow_up_deliveries: Vec<NewDelivery>,
    /// The late refusal that comes into force with this outcome.
    pub late_refusal: Option<LateRefusal>,
    /// The late refusal that this outcome lifts.
    pub refusal_lift: Option<RefusalLift>,
    /// The questions of a deferred check that this outcome discards.
    pub question_settled: Option<SettledQuestion>,
}

impl Settlement {
    /// Creates the settlement of a claimed delivery.
    #[must_use]
    pub fn of(held: &Claimed, record: AttemptRecord, outcome: Outcome) -> Self {
        Self {
            id: held.id,
            attempt: held.attempt,
            record,
            outcome,
            follow_up_deliveries: Vec::new(),
            late_refusal: None,
            refusal_lift: None,
            question_settled: None,
        }
    }
}

/// A finished attempt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ListedAttempt {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// When the attempt began.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub began_at: Timestamp,
    /// The duration in milliseconds.
    pub duration_ms: u64,
    /// The status, if there was a response.
    pub status: Option<u16>,
    /// The error. Over HTTP, a response has only its status and its members `code`, `type` and `title`.
    pub error: Option<String>,
}

/// A delivery with its attempts.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct DeliveryDetails {
    /// The fields of the list.
    #[serde(flatten)]
    pub listed: DeliverySummary,
    /// When the delivery is abandoned if it has not succeeded.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub keep_trying_until: Timestamp,
    /// The finished attempts, oldest first.
    pub tries: Vec<ListedAttempt>,
    /// Whether a payload is stored. It contains personal data, so only the command line shows it.
    #[serde(rename = "payload_kept", serialize_with = "whether")]
    #[schemars(with = "bool")]
    pub action: Option<Action>,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the option")]
fn whether<S: serde::Serializer>(
    action: &Option<Action>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(action.is_some())
}

/// A delivery in a list.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct DeliverySummary {
    /// The delivery's id, which is also the `webhook-id` and the `Idempotency-Key`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// The subscription's name, or another queue: `write-back:crm`, `deferred-check:vat`, `late-refusal:vat`, `take:invite`, `confirm:invite`, `release:invite`.
    pub subscription: String,
    /// The event.
    pub event: Event,
    /// The identity; all zeros if none was created.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub identity_id: Uuid,
    /// The state.
    pub state: State,
    /// Why it was abandoned, if not because its attempts failed. `not_built`: the request could not be built; a retry builds it with the settings in force.
    pub reason: Option<AbandonReason>,
    /// The number of attempts.
    pub attempts: u32,
    /// The error of the last attempt, if it failed. Over HTTP, a response has only its status and its members `code`, `type` and `title`.
    pub last_error: Option<String>,
    /// When the delivery was created.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
    /// When the next attempt is due; null unless pending, and while an earlier delivery of the same identity is pending.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// When the delivery was delivered, superseded, abandoned or discarded.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub settled_at: Option<Timestamp>,
}

/// Selects deliveries to list, retry or discard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only deliveries with these ids. Empty: all.
    pub ids: Vec<Uuid>,
    /// Only deliveries of this subscription.
    pub subscription: Option<String>,
    /// No deliveries of these subscriptions.
    pub exclude_subscriptions: Vec<String>,
    /// Only deliveries in this state.
    pub state: Option<State>,
    /// Only deliveries of this identity.
    pub identity: Option<Uuid>,
    /// Only deliveries created at this time or later.
    pub since: Option<Timestamp>,
    /// Only deliveries created before this time.
    pub until: Option<Timestamp>,
    /// Only deliveries after this one in the list.
    pub cursor: Option<Uuid>,
}

/// Numbers for metrics and health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of pending deliveries.
    pub pending: u64,
    /// The number of abandoned deliveries.
    pub abandoned: u64,
    /// When the oldest pending delivery was created.
    pub oldest_pending: Option<Timestamp>,
}
