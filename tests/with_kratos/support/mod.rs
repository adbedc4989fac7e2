//! Support for the tests with a real Kratos.

pub mod browser;
pub mod fields;
pub mod kratos;
pub mod load_balancer;
pub mod lossy_proxy;
pub mod message;
pub mod passkey;
pub mod port;
pub mod program;
pub mod provider;
pub mod reservations;
pub mod service;
pub mod test_env;
pub mod vestibule;
pub mod visitor;

#[path = "../../support/postgres.rs"]
pub mod postgres;
#[path = "../../crash/support/rng.rs"]
#[expect(dead_code, reason = "tests/crash uses more kinds of random values")]
pub mod rng;

pub use fields::company;
pub use test_env::TestEnv;
pub use visitor::Client;

use std::time::{Duration, Instant};

/// The notice when there is no Kratos.
pub const SKIPPED_NOTICE: &str = "
**************************************************************************************
*  NO KRATOS: THE TESTS WITH A REAL KRATOS ARE SKIPPED.                              *
*                                                                                    *
*  Put `kratos` v26.2.0 on PATH, or its path into KRATOS_BIN, and run again:         *
*                                                                                    *
*      KRATOS_BIN=/path/to/kratos cargo test --test with_kratos                      *
**************************************************************************************
";

/// Calls `poll` until it returns a value. Panics after half a minute.
pub async fn eventually<T>(what: &str, poll: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(30), what, poll).await
}

/// Calls `poll` until it returns a value. Panics after `timeout`.
pub async fn within<T>(
    timeout: Duration,
    what: &str,
    mut poll: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {timeout:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
