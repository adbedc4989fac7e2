//! One submission of a form: the call that Kratos makes for it, and what follows from the verdict.

use chrono::TimeDelta;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::checks::Rules;
use crate::checks::follow_up::event;
use crate::config::Settings;
use crate::expression::Variables;
use crate::kratos::template::FORWARDED;
use crate::kratos::{Flow, Hook, Payload, Stage};
use crate::model::delivery::NewDelivery;
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::verdict::Verdict;

/// The id of the identity that was changed, or that a sign-up becomes.
const IDENTITY: Uuid = Uuid::from_u128(0x0198_a1b2_c3d4_7e5f_8a6b_7c8d_9e0f_1a2b);
/// The id of the flow.
const FLOW: Uuid = Uuid::from_u128(0x0198_a1b2_c3d4_4e5f_8a6b_7c8d_9e0f_0001);

/// What a visitor sends.
#[derive(Clone, Debug)]
pub struct Submission {
    /// `registration` or `settings`.
    pub flow: Flow,
    /// The method.
    pub method: String,
    /// The traits.
    pub traits: Map<String, Value>,
    /// `identity.metadata_public`
    pub metadata_public: Option<Value>,
    /// The id of the identity schema.
    pub schema_id: Option<String>,
    /// The traits and the public metadata before a change.
    pub previous: Option<(Map<String, Value>, Option<Value>)>,
    /// `flow.transient_payload`
    pub transient_payload: Option<Value>,
    /// `flow.request_url`
    pub request_url: Option<String>,
    /// `flow.return_to`
    pub return_to: Option<String>,
    /// `flow.provider`
    pub provider: Option<String>,
    /// The headers of the visitor's request.
    pub headers: IndexMap<String, String>,
    /// `request.client_ip`
    pub client_ip: Option<String>,
}

impl Submission {
    /// A submission of this flow with these traits, by its usual method, and nothing else.
    #[must_use]
    pub fn of(flow: Flow, method: Option<String>, traits: Map<String, Value>) -> Self {
        let usual = if flow == Flow::Settings {
            "profile"
        } else {
            "password"
        };
        Self {
            flow,
            method: method.unwrap_or_else(|| usual.to_owned()),
            traits,
            metadata_public: None,
            schema_id: None,
            previous: None,
            transient_payload: None,
            request_url: None,
            return_to: None,
            provider: None,
            headers: IndexMap::new(),
            client_ip: None,
        }
    }

    /// Returns the hook of this stage.
    #[must_use]
    pub fn hook(&self, stage: Stage) -> Hook {
        Hook {
            flow: self.flow,
            stage,
            method: self.method.clone(),
        }
    }

    /// Returns the call of Kratos, as its template would build it. An error says why it cannot be read.
    pub fn payload(&self, settings: &Settings, now: Timestamp) -> Result<Payload, String> {
        let needed = settings.hooks.body_needs.headers.iter();
        let forwarded: Vec<&str> = FORWARDED
            .into_iter()
            .chain(needed.map(String::as_str))
            .collect();
        let previous = self.previous.as_ref().map(|(traits, metadata_public)| {
            json!({
                "id": IDENTITY, "traits": traits, "metadata_public": metadata_public, "state": "active",
                "updated_at": now - TimeDelta::days(1),
            })
        });
        let id = if self.flow == Flow::Settings {
            IDENTITY
        } else {
            Uuid::nil()
        };
        let body = json!({
            "version": 2,
            "forwarded_headers": forwarded,
            "flow": {
                "id": FLOW, "type": "browser", "issued_at": now - TimeDelta::minutes(1), "expires_at": now + TimeDelta::hours(1),
                "transient_payload": self.transient_payload.clone().unwrap_or_else(|| json!({})),
                "request_url": self.request_url, "return_to": self.return_to, "provider": self.provider,
            },
            "identity": {
                "id": id, "schema_id": self.schema_id.as_deref().unwrap_or("default"), "traits": self.traits,
                "metadata_public": self.metadata_public, "state": "active", "created_at": now, "updated_at": now,
            },
            "previous": previous,
            "request": {"headers": self.headers},
        });
        let mut payload = Payload::parse(body.to_string().as_bytes())
            .map_err(|error| format!("the submission cannot be sent: {error}"))?;
        if settings.hooks.client_ip.is_some() {
            payload.request["client_ip"] = json!(self.client_ip);
        }
        Ok(payload)
    }
}

/// Returns the identity as Kratos saves it after the response.
#[must_use]
pub fn saved(identity: &Value, verdict: &Verdict) -> Value {
    let mut saved = identity.clone();
    if let Verdict::AdmitWith(changes) = verdict {
        for (key, value) in changes {
            saved[key] = value.clone();
        }
    }
    saved
}

/// Returns what the subscriptions would send for the saved identity. Nothing after a refusal.
#[must_use]
pub fn deliveries(
    rules: &Rules,
    hook: &Hook,
    payload: &Payload,
    verdict: &Verdict,
    now: Timestamp,
) -> Vec<NewDelivery> {
    if matches!(verdict, Verdict::Refuse(_)) {
        return Vec::new();
    }
    let mut saved = saved(payload.identity.as_ref().unwrap_or(&Value::Null), verdict);
    saved["id"] = json!(IDENTITY);
    let variables = Variables {
        identity: Some(&saved),
        previous: payload.previous.as_ref(),
        value: None,
        flow: Some(&payload.flow),
        request: Some(&payload.request),
        method: &hook.method,
        now,
        response: None,
        checks: None,
        taken: None,
        lists: rules.lists(),
    };
    let trigger = Trigger {
        event: event(hook),
        identity_id: IDENTITY,
        trigger_id: "test",
        check: None,
    };
    deliveries_for(rules.subscriptions(), &trigger, &variables)
}
