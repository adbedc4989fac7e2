//! Gives free memory back to the system, on a thread that no visitor waits for. Without the thread, the allocator gives memory
//! back in passing.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::base::cpu::lower_priority;

/// How often memory is given back. Memory that was given back must be cleared when it is used again, so not too often.
const EVERY: Duration = Duration::from_secs(5);

/// The thread that gives memory back. It ends when this is dropped.
#[derive(Debug)]
pub struct MemoryKeeper {
    _running: Sender<()>,
}

impl MemoryKeeper {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (running, ended) = channel();
        std::thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || {
                lower_priority();
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    vestibule_allocator::give_back();
                }
            })?;
        Ok(Self { _running: running })
    }
}
