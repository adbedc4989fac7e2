//! Honest visitors: a sign-up every 10 ms, and every fifth is saved.

use std::time::{Duration, Instant};

use reqwest::Client;
use uuid::Uuid;
use vestibule_testing::payload::Payload;

use super::process::{KEY, Vestibule};
use super::steal::StealWatch;

/// The interval between two sign-ups: 100 a second, far below what one core can do.
const EVERY: Duration = Duration::from_millis(10);
/// How many sign-ups come to one that Kratos saves.
const SAVED: usize = 5;

/// What honest visitors noticed in one window.
#[derive(Debug, Default)]
pub struct Honest {
    /// The times of `pre` that count, sorted.
    pub times: Vec<Duration>,
    /// All times of `pre`, sorted.
    pub all_times: Vec<Duration>,
    /// Answers to `pre` that are no acceptance.
    pub refused: usize,
    /// The identities whose `post` was answered 204.
    pub accepted: Vec<String>,
    /// Calls of `post` that were answered 503.
    pub unavailable: usize,
    /// Other answers.
    pub broken: Vec<String>,
}

/// One sign-up.
struct SignUp {
    due: Instant,
    time: Duration,
    pre: Result<u16, String>,
    post: Option<(String, Result<u16, String>)>,
}

impl Honest {
    /// Signs visitors up for this time.
    pub async fn window(vestibule: &Vestibule, length: Duration) -> Self {
        let watch = StealWatch::begin();
        let begin = Instant::now();
        let mut calls = Vec::new();
        let mut due = begin;
        while begin.elapsed() < length {
            let (http, hooks) = (vestibule.http.clone(), vestibule.hooks.clone());
            let is_saved = calls.len().is_multiple_of(SAVED);
            calls.push(tokio::spawn(sign_up(http, hooks, due, is_saved)));
            due += EVERY;
            tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
        }
        let mut window = Self::default();
        let sign_ups = vestibule_testing::join_all("each sign-up is answered", calls).await;
        let stolen = watch.end();
        for one in sign_ups {
            let is_stolen = stolen.at(one.due);
            window.add(one, is_stolen);
        }
        window.times.sort();
        window.all_times.sort();
        window
    }

    fn add(&mut self, one: SignUp, is_stolen: bool) {
        self.all_times.push(one.time);
        if !is_stolen {
            self.times.push(one.time);
        }
        match one.pre {
            Ok(200 | 204) => {}
            Ok(400) => self.refused += 1,
            other => self.broken.push(format!("an honest pre: {other:?}")),
        }
        match one.post {
            None => {}
            Some((id, Ok(204))) => self.accepted.push(id),
            Some((_, Ok(503))) => self.unavailable += 1,
            Some((_, other)) => self.broken.push(format!("an honest post: {other:?}")),
        }
    }

    /// Returns how many sign-ups do not count.
    pub fn stolen(&self) -> usize {
        self.all_times.len() - self.times.len()
    }
}

/// Returns the time that this share of sign-ups did not exceed.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    times
        .get(times.len() * percent / 100)
        .or(times.get(last))
        .copied()
        .unwrap_or_default()
}

/// Signs one visitor up. The time counts from when the call is due, also if it starts late.
async fn sign_up(http: Client, hooks: String, due: Instant, is_saved: bool) -> SignUp {
    let flow = Uuid::new_v4().to_string();
    let body = vestibule_testing::payload().with("/flow/id", flow);
    let pre = call(&http, &hooks, "pre", &body).await;
    let time = due.elapsed();
    let mut post = None;
    if is_saved && matches!(pre, Ok(200 | 204)) {
        let id = Uuid::new_v4();
        let answer = call(&http, &hooks, "post", &body.saved_as(id).guarded()).await;
        post = Some((id.to_string(), answer));
    }
    SignUp {
        due,
        time,
        pre,
        post,
    }
}

/// Calls a hook as Kratos does.
pub async fn call(http: &Client, hooks: &str, stage: &str, body: &Payload) -> Result<u16, String> {
    let response = http
        .post(format!(
            "{hooks}/hooks/registration/{stage}?method=password"
        ))
        .header("Content-Type", "application/json")
        .header("X-Vestibule-Key", KEY)
        .header("Ory-Webhook-Trigger-Id", Uuid::new_v4().to_string())
        .body(body.to_string())
        .send()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = response.status().as_u16();
    response
        .bytes()
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok(status)
}
