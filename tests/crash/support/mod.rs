//! Support for the crash tests.

pub mod instance;
pub mod load;
pub mod receiver;
pub mod test_env;

pub use test_env::TestEnv;
pub use vestibule_testing::{payload, port, postgres, rng, tcp_proxy, within};
