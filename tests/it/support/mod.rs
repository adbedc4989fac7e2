//! What the tests stand on.

pub mod admin;
pub mod app;
pub mod failing;
pub mod invites;
pub mod kratos;
pub mod logs;
pub mod payload;
pub mod service;

pub use admin::FakeKratos;
pub use app::TestApp;
pub use payload::payload;
pub use service::FakeService;
