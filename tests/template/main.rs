//! The template of the body, with calls of a real Kratos (`tests/fixtures/kratos/`; `ctx` is the input of the template).

#[cfg(feature = "demo")]
mod demo;
mod jsonnet;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};
use vestibule::kratos::Payload;
use vestibule::kratos::payload::Node;
use vestibule::kratos::template::{FORWARDED, TEMPLATE, template};

/// Every key that is always present if its parent is.
const ALWAYS: &[&str] = &[
    "version",
    "forwarded_headers",
    "flow",
    "flow.id",
    "flow.type",
    "flow.issued_at",
    "flow.expires_at",
    "flow.transient_payload",
    "identity.id",
    "identity.schema_id",
    "identity.state",
    "identity.traits",
    "identity.metadata_public",
    "identity.verifiable_addresses",
    "identity.verifiable_addresses.value",
    "identity.verifiable_addresses.via",
    "identity.verifiable_addresses.verified",
    "identity.verifiable_addresses.status",
    "identity.recovery_addresses",
    "identity.recovery_addresses.value",
    "identity.recovery_addresses.via",
    "identity.created_at",
    "identity.updated_at",
    "previous.state",
    "previous.traits",
    "previous.metadata_public",
    "nodes",
    "nodes.name",
    "nodes.hidden",
    "request",
    "request.headers",
];

/// Every key that may be missing.
const SOMETIMES: &[&str] = &[
    "identity.state_changed_at",
    "flow.return_to",
    "flow.request_url",
    "flow.provider",
    "previous.state_changed_at",
    "identity",
    "identity.external_id",
    "previous",
    "nodes.title",
    "request.headers.Accept-Language",
    "request.headers.User-Agent",
    "request.headers.True-Client-Ip",
];

/// Objects whose keys belong to the operator or the visitor.
const OPAQUE: &[&str] = &["traits", "metadata_public", "transient_payload"];

/// Returns the recorded calls by file name.
fn recorded() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kratos/v26.2.0");
    let calls: BTreeMap<String, Value> = folder
        .read_dir()
        .expect("recorded calls")
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            let text = std::fs::read_to_string(&path).expect("text");
            (
                name.into_owned(),
                serde_json::from_str(&text).expect("JSON"),
            )
        })
        .collect();
    assert!(
        calls.len() >= 26,
        "there are {} recorded calls",
        calls.len()
    );
    calls
}

/// Returns the body that Kratos sends for this call.
fn body(ctx: &Value) -> String {
    jsonnet::call(TEMPLATE, ctx).unwrap_or_else(|error| panic!("{error} on {ctx}"))
}

fn json(body: &str) -> Value {
    serde_json::from_str(body).expect("JSON")
}

/// Returns a copy of a recorded call.
fn call(name: &str) -> Value {
    recorded().remove(name).expect("recorded")["ctx"].take()
}

/// Collects the paths of all keys; list entries have no index.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                if !OPAQUE.contains(&key.as_str()) {
                    keys(value, &path, found);
                }
                found.insert(path);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, path, found)),
        _ => {}
    }
}

#[test]
fn every_recorded_call_becomes_a_readable_body() {
    for (name, call) in recorded() {
        let ctx = &call["ctx"];
        let payload = Payload::parse(body(ctx).as_bytes()).expect(&name);
        assert_eq!(payload.flow["id"], ctx["flow"]["id"], "{name}");
        let identity = &ctx["identity"];
        assert_eq!(payload.identity.is_some(), identity.is_object(), "{name}");
        if let Some(seen) = &payload.identity {
            assert_eq!(seen["id"], identity["id"], "{name}");
            assert_eq!(seen["traits"], identity["traits"], "{name}");
            assert_eq!(seen["created_at"], identity["created_at"], "{name}");
        }
        let before = &ctx["flow"]["identity"];
        assert_eq!(payload.previous.is_some(), before.is_object(), "{name}");
        assert_eq!(before.is_object(), name.starts_with("settings"), "{name}");
        if let Some(previous) = &payload.previous {
            assert_eq!(previous["traits"], before["traits"], "{name}");
        }
        let sent = ctx["request_headers"]["Accept-Language"][0].as_str();
        assert_eq!(payload.header("accept-language"), sent, "{name}");
    }
}

#[test]
fn every_body_has_the_documented_keys_and_no_other() {
    for (name, call) in recorded() {
        let mut found = BTreeSet::new();
        keys(&json(&body(&call["ctx"])), "", &mut found);
        for key in &found {
            let known = ALWAYS.contains(&key.as_str()) || SOMETIMES.contains(&key.as_str());
            assert!(known, "{name} has `{key}`");
        }
        let empty = |parent: &str| {
            json(&body(&call["ctx"]))
                .pointer(&format!("/{}", parent.replace('.', "/")))
                .is_none_or(|value| value.is_null() || *value == json!([]))
        };
        for key in ALWAYS {
            let there = match key.rsplit_once('.') {
                Some((parent, _)) => found.contains(parent) && !empty(parent),
                None => true,
            };
            assert_eq!(found.contains(*key), there, "{name}: `{key}`");
        }
    }
}

#[test]
fn no_body_holds_a_cookie_a_token_or_an_oauth_code() {
    for (name, mut call) in recorded() {
        let ctx = &mut call["ctx"];
        // Canaries that no recorded value equals, also where the recorded call has no value.
        ctx["request_cookies"]["ory_kratos_session"] = json!("canary-session");
        ctx["request_url"] = json!(
            "http://kratos/self-service/methods/oidc/callback/a?code=canary-code&state=canary-state"
        );
        ctx["flow"]["request_url"] = json!("http://kratos/?login_challenge=canary-challenge&a=b");
        ctx["flow"]["session_token_exchange_code"] = json!("canary-exchange");
        ctx["flow"]["oauth2_login_challenge"] = json!("canary-challenge");
        ctx["request_headers"]["Cookie"] = json!(["canary-cookie"]);
        ctx["request_headers"]["Authorization"] = json!(["canary-authorization"]);
        for node in ctx["flow"]["ui"]["nodes"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            node["attributes"]["value"] = json!("canary-value");
        }
        let body = body(ctx).to_lowercase();
        for word in ["canary", "csrf", "cookie", "code=", "state=", "password"] {
            assert!(!body.contains(word), "{name} has `{word}`: {body}");
        }
    }
}

#[test]
fn the_nodes_show_whether_the_visitor_sees_them() {
    let fields = [
        ("traits.email", "E-mail"),
        ("traits.company", "Company"),
        ("traits.vat_number", "VAT number"),
        ("traits.invite", "Invite code"),
    ];
    for (name, call) in recorded() {
        let nodes = Payload::parse(body(&call["ctx"]).as_bytes())
            .expect(&name)
            .nodes;
        if name.starts_with("settings-before") {
            assert_eq!(nodes, None, "{name}: Kratos sends no nodes");
            continue;
        }
        if name.starts_with("login") {
            assert_eq!(nodes, Some(vec![]), "{name}: the form has no trait");
            continue;
        }
        let second_step =
            (name.ends_with("two-step") && !name.contains("-before-")) || name.contains("-code-");
        let expected = fields.map(|(name, title)| Node {
            name: name.to_owned(),
            hidden: second_step,
            title: Some(title.to_owned()),
        });
        assert_eq!(nodes.as_deref(), Some(&expected[..]), "{name}");
    }
}

#[test]
fn keys_that_kratos_may_omit_are_optional() {
    let whole = call("registration-pre-password-browser-form-two-step");
    let bare = json!({"flow": {"id": whole["flow"]["id"]}});
    let read = json(&body(&bare));
    assert_eq!(
        read,
        json!({
            "version": 2,
            "forwarded_headers": FORWARDED,
            "flow": {"id": whole["flow"]["id"], "transient_payload": {}},
            "nodes": null,
            "request": {"headers": {}},
        })
    );
    Payload::parse(read.to_string().as_bytes()).expect("the body is readable");

    // One key after the other is missing or null, at every depth.
    let mut places = BTreeSet::new();
    keys(&whole, "", &mut places);
    for place in places {
        if place == "flow" || place == "flow.id" || place.contains("nodes.") {
            continue;
        }
        let (parent, key) = place.rsplit_once('.').unwrap_or(("", &place));
        let parent = match parent {
            "" => String::new(),
            parent => format!("/{}", parent.replace('.', "/")),
        };
        for missing in [None, Some(Value::Null)] {
            let mut ctx = whole.clone();
            let Some(Value::Object(object)) = ctx.pointer_mut(&parent) else {
                continue;
            };
            match &missing {
                None => object.remove(key),
                Some(null) => object.insert(key.to_owned(), null.clone()),
            };
            let body = body(&ctx);
            if place != "identity.id" {
                Payload::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{place}: {error}"));
            }
        }
    }
}

#[test]
fn nodes_of_any_shape_are_read_or_skipped() {
    let mut ctx = call("registration-pre-password-browser-form-one-step");
    ctx["flow"]["ui"]["nodes"] = json!([
        {"type": "text", "attributes": {"node_type": "text", "id": "x", "text": {}}},
        {"type": "script", "attributes": null, "meta": null},
        {"type": "input"},
        {"type": "input", "attributes": {"name": "transient_payload.x", "type": "text"}},
        {"type": "input", "attributes": {"name": "traits.a", "type": "text"}, "meta": {}},
        {"type": "input", "attributes": {"name": "traits.b.c", "type": "hidden"}, "meta": {"label": null}},
        {"type": "input", "attributes": {"name": "traits.d"}, "meta": {"label": {"text": "D"}}},
    ]);
    assert_eq!(
        json(&body(&ctx))["nodes"],
        json!([
            {"name": "traits.a", "hidden": false},
            {"name": "traits.b.c", "hidden": true},
            {"name": "traits.d", "hidden": false, "title": "D"},
        ])
    );
}

#[test]
fn a_header_sent_twice_is_one_text() {
    let mut ctx = call("registration-pre-password-browser-form-one-step");
    ctx["request_headers"] = json!({
        "Accept-Language": ["de", "en;q=0.5"],
        "True-Client-Ip": ["192.0.2.7"],
        "X-Forwarded-For": ["192.0.2.8"],
    });
    assert_eq!(
        json(&body(&ctx))["request"]["headers"],
        json!({"Accept-Language": "de, en;q=0.5", "True-Client-Ip": "192.0.2.7"})
    );
}

#[test]
fn bodies_of_version_1_are_readable() {
    const VERSION_1: &str = include_str!("../fixtures/kratos/version-1.jsonnet");
    for (name, call) in recorded() {
        let current = Payload::parse(body(&call["ctx"]).as_bytes()).expect(&name);
        let body = jsonnet::call(VERSION_1, &call["ctx"]).expect(&name);
        let old = Payload::parse(body.as_bytes()).expect(&name);
        assert_eq!((old.version, current.version), (1, 2), "{name}");
        assert_eq!(old.forwarded_headers, current.forwarded_headers, "{name}");
        assert_eq!(old.request, current.request, "{name}");
        assert_eq!(old.identity, current.identity, "{name}");
        assert_eq!(old.nodes, current.nodes, "{name}");
        assert_eq!(old.flow["request_url"], Value::Null, "{name}");
        assert_eq!(old.flow["id"], current.flow["id"], "{name}");
    }
}

#[test]
fn the_printed_template_sends_the_headers_of_the_settings() {
    let mut ctx = call("registration-pre-password-browser-form-one-step");
    ctx["request_headers"] = json!({
        "Accept-Language": ["de"],
        "X-Forwarded-For": ["198.51.100.9, 192.0.2.1", "192.0.2.2"],
        "Dnt": ["1"],
        "Cookie": ["canary"],
    });
    let headers = ["X-Country", "X-Forwarded-For"].map(ToOwned::to_owned);
    let body = jsonnet::call(&template(&headers), &ctx).expect("a body");
    assert_eq!(
        json(&body)["request"]["headers"],
        json!({"Accept-Language": "de", "X-Forwarded-For": "198.51.100.9, 192.0.2.1, 192.0.2.2"})
    );
    let payload = Payload::parse(body.as_bytes()).expect("the body is readable");
    let forwarded: Vec<&str> = FORWARDED
        .into_iter()
        .chain(["X-Country", "X-Forwarded-For"])
        .collect();
    assert_eq!(payload.forwarded_headers, forwarded);
}

#[test]
fn the_url_that_opened_a_registration_is_sent() {
    let base = "http://127.0.0.1:4433/self-service/registration/browser";
    for (opened, expected) in [
        (
            format!("{base}?invite=A%20B&x=1&x=2"),
            format!("{base}?invite=A%20B&x=1&x=2"),
        ),
        (
            format!("{base}?login_challenge=canary&invite=A"),
            format!("{base}?invite=A"),
        ),
        (
            format!("{base}?invite=A&login_challenge=canary"),
            format!("{base}?invite=A"),
        ),
        (format!("{base}?login_challenge=canary"), base.to_owned()),
        (format!("{base}?&&a=b?c=d&"), format!("{base}?a=b?c=d")),
        (format!("{base}?"), base.to_owned()),
        (base.to_owned(), base.to_owned()),
        // A login of a new visitor becomes a registration with the URL of the login.
        (
            "https://kratos/self-service/login/browser?invite=ü%".to_owned(),
            "https://kratos/self-service/login/browser?invite=ü%".to_owned(),
        ),
    ] {
        for name in [
            "registration-pre-oidc-browser",
            "registration-post-code-api",
        ] {
            let mut ctx = call(name);
            ctx["flow"]["request_url"] = json!(opened);
            let payload = Payload::parse(body(&ctx).as_bytes()).expect("the body is readable");
            assert_eq!(payload.flow["request_url"], expected, "{name}");
        }
        // Other flows can be opened with a token in the URL.
        for name in ["settings-pre-profile-api", "login-after-password-browser"] {
            let mut ctx = call(name);
            ctx["flow"]["request_url"] = json!(opened);
            assert!(!body(&ctx).contains("request_url"), "{name}");
        }
    }
}

#[test]
fn the_provider_of_a_social_sign_up_is_sent() {
    let oidc = "/self-service/methods/oidc";
    for (url, expected) in [
        (
            format!("http://127.0.0.1:4433{oidc}/callback/rig?code=a&state=b"),
            json!("rig"),
        ),
        (
            format!("https://kratos/base{oidc}/callback/my%20directory?code=a"),
            json!("my directory"),
        ),
        // With `pkce: force` Kratos has one URL for all providers.
        (
            format!("http://127.0.0.1:4433{oidc}/callback?code=a&state=b"),
            Value::Null,
        ),
        (
            "http://127.0.0.1:4433/self-service/registration?flow=1".to_owned(),
            Value::Null,
        ),
        (
            format!("http://127.0.0.1:4433/self-service/registration?flow={oidc}/callback/forged"),
            Value::Null,
        ),
    ] {
        for name in ["registration-pre-oidc-browser", "settings-post-profile-api"] {
            let mut ctx = call(name);
            ctx["request_url"] = json!(url);
            let payload = Payload::parse(body(&ctx).as_bytes()).expect("the body is readable");
            assert_eq!(payload.flow["provider"], expected, "{name} {url}");
        }
    }
    let recorded = Payload::parse(body(&call("registration-pre-oidc-browser")).as_bytes());
    assert_eq!(recorded.expect("a body").flow["provider"], "rig");
}

#[test]
fn the_state_before_a_change_is_sent() {
    let mut ctx = call("settings-pre-profile-api");
    ctx["flow"]["identity"]["state"] = json!("inactive");
    let payload = Payload::parse(body(&ctx).as_bytes()).expect("the body is readable");
    let previous = payload.previous.expect("the identity before the change");
    assert_eq!(previous["state"], "inactive");
    assert_eq!(
        previous["state_changed_at"],
        ctx["flow"]["identity"]["state_changed_at"]
    );
    // Kratos clears the time at a profile save.
    ctx["flow"]["identity"]["state_changed_at"] = Value::Null;
    let payload = Payload::parse(body(&ctx).as_bytes()).expect("the body is readable");
    assert_eq!(
        payload.previous.expect("it is there")["state_changed_at"],
        Value::Null
    );
}

#[test]
fn transient_payload_traits_and_metadata_arrive_unchanged() {
    let mut ctx = call("registration-pre-password-browser-json-one-step");
    let data = json!({"text": "\u{0}<ü>\"{x}", "list": [1, null, {"deep": 1.5}], "nothing": null, "yes": true});
    ctx["flow"]["transient_payload"] = data.clone();
    ctx["identity"]["traits"] = data.clone();
    ctx["identity"]["metadata_public"] = data.clone();
    ctx["identity"]["external_id"] = json!("hold-1");
    let body = json(&body(&ctx));
    assert_eq!(body["flow"]["transient_payload"], data);
    assert_eq!(body["identity"]["traits"], data);
    assert_eq!(body["identity"]["metadata_public"], data);
    assert_eq!(body["identity"]["external_id"], "hold-1");
}

#[test]
fn bodies_match_the_snapshots() {
    for name in [
        "registration-pre-password-browser-form-two-step",
        "registration-post-code-api",
        "registration-pre-oidc-browser",
        "settings-pre-profile-browser-form",
        "settings-before-api",
    ] {
        insta::assert_json_snapshot!(name, json(&body(&call(name))));
    }
}
