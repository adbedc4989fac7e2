//! A flow of Kratos: the data that Kratos passes to the template in both calls.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::account::Account;
use super::form::Form;
use super::sign_up_input::{Method, SignUpInput};
use crate::base::clock::{Timestamp, saturating_add};
use crate::kratos::Flow as Kind;

/// Kratos's public address in kratos-config/kratos.yml.
const KRATOS: &str = "http://127.0.0.1:4433";

/// A flow with its form.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Registration or settings.
    pub kind: Kind,
    /// The form.
    pub form: Form,
    id: Uuid,
    issued_at: Timestamp,
    method: Method,
    before: Option<Account>,
}

impl Flow {
    /// Creates the flow of a visitor who submits a form now. `before` is the account whose profile the visitor changes.
    #[must_use]
    pub fn of(input: &SignUpInput, before: Option<Account>, now: Timestamp) -> Self {
        let traits = input.traits.as_json();
        let (kind, form) = if before.is_some() {
            (Kind::Settings, Form::of_settings(&traits))
        } else {
            let form = Form::of_registration(input.method, input.steps, &traits);
            (Kind::Registration, form)
        };
        Self {
            kind,
            form,
            id: Uuid::new_v4(),
            issued_at: now,
            method: input.method,
            before,
        }
    }

    /// Returns the method for `?method=` in the URL of the hooks.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self.kind {
            Kind::Settings => "profile",
            _ => self.method.as_str(),
        }
    }

    /// Returns the `ctx` of a call about `account`.
    #[must_use]
    pub fn ctx(&self, account: &Account, input: &SignUpInput) -> Value {
        let kind = self.kind.as_str();
        let action = format!("{KRATOS}/self-service/{kind}?flow={}", self.id);
        let mut flow = json!({
            "id": self.id, "type": "browser",
            "issued_at": self.issued_at, "expires_at": saturating_add(self.issued_at, Duration::from_hours(1)),
            "request_url": format!("{KRATOS}/self-service/{kind}/browser"),
            "state": "choose_method", "organization_id": null,
            "ui": {"action": action, "method": "POST", "nodes": self.form.nodes, "messages": self.form.messages},
        });
        if let Some(before) = &self.before {
            flow["identity"] = before.as_json().clone();
            flow["state"] = json!("show_form");
        } else {
            // Kratos drops the transient payload in settings.
            flow["transient_payload"] = json!({});
        }
        let mut headers =
            json!({"Accept": ["text/html"], "Content-Type": ["application/x-www-form-urlencoded"]});
        for (name, value) in [
            ("Accept-Language", &input.language),
            ("User-Agent", &input.browser),
        ] {
            if let Some(value) = value {
                headers[name] = json!([value]);
            }
        }
        // A provider sends the visitor back with a URL of its own.
        let url = match (self.kind, self.method) {
            (Kind::Registration, Method::Oidc) => {
                format!(
                    "{KRATOS}/self-service/methods/oidc/callback/example?code=example&state=example"
                )
            }
            _ => action,
        };
        json!({
            "flow": flow, "identity": account.as_json(), "request_method": "POST", "request_url": url,
            "request_headers": headers, "request_cookies": {},
        })
    }
}
