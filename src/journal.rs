//! said yes -> saved, or never created
//!
//! Kratos may fail after our yes, and its `post` may get lost. So each yes is written down, until `post` closes it or a
//! look at Kratos's identities tells what became of it.

use std::time::Duration;

use chrono::SubsecRound as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::clock::{Timestamp, later};
use crate::delivery::Scene;
use crate::kratos::Flow;
use crate::request::Request;

/// How long `post` is waited for before somebody looks.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How long after the end of the flow's life the last look is: Kratos may have begun to save at its very end.
pub const AFTER_THE_END: Duration = Duration::from_secs(90);
/// How long Kratos may take from our yes to the account: whatever other hooks stand behind ours. An account that is younger
/// came of a later sign-up.
const SAVED_WITHIN: Duration = Duration::from_mins(5);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_mins(16);

/// One yes of `pre`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The one name that `pre` and `post` share.
    pub flow_id: Uuid,
    /// Of which kind it is.
    pub flow: Flow,
    /// How the person signs up.
    pub method: String,
    /// The last moment on Kratos's clock at which there was no account yet.
    pub asked_at: Timestamp,
    /// When we said yes.
    pub opened_at: Timestamp,
    /// When the flow's life ends.
    pub expires_at: Timestamp,
    /// How often it was looked for.
    pub looks: u32,
    /// What is needed then.
    pub details: Details,
}

/// Tells one yes from another to the same flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Yes {
    /// The flow.
    pub flow_id: Uuid,
    /// When it was given.
    pub opened_at: Timestamp,
}

/// What is forgotten as soon as it is known what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// How the account can be found.
    pub clues: Clues,
    /// What deliveries may read.
    pub scene: Scene,
    /// The checks that passed without an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deferred: Vec<Deferred>,
}

/// By what Kratos knows an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clues {
    /// What the person could sign in with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identifiers: Vec<String>,
    /// An id of the operator's own, or of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// In settings, the account itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_id: Option<Uuid>,
}

/// A question that had no answer before the account existed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deferred {
    /// The check's name.
    pub check: String,
    /// The question.
    pub request: Request,
    /// The value of the check's field, as it is to be saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// How an entry ended without an account being known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// No account came of it.
    NeverCreated,
    /// Nobody can tell: its identifier was not told to us.
    Undecided,
}

impl End {
    /// As the store writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverCreated => "never_created",
            Self::Undecided => "undecided",
        }
    }
}

impl Entry {
    /// Which yes it is.
    #[must_use]
    pub fn yes(&self) -> Yes {
        Yes {
            flow_id: self.flow_id,
            opened_at: self.opened_at,
        }
    }

    /// Whether an account that is not found was never made. Of social sign-ups, passkeys and security keys the identifier
    /// is not told to hooks.
    #[must_use]
    pub fn is_conclusive(&self) -> bool {
        self.details.clues.external_id.is_some()
            || self.details.clues.identity_id.is_some()
            || (matches!(self.method.as_str(), "password" | "code")
                && !self.details.clues.identifiers.is_empty())
    }

    /// Whether this identity is the one that came of it, and not somebody who was there before.
    #[must_use]
    pub fn is_about(&self, identity: &Value) -> bool {
        if self.details.clues.identity_id.is_some() {
            // A change: it came to pass if the account is as it was to be.
            let wanted = self.details.scene.identity.as_ref();
            return wanted.is_some_and(|wanted| {
                wanted["traits"] == identity["traits"] && was_saved_since(wanted, identity)
            });
        }
        let created = identity["created_at"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        // Kratos on MySQL keeps whole seconds.
        let earliest = self.asked_at.trunc_subsecs(0);
        // Where the template does not tell when the form was sent, the first is when it was opened.
        let latest = later(self.asked_at.max(self.opened_at), SAVED_WITHIN);
        created.is_some_and(|created| earliest <= created && created <= latest)
    }

    /// Whether this was the last look: the flow can bring forth nothing more.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= later(self.expires_at, AFTER_THE_END)
    }

    /// When to look again after a look at `now` that found nothing.
    #[must_use]
    pub fn next_look(&self, now: Timestamp) -> Timestamp {
        let doublings = self.looks.min(8);
        let pause = PATIENCE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
        let last = later(self.expires_at, AFTER_THE_END);
        let next = later(now, pause);
        if now < last { next.min(last) } else { next }
    }
}

/// Whether the account was saved after it was handed to us. Unknown where it does not tell.
fn was_saved_since(handed: &Value, now: &Value) -> bool {
    let saved_at = |identity: &Value| identity["updated_at"].as_str()?.parse::<Timestamp>().ok();
    match (saved_at(handed), saved_at(now)) {
        (Some(before), Some(now)) => before < now,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(method: &str, clues: Clues) -> Entry {
        Entry {
            flow_id: Uuid::from_u128(1),
            flow: Flow::Registration,
            method: method.to_owned(),
            asked_at: at("2026-11-23T12:00:00.5Z"),
            opened_at: at("2026-11-23T12:00:01Z"),
            expires_at: at("2026-11-23T13:00:00Z"),
            looks: 0,
            details: Details {
                clues,
                ..Details::default()
            },
        }
    }

    fn known_by(identifiers: &[&str]) -> Clues {
        Clues {
            identifiers: identifiers.iter().map(ToString::to_string).collect(),
            ..Clues::default()
        }
    }

    #[test]
    fn only_of_some_the_identifier_is_known() {
        let external = Clues {
            external_id: Some("vestibule:1".to_owned()),
            ..Clues::default()
        };
        for (method, clues, expected) in [
            ("password", known_by(&["a@example.org"]), true),
            ("code", known_by(&["a@example.org"]), true),
            ("password", known_by(&[]), false),
            ("oidc", known_by(&["a@example.org"]), false),
            ("passkey", known_by(&["a@example.org"]), false),
            ("webauthn", known_by(&["a@example.org"]), false),
            ("", known_by(&["a@example.org"]), false),
            ("oidc", external, true),
        ] {
            assert_eq!(entry(method, clues).is_conclusive(), expected, "{method}");
        }
    }

    #[test]
    fn who_was_there_before_is_somebody_else() {
        let entry = entry("password", known_by(&["a@example.org"]));
        for (created_at, expected) in [
            (json!("2026-11-23T11:59:59.999999Z"), false),
            (json!("2026-11-23T12:00:00Z"), true), // by a database that keeps whole seconds
            (json!("2026-11-23T12:00:00.5Z"), true),
            (json!("2026-11-23T12:05:01Z"), true),
            (json!("2026-11-23T12:05:02Z"), false), // of a later sign-up
            (json!("2025-01-01T00:00:00Z"), false),
            (json!(null), false),
        ] {
            let identity = json!({"created_at": created_at});
            assert_eq!(entry.is_about(&identity), expected, "{created_at}");
        }
    }

    #[test]
    fn a_change_came_to_pass_if_the_account_is_as_it_was_to_be() {
        let mut entry = entry("profile", Clues::default());
        entry.details.clues.identity_id = Some(Uuid::from_u128(7));
        entry.details.scene.identity = Some(json!({"traits": {"vat": "new"}}));
        assert!(entry.is_about(&json!({"traits": {"vat": "new"}})));
        assert!(!entry.is_about(&json!({"traits": {"vat": "old"}})));
        // An account that had these traits before was not saved by it.
        let handed = json!({"traits": {"vat": "new"}, "updated_at": "2026-11-23T12:00:00Z"});
        entry.details.scene.identity = Some(handed.clone());
        assert!(!entry.is_about(&handed));
        let saved = json!({"traits": {"vat": "new"}, "updated_at": "2026-11-23T12:00:02Z"});
        assert!(entry.is_about(&saved));
    }

    #[test]
    fn pauses_grow_and_the_last_look_is_after_the_end() {
        let mut entry = entry("password", known_by(&["a@example.org"]));
        let mut now = later(entry.opened_at, PATIENCE);
        let mut pauses = Vec::new();
        while !entry.is_over(now) {
            entry.looks += 1;
            let next = entry.next_look(now);
            pauses.push((next - now).num_seconds());
            now = next;
        }
        assert_eq!(now, at("2026-11-23T13:01:30Z"));
        assert_eq!(pauses, [120, 240, 480, 960, 960, 869]);
        // Kratos could not be asked: it is asked for ever after.
        assert!(entry.next_look(now) > now);
    }
}
