//! What the person reads beside a field.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest text, in characters. An answer of a service may be part of it, and all of it is stored with the flow.
pub const MOST_CHARACTERS: usize = 1000;

/// One message as Kratos stores it in the form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// A stable number by which a front-end may find its own translation; our block is 4 900 000 – 4 999 999.
    pub id: u32,
    /// The words, in the person's language.
    pub text: String,
    /// Always `error`: anything else would be shown as a hint.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// For front-ends that translate by themselves: the message's name, the check, the field.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
}

/// How Kratos marks a message. We refuse, so there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The form was not accepted.
    Error,
}

impl Message {
    /// A message whose text is safe to be sent: some front-ends read it as a pattern or as HTML, so
    /// `{`, `}` and `<` are replaced by characters that look alike.
    #[must_use]
    pub fn new(id: u32, text: &str, context: Value) -> Self {
        let text: String = text.chars().take(MOST_CHARACTERS).collect();
        let text = text.replace('{', "(").replace('}', ")").replace('<', "‹");
        Self {
            id,
            text,
            kind: Kind::Error,
            context,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_loses_what_a_front_end_could_take_for_a_pattern_or_html() {
        let message = Message::new(4_900_000, "no {such} <b>code", Value::Null);
        assert_eq!(message.text, "no (such) ‹b>code");
    }
}
