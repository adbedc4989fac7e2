//! The demo's story: sign-ups sent exactly as Kratos would, and all that follows, said aloud.

use anyhow::Context as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock::{Clock, milliseconds};
use crate::server::KEY_HEADER;

/// Prints a line.
pub fn say(line: &str) {
    println!("{line}");
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
            .user_agent("Go-http-client/1.1")
            .build()
            .context("no HTTP client")?;
        Ok(Self {
            http,
            url,
            key,
            clock: Clock::system(),
        })
    }

    /// Calls one hook and tells what was sent and answered.
    pub async fn call(&self, stage: &str, body: &Value) -> anyhow::Result<u16> {
        let path = format!("/hooks/registration/{stage}?method=password");
        say(&format!("   -> {stage:<4}     Kratos        POST {path}"));
        say(&format!(
            "               traits        {}",
            body["identity"]["traits"]
        ));
        let started = self.clock.now();
        let answer = self
            .http
            .post(format!("{}{path}", self.url))
            .header("Content-Type", "application/json")
            .header(KEY_HEADER, &self.key)
            .header("Ory-Webhook-Trigger-ID", Uuid::new_v4().to_string())
            .header("Ory-Webhook-Request-ID", Uuid::new_v4().to_string())
            .body(body.to_string())
            .send()
            .await
            .context("Vestibule did not answer")?;
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        let took = milliseconds(started, self.clock.now());
        let verdict = match (stage, status) {
            ("pre", 204) => "yes, unchanged",
            ("pre", 200) => "yes, with changes",
            ("pre", _) => "no, with words for the person",
            (_, 204) => "stored, will be delivered",
            _ => "not stored, Kratos calls again",
        };
        say(&format!(
            "   <- {status}      Vestibule     {verdict} ({took} ms)"
        ));
        if let Ok(body) = serde_json::from_str::<Value>(&text) {
            for placed in body["messages"].as_array().into_iter().flatten() {
                for message in placed["messages"].as_array().into_iter().flatten() {
                    say(&format!(
                        "               {:<22} {} (message {})",
                        placed["instance_ptr"].as_str().unwrap_or_default(),
                        message["text"].as_str().unwrap_or_default(),
                        message["id"]
                    ));
                }
            }
            if let Some(identity) = body.get("identity") {
                say(&format!("               identity      {identity}"));
            }
        }
        Ok(status)
    }
}

/// What Kratos's template makes of a sign-up in a one-step form.
#[must_use]
pub fn sign_up(vat_number: &str, invite: &str, identity_id: Uuid) -> Value {
    let now = Clock::system().now();
    let expires = crate::clock::later(now, std::time::Duration::from_hours(1));
    let node = |name: &str, title: &str| json!({"name": format!("traits.{name}"), "hidden": false, "title": title});
    json!({
        "version": 1,
        "flow": {
            "id": Uuid::new_v4(), "type": "browser", "issued_at": now, "expires_at": expires,
            "return_to": "http://127.0.0.1:4455/welcome", "transient_payload": {},
        },
        "identity": {
            "id": identity_id, "schema_id": "default", "state": "active",
            "traits": {"email": "ada@muster.example", "company": "Muster", "vat_number": vat_number, "invite": invite},
            "metadata_public": null, "verifiable_addresses": [], "recovery_addresses": [],
            "created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z",
        },
        "nodes": [node("email", "E-mail"), node("company", "Company"), node("vat_number", "VAT number"), node("invite", "Invite code")],
        "request": {"headers": {"Accept-Language": "en", "User-Agent": "Mozilla/5.0"}},
    })
}
