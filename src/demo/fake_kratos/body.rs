//! Builds the body that kratos-config/vestibule.jsonnet makes, without Jsonnet. `tests/template` compares both.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::kratos::payload::VERSION;
use crate::kratos::template::FORWARDED;

/// Returns the body for Kratos's `ctx`.
#[must_use]
pub fn body(ctx: &Value) -> Value {
    let flow = &ctx["flow"];
    let mut body = Map::new();
    body.insert("version".into(), json!(VERSION));
    body.insert("forwarded_headers".into(), json!(FORWARDED));
    let mut part = picked(
        flow,
        &["id", "type", "issued_at", "expires_at", "return_to"],
    );
    part.insert(
        "transient_payload".into(),
        or_empty(&flow["transient_payload"]),
    );
    if let Some(url) = registration_url(flow) {
        part.insert("request_url".into(), url.into());
    }
    if let Some(provider) = provider(ctx) {
        part.insert("provider".into(), provider.into());
    }
    body.insert("flow".into(), part.into());
    let identity = &ctx["identity"];
    if !identity.is_null() {
        let mut part = picked(
            identity,
            &[
                "id",
                "schema_id",
                "external_id",
                "state",
                "state_changed_at",
                "created_at",
                "updated_at",
            ],
        );
        part.append(&mut data(identity));
        for (list, keys) in [
            (
                "verifiable_addresses",
                &["value", "via", "verified", "status"][..],
            ),
            ("recovery_addresses", &["value", "via"][..]),
        ] {
            let addresses: Vec<Value> = list_at(identity, list)
                .map(|address| picked(address, keys).into())
                .collect();
            part.insert(list.into(), addresses.into());
        }
        body.insert("identity".into(), part.into());
    }
    if !flow["identity"].is_null() {
        let mut part = picked(&flow["identity"], &["state", "state_changed_at"]);
        part.append(&mut data(&flow["identity"]));
        body.insert("previous".into(), part.into());
    }
    body.insert(
        "nodes".into(),
        match &flow["ui"]["nodes"] {
            Value::Array(nodes) => nodes.iter().filter_map(node).collect(),
            _ => Value::Null,
        },
    );
    let mut headers = Map::new();
    for name in FORWARDED {
        match &ctx["request_headers"][name] {
            Value::Null => {}
            Value::Array(values) => {
                let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
                headers.insert(name.into(), values.join(", ").into());
            }
            other => {
                headers.insert(name.into(), other.clone());
            }
        }
    }
    body.insert("request".into(), json!({ "headers": headers }));
    body.into()
}

/// Returns the URL that opened a registration, without the parameter that an OAuth server makes for one login.
fn registration_url(flow: &Value) -> Option<String> {
    let opened = flow["request_url"].as_str().filter(|url| !url.is_empty())?;
    let action = flow["ui"]["action"].as_str()?;
    let (_, parameters) = action.split_once("/self-service/registration?")?;
    if parameters.is_empty() {
        return None;
    }
    let (path, query) = opened.split_once('?').unwrap_or((opened, ""));
    let parameters = query
        .split('&')
        .filter(|parameter| !parameter.is_empty() && !parameter.starts_with("login_challenge="));
    let query = parameters.collect::<Vec<_>>().join("&");
    Some(if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    })
}

/// Returns the provider in the URL to which an `OpenID` provider sends the visitor back.
fn provider(ctx: &Value) -> Option<&str> {
    let callback = ctx["request_url"].as_str()?.split('?').next()?;
    let (_, provider) = callback.split_once("/methods/oidc/callback/")?;
    (!provider.is_empty()).then_some(provider)
}

fn picked(object: &Value, keys: &[&str]) -> Map<String, Value> {
    keys.iter()
        .filter(|key| !object[**key].is_null())
        .map(|key| ((*key).to_owned(), object[*key].clone()))
        .collect()
}

fn or_empty(value: &Value) -> Value {
    if value.is_null() {
        json!({})
    } else {
        value.clone()
    }
}

fn data(identity: &Value) -> Map<String, Value> {
    ["traits", "metadata_public"]
        .into_iter()
        .map(|key| (key.to_owned(), or_empty(&identity[key])))
        .collect()
}

fn list_at<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object[key].as_array().into_iter().flatten()
}

fn node(node: &Value) -> Option<Value> {
    let attributes = &node["attributes"];
    let name = attributes["name"]
        .as_str()
        .filter(|name| name.starts_with("traits."))?;
    let mut part = json!({"name": name, "hidden": attributes["type"] == "hidden"});
    let title = &node["meta"]["label"]["text"];
    if !title.is_null() {
        part["title"] = title.clone();
    }
    Some(part)
}

/// Formats a body as Jsonnet does: keys in order, an indent of three spaces, a newline at the end.
#[must_use]
pub fn written(body: &Value) -> String {
    let mut text = String::new();
    write_value(body, 0, &mut text);
    text.push('\n');
    text
}

fn write_value(value: &Value, depth: usize, text: &mut String) {
    let inner = "   ".repeat(depth + 1);
    let outer = "   ".repeat(depth);
    match value {
        Value::Object(object) if object.is_empty() => text.push_str("{ }"),
        Value::Array(list) if list.is_empty() => text.push_str("[ ]"),
        Value::Object(object) => {
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort();
            for (number, key) in keys.into_iter().enumerate() {
                text.push_str(if number == 0 { "{\n" } else { ",\n" });
                let _ = write!(text, "{inner}{}: ", json!(key));
                write_value(&object[key], depth + 1, text);
            }
            let _ = write!(text, "\n{outer}}}");
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                text.push_str(if number == 0 { "[\n" } else { ",\n" });
                text.push_str(&inner);
                write_value(value, depth + 1, text);
            }
            let _ = write!(text, "\n{outer}]");
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}
