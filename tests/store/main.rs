//! The promises of `Store`, asked of each database, and what the worker makes of them.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod commands;
mod contract;
mod decision_log;
mod dispatcher;
mod fixtures;
mod flows;
mod identities;
mod outbox;
mod postgres;
#[path = "../support/postgres.rs"]
mod server;
mod sqlite;
