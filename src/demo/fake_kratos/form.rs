//! The form of a Kratos flow, and the placement of messages in it. The code follows recorded calls, and
//! `tests/template` compares both.

use serde::Serialize;
use serde_json::{Value, json};

use super::sign_up_input::{Method, Steps, Traits};
use crate::kratos::reply::PlacedMessages;
use percent_encoding::percent_decode_str;

/// `flow.ui` of a Kratos with only this method.
#[derive(Clone, Debug, Serialize)]
pub struct Form {
    /// The messages above the fields.
    pub messages: Vec<Value>,
    /// The fields, in order.
    pub nodes: Vec<Value>,
}

impl Form {
    /// Returns the form at the time of a registration hook.
    #[must_use]
    pub fn of_registration(method: Method, steps: Steps, traits: &Value) -> Self {
        let seen = match method {
            Method::Password => steps == Steps::One,
            // The visitor has just typed the code, in either style.
            Method::Code => false,
            Method::Oidc => true,
        };
        let field = |name: &str| trait_node(name, "default", seen, traits);
        let others = || ["company", "vat_number", "invite"].map(field);
        let mut form = Self {
            messages: Vec::new(),
            nodes: Vec::new(),
        };
        match method {
            Method::Password => {
                form.nodes
                    .extend([csrf(), field("email"), password("password")]);
                form.nodes.extend(others());
                form.nodes.push(submit(
                    "method", "password", "password", 1_040_001, "Sign up",
                ));
                if steps == Steps::Two {
                    form.nodes
                        .push(submit("screen", "previous", "profile", 1_040_008, "Back"));
                    form.messages.push(info(
                        1_040_009,
                        "Please choose a credential to authenticate yourself with.",
                    ));
                }
            }
            Method::Code => {
                form.nodes.extend([csrf(), field("email")]);
                form.nodes.extend(others());
                form.nodes
                    .push(input("method", "hidden", "code", Some("code"), false, None));
                form.nodes.push(input(
                    "code",
                    "text",
                    "code",
                    None,
                    true,
                    Some((1_070_012, "Registration code")),
                ));
                form.nodes
                    .push(submit("method", "code", "code", 1_070_009, "Continue"));
                form.nodes
                    .push(submit("resend", "code", "code", 1_070_008, "Resend code"));
                form.messages.push(info(1_040_005, "A code has been sent to the address(es) you provided. If you have not received a message, check the spelling of the address and retry the registration."));
            }
            Method::Oidc => {
                form.nodes
                    .push(submit("provider", "example", "oidc", 1_040_003, "Continue"));
                form.nodes.extend([csrf(), field("email")]);
                form.nodes.extend(others());
            }
        }
        form
    }

    /// Returns the form at the time of the hook of a profile change.
    #[must_use]
    pub fn of_settings(traits: &Value) -> Self {
        let mut nodes = vec![csrf()];
        nodes.extend(Traits::FIELDS.map(|(name, ..)| trait_node(name, "profile", true, traits)));
        nodes.push(submit("method", "profile", "profile", 1_070_003, "Save"));
        nodes.push(password("password"));
        nodes.push(submit("method", "password", "password", 1_070_003, "Save"));
        Self {
            messages: Vec::new(),
            nodes,
        }
    }

    /// Places the messages of a refusal. Messages of earlier attempts are removed. Each message goes to the field that
    /// it names. Kratos adds a field if the form has none of that name.
    pub fn take(&mut self, refusal: &[PlacedMessages]) {
        self.messages.clear();
        for placed in refusal {
            let name = node_name(&placed.instance_ptr);
            for message in &placed.messages {
                let message = json!(message);
                if name.trim().is_empty() {
                    self.messages.push(message);
                    continue;
                }
                let found = self
                    .nodes
                    .iter()
                    .position(|node| node["attributes"]["name"] == name.as_str());
                let index = found.unwrap_or_else(|| {
                    self.nodes
                        .push(input(&name, "text", "default", None, false, None));
                    self.nodes.len() - 1
                });
                if let Some(messages) = self.nodes[index]["messages"].as_array_mut() {
                    messages.push(message);
                }
            }
        }
    }

    /// Sets the message of Kratos for an address that has an account already. Kratos finds the duplicate after
    /// Vestibule has accepted the sign-up. Visible fields lose their values.
    pub fn show_taken(&mut self) {
        for node in &mut self.nodes {
            let attributes = &mut node["attributes"];
            let name = attributes["name"].as_str().unwrap_or_default();
            if name.starts_with("traits.")
                && attributes["type"] != "hidden"
                && let Some(attributes) = attributes.as_object_mut()
            {
                attributes.shift_remove("value");
            }
        }
        self.messages = vec![json!({
            "id": 4_000_007, "type": "error",
            "text": "An account with the same identifier (email, phone, username, ...) exists already.",
        })];
    }
}

/// Returns the name of the node that a pointer names. `#/traits/a` names `traits.a`. A pointer without `#/` is a name
/// itself.
fn node_name(pointer: &str) -> String {
    let Some(path) = pointer.strip_prefix("#/") else {
        return pointer.to_owned();
    };
    let path = percent_decode_str(path).decode_utf8_lossy();
    let names = path.split('/').map(|name| {
        name.replace("~1", "/")
            .replace("~0", "~")
            .replace('.', "\\.")
    });
    names.collect::<Vec<_>>().join(".")
}

fn trait_node(name: &str, group: &str, seen: bool, traits: &Value) -> Value {
    let (_, title, shortest, _) = Traits::FIELDS
        .into_iter()
        .find(|(known, ..)| *known == name)
        .unwrap_or(("", "", 0, 0));
    let kind = match (seen, name) {
        (false, _) => "hidden",
        (true, "email") => "email",
        (true, _) => "text",
    };
    let full = format!("traits.{name}");
    let mut node = input(
        &full,
        kind,
        group,
        traits[name].as_str(),
        shortest > 0,
        Some((1_070_002, title)),
    );
    if name == "email" {
        node["attributes"]["autocomplete"] = json!("email");
    }
    node["meta"]["label"]["context"] = json!({"name": full, "title": title});
    node
}

fn csrf() -> Value {
    input("csrf_token", "hidden", "default", Some("…"), true, None)
}

fn password(group: &str) -> Value {
    let mut node = input(
        "password",
        "password",
        group,
        None,
        true,
        Some((1_070_001, "Password")),
    );
    node["attributes"]["autocomplete"] = json!("new-password");
    node
}

fn submit(name: &str, value: &str, group: &str, label: u32, text: &str) -> Value {
    input(
        name,
        "submit",
        group,
        Some(value),
        false,
        Some((label, text)),
    )
}

fn input(
    name: &str,
    kind: &str,
    group: &str,
    value: Option<&str>,
    required: bool,
    label: Option<(u32, &str)>,
) -> Value {
    let mut attributes =
        json!({"disabled": false, "name": name, "node_type": "input", "type": kind});
    if let Some(value) = value {
        attributes["value"] = json!(value);
    }
    if required {
        attributes["required"] = json!(true);
    }
    let meta = match label {
        Some((id, text)) => json!({"label": {"id": id, "text": text, "type": "info"}}),
        None => json!({}),
    };
    json!({"type": "input", "group": group, "attributes": attributes, "messages": [], "meta": meta})
}

fn info(id: u32, text: &str) -> Value {
    json!({"id": id, "text": text, "type": "info"})
}
