//! The operator's messages for findings, in every language of the settings.

use crate::expression::{Expression, Template};

/// A message: named under `messages`, inline at a check, or built in.
#[derive(Clone, Debug)]
pub struct MessageTemplate {
    /// The name of the message under `messages` or among the built-in messages; `None` for an inline message.
    pub name: Option<String>,
    /// The number that Kratos and front ends see.
    pub id: u32,
    /// Language tag and text, in the order of the file. An inline text without a language has the tag "".
    pub texts: Vec<(String, Template)>,
}

/// The id of inline messages without an id.
pub const INLINE_ID: u32 = 4_900_000;

impl MessageTemplate {
    /// Returns the expressions of the texts.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.texts
            .iter()
            .flat_map(|(_, template)| template.expressions())
    }
}
