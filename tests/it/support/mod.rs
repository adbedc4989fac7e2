//! The test environment.

pub mod app;
pub mod direct;
pub mod failing_store;
pub mod fake_invites;
pub mod fake_kratos;
pub mod fake_service;
pub mod logs;
pub mod payload;
mod serve;

pub use app::{TestApp, eventually};
pub use fake_kratos::FakeKratos;
pub use fake_service::FakeService;
pub use payload::payload;
