//! The contract of `Store` for each database, and the jobs that use it.
#![expect(clippy::unwrap_used, reason = "a failing test panics")]

mod commands;
mod contract;
mod decision_log;
mod dispatcher;
mod fixtures;
mod flows;
mod identities;
mod order;
mod order_commands;
mod outbox;
mod postgres;
#[path = "../support/postgres.rs"]
mod server;
mod sqlite;
mod unbuilt;
