//! Bodies as the template of Vestibule makes them. Every value that a visitor can type holds the canary.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A sign-up by password with a one-step form, before it is saved.
pub fn payload() -> Payload {
    Payload(json!({
        "version": 1,
        "flow": {
            "id": Uuid::new_v4(), "type": "browser", "issued_at": "2026-11-23T14:32:52Z",
            "expires_at": "2026-11-23T15:32:52Z", "return_to": "http://127.0.0.1:4455/after",
            "transient_payload": {"note": "canary-transient"},
        },
        "identity": {
            "id": Uuid::nil(), "schema_id": "default", "state": "active",
            "traits": {"email": "canary@example.org", "company": "Canary GmbH", "vat_number": "DE-canary-1", "invite": "canary-invite"},
            "metadata_public": null,
            "verifiable_addresses": [], "recovery_addresses": [],
            "created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z",
        },
        "nodes": [
            {"name": "traits.email", "hidden": false, "title": "E-mail"},
            {"name": "traits.company", "hidden": false, "title": "Company"},
            {"name": "traits.vat_number", "hidden": false, "title": "VAT number"},
            {"name": "traits.invite", "hidden": false, "title": "Invite code"},
        ],
        "request": {"headers": {"User-Agent": "canary-agent", "True-Client-Ip": "192.0.2.7"}},
    }))
}

/// As [`payload`], for a visitor with this address, by which Kratos can be asked for the account.
pub fn visitor_with(email: &str) -> Payload {
    payload()
        .with_trait("email", email)
        .with("/identity/state_changed_at", "2026-11-23T14:32:53.1Z")
        .with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        )
}

/// As [`visitor_with`], for a visitor with the invite `gold`.
pub fn invited_visitor(email: &str) -> Payload {
    visitor_with(email).with_trait("invite", "gold")
}

/// A body that a test changes step by step.
#[derive(Clone, Debug)]
pub struct Payload(pub Value);

#[expect(
    clippy::return_self_not_must_use,
    reason = "an unused body is no mistake in a test"
)]
impl Payload {
    /// Sets the value at a JSON pointer and creates missing parents.
    pub fn with(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        let mut target = &mut self.0;
        for name in pointer.trim_start_matches('/').split('/') {
            target = match target {
                Value::Array(list) => &mut list[name.parse::<usize>().expect("an index")],
                other => &mut other[name],
            };
        }
        *target = value.into();
        self
    }

    /// Removes the value at a JSON pointer.
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        self.0
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("an object")
            .remove(name);
        self
    }

    /// Sets a trait.
    pub fn with_trait(self, name: &str, value: impl Into<Value>) -> Self {
        self.with(&format!("/identity/traits/{name}"), value)
    }

    /// Sets `Accept-Language`.
    pub fn in_language(self, header: &str) -> Self {
        self.with("/request/headers/Accept-Language", header)
    }

    /// Hides this node, as in the second step of a two-step form.
    pub fn hiding(mut self, name: &str) -> Self {
        for node in self.0["nodes"].as_array_mut().expect("nodes") {
            if node["name"] == name {
                node["hidden"] = true.into();
            }
        }
        self
    }

    /// Gives the identity a new id, as in `post`.
    pub fn saved(self) -> Self {
        self.saved_as(Uuid::new_v4())
    }

    /// Gives the identity this id.
    pub fn saved_as(self, id: Uuid) -> Self {
        self.with("/identity/id", id.to_string())
    }

    /// Adds the `external_id` that `pre` returned, as a Kratos that stores it does.
    pub fn guarded(self) -> Self {
        let id = guard_id(self.flow_id());
        self.with("/identity/external_id", id)
    }

    /// Returns the id of the flow.
    pub fn flow_id(&self) -> Uuid {
        let id = self.0["flow"]["id"].as_str().expect("an id");
        Uuid::parse_str(id).expect("a UUID")
    }

    /// Makes this a change in settings of an identity that had these traits.
    pub fn changed_from(self, traits: &Value) -> Self {
        self.saved().with(
            "/previous",
            json!({"traits": traits, "metadata_public": null}),
        )
    }
}

/// The `external_id` that `pre` answers for a flow: 48 digits of the hash of its id.
fn guard_id(flow_id: Uuid) -> String {
    let hash = Sha256::digest(flow_id.to_string().as_bytes());
    let digits: Vec<String> = hash[..24]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("vestibule:{}", digits.concat())
}

impl std::fmt::Display for Payload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}
