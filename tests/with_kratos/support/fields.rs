//! What people type.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value};

use super::service::UNKNOWN_VAT_NUMBERS;

pub const EMAIL: &str = "traits.email";
pub const COMPANY: &str = "traits.company";
pub const VAT_NUMBER: &str = "traits.vat_number";
pub const INVITE: &str = "traits.invite";

static PEOPLE: AtomicU32 = AtomicU32::new(1);

/// A form's fields by name.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub BTreeMap<String, Value>);

/// What a company types that may sign up: nobody else has its address and its VAT number.
pub fn company() -> Fields {
    let number = PEOPLE.fetch_add(1, Ordering::SeqCst);
    Fields::default()
        .with(EMAIL, format!("company-{number}@example.org"))
        .with(COMPANY, "As typed")
        .with(VAT_NUMBER, format!("DE8111{number:05}"))
}

/// The same with an unknown VAT number of its own.
pub fn company_without_number() -> Fields {
    let number = PEOPLE.fetch_add(1, Ordering::SeqCst);
    company().with(VAT_NUMBER, format!("{UNKNOWN_VAT_NUMBERS}{number:05}"))
}

impl Fields {
    /// With this in a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Sent by the button of the password method.
    #[must_use]
    pub fn by_password(self) -> Self {
        self.with("method", "password")
            .with("password", "a-long-Pa55phrase-of-ours")
    }

    /// Sent by the button of the code method.
    #[must_use]
    pub fn by_code(self) -> Self {
        self.with("method", "code")
    }

    /// Sent by the button of the passkey method, with the passkey that the browser has made.
    #[must_use]
    pub fn by_passkey(self, made: &str) -> Self {
        self.with("method", "passkey")
            .with("passkey_register", made)
    }

    /// Sent by the button of the profile: the first of two steps, or the settings page.
    #[must_use]
    pub fn by_profile(self) -> Self {
        self.with("method", "profile")
    }

    /// What is in a field.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The same as JSON clients send it: nested.
    pub fn nested(&self) -> Value {
        let mut root = Value::Object(Map::new());
        for (name, value) in &self.0 {
            let mut place = &mut root;
            for part in name.split('.') {
                place = &mut place[part];
            }
            *place = value.clone();
        }
        root
    }
}
