//! What the tests stand on.

pub mod app;
pub mod failing;
pub mod invites;
pub mod kratos;
pub mod logs;
pub mod payload;
mod serve;
pub mod service;

pub use app::TestApp;
pub use kratos::FakeKratos;
pub use payload::payload;
pub use service::FakeService;
