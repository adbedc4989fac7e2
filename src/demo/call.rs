//! A call of a hook as Kratos makes it, with all that went over the wire.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::fake_kratos::body;
use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::http::KEY_HEADER;
use crate::kratos::{Flow, Stage};

/// How long Kratos waits for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call and its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Where to.
    pub url: String,
    /// What went along; the key is not shown.
    pub headers: Vec<(&'static str, String)>,
    /// What Vestibule read.
    pub body: String,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// What came back.
    pub answer: Option<Answer>,
}

/// What came back.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The status, unless nothing was heard.
    pub status: Option<u16>,
    /// JSON, or null.
    pub body: Value,
    /// From the call to the last byte, in milliseconds.
    pub duration_ms: f64,
}

/// Sends what Kratos would send.
pub struct Sender {
    http: reqwest::Client,
    url: String,
    key: String,
    clock: Clock,
}

impl Sender {
    /// To the hooks at `url`, with this key.
    #[expect(
        clippy::disallowed_methods,
        reason = "stands for Kratos, which is no service of ours"
    )]
    pub fn new(url: String, key: String) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("no HTTP client")?;
        Ok(Self {
            http,
            url,
            key,
            clock: Clock::system(),
        })
    }

    /// A call that is to be made.
    #[must_use]
    pub fn prepare(
        &self,
        flow: Flow,
        stage: Stage,
        method: &str,
        ctx: &Value,
        traceparent: &str,
    ) -> Call {
        Call {
            url: format!("{}/hooks/{flow}/{stage}?method={method}", self.url),
            headers: vec![
                ("Content-Type", "application/json".to_owned()),
                ("User-Agent", "Go-http-client/1.1".to_owned()),
                (KEY_HEADER, "••••••••".to_owned()),
                ("Ory-Webhook-Trigger-ID", Uuid::new_v4().to_string()),
                ("Ory-Webhook-Request-ID", Uuid::new_v4().to_string()),
                ("traceparent", traceparent.to_owned()),
            ],
            body: body::written(&body::body(ctx)),
            sent_at: self.clock.now(),
            answer: None,
        }
    }

    /// Makes it and waits for the answer.
    pub async fn answer(&self, call: &Call) -> Answer {
        let mut request = self.http.post(&call.url).body(call.body.clone());
        for (name, value) in &call.headers {
            let value = if *name == KEY_HEADER {
                &self.key
            } else {
                value
            };
            request = request.header(*name, value);
        }
        let began = self.clock.now();
        let exchange = async {
            let answer = request.send().await.ok()?;
            let status = answer.status().as_u16();
            Some((status, answer.bytes().await.ok()?))
        };
        let heard = self
            .clock
            .timeout_at(saturating_add(began, PATIENCE), exchange)
            .await;
        let (status, body) = heard.flatten().unzip();
        Answer {
            status,
            body: body
                .and_then(|body| serde_json::from_slice(&body).ok())
                .unwrap_or_default(),
            duration_ms: duration_ms(began, self.clock.now()),
        }
    }
}

/// The time from one moment to another, in milliseconds and tenths of them.
#[must_use]
pub fn duration_ms(from: Timestamp, to: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one exchange")]
    let microseconds = (to - from).num_microseconds().unwrap_or_default() as f64;
    (microseconds / 100.0).round() / 10.0
}
