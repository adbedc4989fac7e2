//! Answers repeated calls with the same response, so that services are asked once.
//!
//! Kratos repeats a call whose connection broke, with the same trigger id and the same body. The execution of the
//! first call continues even if its caller disconnects. The repeated call waits for it, or gets the answer from the
//! cache.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use futures_util::poll;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::base::clock::{Clock, Deadline};
use crate::http::hooks::response::HookResponse;
use crate::kratos::Hook;

/// How long an answer is kept.
pub const KEEP_ANSWERS: Duration = Duration::from_mins(2);
/// The maximum number of kept answers. Further answers evict the oldest one.
pub const MAX_ANSWERS: usize = 10_000;
/// The maximum size of all kept answers, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The idempotency key: a hash of the hook, the trigger id and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    hash: [u8; 32],
    has_trigger: bool,
}

impl Key {
    /// Makes the key. The same hook, trigger id and body make the same key.
    #[must_use]
    pub fn new(hook: &Hook, trigger: Option<&str>, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // None of these parts contains a zero byte, so two different calls cannot make the same input.
        for part in [
            hook.flow.as_str(),
            hook.stage.as_str(),
            &hook.method,
            trigger.unwrap_or_default(),
        ] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(body);
        Self {
            hash: hash.finalize().into(),
            has_trigger: trigger.is_some(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The answer of an execution; an error if the execution panicked.
type Execution = Shared<oneshot::Receiver<HookResponse>>;

/// Where an execution runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOn {
    /// On the thread that reads the call. Only for an execution of some microseconds.
    Caller,
    /// On the main runtime. A slow expression delays no other call, and a caller that disconnects does not stop the
    /// execution.
    MainRuntime,
}

/// The calls in progress, and the answers of the last two minutes.
#[derive(Debug)]
pub struct IdempotencyCache {
    entries: Mutex<Entries>,
    /// The main runtime, which does not read and write HTTP.
    runtime: Handle,
    clock: Clock,
}

/// The result of joining an execution.
enum Join {
    /// An execution of the same call exists.
    Existing(Execution),
    /// The caller must run this execution, and pass its answer to `sender`.
    New {
        sender: oneshot::Sender<HookResponse>,
        number: u64,
        execution: Execution,
    },
}

#[derive(Debug, Default)]
struct Entries {
    in_flight: HashMap<Key, (u64, Execution)>,
    /// Finished executions, oldest first: key, number, expiry, size.
    done: VecDeque<(Key, u64, Deadline, usize)>,
    bytes: usize,
    next: u64,
}

impl IdempotencyCache {
    /// Creates an empty cache. Executions run on the runtime in which this is called.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            entries: Mutex::default(),
            runtime: Handle::current(),
            clock,
        }
    }

    /// Returns the answer to the call `key`. The answer comes from an existing execution, or else from `work`. A
    /// new execution runs to its end, even if no caller waits for it any more. `None` if the execution panicked.
    pub async fn run_once<F>(
        self: &Arc<Self>,
        key: Key,
        run_on: RunOn,
        work: F,
    ) -> Option<HookResponse>
    where
        F: Future<Output = HookResponse> + Send + 'static,
    {
        let (sender, number, execution) = match self.join(key) {
            Join::Existing(execution) => return execution.await.ok(),
            Join::New {
                sender,
                number,
                execution,
            } => (sender, number, execution),
        };
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        if run_on == RunOn::Caller
            && let Poll::Ready(answer) = poll!(&mut work)
        {
            return self.finish(key, number, answer.ok(), sender);
        }
        let idempotency = Arc::clone(self);
        self.runtime.spawn(async move {
            idempotency.finish(key, number, work.await.ok(), sender);
        });
        execution.await.ok()
    }

    /// Runs a future in the background.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Joins the existing execution of `key`, or registers a new one.
    fn join(&self, key: Key) -> Join {
        let mut entries = self.entries();
        entries.evict_expired(&self.clock);
        if let Some((_, execution)) = entries.in_flight.get(&key) {
            return Join::Existing(execution.clone());
        }
        let (sender, receiver) = oneshot::channel();
        let execution = receiver.shared();
        let number = entries.next;
        entries.next += 1;
        entries.in_flight.insert(key, (number, execution.clone()));
        Join::New {
            sender,
            number,
            execution,
        }
    }

    fn finish(
        &self,
        key: Key,
        number: u64,
        answer: Option<HookResponse>,
        sender: oneshot::Sender<HookResponse>,
    ) -> Option<HookResponse> {
        let mut entries = self.entries();
        let size = answer
            .as_ref()
            .filter(|answer| answer.is_cacheable())
            .map(HookResponse::size);
        match (size, key.has_trigger) {
            (Some(size), true) => {
                entries.bytes += size;
                let until = self.clock.deadline(KEEP_ANSWERS);
                entries.done.push_back((key, number, until, size));
                while entries.done.len() > MAX_ANSWERS || entries.bytes > MAX_BYTES {
                    entries.evict_oldest();
                }
            }
            // Without a trigger id, a later equal call is from another visitor or another attempt.
            _ => {
                entries.in_flight.remove(&key);
            }
        }
        drop(entries);
        // There may be no waiting caller. After a panic, a waiting caller notices that the sender is dropped.
        if let Some(answer) = answer.clone() {
            let _ = sender.send(answer);
        }
        answer
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // No code panics while it holds the lock, so a poisoned lock holds consistent entries.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many answers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().done.len()
    }

    /// Returns whether no answer is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entries {
    fn evict_expired(&mut self, clock: &Clock) {
        while self
            .done
            .front()
            .is_some_and(|(_, _, until, _)| clock.time_left(*until).is_zero())
        {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some((key, number, _, size)) = self.done.pop_front() {
            self.bytes -= size;
            if self
                .in_flight
                .get(&key)
                .is_some_and(|(known, _)| *known == number)
            {
                self.in_flight.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::base::clock::Timestamp;
    use crate::kratos::{Flow, Reply, Stage};

    fn key(trigger: Option<&str>, body: &str) -> Key {
        let hook = Hook {
            flow: Flow::Registration,
            stage: Stage::Pre,
            method: "password".to_owned(),
        };
        Key::new(&hook, trigger, body.as_bytes())
    }

    struct TestCase {
        idempotency: Arc<IdempotencyCache>,
        manual: crate::base::clock::ManualClock,
        executions: Arc<AtomicUsize>,
    }

    fn context() -> TestCase {
        let (clock, manual) = Clock::manual(Timestamp::UNIX_EPOCH);
        TestCase {
            idempotency: Arc::new(IdempotencyCache::new(clock)),
            manual,
            executions: Arc::default(),
        }
    }

    impl TestCase {
        async fn call(&self, key: Key, reply: Reply) -> Option<HookResponse> {
            let executions = Arc::clone(&self.executions);
            self.idempotency
                .run_once(key, RunOn::Caller, async move {
                    executions.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    HookResponse::new(reply, "test")
                })
                .await
        }

        fn executions(&self) -> usize {
            self.executions.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn equal_calls_run_once_also_in_parallel() {
        let context = context();
        let one = key(Some("t"), "b");
        let (first, second) = tokio::join!(
            context.call(one, Reply::NoContent),
            context.call(one, Reply::Retry)
        );
        assert_eq!(first.unwrap().status, 204);
        assert_eq!(second.unwrap().status, 204);
        assert_eq!(context.call(one, Reply::Retry).await.unwrap().status, 204);
        assert_eq!(context.executions(), 1);
        context
            .call(key(Some("t"), "other body"), Reply::NoContent)
            .await;
        context
            .call(key(Some("other trigger"), "b"), Reply::NoContent)
            .await;
        assert_eq!(context.executions(), 3);
        context.manual.advance(KEEP_ANSWERS);
        context.call(one, Reply::NoContent).await;
        assert_eq!(context.executions(), 4);
        assert_eq!(context.idempotency.len(), 1);
    }

    #[tokio::test]
    async fn without_a_trigger_id_only_parallel_calls_share_an_execution() {
        let context = context();
        let one = key(None, "b");
        tokio::join!(
            context.call(one, Reply::NoContent),
            context.call(one, Reply::NoContent)
        );
        assert_eq!(context.executions(), 1);
        context.call(one, Reply::NoContent).await;
        assert_eq!(context.executions(), 2);
        assert!(context.idempotency.is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_asks_for_a_retry_is_not_cached() {
        let context = context();
        let one = key(Some("t"), "b");
        assert_eq!(context.call(one, Reply::Retry).await.unwrap().status, 503);
        assert_eq!(
            context.call(one, Reply::NoContent).await.unwrap().status,
            204
        );
    }

    #[tokio::test]
    async fn an_execution_continues_when_its_caller_disconnects() {
        let context = context();
        let one = key(Some("t"), "b");
        let mut left = Box::pin(context.call(one, Reply::NoContent));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        assert_eq!(context.call(one, Reply::Retry).await.unwrap().status, 204);
        assert_eq!(context.executions(), 1);
    }

    #[tokio::test]
    async fn a_panic_gives_no_answer_and_is_not_cached() {
        let context = context();
        for run_on in [RunOn::Caller, RunOn::MainRuntime] {
            let one = key(Some("p"), "b");
            let panicking = context
                .idempotency
                .run_once(one, run_on, async { panic!("on purpose") });
            assert!(panicking.await.is_none(), "{run_on:?}");
            let answer = context.idempotency.run_once(one, run_on, async {
                HookResponse::new(Reply::NoContent, "test")
            });
            assert_eq!(answer.await.unwrap().status, 204, "{run_on:?}");
            context.manual.advance(KEEP_ANSWERS);
        }
    }

    #[tokio::test]
    async fn an_execution_on_the_caller_is_cached_too() {
        let context = context();
        for reply in [Reply::NoContent, Reply::Retry] {
            let one = key(Some("t"), "b");
            let work = async { HookResponse::new(reply, "test") };
            let answer = context.idempotency.run_once(one, RunOn::Caller, work).await;
            assert_eq!(answer.unwrap().status, 204);
        }
        assert_eq!(context.idempotency.len(), 1);
    }

    #[tokio::test]
    async fn the_oldest_answers_are_evicted_when_there_are_too_many() {
        let context = context();
        for number in 0..=MAX_ANSWERS {
            context
                .call(key(Some(&number.to_string()), "b"), Reply::NoContent)
                .await;
        }
        assert_eq!(context.idempotency.len(), MAX_ANSWERS);
        let before = context.executions();
        context.call(key(Some("1"), "b"), Reply::NoContent).await;
        assert_eq!(context.executions(), before);
        context.call(key(Some("0"), "b"), Reply::NoContent).await;
        assert_eq!(context.executions(), before + 1);
    }

    #[tokio::test]
    async fn the_oldest_answers_are_evicted_when_they_are_too_large() {
        let context = context();
        let many = Reply::refused(
            std::iter::repeat_n(
                crate::kratos::form::at_form_level(1, &"x".repeat(1000)),
                100,
            )
            .flatten()
            .collect(),
        );
        let expected = MAX_BYTES / HookResponse::new(many.clone(), "test").size();
        assert!(expected < 500, "{expected}");
        for number in 0..expected + 5 {
            context
                .call(key(Some(&number.to_string()), "b"), many.clone())
                .await;
        }
        assert_eq!(context.idempotency.len(), expected);
    }
}
