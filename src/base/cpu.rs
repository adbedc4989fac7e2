//! Runs long computations without delaying other tasks of the runtime.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs a computation that may take milliseconds.
///
/// On a thread of the main runtime, the other tasks of the thread move to another thread first. Elsewhere, the
/// computation runs where it is: on a thread without a runtime nothing waits for it, and a runtime with one thread has no
/// other thread. So a hook whose checks may compute for long runs on the main runtime.
pub fn compute<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_is_the_same_on_every_kind_of_thread() {
        assert_eq!(compute(|| 1), 1);
        let one_thread = tokio::runtime::Builder::new_current_thread().build();
        assert_eq!(one_thread.unwrap().block_on(async { compute(|| 2) }), 2);
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let task = threads.spawn(async { compute(|| 3) });
        assert_eq!(threads.block_on(task).unwrap(), 3);
    }

    /// The only worker thread computes until another task has run, which would be a deadlock on the same thread.
    #[test]
    fn other_tasks_of_the_thread_run_during_a_computation() {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let computation = threads.spawn(async move {
            compute(move || receiver.recv_timeout(std::time::Duration::from_secs(30)))
        });
        threads.spawn(async move { sender.send(1) });
        assert_eq!(threads.block_on(computation).unwrap(), Ok(1));
    }
}
