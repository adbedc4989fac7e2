//! Renders messages for a visitor: chooses the language, and fills in expressions.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::expression::{Template, Variables};
use crate::kratos::{Field, Message, language};
use crate::model::late_refusal::StoredMessage;
use crate::model::message::MessageTemplate;

/// Renders messages in the visitor's language.
#[derive(Clone, Copy, Debug)]
pub struct MessageRenderer<'a> {
    /// The visitor's `Accept-Language`.
    pub accept_language: Option<&'a str>,
    /// The language for visitors whose language has no text.
    pub default_language: &'a str,
}

impl MessageRenderer<'_> {
    /// Renders a message in the visitor's language. If an expression in it fails, the text of `fallback` is used,
    /// with the id of `message`.
    #[must_use]
    pub fn message(
        &self,
        message: &MessageTemplate,
        fallback: &MessageTemplate,
        variables: &Variables<'_>,
        check: Option<&str>,
        field: Option<&Field>,
    ) -> Message {
        let text = self.text(message).and_then(|template| match template.render_text(variables) {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::warn!(check, message.id = message.id, %error, "Could not render a message");
                None
            }
        });
        let text = text
            .or_else(|| self.text(fallback)?.render_text(variables).ok())
            .unwrap_or_default();
        let entries = [
            ("message", message.name.as_deref()),
            ("check", check),
            ("field", field.map(Field::node_name)),
        ];
        Message::new(message.id, &text, context(&entries))
    }

    /// Renders a stored message in the visitor's language; `None` if the message has no text.
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

    fn text<'w>(&self, message: &'w MessageTemplate) -> Option<&'w Template> {
        self.pick(&message.texts)
    }

    /// Returns the text in the visitor's language.
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

/// The messages for cases in which the settings name no message, and their default language.
#[derive(Clone, Debug)]
pub struct MessageCatalog {
    /// The built-in messages.
    pub builtin: BuiltinMessages,
    /// The language for visitors whose language has no text.
    pub default_language: String,
}

/// The built-in messages; settings can replace each under `messages:`.
#[derive(Clone, Debug)]
pub struct BuiltinMessages {
    /// `try_again`: there is no usable answer.
    pub try_again: Arc<MessageTemplate>,
    /// `not_valid`: no question can be built from the value, or a refusal has no message.
    pub not_valid: Arc<MessageTemplate>,
    /// `required`: the field is absent.
    pub required: Arc<MessageTemplate>,
    /// `immutable`: the field has a value, and `immutable` keeps it.
    pub immutable: Arc<MessageTemplate>,
    /// `not_possible`: the call itself is wrong (key, hook configuration, body), and the visitor cannot fix that.
    pub not_possible: Arc<MessageTemplate>,
    /// `form_used`: the form has created an account already, or was accepted too often.
    pub form_used: Arc<MessageTemplate>,
    /// `account_refused`: a check refused the account after its creation, and has no message of its own.
    pub account_refused: Arc<MessageTemplate>,
}
