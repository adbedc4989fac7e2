//! Vestibule seen from outside: real HTTP, a real database, services that do as told, time moved by hand.
//!
//! The list of modules is the list of behaviours.

mod support;

mod changes;
mod check_order;
mod check_outcomes;
mod deadline;
mod deliveries;
mod logs;
mod messages;
mod post;
mod pre;
mod reconcile;
mod repeated_calls;
mod retention;
mod serving;
mod settings_flow;
mod wiring;
