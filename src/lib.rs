//! Vestibule is a web-hook service for Ory Kratos. It checks sign-up fields against external services before Kratos
//! creates the identity. Afterwards Vestibule notifies external services, and retries each delivery until it succeeds
//! or is abandoned.
//!
//! The crate has sixteen folders in nine layers. Imports go down, never up, and folders on one line do not import
//! each other:
//!
//! `cli → {demo, doctor} → {app, lint, rule_tests} → {config, http, jobs} → checks → {outbound, store} → model → {expression, kratos} → base`
//!
//! So a folder can be read with knowledge of only the folders below it.
//!
//! - `cli`: one file per command.
//! - `demo`: `vestibule demo`, with example services and a page.
//! - `doctor`: `vestibule doctor` examines everything that the settings name.
//! - `app`: builds all parts, starts and stops them.
//! - `lint`: checks kratos.yml against the identity schemas and the settings.
//! - `rule_tests`: runs tests of an operator's rules.
//! - `config`: reads the settings file into settings.
//! - `http`: the hooks that Kratos calls, and the admin API.
//! - `jobs`: dispatcher, sweeper, reconciliation and retention.
//! - `checks`: evaluates a sign-up, and decides what to do after it.
//! - `outbound`: clients of the services and of Kratos's admin API.
//! - `store`: SQLite and PostgreSQL.
//! - `model`: what Vestibule sends, decides, reserves and delivers.
//! - `expression`: CEL and templates.
//! - `kratos`: what Kratos sends and accepts.
//! - `base`: clock, secrets, telemetry and diagnostics.

pub mod app;
pub mod base;
pub mod checks;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod expression;
pub mod http;
pub mod jobs;
pub mod kratos;
pub mod lint;
pub mod model;
pub mod outbound;
pub mod rule_tests;
pub mod store;
