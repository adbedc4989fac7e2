//! Vestibule from outside: real HTTP, a real database, fake services and a manual clock.
//!
//! Each module tests one behaviour.

mod support;

mod admin;
mod changes;
mod check_order;
mod check_outcomes;
mod deadline;
mod deferred;
mod deliveries;
mod gate;
mod gate_model;
mod hooks_port;
mod identity_writes;
mod jobs;
mod late_accounts;
mod late_refusals;
mod logs;
mod lost_posts;
mod marks;
mod messages;
mod misconfigurations;
mod openapi;
mod pending_sign_ups;
mod post;
mod pre;
mod reconcile;
mod repeated_calls;
mod request_data;
mod reservations;
mod response_verdicts;
mod retention;
mod rules_in_force;
mod serving;
mod settings_changes;
mod settings_flow;
