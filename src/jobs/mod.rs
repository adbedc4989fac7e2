//! Background jobs: deliveries, look-ups, reconciliation, retention, verifications.

pub mod database_watch;
pub mod decision_log;
pub mod dispatcher;
pub mod driver;
pub mod identity_verifier;
pub mod identity_writer;
pub mod late_refusals;
pub mod reconcile;
pub mod retention;
pub mod sweeper;
pub mod transport;
