//! Background jobs: deliveries, look-ups, reconciliation, retention, verifications.

pub mod dispatcher;
pub mod identity_verifier;
pub mod identity_writer;
pub mod reconcile;
pub mod retention;
pub mod sweeper;
pub mod transport;
