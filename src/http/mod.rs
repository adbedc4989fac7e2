//! The two ports: the hooks that Kratos calls, and what operators ask.

pub mod admin;
mod health;
pub mod hooks;

pub use admin::{AdminState, admin};
pub use health::Health;
pub use hooks::{HookState, KEY_HEADER, PendingPolicy, hooks};
