//! Test cases of programs with their own `main`.

use std::pin::pin;
use std::time::Duration;

use crate::wait::bounded_by;

/// Runs a test case on a runtime of its own. Panics if the test case does not end in time.
pub fn run<F: Future<Output = ()>>(
    timeout: Duration,
    case: impl FnOnce() -> F,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let case = pin!(case());
        bounded_by(timeout, "the test case ends", case).await;
    });
    Ok(())
}
