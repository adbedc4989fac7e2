//! Runs long computations without delaying other tasks of the runtime.

use std::panic::resume_unwind;
use std::thread;

use tokio::runtime::{Handle, RuntimeFlavor};

/// By how much the priority of a computation is lower. A thread with the usual priority gets about ten times as much of a
/// processor.
const LOWER_PRIORITY: i32 = 10;

/// Runs a computation that may take milliseconds.
///
/// On a thread of the main runtime, the other tasks of the thread move to another thread first, and the computation gets a
/// thread of lower priority. So calls that need little are answered first, also if there are more computations than
/// processors. Elsewhere, the computation runs where it is: on a thread without a runtime nothing waits for it, and a runtime
/// with one thread has no other thread. So a hook whose checks may compute for long runs on the main runtime.
pub fn compute<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| at_low_priority(work)),
        _ => work(),
    }
}

/// Runs the computation on a thread of its own. A thread cannot raise its priority again, so each is used once.
fn at_low_priority<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    let done = thread::scope(|scope| {
        let work = &mut work;
        let spawned = thread::Builder::new()
            .name("compute".to_owned())
            .spawn_scoped(scope, move || {
                lower_priority();
                work.take().map(|work| work())
            });
        spawned
            .ok()
            .and_then(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    match (done, work) {
        (Some(done), _) => done,
        // The system has no thread to give.
        (None, Some(work)) => work(),
        (None, None) => unreachable!("the computation has run, and has a result"),
    }
}

/// Lowers the priority of this thread, for good. Elsewhere than on Linux, it would be that of the whole process.
#[cfg(target_os = "linux")]
pub fn lower_priority() {
    // Without the permission, the thread has the usual priority.
    let _ = rustix::process::nice(LOWER_PRIORITY);
}

#[cfg(not(target_os = "linux"))]
pub fn lower_priority() {}

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

    #[cfg(target_os = "linux")]
    #[test]
    fn a_computation_has_a_lower_priority_and_passes_its_panic_on() {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let usual = priority();
        let task = threads.spawn(async move { (compute(priority), priority()) });
        let (lower, after) = threads.block_on(task).unwrap();
        assert_eq!((lower, after), ((usual + LOWER_PRIORITY).min(19), usual));
        let task = threads.spawn(async { compute(|| panic!("injected")) });
        assert!(threads.block_on(task).unwrap_err().is_panic());
    }
}
