//! Calls hooks from several concurrent callers, as Kratos does for sign-ups, and records the results.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use vestibule_testing::http::client_with_timeout;
use vestibule_testing::wait::bounded_by;

use super::instance::KEY;
use super::payload;
use super::receiver::DeliveryKey;
use super::rng::Rng;

/// Longer than any response may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The result of a call to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallResult {
    Status(u16),
    /// The connection was refused or lost.
    ConnectionLost,
    /// There was no response within [`TIMEOUT`].
    TimedOut,
}

/// The results of all calls.
#[derive(Debug, Default)]
pub struct LoadResults {
    /// The identities whose `post` was answered with 204.
    pub acknowledged: Vec<Uuid>,
    /// How often each result of `post` occurred.
    pub post: BTreeMap<CallResult, u64>,
    /// How often each result of `pre` occurred.
    pub pre: BTreeMap<CallResult, u64>,
    /// The longest time that a response to `pre` took.
    pub longest_pre: Duration,
}

/// The numbers of concurrent callers.
#[derive(Clone, Copy)]
pub struct Callers {
    pub post: usize,
    pub pre: usize,
}

/// Calls that continue until the load is stopped.
pub struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

struct Shared {
    http: reqwest::Client,
    urls: Vec<String>,
    rng: Arc<Rng>,
    running: AtomicBool,
    results: Mutex<LoadResults>,
}

impl Load {
    /// Starts the callers. Each call goes to a random one of these addresses.
    pub fn start(urls: Vec<String>, callers: Callers, rng: Arc<Rng>) -> Self {
        let shared = Arc::new(Shared {
            http: client_with_timeout(TIMEOUT),
            urls,
            rng,
            running: AtomicBool::new(true),
            results: Mutex::default(),
        });
        let mut set = JoinSet::new();
        for _ in 0..callers.post {
            let shared = Arc::clone(&shared);
            set.spawn(async move { shared.call_post_until_stopped().await });
        }
        for _ in 0..callers.pre {
            let shared = Arc::clone(&shared);
            set.spawn(async move { shared.call_pre_until_stopped().await });
        }
        Self {
            shared,
            callers: set,
        }
    }

    /// How often `post` had this result so far.
    pub fn post_count(&self, result: CallResult) -> u64 {
        let results = self
            .shared
            .results
            .lock()
            .expect("the lock is not poisoned");
        results.post.get(&result).copied().unwrap_or_default()
    }

    /// Waits until the calls in progress end, and returns the results.
    pub async fn stop(self) -> LoadResults {
        self.shared.running.store(false, Ordering::Relaxed);
        // A caller ends after at most five calls, each of which has a timeout.
        bounded_by(6 * TIMEOUT, "every caller ends", self.callers.join_all()).await;
        std::mem::take(
            &mut *self
                .shared
                .results
                .lock()
                .expect("the lock is not poisoned"),
        )
    }
}

impl Shared {
    /// Reports saved accounts as Kratos does, which repeats a failed call a few times.
    async fn call_post_until_stopped(&self) {
        while self.running.load(Ordering::Relaxed) {
            let identity = Uuid::new_v4();
            let body = payload().saved_as(identity).to_string();
            let trigger = Uuid::new_v4();
            for _ in 0..=self.rng.below(4) {
                let result = self.call("post", trigger, &body).await;
                self.record_post(result, identity);
                if result == CallResult::Status(204) {
                    // Kratos repeats the call if it did not receive the response.
                    if self.rng.one_in(10) {
                        self.call("post", trigger, &body).await;
                    }
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Calls `pre` for sign-ups before they are saved.
    async fn call_pre_until_stopped(&self) {
        while self.running.load(Ordering::Relaxed) {
            let body = payload().to_string();
            let began = Instant::now();
            let result = self.call("pre", Uuid::new_v4(), &body).await;
            self.record_pre(result, began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn record_post(&self, result: CallResult, identity: Uuid) {
        let mut results = self.results.lock().expect("the lock is not poisoned");
        *results.post.entry(result).or_default() += 1;
        if result == CallResult::Status(204) {
            results.acknowledged.push(identity);
        }
    }

    fn record_pre(&self, result: CallResult, took: Duration) {
        let mut results = self.results.lock().expect("the lock is not poisoned");
        *results.pre.entry(result).or_default() += 1;
        results.longest_pre = results.longest_pre.max(took);
    }

    async fn call(&self, stage: &str, trigger: Uuid, body: &str) -> CallResult {
        let index = self.rng.below(self.urls.len() as u64);
        let url = &self.urls[usize::try_from(index).expect("a small number")];
        let call = self
            .http
            .post(format!("{url}/hooks/registration/{stage}?method=password"))
            .header("Content-Type", "application/json")
            .header("X-Vestibule-Key", KEY)
            .header("Ory-Webhook-Trigger-ID", trigger.to_string())
            .body(body.to_owned());
        match call.send().await {
            Ok(response) => CallResult::Status(response.status().as_u16()),
            Err(error) if error.is_timeout() => CallResult::TimedOut,
            Err(_) => CallResult::ConnectionLost,
        }
    }
}

impl LoadResults {
    /// The deliveries that must arrive: one of each subscription for each acknowledged sign-up.
    pub fn expected_deliveries(&self) -> Vec<DeliveryKey> {
        let subscriptions = ["crm", "ledger"];
        let each = |identity| subscriptions.map(|name| (name.to_owned(), identity));
        self.acknowledged
            .iter()
            .flat_map(|identity| each(*identity))
            .collect()
    }

    /// Asserts that Vestibule answered `post` only with 204 or 503, and `pre` with 204 within its deadline.
    pub fn assert_responses(&self) {
        let known = [CallResult::Status(204), CallResult::Status(503)];
        for (result, times) in &self.post {
            assert!(known.contains(result), "post: {result:?}, {times} times");
        }
        for (result, times) in &self.pre {
            assert_eq!(*result, CallResult::Status(204), "pre, {times} times");
        }
        assert!(
            self.longest_pre < Duration::from_secs(5),
            "a response to `pre` took {:?}",
            self.longest_pre
        );
    }
}
