//! Late refusals: a check refused an account after its creation. A late refusal is in force until it is lifted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::base::clock::Timestamp;

/// The effect of a late refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLateRefusal {
    /// The identity is deactivated and marked, and hooks refuse the visitor until the refusal is lifted.
    Deactivate,
    /// The refusal is written into the identity's `metadata_admin`.
    Mark,
    /// Only the deliveries of `check.refused` are stored.
    Notify,
}

impl OnLateRefusal {
    /// Returns the name in the settings and the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deactivate => "deactivate",
            Self::Mark => "mark",
            Self::Notify => "notify",
        }
    }

    /// Returns the effect with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Deactivate, Self::Mark, Self::Notify]
            .into_iter()
            .find(|effect| effect.as_str() == name)
    }
}

/// A check's late refusal of an account. While a refusal that deactivates is in force, hooks of login, recovery and
/// settings refuse the visitor. While another refusal is in force, the check runs in settings, and its acceptance
/// lifts the refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct LateRefusal {
    /// The account.
    pub identity_id: Uuid,
    /// The name of the check.
    pub check: String,
    /// The effect.
    pub effect: OnLateRefusal,
    /// The message for the visitor. `None` if the check has no message of its own, or if the refusal does not keep the
    /// visitor out.
    pub message: Option<StoredMessage>,
    /// When the check refused.
    pub refused_at: Timestamp,
    /// `state_changed_at` of the identity, on Kratos's clock, after Vestibule deactivated the identity. `None` until
    /// then.
    pub deactivated_at: Option<Timestamp>,
    /// Whether the identity was active before Vestibule enforced the refusal. `None` until then.
    pub was_active: Option<bool>,
}

/// A message with evaluated expressions, in every language of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// The number that Kratos and front ends see.
    pub id: u32,
    /// The name of the message under `messages`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The node of the check's field: `traits.vat_number`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Language tag and text, in the order of the settings file.
    pub texts: Vec<(String, String)>,
}

impl LateRefusal {
    /// Returns whether hooks refuse the visitor.
    #[must_use]
    pub fn keeps_out(&self) -> bool {
        self.effect == OnLateRefusal::Deactivate
    }

    /// Returns whether an operator has activated the account since Vestibule deactivated it. A profile save erases
    /// `state_changed_at`, and any save can restore an old value. So only a later time counts.
    #[must_use]
    pub fn is_overruled_by(&self, identity: &serde_json::Value) -> bool {
        let changed_at = identity["state_changed_at"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        identity["state"] == "active"
            && matches!((self.deactivated_at, changed_at), (Some(deactivated), Some(changed)) if changed > deactivated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_later_activation_overrules_a_refusal() {
        let refusal = |deactivated_at: Option<&str>| LateRefusal {
            identity_id: Uuid::nil(),
            check: "vat".to_owned(),
            effect: OnLateRefusal::Deactivate,
            message: None,
            refused_at: "2026-11-23T12:00:00Z".parse().unwrap(),
            deactivated_at: deactivated_at.map(|text| text.parse().unwrap()),
            was_active: None,
        };
        let ours = Some("2026-11-23T12:00:05Z");
        for (deactivated_at, state, changed_at, expected) in [
            (ours, "active", json!("2026-11-23T12:00:06Z"), true),
            (ours, "active", json!("2026-11-23T12:00:05Z"), false),
            // A save restored the value that it had read before.
            (ours, "active", json!("2026-11-23T11:00:00Z"), false),
            // A profile save erased the value.
            (ours, "active", json!(null), false),
            (ours, "inactive", json!("2026-11-23T12:00:06Z"), false),
            // Kratos refused the write, so there is no time to compare with.
            (None, "active", json!("2026-11-23T12:00:06Z"), false),
        ] {
            let identity = json!({"state": state, "state_changed_at": changed_at});
            assert_eq!(
                refusal(deactivated_at).is_overruled_by(&identity),
                expected,
                "{identity}"
            );
        }
    }
}
