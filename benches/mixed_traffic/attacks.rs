//! Hostile traffic: all kinds at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use uuid::Uuid;
use vestibule_testing::payload::Payload;

use super::elsewhere::Elsewhere;
use super::honest::call;
use super::process::{KEY, Vestibule};

/// The interval between two calls of one kind.
const EVERY: Duration = Duration::from_millis(500);
/// Connections that send nothing.
const SILENT: usize = 120;
/// Connections that send a byte at a time.
const SLOW: usize = 20;
/// The longest time that a hook may take: `hooks.deadline`, and a second for a busy machine.
const LONGEST: Duration = Duration::from_secs(6);

/// Hostile traffic that runs.
pub struct Attacks {
    running: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Attacked>>,
    connections: JoinHandle<()>,
}

/// The answers to hostile calls.
#[derive(Debug, Default)]
pub struct Attacked {
    /// The number of calls.
    pub calls: usize,
    /// Answers that break the contract.
    pub broken: Vec<String>,
}

/// A kind of hostile call of a hook.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    stage: &'static str,
    /// Makes the body of the call.
    body: fn() -> Payload,
    /// The permitted statuses.
    permitted: &'static [u16],
}

/// The calls of [`wrong_calls`] in one interval.
const WRONG: usize = 5;
/// The calls of [`foreign_calls`] in one interval.
const FOREIGN: usize = 2;

const REFUSED: &[u16] = &[400];

const KINDS: [Kind; 5] = [
    Kind {
        name: "a value of 30 KB in a loop",
        stage: "pre",
        body: || sign_up().with_trait("company", long_value()),
        permitted: REFUSED,
    },
    Kind {
        name: "a value of 30 KB that is multiplied",
        stage: "pre",
        body: || sign_up().with_trait("invite", long_value()),
        permitted: REFUSED,
    },
    Kind {
        name: "a number for which the register misbehaves",
        stage: "pre",
        body: || sign_up().with_trait("company_number", misbehaviour()),
        permitted: REFUSED,
    },
    Kind {
        name: "a receiver with 800 KB of errors",
        stage: "post",
        body: || {
            let tags: Vec<String> = (0..3_000).map(|tag| format!("tag-{tag}")).collect();
            sign_up().with("/identity/traits/tags", json!(tags)).saved()
        },
        permitted: &[204],
    },
    Kind {
        name: "a body above the limit",
        stage: "pre",
        body: || sign_up().with_trait("company", "a".repeat(300 * 1024)),
        permitted: &[413],
    },
];

fn sign_up() -> Payload {
    vestibule_testing::payload().with("/flow/id", Uuid::new_v4().to_string())
}

fn long_value() -> String {
    format!("{} {}", "a".repeat(30_000), Uuid::new_v4())
}

fn misbehaviour() -> String {
    let id = Uuid::new_v4();
    let kinds = ["slow", "huge", "deep", "endless", "broken", "failing"];
    let kind = kinds[id.as_u128() as usize % kinds.len()];
    format!("{kind}-{id}")
}

impl Attacks {
    /// Starts all kinds.
    pub fn begin(vestibule: &Vestibule, elsewhere: &Elsewhere) -> Self {
        let running = Arc::new(AtomicBool::new(true));
        let http = || elsewhere.http.clone();
        let hooks = || vestibule.hooks.clone();
        let goes_on = || Arc::clone(&running);
        let mut tasks = Vec::new();
        for kind in KINDS {
            tasks.push(elsewhere.spawn(hook_calls(http(), hooks(), kind, goes_on())));
        }
        tasks.push(elsewhere.spawn(wrong_calls(http(), hooks(), goes_on())));
        let admin = vestibule.admin.clone();
        tasks.push(elsewhere.spawn(foreign_calls(http(), admin, goes_on())));
        let address = vestibule.hooks.trim_start_matches("http://").to_owned();
        Self {
            connections: elsewhere.spawn(hold_connections(address)),
            running,
            tasks,
        }
    }

    /// Ends the traffic, and returns what was answered.
    pub async fn end(self) -> Attacked {
        self.running.store(false, Ordering::Relaxed);
        self.connections.abort();
        let mut all = Attacked::default();
        for one in vestibule_testing::join_all("the hostile traffic ends", self.tasks).await {
            all.calls += one.calls;
            all.broken.extend(one.broken);
        }
        all
    }
}

/// Returns how many hostile calls are due within this time.
pub fn due_within(time: Duration) -> usize {
    let rounds = time.as_millis() / EVERY.as_millis();
    usize::try_from(rounds).unwrap_or(usize::MAX) * (KINDS.len() + WRONG + FOREIGN)
}

/// Calls a hook twice a second. A call does not wait for the one before.
async fn hook_calls(http: Client, hooks: String, kind: Kind, running: Arc<AtomicBool>) -> Attacked {
    let mut calls = Vec::new();
    let mut due = Instant::now();
    while running.load(Ordering::Relaxed) {
        let (http, hooks) = (http.clone(), hooks.clone());
        calls.push(tokio::spawn(async move {
            let began = Instant::now();
            let answer = call(&http, &hooks, kind.stage, &(kind.body)()).await;
            let is_permitted = matches!(&answer, Ok(status) if kind.permitted.contains(status));
            (!is_permitted || began.elapsed() > LONGEST)
                .then(|| format!("{}: {answer:?} after {:?}", kind.name, began.elapsed()))
        }));
        pause(&mut due).await;
    }
    let answers = vestibule_testing::join_all("each hostile call is answered", calls).await;
    Attacked {
        calls: answers.len(),
        broken: answers.into_iter().flatten().collect(),
    }
}

/// Waits until the next call is due. Calls that are late are made up for.
async fn pause(due: &mut Instant) {
    *due += EVERY;
    tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
}

/// Calls of the hooks port that no Kratos makes.
async fn wrong_calls(http: Client, hooks: String, running: Arc<AtomicBool>) -> Attacked {
    let pre = format!("{hooks}/hooks/registration/pre?method=password");
    let elsewhere = format!("{hooks}/hook/registration/pre?method=password");
    let with_key = |url: &str| http.post(url).header("X-Vestibule-Key", KEY);
    let mut all = Attacked::default();
    let mut due = Instant::now();
    while running.load(Ordering::Relaxed) {
        for (what, request, permitted) in [
            ("no key", http.post(&pre).body("{}"), 401),
            ("no JSON", with_key(&pre).body("{\"flow\":"), 400),
            ("deep JSON", with_key(&pre).body("[".repeat(50_000)), 400),
            ("another path", with_key(&elsewhere).body("{}"), 404),
            (
                "another verb",
                http.get(&pre).header("X-Vestibule-Key", KEY),
                405,
            ),
        ] {
            all.expect(&http, what, request, permitted).await;
        }
        pause(&mut due).await;
    }
    all
}

/// Calls of the admin port as another site makes them in an operator's browser.
async fn foreign_calls(http: Client, admin: String, running: Arc<AtomicBool>) -> Attacked {
    let mut all = Attacked::default();
    let mut due = Instant::now();
    while running.load(Ordering::Relaxed) {
        let list = http.get(format!("{admin}/deliveries"));
        for (what, request) in [
            (
                "another host",
                list.try_clone()
                    .expect("a request")
                    .header("Host", "rebound.example:4468"),
            ),
            (
                "another origin",
                list.header("Origin", "https://rebound.example"),
            ),
        ] {
            all.expect(&http, what, request, 403).await;
        }
        pause(&mut due).await;
    }
    all
}

impl Attacked {
    async fn expect(
        &mut self,
        http: &Client,
        what: &str,
        request: reqwest::RequestBuilder,
        permitted: u16,
    ) {
        let request = request.build().expect("a request");
        let answer = http
            .execute(request)
            .await
            .map(|answer| answer.status().as_u16());
        self.calls += 1;
        if !matches!(answer, Ok(status) if status == permitted) {
            self.broken
                .push(format!("{what}: {answer:?}, expected {permitted}"));
        }
    }
}

/// Holds connections that send nothing, or one byte at a time. They are closed when the task is aborted.
async fn hold_connections(address: String) {
    let mut silent = Vec::new();
    let mut slow = Vec::new();
    for _ in 0..SILENT {
        silent.push(TcpStream::connect(&address).await);
    }
    for _ in 0..SLOW {
        slow.extend(TcpStream::connect(&address).await);
    }
    let head = format!(
        "POST /hooks/registration/pre HTTP/1.1\r\nHost: vestibule\r\nX-Vestibule-Key: {KEY}\r\nX-Slow: {}",
        "a".repeat(1_000)
    );
    for byte in head.bytes() {
        for stream in &mut slow {
            let _ = stream.write_all(&[byte]).await;
        }
        tokio::time::sleep(EVERY / 5).await;
    }
    std::future::pending::<()>().await;
}
