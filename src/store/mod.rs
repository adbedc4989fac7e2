//! The store: the traits of a database, and their implementations for SQLite and PostgreSQL.

mod adapter;
pub mod admin;
pub mod attribution;
mod coordination;
pub mod decision_log;
pub mod decisions;
mod deliveries;
mod error;
pub mod flow_reader;
pub mod group_commit;
pub mod guard;
pub mod identity_writes;
pub mod inspect;
pub mod known_identities;
pub mod late_refusals;
pub mod lock;
pub mod outbox;
mod pending;
pub mod postgres;
mod reservations;
mod retention;
mod schema;
pub mod settlement_writer;
mod sql;
pub mod sqlite;
mod write_set;

use async_trait::async_trait;

pub use coordination::Coordination;
pub use decisions::DecisionStore;
pub use deliveries::{
    AttemptRecord, Backlog, DeliveryDetails, DeliveryStore, DeliverySummary, Filter, ListedAttempt,
    NextDue, RetryOptions, Settlement,
};
pub use error::Error;
pub use identity_writes::IdentityWriteStore;
pub use known_identities::KnownIdentityStore;
pub use late_refusals::{LateRefusalFilter, LateRefusalStore};
pub use pending::{FlowState, PendingStore};
pub use reservations::ReservationStore;
pub use retention::Retention;
pub use schema::AppliedMigration;
pub use sql::Database;
pub use write_set::{
    Acceptance, Closing, Ending, PendingEnd, RefusalLift, Release, SettledQuestion, WriteSet,
};

/// A database that keeps every confirmed write. A component takes the smallest of these traits that it needs.
#[async_trait]
pub trait Store:
    DeliveryStore
    + PendingStore
    + ReservationStore
    + LateRefusalStore
    + IdentityWriteStore
    + KnownIdentityStore
    + Coordination
    + DecisionStore
    + Retention
{
    /// Returns the migrations that opening the database applied.
    fn changes(&self) -> &[AppliedMigration];
    /// Checks that the database can be reached and written to. After a write has failed, this writes.
    async fn ping(&self) -> Result<(), Error>;
    /// Returns whether the database file was removed or replaced after Vestibule had opened it. What was written since
    /// then is lost when Vestibule stops.
    fn is_file_replaced(&self) -> bool {
        false
    }
    /// Completes running statements and closes the database.
    async fn close(&self);
}
