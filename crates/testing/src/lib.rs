//! What the tests and benches of Vestibule share: fake services, programs, databases, and waits that have a bound.
//!
//! The crate does not use `vestibule`. So a fake answers as the documentation says, and not as Vestibule believes.

#![expect(
    clippy::disallowed_methods,
    reason = "tests run outside the program, with the system clock and real clients"
)]
#![expect(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a failing test panics, and an unused value is no mistake in a test"
)]

pub mod closing_service;
pub mod fake_invites;
pub mod fake_kratos;
pub mod fake_service;
pub mod http;
pub mod payload;
pub mod port;
pub mod postgres;
pub mod program;
pub mod rng;
pub mod serve;
pub mod tcp_proxy;
pub mod test_case;
pub mod tls;
pub mod wait;

pub use closing_service::ClosingService;
pub use fake_invites::FakeInvites;
pub use fake_kratos::FakeKratos;
pub use fake_service::FakeService;
pub use payload::payload;
pub use program::Program;
pub use wait::{bounded, eventually, join_all, wait_until, within};
