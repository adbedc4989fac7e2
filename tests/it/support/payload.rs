//! Bodies as our template makes them. Every value that a person could have typed holds the canary.

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::kratos::fingerprint::guard_id;

/// A sign-up by password in one-step form, before it is saved.
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

/// A body to be changed step by step.
#[derive(Clone, Debug)]
pub struct Payload(pub Value);

impl Payload {
    /// Puts a value at a JSON pointer; what is missing on the way is made.
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

    /// Takes out what a JSON pointer names.
    pub fn without(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        self.0
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("an object")
            .remove(name);
        self
    }

    /// The same trait with another value.
    pub fn with_trait(self, name: &str, value: impl Into<Value>) -> Self {
        self.with(&format!("/identity/traits/{name}"), value)
    }

    /// In the language of this `Accept-Language`.
    pub fn in_language(self, header: &str) -> Self {
        self.with("/request/headers/Accept-Language", header)
    }

    /// With this node hidden, as in the second step of a two-step form.
    pub fn hiding(mut self, name: &str) -> Self {
        for node in self.0["nodes"].as_array_mut().expect("nodes") {
            if node["name"] == name {
                node["hidden"] = true.into();
            }
        }
        self
    }

    /// Saved: with an id of its own, as `post` sees it.
    pub fn saved(self) -> Self {
        self.saved_as(Uuid::new_v4())
    }

    /// Saved with this id.
    pub fn saved_as(self, id: Uuid) -> Self {
        self.with("/identity/id", id.to_string())
    }

    /// Saved by a Kratos that stores the `external_id` that `pre` answered.
    pub fn guarded(self) -> Self {
        let id = guard_id(self.flow_id());
        self.with("/identity/external_id", id)
    }

    /// Of its flow.
    pub fn flow_id(&self) -> Uuid {
        let id = self.0["flow"]["id"].as_str().expect("an id");
        Uuid::parse_str(id).expect("a UUID")
    }

    /// In settings: saved, and what it was before.
    pub fn changed_from(self, traits: &Value) -> Self {
        self.saved().with(
            "/previous",
            json!({"traits": traits, "metadata_public": null}),
        )
    }
}

impl std::fmt::Display for Payload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}
