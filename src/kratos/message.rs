//! A message that Kratos shows beside a field.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The maximum length of a text, in characters. A text can contain a service's answer, and Kratos stores the whole
/// text with the flow.
pub const MAX_CHARACTERS: usize = 1000;

/// One message, as Kratos stores it in the form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// A stable number, with which a front-end can find its own translation. Vestibule's block is 4 900 000 – 4 999
    /// 999.
    pub id: u32,
    /// The text, in the visitor's language.
    pub text: String,
    /// Always `error`, because a front-end would show anything else as a hint.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Data for front-ends that translate messages: the message's name, the check, the field.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
}

/// The type that Kratos gives a message. Vestibule only sends refusals, so there is one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The form was refused.
    Error,
}

impl Message {
    /// Creates a message with a text that is safe in every front-end.
    ///
    /// Some front-ends read a text as a pattern or as HTML. So `{`, `}` and `<` are replaced by similar characters.
    #[must_use]
    pub fn new(id: u32, text: &str, context: Value) -> Self {
        let text: String = text.chars().take(MAX_CHARACTERS).collect();
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
    fn braces_and_angle_brackets_in_a_text_are_replaced() {
        let message = Message::new(4_900_000, "no {such} <b>code", Value::Null);
        assert_eq!(message.text, "no (such) ‹b>code");
    }
}
