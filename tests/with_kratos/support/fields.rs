//! The fields of forms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value};

use super::service::UNKNOWN_VAT_PREFIX;

pub const EMAIL: &str = "traits.email";
pub const COMPANY: &str = "traits.company";
pub const VAT_NUMBER: &str = "traits.vat_number";
pub const INVITE: &str = "traits.invite";

static COMPANIES: AtomicU32 = AtomicU32::new(1);

/// The values of a form by field name.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub BTreeMap<String, Value>);

/// Valid fields of a company, with a unique address and VAT number.
pub fn company() -> Fields {
    let number = COMPANIES.fetch_add(1, Ordering::SeqCst);
    Fields::default()
        .with(EMAIL, format!("company-{number}@example.org"))
        .with(COMPANY, "As typed")
        .with(VAT_NUMBER, format!("DE8111{number:05}"))
}

/// As [`company`], with a unique unknown VAT number.
pub fn company_with_unknown_number() -> Fields {
    let number = COMPANIES.fetch_add(1, Ordering::SeqCst);
    company().with(VAT_NUMBER, format!("{UNKNOWN_VAT_PREFIX}{number:05}"))
}

impl Fields {
    /// Sets a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Selects the password method, as its button does.
    #[must_use]
    pub fn by_password(self) -> Self {
        self.with("method", "password")
            .with("password", "a-long-Pa55phrase-of-ours")
    }

    /// Selects the code method, as its button does.
    #[must_use]
    pub fn by_code(self) -> Self {
        self.with("method", "code")
    }

    /// Selects the passkey method, with the browser's new passkey.
    #[must_use]
    pub fn by_passkey(self, passkey: &str) -> Self {
        self.with("method", "passkey")
            .with("passkey_register", passkey)
    }

    /// Selects the profile method: the first of two steps, or the settings page.
    #[must_use]
    pub fn by_profile(self) -> Self {
        self.with("method", "profile")
    }

    /// The value of a field.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The fields as nested JSON, as JSON clients send them.
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
