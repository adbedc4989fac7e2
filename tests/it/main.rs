//! Vestibule seen from outside: real HTTP, a real database, services that do as told, time moved by hand.
//!
//! The list of modules is the list of behaviours.

mod support;

mod admin;
mod changes;
mod check_order;
mod check_outcomes;
mod deadline;
mod deliveries;
mod logs;
mod messages;
mod openapi;
mod post;
mod pre;
mod repeated_calls;
mod serving;
mod settings_flow;
mod wiring;
