//! The demo imitates Kratos. These tests compare it with a real Kratos.

use serde_json::{Value, json};
use vestibule::base::clock::Clock;
use vestibule::demo::fake_kratos::{Account, Flow, Form, Method, SignUpInput, Steps, Traits, body};

use super::{call, jsonnet, recorded};
use vestibule::kratos::template::TEMPLATE;

#[test]
fn the_demo_sends_exactly_the_body_of_the_template() {
    for (name, call) in recorded() {
        let expected = jsonnet::call(TEMPLATE, &call["ctx"]).expect(&name);
        assert_eq!(
            body::written(&body::body(&call["ctx"])).trim_end(),
            expected.trim_end(),
            "{name}"
        );
    }
    for input in inputs() {
        let (flow, account) = start_flow(&input);
        let ctx = flow.ctx(&account, &input);
        let expected = jsonnet::call(TEMPLATE, &ctx).expect("a body");
        assert_eq!(
            body::written(&body::body(&ctx)).trim_end(),
            expected.trim_end(),
            "{input:?}"
        );
    }
}

#[test]
fn the_form_of_the_demo_equals_the_form_of_kratos() {
    for (file, method, steps) in [
        (
            "password-browser-form-one-step",
            Method::Password,
            Steps::One,
        ),
        (
            "password-browser-form-two-step",
            Method::Password,
            Steps::Two,
        ),
        ("code-api", Method::Code, Steps::Two),
        ("oidc-browser", Method::Oidc, Steps::One),
    ] {
        let ctx = call(&format!("registration-pre-{file}"));
        let form = Form::of_registration(method, steps, &ctx["identity"]["traits"]);
        let mut ui = ctx["flow"]["ui"].clone();
        for node in ui["nodes"].as_array_mut().expect("nodes") {
            // The demo shows a new form, without messages of an earlier submission.
            node["messages"] = json!([]);
            // Kratos fills in the typed values when it shows the form again; the demo does so from the start.
            let name = node["attributes"]["name"].as_str().unwrap_or_default();
            let field = name.strip_prefix("traits.").unwrap_or_default();
            if let Some(typed) = ctx["identity"]["traits"].get(field) {
                node["attributes"]["value"] = typed.clone();
            }
        }
        assert_eq!(
            comparable(&json!(form.nodes)),
            comparable(&ui["nodes"]),
            "{file}"
        );
        let messages = ui.get("messages").cloned().unwrap_or(json!([]));
        assert_eq!(json!(form.messages), messages, "{file}");
    }
    let ctx = call("settings-pre-profile-browser-form");
    let form = Form::of_settings(&ctx["identity"]["traits"]);
    assert_eq!(
        comparable(&json!(form.nodes)),
        comparable(&ctx["flow"]["ui"]["nodes"])
    );
}

#[test]
fn the_account_of_the_demo_equals_the_account_of_kratos() {
    let ctx = call("registration-pre-password-browser-form-two-step");
    let recorded = &ctx["identity"];
    let text = |name: &str| {
        recorded["traits"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let traits = Traits {
        email: text("email"),
        company: text("company"),
        vat_number: text("vat_number"),
        invite: text("invite"),
    };
    let account = Account::new(&traits, Method::Password, Clock::system().now());
    let mut account = account.as_json().clone();
    account["schema_id"] = recorded["schema_id"].clone();
    account["state_changed_at"] = recorded["state_changed_at"].clone();
    assert_eq!(&account, recorded);
}

#[test]
fn the_demo_places_messages_as_kratos_does() {
    let mut form =
        Form::of_registration(Method::Password, Steps::Two, &json!({"vat_number": "DE1"}));
    let message = |text: &str| json!([{"id": 4_900_001, "text": text, "type": "error"}]);
    let placed = json!([
        {"instance_ptr": "#/traits/vat_number", "messages": message("beside")},
        {"instance_ptr": "#/", "messages": message("above")},
        {"instance_ptr": "", "messages": message("above, too")},
        {"instance_ptr": "#/traits/a~1b/c.d", "messages": message("new")},
        {"instance_ptr": "/traits/vat_number", "messages": message("literal")},
    ]);
    form.take(&serde_json::from_value::<Vec<_>>(placed).expect("messages"));
    let above: Vec<_> = form
        .messages
        .iter()
        .map(|message| &message["text"])
        .collect();
    assert_eq!(above, ["above", "above, too"]);
    let beside: Vec<_> = form
        .nodes
        .iter()
        .filter(|node| node["messages"] != json!([]))
        .map(|node| {
            (
                node["attributes"]["name"].as_str().unwrap_or_default(),
                node["attributes"]["type"].as_str().unwrap_or_default(),
                node["messages"][0]["text"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        beside,
        [
            ("traits.vat_number", "hidden", "beside"),
            ("traits.a/b.c\\.d", "text", "new"),
            ("/traits/vat_number", "text", "literal"),
        ]
    );
}

fn inputs() -> Vec<SignUpInput> {
    let mut inputs = Vec::new();
    for method in [Method::Password, Method::Code, Method::Oidc] {
        for steps in [Steps::One, Steps::Two] {
            for language in [None, Some("de-DE,de;q=0.9".to_owned())] {
                inputs.push(SignUpInput {
                    traits: Traits {
                        email: "a\"ü@example.org".to_owned(),
                        company: "A\tB \\ C".to_owned(),
                        vat_number: "DE1".to_owned(),
                        invite: String::new(),
                    },
                    method,
                    steps,
                    language,
                    changes: None,
                    browser: Some("Mozilla/5.0".to_owned()),
                });
            }
        }
    }
    inputs
}

fn start_flow(input: &SignUpInput) -> (Flow, Account) {
    let now = Clock::system().now();
    let account = Account::new(&input.traits, input.method, now);
    let mut before = account.clone();
    before.save(now);
    let before = (input.method == Method::Oidc).then_some(before);
    (Flow::of(input, before, now), account)
}

/// Removes the values that differ from flow to flow: the token and the provider.
fn comparable(nodes: &Value) -> Value {
    let mut nodes = nodes.clone();
    for node in nodes.as_array_mut().expect("nodes") {
        let attributes = &mut node["attributes"];
        if attributes["name"] == "csrf_token" || attributes["name"] == "provider" {
            attributes["value"] = json!("");
        }
    }
    nodes
}
