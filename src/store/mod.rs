//! The store: the traits of a database, and their implementations for SQLite and PostgreSQL.

pub mod admin;
pub mod attribution;
pub mod decision_log;
pub mod flow_reader;
pub mod group_commit;
pub mod guard;
pub mod identity_writes;
pub mod late_refusals;
pub mod lock;
pub mod outbox;
pub mod postgres;
mod schema;
pub mod settlement_writer;
pub mod sqlite;
mod write_set;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::base::telemetry;
use crate::model::decision::Decision;
use crate::model::delivery::{Action, Claimed, Event, NewDelivery, Outcome, State};
use crate::model::late_refusal::LateRefusal;
use crate::model::pending::{AttributedSubmission, FlowRecord, LookupKind, PendingSignUp};
use crate::model::reservation::{self, Reservation};

pub use identity_writes::IdentityWriteStore;
pub use late_refusals::{LateRefusalFilter, LateRefusalStore};
pub use schema::AppliedMigration;
pub use write_set::{
    Acceptance, Closing, Ending, PendingEnd, RefusalLift, Release, SettledQuestion, WriteSet,
};

/// A database error. The text never holds a value from a request or an identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database reported an error, or cannot be reached.
    #[error("database error")]
    Database(#[from] sqlx::Error),
    /// The database has not answered for longer than any statement takes. The statement may have succeeded.
    #[error("the database did not answer in time")]
    Timeout,
    /// A migration failed.
    #[error("the database could not be migrated")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Another version of Vestibule has migrated the database.
    #[error(
        "the database belongs to another version of Vestibule: migration {number} in it is not one of this version; run that \
         version, or use an empty database"
    )]
    OtherVersion {
        /// The number of the migration.
        number: i64,
    },
    /// The database file could not be created.
    #[error("the database file {} could not be created", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A reservation, flow or submission has changed since it was read.
    #[error("a reservation or a flow has changed since it was read")]
    Conflict,
    /// The folder of the database file does not exist.
    #[error("the folder {} of the database file does not exist; create the folder", folder.display())]
    NoFolder {
        /// The path of the folder.
        folder: PathBuf,
    },
}

impl Error {
    /// Formats the error and its causes in one line, for a log.
    #[must_use]
    pub fn error_chain(&self) -> String {
        telemetry::error_chain(self)
    }

    /// Returns whether the database rejected the data. `false` means that the database is unreachable, locked or full.
    pub(crate) fn is_data_error(&self) -> bool {
        use sqlx::error::ErrorKind::{
            CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation,
        };
        match self {
            Self::Conflict => true,
            Self::Database(error) => error.as_database_error().is_some_and(|error| {
                // PostgreSQL's class 22: data exceptions.
                error
                    .code()
                    .is_some_and(|code| code.starts_with("22") && code.len() == 5)
                    || matches!(
                        error.kind(),
                        UniqueViolation | NotNullViolation | CheckViolation | ForeignKeyViolation
                    )
            }),
            _ => false,
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
    /// The error.
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

/// The stored state of a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowState {
    /// The flow, if a submission was accepted or a `post` has closed the flow.
    pub record: Option<FlowRecord>,
    /// All accepted submissions of the flow, oldest first.
    pub pending: Vec<PendingSignUp>,
    /// All reservations of the flow, oldest first.
    pub reservations: Vec<Reservation>,
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
    /// The number of attempts.
    pub attempts: u32,
    /// The error of the last attempt, if it failed.
    pub last_error: Option<String>,
    /// When the delivery was created.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
    /// When the next attempt is due; null unless pending.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// When the delivery was delivered, abandoned or discarded.
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

/// A database that keeps every confirmed write.
#[async_trait]
pub trait Store: LateRefusalStore + IdentityWriteStore + Send + Sync {
    /// Stores the whole write set durably, in one transaction, before it returns. Returns the ids of the new
    /// deliveries.
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error>;
    /// Counts the deliveries that were stored since the store was opened, whatever stored them.
    fn deliveries_stored(&self) -> Counter;
    /// Stores these deliveries; returns how many were new.
    async fn accept(&self, deliveries: Vec<NewDelivery>) -> Result<usize, Error> {
        Ok(self.write(&WriteSet::of(deliveries)).await?.len())
    }
    /// Claims up to `limit` due deliveries of the subscription, those due longest first, and counts the attempt. The
    /// caller holds them for `lease`. When a lease expires, its delivery is due again.
    async fn claim(
        &self,
        subscription: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error>;
    /// Stores the results of attempts in one transaction. Returns the ids whose lease the caller still held; the others
    /// are not changed.
    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error>;
    /// Stores the result of one attempt. Returns `false` if the caller no longer holds the lease.
    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        let settlement = Settlement::of(held, attempt.clone(), outcome.clone());
        Ok(self.settle_all(&[settlement]).await?.contains(&held.id))
    }
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
    /// Makes pending or abandoned deliveries due now. Abandoned deliveries are retried for another `keep_trying_for`.
    /// Leased deliveries and those that could not be built are not changed. Returns the number of changed deliveries.
    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error>;
    /// Discards pending or abandoned deliveries and deletes their payloads. Leased deliveries are not changed. Returns
    /// the number of discarded deliveries.
    async fn discard(&self, filter: &Filter, now: Timestamp) -> Result<u64, Error>;
    /// Returns how many deliveries [`Store::discard`] would discard, or [`Store::retry`] would check.
    async fn unfinished(&self, filter: &Filter) -> Result<u64, Error>;
    /// Returns numbers for metrics and health.
    async fn backlog(&self) -> Result<Backlog, Error>;
    /// Returns those of these subscriptions and unique keys that are stored.
    async fn existing_keys(
        &self,
        keys: &[(String, String)],
    ) -> Result<HashSet<(String, String)>, Error>;

    /// Returns whether the delivery with this subscription and unique key is pending.
    async fn is_pending(&self, subscription: &str, unique_key: &str) -> Result<bool, Error>;

    /// Stores decisions in one transaction.
    async fn record(&self, decisions: &[Decision]) -> Result<(), Error>;

    /// Returns the stored state of a flow.
    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error>;
    /// Returns only the flow's record, which is faster.
    async fn flow_record(&self, flow_id: Uuid) -> Result<Option<FlowRecord>, Error> {
        Ok(self.flow_records(&[flow_id]).await?.pop())
    }
    /// Returns the records of these flows, as far as they are stored.
    async fn flow_records(&self, flow_ids: &[Uuid]) -> Result<Vec<FlowRecord>, Error>;
    /// Returns the flow whose submissions got this `external_id`, if no `post` or look-up has closed it yet.
    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error>;
    /// Returns the settings flows with a submission that gives this identity traits with this hash. Submissions that a
    /// `post` or look-up has attributed are left out.
    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error>;
    /// Returns the submissions that are attributed to this identity, with their reservations. Those of closed flows are
    /// deleted.
    async fn attributed_to(&self, identity_id: Uuid) -> Result<Vec<AttributedSubmission>, Error>;
    /// Leases up to `limit` flows whose look-up of this kind is due to the caller, and counts the look-up.
    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error>;
    /// Schedules the next look-up of the flow, unless a newer submission was accepted meanwhile. `None`: never.
    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error>;
    /// Schedules a look-up of all registration flows whose newest submission was accepted since then. The look-up is
    /// due now, or [`URGENT_LOOKUP_INTERVAL`](crate::model::pending::URGENT_LOOKUP_INTERVAL) after the last such
    /// request. Returns the number of flows that are looked up earlier because of it.
    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error>;
    /// Returns when the next look-up is due.
    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error>;

    /// Records that another `pre` uses an open reservation until this time at the latest. Returns `false` if the
    /// reservation is not open any more.
    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error>;
    /// Gives an open reservation that no `pre` uses to another submission. `former` is stored with it: the released row
    /// of the former submission. Returns `false` if the reservation has changed meanwhile.
    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error>;
    /// Records that a reservation was taken, perhaps by two calls at the same time. Returns `false` if the reservation
    /// is not open any more.
    async fn mark_reserved(&self, id: Uuid, details: &reservation::Details) -> Result<bool, Error>;
    /// Records that the service refused a reservation, so that there is nothing to release.
    async fn cancel_reservation(&self, id: Uuid) -> Result<(), Error>;
    /// Returns up to `limit` open reservations that no running `pre` uses and nothing will confirm. Their flow is
    /// closed, or it expired by `expired_at` and none of its submissions is looked up any more.
    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error>;

    /// Gives `holder` the lock of that name until this time. Returns `false` if another holder has the lock.
    async fn acquire_lock(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error>;
    /// Releases the lock if `holder` has it.
    async fn release_lock(&self, name: &str, holder: Uuid) -> Result<(), Error>;

    /// Returns the value of this property.
    async fn get_property(&self, name: &str) -> Result<Option<String>, Error>;
    /// Sets the value of this property. `None` deletes the property.
    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), Error>;
    /// Stores the property unless it exists. Returns the value that is stored now.
    async fn get_or_insert_property(&self, name: &str, value: &str) -> Result<String, Error>;

    /// Deletes up to `limit` deliveries that were delivered or discarded before this time, with their attempts.
    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Deletes up to `limit` decisions that were made before this time.
    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Deletes up to `limit` each of ended reservations and pending sign-ups whose flow expired before this time.
    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Returns the next `limit` identities after `after` with stored personal data, ordered by id.
    async fn identities_with_data(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error>;
    /// Erases the stored data of an identity, and discards its pending or abandoned deliveries. Returns how many
    /// deliveries held data.
    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error>;

    /// Returns the migrations that opening the database applied.
    fn changes(&self) -> &[AppliedMigration] {
        &[]
    }
    /// Checks that the database can be reached and written to.
    async fn ping(&self) -> Result<(), Error>;
    /// Completes running statements and closes the database.
    async fn close(&self);
}
