//! The two ports: the hooks that Kratos calls, and what operators ask.

pub mod admin;
mod health;
pub mod hooks;

pub use admin::{Operator, admin};
pub use health::Health;
pub use hooks::{Door, KEY_HEADER, PendingPolicy, hooks};
