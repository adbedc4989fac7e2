//! Sign-ups, one after the other, from several sides at once; and what was answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use uuid::Uuid;

use super::chance::Chance;
use super::instance::{KEY, http};
use super::payload::payload;
use super::receiver::About;

/// Longer than any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an instance answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Status(u16),
    /// The connection was refused, or cut.
    Cut,
    /// Nothing, for [`PATIENCE`].
    Hangs,
}

/// What was noted.
#[derive(Debug, Default)]
pub struct Noted {
    /// The identities whose `post` was answered with 204.
    pub acknowledged: Vec<Uuid>,
    /// How often each answer was given to `post`.
    pub post: BTreeMap<Answer, u64>,
    /// How often each answer was given to `pre`.
    pub pre: BTreeMap<Answer, u64>,
    /// The longest that an answer to `pre` took.
    pub longest_pre: Duration,
}

/// How many call at once.
#[derive(Clone, Copy)]
pub struct Callers {
    pub post: usize,
    pub pre: usize,
}

/// Calls that go on until they are stopped.
pub struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

struct Shared {
    http: reqwest::Client,
    urls: Vec<String>,
    chance: Arc<Chance>,
    running: AtomicBool,
    noted: Mutex<Noted>,
}

impl Load {
    /// Begins to call the instances at these addresses, each time one of them.
    pub fn start(urls: Vec<String>, callers: Callers, chance: Arc<Chance>) -> Self {
        let shared = Arc::new(Shared {
            http: http(PATIENCE),
            urls,
            chance,
            running: AtomicBool::new(true),
            noted: Mutex::default(),
        });
        let mut set = JoinSet::new();
        for _ in 0..callers.post {
            let shared = Arc::clone(&shared);
            set.spawn(async move { shared.sign_ups().await });
        }
        for _ in 0..callers.pre {
            let shared = Arc::clone(&shared);
            set.spawn(async move { shared.questions().await });
        }
        Self {
            shared,
            callers: set,
        }
    }

    /// How often `post` got this answer so far.
    pub fn posts(&self, answer: Answer) -> u64 {
        let noted = self.shared.noted.lock().expect("a lock");
        noted.post.get(&answer).copied().unwrap_or_default()
    }

    /// Lets the calls under way end.
    pub async fn stop(mut self) -> Noted {
        self.shared.running.store(false, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller");
        }
        std::mem::take(&mut *self.shared.noted.lock().expect("a lock"))
    }
}

impl Shared {
    /// Accounts are saved, and Kratos tells us. It calls again if it must, but not for ever.
    async fn sign_ups(&self) {
        while self.running.load(Ordering::Relaxed) {
            let identity = Uuid::new_v4();
            let body = payload().saved_as(identity).to_string();
            let trigger = Uuid::new_v4();
            for _ in 0..=self.chance.below(4) {
                let answer = self.call("post", trigger, &body).await;
                self.note_post(answer, identity);
                if answer == Answer::Status(204) {
                    // Kratos may not have heard us, and knocks once more.
                    if self.chance.once_in(10) {
                        self.call("post", trigger, &body).await;
                    }
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Others are not that far yet.
    async fn questions(&self) {
        while self.running.load(Ordering::Relaxed) {
            let body = payload().to_string();
            let began = Instant::now();
            let answer = self.call("pre", Uuid::new_v4(), &body).await;
            self.note_pre(answer, began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn note_post(&self, answer: Answer, identity: Uuid) {
        let mut noted = self.noted.lock().expect("a lock");
        *noted.post.entry(answer).or_default() += 1;
        if answer == Answer::Status(204) {
            noted.acknowledged.push(identity);
        }
    }

    fn note_pre(&self, answer: Answer, took: Duration) {
        let mut noted = self.noted.lock().expect("a lock");
        *noted.pre.entry(answer).or_default() += 1;
        noted.longest_pre = noted.longest_pre.max(took);
    }

    async fn call(&self, stage: &str, trigger: Uuid, body: &str) -> Answer {
        let place = self.chance.below(self.urls.len() as u64);
        let url = &self.urls[usize::try_from(place).expect("some")];
        let call = self
            .http
            .post(format!("{url}/hooks/registration/{stage}?method=password"))
            .header("Content-Type", "application/json")
            .header("X-Vestibule-Key", KEY)
            .header("Ory-Webhook-Trigger-ID", trigger.to_string())
            .body(body.to_owned());
        match call.send().await {
            Ok(answer) => Answer::Status(answer.status().as_u16()),
            Err(error) if error.is_timeout() => Answer::Hangs,
            Err(_) => Answer::Cut,
        }
    }
}

impl Noted {
    /// What must arrive: everything that was acknowledged, by both plans.
    pub fn owed(&self) -> Vec<About> {
        let plans = ["crm", "ledger"];
        let each = |identity| plans.map(|plan| (plan.to_owned(), identity));
        self.acknowledged
            .iter()
            .flat_map(|identity| each(*identity))
            .collect()
    }

    /// Asserts that `post` was answered with 204 or 503 and nothing else, and `pre` with 204 within its deadline.
    pub fn is_as_promised(&self) {
        let known = [Answer::Status(204), Answer::Status(503)];
        for (answer, times) in &self.post {
            assert!(known.contains(answer), "post: {answer:?}, {times} times");
        }
        for (answer, times) in &self.pre {
            assert_eq!(*answer, Answer::Status(204), "pre, {times} times");
        }
        assert!(
            self.longest_pre < Duration::from_secs(5),
            "an answer to `pre` took {:?}",
            self.longest_pre
        );
    }
}
