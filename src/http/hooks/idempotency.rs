//! The same call gets the same answer, and no service is asked twice for it.
//!
//! Kratos repeats a call whose connection broke, with the same trigger id and the same body. The first call's
//! work goes on by itself (nobody who leaves can cut it); who calls again waits for it, or gets the answer that
//! is remembered.

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

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::http::hooks::response::HookResponse;
use crate::kratos::Hook;

/// How long an answer is remembered.
pub const REMEMBERED_FOR: Duration = Duration::from_mins(2);
/// The most answers that are remembered; beyond it the oldest is forgotten.
pub const MOST_ANSWERS: usize = 10_000;
/// The most bytes of answers that are remembered.
pub const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What makes two calls the same: a hash of the hook, the trigger id and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    hash: [u8; 32],
    has_trigger: bool,
}

impl Key {
    /// The same hook, trigger id and body make the same key.
    #[must_use]
    pub fn new(hook: &Hook, trigger: Option<&str>, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // A zero byte stands in none of these, so nothing can pass for its neighbour.
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

/// What comes of a work; an error if it panicked.
type Action = Shared<oneshot::Receiver<HookResponse>>;

/// Where a work is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOn {
    /// On the thread that reads the call. Only for what takes some microseconds.
    Caller,
    /// On the program's own runtime: an expression that takes long holds up nobody, and a caller who leaves
    /// cuts nothing off.
    MainRuntime,
}

/// The calls that are being worked on and the answers of the last two minutes.
#[derive(Debug)]
pub struct IdempotencyCache {
    kept: Mutex<Entries>,
    /// Where work is done that is not done at once: not on the threads that read and write HTTP.
    runtime: Handle,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Entries {
    in_flight: HashMap<Key, (u64, Action)>,
    /// Done, oldest first: key, number, when to forget it, size.
    done: VecDeque<(Key, u64, Timestamp, usize)>,
    bytes: usize,
    next: u64,
}

impl IdempotencyCache {
    /// Nothing remembered yet. Work is done by the runtime in which this is called.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            kept: Mutex::default(),
            runtime: Handle::current(),
            clock,
        }
    }

    /// The answer to the call `key`: of the work that is under way or done, else of `work`, which then runs
    /// to its end even if nobody waits any more. `None` if the work panicked.
    pub async fn run_once<F>(
        self: &Arc<Self>,
        key: Key,
        place: RunOn,
        work: F,
    ) -> Option<HookResponse>
    where
        F: Future<Output = HookResponse> + Send + 'static,
    {
        let (tell, number, told) = match self.join(key) {
            Ok(told) => return told.await.ok(),
            Err(begun) => begun,
        };
        let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
        if place == RunOn::Caller
            && let Poll::Ready(answer) = poll!(&mut work)
        {
            return self.finish(key, number, answer.ok(), tell);
        }
        let idempotency = Arc::clone(self);
        self.runtime.spawn(async move {
            idempotency.finish(key, number, work.await.ok(), tell);
        });
        told.await.ok()
    }

    /// Runs something in the background.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// The work that is under way or done; or a new one, to be told of when it is done, and its number.
    fn join(&self, key: Key) -> Result<Action, (oneshot::Sender<HookResponse>, u64, Action)> {
        let mut kept = self.kept();
        kept.forget_before(self.clock.now());
        if let Some((_, work)) = kept.in_flight.get(&key) {
            return Ok(work.clone());
        }
        let (tell, told) = oneshot::channel();
        let told = told.shared();
        let number = kept.next;
        kept.next += 1;
        kept.in_flight.insert(key, (number, told.clone()));
        Err((tell, number, told))
    }

    fn finish(
        &self,
        key: Key,
        number: u64,
        answer: Option<HookResponse>,
        tell: oneshot::Sender<HookResponse>,
    ) -> Option<HookResponse> {
        let mut kept = self.kept();
        let size = answer
            .as_ref()
            .filter(|answer| answer.is_cacheable())
            .map(HookResponse::size);
        match (size, key.has_trigger) {
            (Some(size), true) => {
                kept.bytes += size;
                let until = saturating_add(self.clock.now(), REMEMBERED_FOR);
                kept.done.push_back((key, number, until, size));
                while kept.done.len() > MOST_ANSWERS || kept.bytes > MOST_BYTES {
                    kept.forget_oldest();
                }
            }
            // Without a trigger id, an equal call later on is another person's or another try.
            _ => {
                kept.in_flight.remove(&key);
            }
        }
        drop(kept);
        // Nobody may be waiting; and who waits for a panic is told so by the sender's end.
        if let Some(answer) = answer.clone() {
            let _ = tell.send(answer);
        }
        answer
    }

    fn kept(&self) -> MutexGuard<'_, Entries> {
        // Nothing in here can panic half-way, so a poisoned lock holds nothing broken.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many answers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept().done.len()
    }

    /// Whether none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entries {
    fn forget_before(&mut self, now: Timestamp) {
        while self
            .done
            .front()
            .is_some_and(|(_, _, until, _)| *until <= now)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
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
    use crate::kratos::{Flow, Reply, Stage};

    fn key(trigger: Option<&str>, body: &str) -> Key {
        let hook = Hook {
            flow: Flow::Registration,
            stage: Stage::Pre,
            method: "password".to_owned(),
        };
        Key::new(&hook, trigger, body.as_bytes())
    }

    struct EvaluationContext {
        idempotency: Arc<IdempotencyCache>,
        hand: crate::base::clock::ManualClock,
        in_flight: Arc<AtomicUsize>,
    }

    fn context() -> EvaluationContext {
        let (clock, hand) = Clock::manual(Timestamp::UNIX_EPOCH);
        EvaluationContext {
            idempotency: Arc::new(IdempotencyCache::new(clock)),
            hand,
            in_flight: Arc::default(),
        }
    }

    impl EvaluationContext {
        async fn call(&self, key: Key, reply: Reply) -> Option<HookResponse> {
            let in_flight = Arc::clone(&self.in_flight);
            self.idempotency
                .run_once(key, RunOn::Caller, async move {
                    in_flight.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    HookResponse::new(reply, "test")
                })
                .await
        }

        fn in_flight(&self) -> usize {
            self.in_flight.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn the_same_call_is_worked_on_once_also_at_the_same_moment() {
        let context = context();
        let one = key(Some("t"), "b");
        let (first, second) = tokio::join!(
            context.call(one, Reply::Yes),
            context.call(one, Reply::Retry)
        );
        assert_eq!(first.unwrap().status, 204);
        assert_eq!(second.unwrap().status, 204);
        assert_eq!(context.call(one, Reply::Retry).await.unwrap().status, 204);
        assert_eq!(context.in_flight(), 1);
        context.call(key(Some("t"), "other body"), Reply::Yes).await;
        context
            .call(key(Some("other trigger"), "b"), Reply::Yes)
            .await;
        assert_eq!(context.in_flight(), 3);
        context.hand.advance(REMEMBERED_FOR);
        context.call(one, Reply::Yes).await;
        assert_eq!(context.in_flight(), 4);
        assert_eq!(context.idempotency.len(), 1);
    }

    #[tokio::test]
    async fn without_a_trigger_id_only_calls_at_the_same_moment_are_joined() {
        let context = context();
        let one = key(None, "b");
        tokio::join!(context.call(one, Reply::Yes), context.call(one, Reply::Yes));
        assert_eq!(context.in_flight(), 1);
        context.call(one, Reply::Yes).await;
        assert_eq!(context.in_flight(), 2);
        assert!(context.idempotency.is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_asks_for_another_call_is_not_remembered() {
        let context = context();
        let one = key(Some("t"), "b");
        assert_eq!(context.call(one, Reply::Retry).await.unwrap().status, 503);
        assert_eq!(context.call(one, Reply::Yes).await.unwrap().status, 204);
    }

    #[tokio::test]
    async fn work_goes_on_when_the_caller_leaves() {
        let context = context();
        let one = key(Some("t"), "b");
        let mut left = Box::pin(context.call(one, Reply::Yes));
        assert!(futures_util::poll!(&mut left).is_pending());
        drop(left);
        assert_eq!(context.call(one, Reply::Retry).await.unwrap().status, 204);
        assert_eq!(context.in_flight(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_no_answer_and_is_not_remembered() {
        let context = context();
        for place in [RunOn::Caller, RunOn::MainRuntime] {
            let one = key(Some("p"), "b");
            let panicking = context
                .idempotency
                .run_once(one, place, async { panic!("on purpose") });
            assert!(panicking.await.is_none(), "{place:?}");
            let answer = context
                .idempotency
                .run_once(one, place, async { HookResponse::new(Reply::Yes, "test") });
            assert_eq!(answer.await.unwrap().status, 204, "{place:?}");
            context.hand.advance(REMEMBERED_FOR);
        }
    }

    #[tokio::test]
    async fn what_is_done_here_is_remembered_as_well() {
        let context = context();
        for reply in [Reply::Yes, Reply::Retry] {
            let one = key(Some("t"), "b");
            let work = async { HookResponse::new(reply, "test") };
            let answer = context.idempotency.run_once(one, RunOn::Caller, work).await;
            assert_eq!(answer.unwrap().status, 204);
        }
        assert_eq!(context.idempotency.len(), 1);
    }

    #[tokio::test]
    async fn the_oldest_answers_are_forgotten_when_there_are_too_many() {
        let context = context();
        for number in 0..=MOST_ANSWERS {
            context
                .call(key(Some(&number.to_string()), "b"), Reply::Yes)
                .await;
        }
        assert_eq!(context.idempotency.len(), MOST_ANSWERS);
        let before = context.in_flight();
        context.call(key(Some("1"), "b"), Reply::Yes).await;
        assert_eq!(context.in_flight(), before);
        context.call(key(Some("0"), "b"), Reply::Yes).await;
        assert_eq!(context.in_flight(), before + 1);
    }

    #[tokio::test]
    async fn the_oldest_answers_are_forgotten_when_they_are_too_large() {
        let context = context();
        let many = Reply::refused(
            std::iter::repeat_n(
                crate::kratos::form::at_form_level(1, &"x".repeat(1000)),
                100,
            )
            .flatten()
            .collect(),
        );
        let most = MOST_BYTES / HookResponse::new(many.clone(), "test").size();
        assert!(most < 500, "{most}");
        for number in 0..most + 5 {
            context
                .call(key(Some(&number.to_string()), "b"), many.clone())
                .await;
        }
        assert_eq!(context.idempotency.len(), most);
    }
}
