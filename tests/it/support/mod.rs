//! The test environment.

pub mod app;
pub mod cases;
pub mod direct;
pub mod failing_store;
pub mod logs;

pub use app::TestApp;
pub use vestibule_testing::{
    FakeKratos, FakeService, bounded, eventually, fake_invites, fake_service, payload,
};
