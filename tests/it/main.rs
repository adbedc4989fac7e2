//! Vestibule from outside: real HTTP, a real database, fake services and a manual clock.
//!
//! Each module tests one behaviour.

mod support;

mod absent_fields;
mod absent_values;
mod admin;
mod admin_access;
mod changes;
mod check_order;
mod check_outcomes;
mod database;
mod deadline;
mod deferred;
mod deliveries;
mod delivery_order;
mod delivery_time;
mod examples;
mod failing_expressions;
mod gate;
mod gate_model;
mod hooks_port;
mod identity_writes;
mod immutable;
mod jobs;
mod kept_alive;
mod late_accounts;
mod late_refusals;
mod list_entries;
mod list_fields;
mod logs;
mod lost_posts;
mod marks;
mod messages;
mod misconfigurations;
mod nothing_is_lost;
mod once;
mod openapi;
mod pending_sign_ups;
mod plain_model;
mod post;
mod pre;
mod reconcile;
mod repeated_calls;
mod repeated_findings;
mod request_data;
mod reservations;
mod response_verdicts;
mod retention;
mod rules_in_force;
mod serving;
mod settings_changes;
mod settings_flow;
mod silent_connections;
mod unbuilt_deliveries;
