//! Calls hooks as Kratos does.

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::fake_kratos::body;
use crate::base::clock::{Clock, Timestamp};
use crate::http::KEY_HEADER;
use crate::kratos::{Flow, Stage};

/// How long Kratos waits for one response.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call and its response.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The URL.
    pub url: String,
    /// The headers. The key is masked.
    pub headers: Vec<(&'static str, String)>,
    /// The request body.
    pub body: String,
    /// When the call was sent.
    pub sent_at: Timestamp,
    /// The response, once it has arrived.
    pub answer: Option<Answer>,
}

/// A response of Vestibule.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The status. `None`: there was no response.
    pub status: Option<u16>,
    /// The response body as JSON, or null.
    pub body: Value,
    /// The time from the call to the last byte, in milliseconds.
    pub duration_ms: f64,
}

/// Sends the calls that Kratos would send.
pub struct Sender {
    http: reqwest::Client,
    url: String,
    key: String,
    clock: Clock,
}

impl Sender {
    /// Creates a sender for the hooks at `url`, with this key.
    #[expect(
        clippy::disallowed_methods,
        reason = "calls Vestibule as Kratos does, and not a configured service"
    )]
    pub fn new(url: String, key: String, clock: Clock) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("cannot build the HTTP client")?;
        Ok(Self {
            http,
            url,
            key,
            clock,
        })
    }

    /// Builds a call without sending it.
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

    /// Sends the call and waits for the response.
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
            .timeout_at(self.clock.deadline(PATIENCE), exchange)
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

/// Returns the duration in milliseconds, with one decimal.
#[must_use]
pub fn duration_ms(from: Timestamp, to: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one exchange")]
    let microseconds = (to - from).num_microseconds().unwrap_or_default() as f64;
    (microseconds / 100.0).round() / 10.0
}
