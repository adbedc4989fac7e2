//! Makes an excerpt of an error response for the record. The excerpt holds no values of the request, which a response
//! may repeat.

use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::Value;

use crate::model::request::Request;

/// The maximum length of an excerpt, in characters.
const MAX_LENGTH: usize = 200;
/// The minimum length of a hidden value, in characters. Shorter values also occur in ordinary text.
const SHORTEST_VALUE: usize = 3;

static ADDRESS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"[^\s"'<>(),;:]+@[^\s"'<>(),;]+"#).ok());

/// Returns the excerpt. `None` if the response is empty.
pub(super) fn of(body: &Value, request: &Request) -> Option<String> {
    let mut values = Vec::new();
    values_of(request, &mut values);
    // The longest values come first, so that a value that contains another one is hidden whole.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values.retain(|value| value.chars().count() >= SHORTEST_VALUE);
    let hide = |text: &str| {
        values
            .iter()
            .fold(text.to_owned(), |text, value| without(&text, value))
    };
    let hidden = match body {
        Value::Null => return None,
        Value::String(text) => hide(text),
        Value::Array(items) if items.is_empty() => return None,
        Value::Object(members) if members.is_empty() => return None,
        // Texts are hidden one by one, because JSON escapes some characters. Then numbers and member names are hidden.
        other => hide(&hidden_within(other, &hide).to_string()),
    };
    let hidden = match &*ADDRESS {
        Some(address) => address.replace_all(&hidden, "…").into_owned(),
        None => return None,
    };
    let excerpt: String = hidden
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|character| !character.is_control())
        .take(MAX_LENGTH)
        .collect();
    (!excerpt.is_empty()).then_some(excerpt)
}

fn hidden_within(value: &Value, hide: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => hide(text).into(),
        Value::Array(items) => items.iter().map(|item| hidden_within(item, hide)).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.clone(), hidden_within(member, hide)))
            .collect(),
        other => other.clone(),
    }
}

/// Hides the value, ignoring case.
fn without(text: &str, value: &str) -> String {
    match Regex::new(&format!("(?i){}", regex::escape(value))) {
        Ok(pattern) => pattern.replace_all(text, "…").into_owned(),
        Err(_) => text.replace(value, "…"),
    }
}

fn values_of(request: &Request, values: &mut Vec<String>) {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    for segment in path.split('/') {
        values.push(percent_decode_str(segment).decode_utf8_lossy().into_owned());
        // The segment as sent over the wire, because some services repeat it.
        values.push(segment.to_owned());
    }
    let raw = |text: &str| -> Vec<String> {
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(_, value)| value.to_owned()).collect()
    };
    values.extend(raw(query));
    let form = |text: &str, values: &mut Vec<String>| {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        values.extend(pairs.map(|(_, value)| value.into_owned()));
    };
    form(query, values);
    values.extend(request.headers.iter().map(|(_, value)| value.clone()));
    if let Some(body) = &request.body {
        if let Ok(json) = serde_json::from_str(&body.text) {
            leaves(&json, values);
        } else {
            values.extend(raw(&body.text));
            form(&body.text, values);
        }
    }
}

fn leaves(json: &Value, values: &mut Vec<String>) {
    match json {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => values.push(number.to_string()),
        Value::String(text) => values.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, values)),
        Value::Object(members) => members.values().for_each(|member| leaves(member, values)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::{Body, Method};
    use serde_json::json;

    #[test]
    fn an_excerpt_holds_no_values_of_the_request() {
        let request = Request {
            method: Method::Post,
            path: "/contacts/a%20b-secret?key=value-secret".to_owned(),
            headers: vec![("X-Tag".to_owned(), "tag-secret".to_owned())],
            body: Some(Body {
                content_type: "application/json".to_owned(),
                text: json!({"email": "ada@example.org", "name": "Ada Secret", "quoted": "Quo\"te", "number": 4_711_815, "list": ["in-list"], "ok": true})
                    .to_string(),
            }),
        };
        for (body, expected) in [
            (json!(null), None),
            (json!(""), None),
            (json!({}), None),
            (
                json!({"error": "name too short"}),
                Some(r#"{"error":"name too short"}"#),
            ),
            (
                json!({"error": "ADA@example.org is taken by Ada Secret (4711815)"}),
                Some(r#"{"error":"… is taken by … (…)"}"#),
            ),
            (
                json!("a b-secret, value-secret, TAG-SECRET, in-list"),
                Some("…, …, …, …"),
            ),
            (
                json!("Cannot POST /contacts/a%20b-secret"),
                Some("Cannot POST /…/…"),
            ),
            (json!({"no": "Quo\"te"}), Some(r#"{"no":"…"}"#)),
            (json!("ask bob@example.com\u{0}\n\n now"), Some("ask … now")),
        ] {
            assert_eq!(of(&body, &request).as_deref(), expected, "{body}");
        }
        let long = of(&json!("x".repeat(1000)), &request).unwrap();
        assert_eq!(long.len(), MAX_LENGTH);
    }
}
