//! The tasks of the program. None of them ends before the program stops.

use std::future::Future;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Spawns tasks, and reports a task that ends.
pub(super) struct TaskMonitor {
    ended: UnboundedSender<&'static str>,
    ends: UnboundedReceiver<&'static str>,
}

/// Reports the end of its task when dropped, also after a panic.
struct EndOfTask {
    name: &'static str,
    ended: UnboundedSender<&'static str>,
}

impl Drop for EndOfTask {
    fn drop(&mut self) {
        // Without a receiver the program has stopped.
        let _ = self.ended.send(self.name);
    }
}

impl TaskMonitor {
    pub(super) fn new() -> Self {
        let (ended, ends) = unbounded_channel();
        Self { ended, ends }
    }

    /// Spawns a task.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let end = EndOfTask {
            name,
            ended: self.ended.clone(),
        };
        tokio::spawn(async move {
            let _end = end;
            task.await;
        })
    }

    /// Waits until a task ends, and returns its name.
    pub(super) async fn task_ended(&mut self) -> &'static str {
        // The monitor owns a sender, so there is always one.
        self.ends.recv().await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_returns_or_panics_is_reported() {
        let mut monitor = TaskMonitor::new();
        let lasting = monitor.spawn("lasting", std::future::pending());
        monitor.spawn("returns", async {});
        assert_eq!(monitor.task_ended().await, "returns");
        monitor.spawn("panics", async { panic!("injected: the task panics") });
        assert_eq!(monitor.task_ended().await, "panics");
        lasting.abort();
        assert_eq!(monitor.task_ended().await, "lasting");
    }
}
