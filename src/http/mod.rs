//! Serves the two ports: the hooks that Kratos calls, and the admin API for operators.

pub mod admin;
mod connections;
mod health;
pub mod hooks;

pub use admin::{AdminAccess, AdminState, admin};
pub use connections::Connections;
pub use health::{Health, PORT_HEADER};
pub use hooks::{HookState, KEY_HEADER, PendingPolicy, hooks};
