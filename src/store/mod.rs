//! The promises a database must keep.

pub mod admin;
pub mod attribution;
pub mod decision_log;
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
use crate::model::pending::{FlowRecord, LookupKind, PendingSignUp};
use crate::model::reservation::{self, Reservation};

pub use identity_writes::IdentityWriteStore;
pub use late_refusals::{LateRefusalFilter, LateRefusalStore};
pub use schema::AppliedMigration;
pub use write_set::{
    Acceptance, Closing, Ending, PendingEnd, RefusalLift, Release, SettledQuestion, WriteSet,
};

/// Why the database did not do as asked. Never holds a value of ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database said no, or nothing.
    #[error("database error")]
    Database(#[from] sqlx::Error),
    /// It has not answered for longer than any statement takes. Whether it did it is not known.
    #[error("the database did not answer in time")]
    Timeout,
    /// Its shape could not be made.
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
    /// Its file could not be made.
    #[error("the database file {} could not be created", path.display())]
    File {
        /// Of the file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A reservation, a flow or a submission is not in the state that it was in when it was read.
    #[error("a reservation or a flow has changed meanwhile")]
    Conflict,
    /// The folder in which its file should be made is not there.
    #[error("the folder {} does not exist; create it, the database is kept in there", folder.display())]
    NoFolder {
        /// Of the file.
        folder: PathBuf,
    },
}

impl Error {
    /// Itself and its causes in one line, for a log.
    #[must_use]
    pub fn error_chain(&self) -> String {
        telemetry::error_chain(self)
    }

    /// Whether the database is there and refuses what it was given, rather than being gone, locked or full.
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

/// When something of a plan falls due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextDue {
    /// The plan's name.
    pub subscription: String,
    /// The earliest time at which one of its deliveries is tried, or a lease on one ends.
    pub at: Timestamp,
}

/// What a try taught, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// When it began.
    pub began_at: Timestamp,
    /// When it was over.
    pub ended_at: Timestamp,
    /// The status, if there was an answer.
    pub status: Option<u16>,
    /// What went wrong, in words without values: `timeout`, `connection`, `status 503`, and the first words of the answer.
    pub error: Option<String>,
}

/// What became of a try, to be written down.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The delivery's id.
    pub id: Uuid,
    /// The number of the try; only its holder may settle it.
    pub attempt: u32,
    /// What it taught.
    pub record: AttemptRecord,
    /// What follows.
    pub outcome: Outcome,
    /// What is to be delivered because of it.
    pub follow_up_deliveries: Vec<NewDelivery>,
    /// The refusal that is in force because of it.
    pub late_refusal: Option<LateRefusal>,
    /// The late refusal that ends because of it.
    pub refusal_lift: Option<RefusalLift>,
}

impl Settlement {
    /// Of a delivery that is held.
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
        }
    }
}

/// A finished attempt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ListedAttempt {
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// When it began.
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
    /// As it is listed.
    #[serde(flatten)]
    pub listed: DeliverySummary,
    /// When it is abandoned if it is not delivered.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub keep_trying_until: Timestamp,
    /// The finished attempts, oldest first.
    pub tries: Vec<ListedAttempt>,
    /// Whether a payload is kept. It holds personal data, so only the command line shows it.
    #[serde(rename = "payload_kept", serialize_with = "whether")]
    #[schemars(with = "bool")]
    pub action: Option<Action>,
}

#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn whether<S: serde::Serializer>(
    action: &Option<Action>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(action.is_some())
}

/// What is known of a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowState {
    /// The flow itself, if a submission was accepted or a `post` has closed it.
    pub record: Option<FlowRecord>,
    /// Its accepted submissions that no identity is attributed to, oldest first.
    pub pending: Vec<PendingSignUp>,
    /// All that was taken for it, oldest first.
    pub reservations: Vec<Reservation>,
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
pub struct DeliverySummary {
    /// Its id, which is also the `webhook-id` and the `Idempotency-Key`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// The subscription's name, or another queue: `write-back:crm`, `deferred-check:vat`, `late-refusal:vat`, `take:invite`, `confirm:invite`, `release:invite`.
    pub subscription: String,
    /// What happened.
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
    /// When it was created.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
    /// When the next attempt is due; null unless pending.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered, abandoned or discarded.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub settled_at: Option<Timestamp>,
}

/// Which deliveries to list, retry or discard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only these; all if empty.
    pub ids: Vec<Uuid>,
    /// Only of this plan.
    pub subscription: Option<String>,
    /// Not of these plans.
    pub exclude_subscriptions: Vec<String>,
    /// Only in this state.
    pub state: Option<State>,
    /// Only about this identity.
    pub identity: Option<Uuid>,
    /// Only made then or later.
    pub since: Option<Timestamp>,
    /// Only made before then.
    pub until: Option<Timestamp>,
    /// Only those listed behind this one.
    pub cursor: Option<Uuid>,
}

/// Numbers for metrics and health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many are pending.
    pub pending: u64,
    /// How many are abandoned.
    pub abandoned: u64,
    /// Since when the oldest pending one waits.
    pub oldest_pending: Option<Timestamp>,
}

/// A database that loses nothing it said yes to.
#[async_trait]
pub trait Store: LateRefusalStore + IdentityWriteStore + Send + Sync {
    /// Stores all of it in one transaction, durably, before it returns. Returns the ids of the deliveries that were new.
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error>;
    /// Counts the deliveries that were stored since the store was opened, whatever stored them.
    fn deliveries_stored(&self) -> Counter;
    /// Stores these deliveries; returns how many were new.
    async fn accept(&self, deliveries: Vec<NewDelivery>) -> Result<usize, Error> {
        Ok(self.write(&WriteSet::of(deliveries)).await?.len())
    }
    /// Takes up to `limit` deliveries of the plan that are due, the longest waiting first, and gives them to
    /// the caller for `lease`; a lease that ran out makes its delivery due again. Counts the attempt.
    async fn claim(
        &self,
        subscription: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error>;
    /// Writes down what became of tries, in one transaction. Returns those that counted: the lease was still the caller's.
    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error>;
    /// Writes down what became of one try. `false` if the lease is no longer the caller's.
    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        let settlement = Settlement::of(held, attempt.clone(), outcome.clone());
        Ok(self.settle_all(&[settlement]).await?.contains(&held.id))
    }
    /// Gives leases back untried; another worker may take them from `due_at` on.
    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error>;
    /// When each plan that has something pending falls due next. (Plan by plan, so that one whose service is
    /// busy can be left out.)
    async fn next_due(&self) -> Result<Vec<NextDue>, Error>;

    /// Newest first.
    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<DeliverySummary>, Error>;
    /// One of them with its tries.
    async fn show(&self, id: Uuid) -> Result<Option<DeliveryDetails>, Error>;
    /// Makes pending or abandoned deliveries due now, and lets abandoned ones be tried for `keep_trying_for`
    /// anew. Leaves alone what a worker holds, and what could never be built. Returns how many.
    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error>;
    /// Ends pending or abandoned deliveries and forgets what they held. Leaves alone what a worker holds. Returns how many.
    async fn discard(&self, filter: &Filter, now: Timestamp) -> Result<u64, Error>;
    /// How many [`Store::discard`] would end, or [`Store::retry`] would look at.
    async fn unfinished(&self, filter: &Filter) -> Result<u64, Error>;
    /// Numbers for metrics and health.
    async fn backlog(&self) -> Result<Backlog, Error>;
    /// Of these plans and unique keys, those that are there.
    async fn existing_keys(
        &self,
        keys: &[(String, String)],
    ) -> Result<HashSet<(String, String)>, Error>;

    /// Whether the delivery with this plan and unique key still waits for its arrival.
    async fn is_pending(&self, subscription: &str, unique_key: &str) -> Result<bool, Error>;

    /// Writes decisions down, all in one transaction.
    async fn record(&self, decisions: &[Decision]) -> Result<(), Error>;

    /// What is known of a flow.
    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error>;
    /// The flow alone, which is quicker.
    async fn flow_record(&self, flow_id: Uuid) -> Result<Option<FlowRecord>, Error>;
    /// The flow whose submissions got this `external_id`, if no `post` or look-up has closed it yet.
    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error>;
    /// The settings flows with a submission that gives this identity traits with this hash, and that no `post` or look-up has
    /// attributed yet.
    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error>;
    /// Takes up to `limit` flows whose look-up of this kind is due, and leases them to the caller. Counts the look-up.
    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error>;
    /// The flow is looked up again then, unless a newer submission was accepted meanwhile. `None`: never.
    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error>;
    /// All registration flows whose newest submission was accepted since then are looked up now, or
    /// [`URGENT_LOOKUP_INTERVAL`](crate::model::pending::URGENT_LOOKUP_INTERVAL) after the last time that this was asked for. Returns
    /// how many are looked up earlier because of it.
    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error>;
    /// When the next flow is looked up.
    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error>;

    /// A further `pre` uses an open reservation until then at the latest. `false` if it is open no more.
    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error>;
    /// Gives an open reservation that no `pre` uses to another submission. `former` is stored with it: what is kept for the
    /// submission that had it. `false` if the reservation has changed meanwhile.
    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error>;
    /// A reservation in taking was taken, maybe by two calls at once. `false` if it is open no more.
    async fn mark_reserved(&self, id: Uuid, details: &reservation::Details) -> Result<bool, Error>;
    /// A reservation in taking was refused, so there is nothing to release.
    async fn cancel_reservation(&self, id: Uuid) -> Result<(), Error>;
    /// Up to `limit` open reservations that no running `pre` uses and nothing will confirm: their flow is closed, or it
    /// expired by `expired_at` and nothing of it is looked up any more.
    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error>;

    /// Gives `holder` the turn of that name until then, unless somebody else has it.
    async fn acquire_lock(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error>;
    /// Ends it, if it is `holder`'s.
    async fn release_lock(&self, name: &str, holder: Uuid) -> Result<(), Error>;

    /// What was written down under this name.
    async fn get_property(&self, name: &str) -> Result<Option<String>, Error>;
    /// Writes something down, over what was there; `None` strikes it out.
    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), Error>;
    /// Writes something down unless there is something already, and tells what is there now.
    async fn get_or_insert_property(&self, name: &str, value: &str) -> Result<String, Error>;

    /// Deletes up to `limit` deliveries that were delivered or discarded before then, with their attempts.
    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Deletes up to `limit` decisions that were made before then.
    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// Deletes up to `limit` each of reservations and entries of the journal that ended, and whose flow's life ended before
    /// then.
    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
    /// The next `limit` identities behind `after` about which something personal is stored, in the order of their ids.
    async fn identities_with_data(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error>;
    /// Forgets what is stored about an identity; what was pending or abandoned is discarded. Returns how many deliveries
    /// held something.
    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error>;

    /// What was changed of its shape when it was opened.
    fn changes(&self) -> &[AppliedMigration] {
        &[]
    }
    /// Whether it can be reached and written to.
    async fn ping(&self) -> Result<(), Error>;
    /// Finishes what is under way and closes.
    async fn close(&self);
}
