//! The first words of an answer that says no, for the record: without what we sent, which it may repeat.

use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::Value;

use crate::request::Request;

/// So many characters are kept.
const LONGEST: usize = 200;
/// Shorter values are too common to be told apart from other words.
const SHORTEST_VALUE: usize = 3;

static ADDRESS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"[^\s"'<>(),;:]+@[^\s"'<>(),;]+"#).ok());

/// `None` if the answer says nothing.
pub(super) fn of(body: &Value, request: &Request) -> Option<String> {
    let text = match body {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => return None,
        Value::Object(members) if members.is_empty() => return None,
        other => other.to_string(),
    };
    let mut values = Vec::new();
    values_of(request, &mut values);
    // The longest first, so that one which holds another goes whole.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    let hidden = values
        .iter()
        .filter(|value| value.chars().count() >= SHORTEST_VALUE)
        .fold(text, |text, value| without(&text, value));
    let hidden = match &*ADDRESS {
        Some(address) => address.replace_all(&hidden, "…").into_owned(),
        None => return None,
    };
    let words: String = hidden
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .filter(|character| !character.is_control())
        .take(LONGEST)
        .collect();
    (!words.is_empty()).then_some(words)
}

/// Whatever its case.
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
    }
    let form = |text: &str, values: &mut Vec<String>| {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        values.extend(pairs.map(|(_, value)| value.into_owned()));
    };
    form(query, values);
    values.extend(request.headers.iter().map(|(_, value)| value.clone()));
    if let Some(body) = &request.body {
        match serde_json::from_str(&body.text) {
            Ok(json) => leaves(&json, values),
            Err(_) => form(&body.text, values),
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
    use crate::request::{Body, Method};
    use serde_json::json;

    #[test]
    fn what_we_sent_does_not_come_back() {
        let request = Request {
            method: Method::Post,
            path: "/contacts/a%20b-secret?key=value-secret".to_owned(),
            headers: vec![("X-Tag".to_owned(), "tag-secret".to_owned())],
            body: Some(Body {
                content_type: "application/json".to_owned(),
                text: json!({"email": "ada@example.org", "name": "Ada Secret", "number": 4_711_815, "list": ["in-list"], "ok": true})
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
            (json!("ask bob@example.com\u{0}\n\n now"), Some("ask … now")),
        ] {
            assert_eq!(of(&body, &request).as_deref(), expected, "{body}");
        }
        let long = of(&json!("x".repeat(1000)), &request).unwrap();
        assert_eq!(long.len(), LONGEST);
    }
}
