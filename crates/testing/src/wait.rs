//! Waits. Each has a bound, and names what did not happen.

use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinHandle};

/// The bound of a wait, longer than anything takes on a busy machine.
pub const BOUND: Duration = Duration::from_secs(30);

/// The pause between two probes at first.
const SHORT_PAUSE: Duration = Duration::from_millis(1);
/// The pause between two probes of something that takes long.
const LONG_PAUSE: Duration = Duration::from_millis(20);
/// How many probes have a short pause.
const SHORT_PAUSES: u32 = 100;

/// Calls `probe` until it returns a value. Panics after [`BOUND`].
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(BOUND, what, probe).await
}

/// Calls `probe` until it returns a value. Panics after `bound`, also if a probe hangs.
pub async fn within<T>(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> T {
    let found = async {
        for number in 0.. {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(pause(number)).await;
        }
        unreachable!("the range has no end")
    };
    bounded_by(bound, what, found).await
}

/// Waits for a future. Panics after [`BOUND`].
pub async fn bounded<F: Future>(what: &str, work: F) -> F::Output {
    bounded_by(BOUND, what, work).await
}

/// Waits for a future. Panics after `bound`.
pub async fn bounded_by<F: Future>(bound: Duration, what: &str, work: F) -> F::Output {
    let done = tokio::time::timeout(bound, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {bound:?}"))
}

/// Starts all tasks and waits for their results. Panics after [`BOUND`], or if a task panicked.
pub async fn join_all<T>(what: &str, tasks: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<T> {
    let tasks: Vec<_> = tasks.into_iter().collect();
    let joined = bounded(what, futures_util::future::join_all(tasks)).await;
    let done = |task: Result<T, JoinError>| task.unwrap_or_else(|error| panic!("{what}: {error}"));
    joined.into_iter().map(done).collect()
}

/// Calls `probe` until it returns a value, and blocks the thread meanwhile. Panics after [`BOUND`].
pub fn wait_until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_until_by(BOUND, what, probe)
}

/// Calls `probe` until it returns a value, and blocks the thread meanwhile. Panics after `bound`.
pub fn wait_until_by<T>(bound: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    try_until(bound, probe).unwrap_or_else(|| panic!("{what}: not within {bound:?}"))
}

/// Calls `probe` until it returns a value, and blocks the thread meanwhile. Returns `None` after `bound`.
pub(crate) fn try_until<T>(bound: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound;
    for number in 0.. {
        let found = probe();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(pause(number));
    }
    None
}

fn pause(number: u32) -> Duration {
    if number < SHORT_PAUSES {
        SHORT_PAUSE
    } else {
        LONG_PAUSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(30);

    #[tokio::test]
    async fn eventually_returns_the_first_value() {
        let mut probes = 0;
        let found = eventually("the third probe", async || {
            probes += 1;
            (probes == 3).then_some(probes)
        });
        assert_eq!(found.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "a fourth side: not within 30ms")]
    async fn a_wait_names_what_did_not_happen() {
        within(SOON, "a fourth side", async || None::<()>).await;
    }

    #[tokio::test]
    #[should_panic(expected = "an answer: not within 30ms")]
    async fn a_probe_that_hangs_ends_too() {
        within(SOON, "an answer", async || {
            std::future::pending::<Option<()>>().await
        })
        .await;
    }

    #[test]
    #[should_panic(expected = "the end of time: not within 30ms")]
    fn a_blocking_wait_has_a_bound() {
        wait_until_by(SOON, "the end of time", || None::<()>);
    }
}
