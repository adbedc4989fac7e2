//! What the scenes stand on.

pub mod browser;
pub mod fields;
pub mod holds;
pub mod house;
pub mod kratos;
pub mod message;
pub mod passkey;
pub mod port;
pub mod program;
pub mod provider;
pub mod proxy;
pub mod relay;
pub mod service;
pub mod vestibule;
pub mod visitor;

#[path = "../../crash/support/chance.rs"]
#[expect(dead_code, reason = "tests/crash takes chances of more kinds")]
pub mod chance;
#[path = "../../support/postgres.rs"]
pub mod postgres;

pub use fields::company;
pub use house::TestEnv;
pub use visitor::Client;

use std::time::{Duration, Instant};

/// Said when there is no Kratos.
pub const LEFT_OUT: &str = "
**************************************************************************************
*  NO KRATOS: THE TESTS WITH A REAL KRATOS ARE LEFT OUT.                             *
*                                                                                    *
*  Put `kratos` v26.2.0 on PATH, or its path into KRATOS_BIN, and run again:         *
*                                                                                    *
*      KRATOS_BIN=/path/to/kratos cargo test --test with_kratos                      *
**************************************************************************************
";

/// Looks again and again until `look` finds something, for at most half a minute.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    within(Duration::from_secs(30), what, look).await
}

/// The same for as long as this.
pub async fn within<T>(
    patience: Duration,
    what: &str,
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
