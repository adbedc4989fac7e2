//! Choosing the words for a person: their language, with expressions filled in.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::expression::{Template, Variables};
use crate::kratos::{Field, Message, language};
use crate::model::late_refusal::StoredMessage;
use crate::model::message::MessageTemplate;

/// What decides about the words.
#[derive(Clone, Copy, Debug)]
pub struct MessageRenderer<'a> {
    /// The visitor's `Accept-Language`.
    pub accept_language: Option<&'a str>,
    /// For visitors whose language we do not have.
    pub default_language: &'a str,
}

impl MessageRenderer<'_> {
    /// The wording in the reader's language. If an expression in it fails, `fallback` is said instead, under
    /// the wording's own number.
    #[must_use]
    pub fn message(
        &self,
        wording: &MessageTemplate,
        fallback: &MessageTemplate,
        names: &Variables<'_>,
        check: Option<&str>,
        field: Option<&Field>,
    ) -> Message {
        let text = self.text(wording).and_then(|template| match template.render_text(names) {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::warn!(check, message.id = wording.id, %error, "The text of a message could not be filled in");
                None
            }
        });
        let text = text
            .or_else(|| self.text(fallback)?.render_text(names).ok())
            .unwrap_or_default();
        let entries = [
            ("message", wording.name.as_deref()),
            ("check", check),
            ("field", field.map(Field::node_name)),
        ];
        Message::new(wording.id, &text, context(&entries))
    }

    /// A message that was stored, in the reader's language; `None` if it has no text.
    #[must_use]
    pub fn stored_message(&self, stored: &StoredMessage, check: &str) -> Option<Message> {
        let text = self.pick(&stored.texts)?;
        let entries = [
            ("message", stored.name.as_deref()),
            ("check", Some(check)),
            ("field", stored.field.as_deref()),
        ];
        Some(Message::new(stored.id, text, context(&entries)))
    }

    fn text<'w>(&self, wording: &'w MessageTemplate) -> Option<&'w Template> {
        self.pick(&wording.texts)
    }

    /// The one of these in the reader's language.
    fn pick<'t, T>(&self, texts: &'t [(String, T)]) -> Option<&'t T> {
        let tags: Vec<&str> = texts.iter().map(|(tag, _)| tag.as_str()).collect();
        let wanted = self
            .accept_language
            .and_then(|header| language::lookup(header, &tags));
        let tag = wanted
            .or_else(|| language::lookup(self.default_language, &tags))
            .or_else(|| tags.first().copied())?;
        texts
            .iter()
            .find(|(known, _)| known == tag)
            .map(|(_, text)| text)
    }
}

fn context(entries: &[(&str, Option<&str>)]) -> Value {
    let mut context = json!({});
    for (key, value) in entries {
        if let Some(value) = value {
            context[key] = (*value).into();
        }
    }
    context
}

/// What is said where the settings name no words, and in which language.
#[derive(Clone, Debug)]
pub struct MessageCatalog {
    /// Our own words.
    pub builtin: BuiltinMessages,
    /// For visitors whose language we do not have.
    pub default_language: String,
}

/// The words that Vestibule has of its own; each may be replaced under `messages:`.
#[derive(Clone, Debug)]
pub struct BuiltinMessages {
    /// `try_again`: no usable answer.
    pub try_again: Arc<MessageTemplate>,
    /// `not_valid`: no question can be made of the value, or a refusal without words.
    pub not_valid: Arc<MessageTemplate>,
    /// `required`: the field is absent.
    pub required: Arc<MessageTemplate>,
    /// `not_possible`: the call itself is wrong (key, wiring, body); nothing the person can mend.
    pub not_possible: Arc<MessageTemplate>,
    /// `form_used`: the form has brought forth an account already, or was accepted too often.
    pub form_used: Arc<MessageTemplate>,
    /// `account_refused`: a check refused the account after it had been created, and has no message of its own.
    pub account_refused: Arc<MessageTemplate>,
}
