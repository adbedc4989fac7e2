//! What runs beside the calls of Kratos: deliveries, look-ups, reconciliation, retention, verifications.

pub mod courier;
pub mod reconcile;
pub mod retention;
pub mod sweeper;
pub mod verifier;
pub mod worker;
pub mod writer;
