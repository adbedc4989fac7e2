//! Reduces the errors of attempts to what the admin port may show: no text that a receiver wrote.
//!
//! A receiver can repeat a value of the visitor in its own words, and nothing can recognise that. So the port shows the
//! status and three members that name the kind of an error. The command line shows the whole text.

use serde_json::{Map, Value};

use crate::store::DeliveryDetails;
use crate::store::admin::Page;

/// The members of a response that name the kind of an error, as in RFC 9457.
const MEMBERS: [&str; 3] = ["code", "type", "title"];
/// The maximum length of a member, in characters.
const MAX_LENGTH: usize = 100;

/// Removes the texts of receivers from a page of deliveries.
pub(super) fn without_texts(mut page: Page) -> Page {
    for delivery in &mut page.deliveries {
        reduce(&mut delivery.last_error);
    }
    page
}

/// Removes the texts of receivers from a delivery and its attempts.
pub(super) fn without_texts_of_attempts(mut shown: DeliveryDetails) -> DeliveryDetails {
    reduce(&mut shown.listed.last_error);
    for attempt in &mut shown.tries {
        reduce(&mut attempt.error);
    }
    shown
}

fn reduce(error: &mut Option<String>) {
    let Some(text) = error else { return };
    // Only the error of an attempt with a response has a text of the receiver: `status 422: {"title":"…"}`.
    if text.starts_with("status ")
        && let Some((status, excerpt)) = text.split_once(": ")
    {
        let members = members(excerpt);
        *text = if members.is_empty() {
            status.to_owned()
        } else {
            format!("{status}: {}", Value::Object(members))
        };
    }
}

/// Returns the members of a response or of its `error` that may be shown. A response that was cut off has none.
fn members(excerpt: &str) -> Map<String, Value> {
    let response: Value = serde_json::from_str(excerpt).unwrap_or_default();
    let mut found = Map::new();
    for part in [&response, &response["error"]] {
        for name in MEMBERS {
            let shown = part.get(name).filter(|member| is_short(member));
            if let Some(member) = shown {
                found.entry(name).or_insert_with(|| member.clone());
            }
        }
    }
    found
}

fn is_short(member: &Value) -> bool {
    match member {
        Value::Number(_) => true,
        Value::String(text) => text.chars().count() <= MAX_LENGTH,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_status_and_three_members_remain_of_a_response() {
        let long = format!(r#"status 422: {{"title":"{}"}}"#, "x".repeat(101));
        for (error, expected) in [
            ("timeout", "timeout"),
            ("status 503", "status 503"),
            ("status 500: Ada is unknown", "status 500"),
            (
                "status 422, abandoned: Ada is unknown",
                "status 422, abandoned",
            ),
            (
                r#"status 422: {"title":"Invalid name","detail":"Ada is too short","code":7}"#,
                r#"status 422: {"code":7,"title":"Invalid name"}"#,
            ),
            (
                r#"status 409: {"error":{"type":"taken","message":"Ada is taken"}}"#,
                r#"status 409: {"type":"taken"}"#,
            ),
            (
                r#"status 422: {"title":["Ada"],"type":{"a":"Ada"}}"#,
                "status 422",
            ),
            (r#"status 422: ["Ada"]"#, "status 422"),
            (r#"status 422: {"title":"cut o"#, "status 422"),
            (&long, "status 422"),
            (
                "`send.json.name`: there is no `name`: add it",
                "`send.json.name`: there is no `name`: add it",
            ),
        ] {
            let mut reduced = Some(error.to_owned());
            reduce(&mut reduced);
            assert_eq!(reduced.as_deref(), Some(expected), "{error}");
        }
    }
}
