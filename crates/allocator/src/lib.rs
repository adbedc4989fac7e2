//! The allocator of Vestibule: mimalloc, which gives memory back to the system when it is asked to, or after a minute.
//!
//! By itself, mimalloc lets whichever thread frees a page next give back what was freed a second ago. For some megabytes this
//! takes milliseconds, because the system interrupts the other threads. So a visitor would wait because another one had sent
//! something large. A thread that no visitor waits for calls [`give_back`] instead.

use std::ffi::c_long;
use std::hint::black_box;

use libmimalloc_sys::{mi_collect, mi_option_set_default, mi_option_t};

pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay` in `mimalloc.h`: the milliseconds after which free memory is given back in passing.
const PURGE_DELAY: mi_option_t = 15;
/// A minute: much longer than the time between two calls of [`give_back`].
const WITHOUT_CALLS: c_long = 60_000;

/// From now on, memory is given back by [`give_back`]. Without a call for a minute, it is given back in passing. An operator's
/// `MIMALLOC_PURGE_DELAY` takes precedence. Call this before other threads start.
pub fn give_back_when_called() {
    // SAFETY: the function writes one option. Only threads that start later read it.
    unsafe { mi_option_set_default(PURGE_DELAY, WITHOUT_CALLS) }
}

/// Gives the memory back to the system that no thread holds. A thread holds the pages that it uses in part.
pub fn give_back() {
    // mimalloc does nothing on a thread that has not allocated.
    drop(black_box(Box::new(0_u8)));
    // SAFETY: mimalloc permits the call at any time, from any thread.
    unsafe { mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    #[test]
    fn the_number_of_the_option_is_that_of_mimalloc() {
        // SAFETY: the option is only read.
        let delay = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // No other option has this default: the delay in milliseconds.
        assert_eq!(delay, 1_000);
    }

    /// The resident memory of this process, in KiB.
    #[cfg(target_os = "linux")]
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// As in the program: one thread uses and frees the memory, and another one gives it back.
    #[cfg(target_os = "linux")]
    #[test]
    fn memory_is_given_back_when_it_is_asked_for() {
        const SIZE: usize = 64 * 1024;
        const NUMBER: usize = 1_024;
        let (freed, wait_for_freed) = channel();
        let (end, wait_for_end) = channel::<()>();
        let thread = thread::spawn(move || {
            let before = resident();
            let blocks: Vec<Vec<u8>> = (0..NUMBER).map(|_| vec![1; SIZE]).collect();
            let used = resident();
            drop(blocks);
            freed.send((before, used)).unwrap();
            wait_for_end.recv().unwrap_err();
        });
        let (before, used) = wait_for_freed.recv().unwrap();
        thread::spawn(give_back).join().unwrap();
        let after = resident();
        drop(end);
        thread.join().unwrap();
        assert!(used >= before + 60 * 1024, "{before} KiB, then {used} KiB");
        assert!(after <= used - 48 * 1024, "{used} KiB, then {after} KiB");
    }
}
