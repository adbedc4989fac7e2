//! The threads of what stands for other machines: the hostile visitors and the services that misbehave.

use std::future::Future;
use std::sync::mpsc::channel;
use std::thread;

use reqwest::Client;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

/// A runtime with a thread of its own. The thread and those that it starts have the lowest priority, so that the program under
/// test delays honest visitors, and not the cost of its opponents.
pub struct Elsewhere {
    runtime: Handle,
    /// The client of the hostile visitors.
    pub http: Client,
}

impl Elsewhere {
    /// Starts the thread. It runs until the process ends.
    pub fn start() -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            // Without the permission, the thread has the usual priority.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::nice(19);
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            sender
                .send(runtime.handle().clone())
                .expect("a receiver of the handle");
            runtime.block_on(std::future::pending::<()>());
        });
        Self {
            runtime: receiver.recv().expect("the thread starts"),
            http: vestibule_testing::http::client(),
        }
    }

    /// Runs the future on the thread.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(future)
    }
}
