//! The words that the operator has for a finding, in every language they wrote.

use crate::expression::{Expression, Template};

/// A message of the settings: named under `messages`, written beside a check, or one of our own.
#[derive(Clone, Debug)]
pub struct MessageTemplate {
    /// Its name under `messages`, or of the built-in; `None` for inline words.
    pub name: Option<String>,
    /// The number that Kratos and front-ends see.
    pub id: u32,
    /// Language tag and text, in the order of the file; inline words without a language have the tag "" .
    pub texts: Vec<(String, Template)>,
}

/// The id of inline words that name none.
pub const INLINE_ID: u32 = 4_900_000;

impl MessageTemplate {
    /// What is filled into its texts.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.texts
            .iter()
            .flat_map(|(_, template)| template.expressions())
    }
}
