//! Makes an excerpt of an error response for the record. The excerpt holds no values of the request, which a response
//! may repeat.

mod sent_values;

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use crate::base::cpu;
use crate::model::request::Request;
use sent_values::SentValues;

/// The maximum length of an excerpt, in characters.
const MAX_LENGTH: usize = 200;
/// The bytes of a response that an excerpt is made of: texts and names, in the order of the response.
const MAX_BYTES: usize = 4 * 1024;
/// The number of values of a response that an excerpt is made of.
const MAX_VALUES: usize = 50;

static ADDRESS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"[^\s"'<>(),;:]+@[^\s"'<>(),;:]+"#).ok());

/// Returns the excerpt. `None` if the response is empty, or if the request has too many values to hide.
///
/// A receiver decides the size of the response, and a visitor decides the values of the request. So the response is cut
/// before it is read, and the values are found by one automaton.
pub(super) fn of(body: &Value, request: &Request) -> Option<String> {
    let is_empty = match body {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    if is_empty {
        return None;
    }
    cpu::compute(|| excerpt(body, &SentValues::of(request)?))
}

fn excerpt(body: &Value, sent: &SentValues) -> Option<String> {
    let mut beginning = Beginning {
        sent,
        bytes: MAX_BYTES,
        values: MAX_VALUES,
    };
    let hidden = match beginning.of(body)? {
        Value::String(text) => text,
        // Texts are hidden one by one, because JSON escapes some characters. Then numbers and member names are hidden.
        other => sent.hide(&other.to_string(), false),
    };
    let hidden = ADDRESS.as_ref()?.replace_all(&hidden, "…");
    let mut excerpt = String::new();
    for word in hidden.split_whitespace() {
        let space = if excerpt.is_empty() { "" } else { " " };
        excerpt.push_str(space);
        excerpt.extend(word.chars().filter(|character| !character.is_control()));
    }
    let excerpt: String = excerpt.chars().take(MAX_LENGTH).collect();
    (!excerpt.is_empty()).then_some(excerpt)
}

/// Copies the beginning of a response, without the values of the request in its texts.
struct Beginning<'s> {
    sent: &'s SentValues,
    /// The bytes that are left.
    bytes: usize,
    /// The values that are left.
    values: usize,
}

impl Beginning<'_> {
    /// Returns the beginning of a value, or nothing if nothing is left.
    fn of(&mut self, value: &Value) -> Option<Value> {
        if self.bytes == 0 || self.values == 0 {
            return None;
        }
        Some(match value {
            Value::Array(items) => items.iter().map_while(|item| self.of(item)).collect(),
            Value::Object(members) => Value::Object(self.members(members)),
            Value::String(text) => {
                self.values -= 1;
                self.text(text).into()
            }
            other => {
                self.values -= 1;
                other.clone()
            }
        })
    }

    fn members(&mut self, members: &Map<String, Value>) -> Map<String, Value> {
        let mut beginning = Map::new();
        for (name, member) in members {
            if name.len() >= self.bytes {
                self.bytes = 0;
                break;
            }
            self.bytes -= name.len();
            let Some(member) = self.of(member) else {
                break;
            };
            beginning.insert(name.clone(), member);
        }
        beginning
    }

    fn text(&mut self, text: &str) -> String {
        let end = text.floor_char_boundary(self.bytes);
        self.bytes = if end < text.len() {
            0
        } else {
            self.bytes - end
        };
        self.sent.hide(&text[..end], end < text.len())
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

    fn request(body: &Value) -> Request {
        Request {
            method: Method::Post,
            path: "/contacts".to_owned(),
            headers: Vec::new(),
            body: Some(Body {
                content_type: "application/json".to_owned(),
                text: body.to_string(),
            }),
        }
    }

    #[test]
    fn a_large_response_is_cut_after_50_values_and_4_kib() {
        let nothing = request(&json!({}));
        let leaves: Vec<Value> = (0..30_000).map(|leaf| json!({"no": leaf % 10})).collect();
        let sent = SentValues::of(&nothing).unwrap();
        let beginning = |body: &Value| {
            let (bytes, values) = (MAX_BYTES, MAX_VALUES);
            let mut beginning = Beginning {
                sent: &sent,
                bytes,
                values,
            };
            beginning.of(body).unwrap()
        };
        assert_eq!(beginning(&json!(leaves)), json!(leaves[..50]));
        let text = "ä b ".repeat(200_000);
        for large in [
            json!(text),
            json!({"error": text}),
            json!({text.clone(): 1}),
            json!([text.clone(), text.clone()]),
            json!(vec![json!({"error": "e".repeat(100)}); 30_000]),
        ] {
            assert!(beginning(&large).to_string().len() < 2 * MAX_BYTES);
            of(&large, &nothing);
        }
    }

    #[test]
    fn a_value_is_hidden_where_the_response_is_cut() {
        for value in [
            "secret".repeat(2_000),
            "a-secret".to_owned(),
            "geheim-äöü-".repeat(40),
        ] {
            let sent = request(&json!({"value": value}));
            for before in (MAX_BYTES - 200..MAX_BYTES).step_by(7) {
                // Hidden text is short, so what follows it would be a part of the excerpt.
                let text = format!("{}{value}", value.repeat(before / value.len() + 1));
                let excerpt = of(&json!(text[text.floor_char_boundary(before % 97)..]), &sent);
                let excerpt = excerpt.unwrap_or_default();
                let shown = excerpt.replace('…', "");
                assert!(
                    shown.chars().count() < value.chars().count().min(64),
                    "{shown}"
                );
            }
        }
    }

    #[test]
    fn values_are_hidden_whatever_their_case_and_whatever_they_contain() {
        for (value, echo) in [
            ("Straße 12", "STRASSE 12"),
            ("ÄÖÜ", "äöü"),
            ("(a|b)*", "(A|B)*"),
            ("aaa", "aaaaaaaa"),
            ("a.c", "A.C"),
            ("\\d{9}", "\\d{9}"),
        ] {
            let sent = request(&json!([value]));
            let body = json!({"error": format!("no {echo} here")});
            let expected = json!({"error": "no … here"}).to_string();
            assert_eq!(of(&body, &sent), Some(expected), "{value}");
        }
        let dot = of(&json!("abc"), &request(&json!(["a.c"])));
        assert_eq!(dot.as_deref(), Some("abc"), "a value is not a pattern");
    }

    #[test]
    fn many_values_and_many_leaves_take_one_pass() {
        let values: Vec<String> = (0..6_000)
            .map(|number| format!("value-{number:05}"))
            .collect();
        let sent = request(&json!(values));
        let body = json!({"errors": values.iter().map(|value| json!({"field": value, "text": "is taken"})).collect::<Vec<_>>()});
        let excerpt = of(&body, &sent).unwrap();
        assert!(
            excerpt.starts_with(r#"{"errors":[{"field":"…","text":"is taken"},{"field":"…""#),
            "{excerpt}"
        );
        let too_many: Vec<String> = (0..60_000)
            .map(|number| format!("value-{number:05}"))
            .collect();
        assert_eq!(
            of(&body, &request(&json!(too_many))),
            None,
            "nothing that might repeat a value is kept"
        );
    }
}
