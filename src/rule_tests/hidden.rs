//! Hides values that the settings insert from the environment and from files: they can be secrets.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use url::form_urlencoded::byte_serialize;

/// The shortest value that is hidden, in characters. Shorter values are no secrets, and occur everywhere.
const MIN_LENGTH: usize = 6;
/// What is printed in place of a hidden value.
const HIDDEN: &str = "(hidden)";
/// The characters that are not encoded in a path or a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The values that are hidden.
#[derive(Clone, Default)]
pub struct Hidden(Vec<String>);

impl Hidden {
    /// Hides these values, also where they are encoded in a URL or a form.
    #[must_use]
    pub fn new(values: &[String]) -> Self {
        let long = values
            .iter()
            .map(|value| value.trim())
            .filter(|value| value.chars().count() >= MIN_LENGTH);
        let mut forms: Vec<String> = long
            .flat_map(|value| {
                [
                    value.to_owned(),
                    utf8_percent_encode(value, ENCODED).to_string(),
                    byte_serialize(value.as_bytes()).collect(),
                ]
            })
            .collect();
        // The longest first: a value can be a part of another.
        forms.sort_by(|one, other| (other.len(), other).cmp(&(one.len(), one)));
        forms.dedup();
        Self(forms)
    }

    /// Hides the values in a text.
    pub fn hide_in(&self, text: &mut String) {
        for value in &self.0 {
            if text.contains(value) {
                *text = text.replace(value, HIDDEN);
            }
        }
    }

    /// Hides the values in all texts, numbers and keys of a value.
    pub fn hide(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.hide_in(text),
            Value::Number(number) if self.0.contains(&number.to_string()) => {
                *value = HIDDEN.into();
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(item)),
            Value::Object(members) => {
                let hidden = std::mem::take(members)
                    .into_iter()
                    .map(|(mut key, mut value)| {
                        self.hide_in(&mut key);
                        self.hide(&mut value);
                        (key, value)
                    });
                *members = hidden.collect::<Map<_, _>>();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_hidden_in_every_form_and_short_ones_stay() {
        let values = ["canary/one two", "canary", "short", "1234567"].map(ToOwned::to_owned);
        let hidden = Hidden::new(&values);
        let mut value = json!({
            "request": "GET /a?key=canary%2Fone%20two&b=canary%2Fone+two&c=short",
            "body": {"canary": ["x canary/one two", 1_234_567, 12], "plain": true},
        });
        hidden.hide(&mut value);
        assert_eq!(
            value,
            json!({
                "request": "GET /a?key=(hidden)&b=(hidden)&c=short",
                "body": {"(hidden)": ["x (hidden)", "(hidden)", 12], "plain": true},
            })
        );
    }
}
