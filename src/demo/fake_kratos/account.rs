//! An identity of Kratos, before and after it is saved.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::sign_up_input::{Method, Traits};
use crate::base::clock::Timestamp;

/// Kratos's value for a time that is not set.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// An identity.
#[derive(Clone, Debug)]
pub struct Account(Value);

impl Account {
    /// Creates an identity that is not saved yet.
    #[must_use]
    pub fn new(traits: &Traits, method: Method, now: Timestamp) -> Self {
        let verified = method == Method::Code;
        let mut account = Self(json!({
            "id": Uuid::nil(), "schema_id": "company", "schema_url": "",
            "state": "active", "state_changed_at": now,
            "traits": traits.as_json(), "metadata_public": null, "organization_id": null,
            "created_at": NEVER, "updated_at": NEVER,
        }));
        account.derive_addresses(verified);
        account
    }

    /// Returns the identity with other traits.
    #[must_use]
    pub fn changed(&self, traits: &Traits) -> Self {
        let mut account = self.clone();
        account.0["traits"] = traits.as_json();
        account.derive_addresses(false);
        account
    }

    /// Returns the identity as `ctx` and the database hold it.
    #[must_use]
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// Returns the id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.0["id"]
            .as_str()
            .and_then(|id| Uuid::parse_str(id).ok())
            .unwrap_or_default()
    }

    /// Returns the e-mail address. No other account may log in with it.
    #[must_use]
    pub fn email(&self) -> &str {
        self.0["traits"]["email"].as_str().unwrap_or_default()
    }

    /// Applies the changes of an accepted `pre`. Each field in the response replaces the whole field, and an empty
    /// field is skipped. `null` is a value only for traits and metadata.
    pub fn take(&mut self, changes: &Map<String, Value>) {
        for (key, value) in changes {
            let counts = match key.as_str() {
                "traits" | "metadata_public" => true,
                "external_id" => value.is_string(),
                "schema_id" | "state" => value.as_str().is_some_and(|text| !text.is_empty()),
                _ => false,
            };
            if counts {
                self.0[key] = value.clone();
            }
        }
        let verified = self.0["verifiable_addresses"][0]["verified"] == true;
        self.derive_addresses(verified);
    }

    /// Saves the identity: sets its id and its times.
    pub fn save(&mut self, now: Timestamp) {
        if self.id().is_nil() {
            self.0["id"] = json!(Uuid::new_v4());
            self.0["schema_url"] = json!("http://127.0.0.1:4433/schemas/Y29tcGFueQ");
            self.0["created_at"] = json!(now);
            for list in ["verifiable_addresses", "recovery_addresses"] {
                for address in self.0[list].as_array_mut().into_iter().flatten() {
                    address["id"] = json!(Uuid::new_v4());
                    address["created_at"] = json!(now);
                    address["updated_at"] = json!(now);
                }
            }
        }
        self.0["updated_at"] = json!(now);
    }

    /// Sets the addresses from the traits.
    fn derive_addresses(&mut self, verified: bool) {
        let email = json!(self.email());
        if self.0["verifiable_addresses"][0]["value"] == email {
            return;
        }
        let address = json!({
            "id": Uuid::nil(), "value": email, "via": "email", "created_at": NEVER, "updated_at": NEVER,
        });
        let mut verifiable = address.clone();
        verifiable["verified"] = json!(verified);
        verifiable["status"] = json!(if verified { "completed" } else { "pending" });
        self.0["verifiable_addresses"] = json!([verifiable]);
        self.0["recovery_addresses"] = json!([address]);
    }
}
