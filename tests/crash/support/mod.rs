//! Support for the crash tests.

pub mod instance;
pub mod load;
pub mod receiver;
pub mod rng;
pub mod tcp_proxy;
pub mod test_env;

#[path = "../../it/support/payload.rs"]
#[expect(dead_code, reason = "tests/it uses more kinds of bodies")]
pub mod payload;
#[path = "../../with_kratos/support/port.rs"]
pub mod port;
#[path = "../../support/postgres.rs"]
pub mod postgres;

pub use test_env::TestEnv;

use std::time::{Duration, Instant};

/// Calls `poll` until it returns a value. Panics after `timeout`.
pub async fn eventually<T>(
    what: &str,
    timeout: Duration,
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
