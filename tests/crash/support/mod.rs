//! What the scenes stand on.

pub mod chance;
pub mod house;
pub mod instance;
pub mod line;
pub mod load;
pub mod receiver;

#[path = "../../it/support/payload.rs"]
#[expect(dead_code, reason = "tests/it makes more kinds of bodies")]
pub mod payload;
#[path = "../../with_kratos/support/port.rs"]
pub mod port;
#[path = "../../support/postgres.rs"]
pub mod postgres;

pub use house::House;

use std::time::{Duration, Instant};

/// Looks again and again until `look` finds something, for at most so long.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {patience:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
