//! Resolves messages: named messages, messages in a check, and built-in messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use oxilangtag::LanguageTag;
use serde_json::Value;

use super::paths::Place;
use super::{Cursor, Resolver};
use crate::base::diagnostics::Position;
use crate::base::diagnostics::{Problem, did_you_mean, listed};
use crate::checks::BuiltinMessages;
use crate::config::{file, languages};
use crate::expression::{Scope, Template, Variable};
use crate::model::message::{INLINE_ID, MessageTemplate};

/// The built-in messages: name, id, English, German.
const BUILTIN: [(&str, u32, &str, &str); 7] = [
    (
        "try_again",
        4_900_001,
        "This could not be checked just now. Please try again in a few minutes.",
        "Das konnte gerade nicht geprüft werden. Bitte versuchen Sie es in einigen Minuten noch einmal.",
    ),
    (
        "not_valid",
        4_900_002,
        "This value is not valid.",
        "Dieser Wert ist nicht gültig.",
    ),
    (
        "required",
        4_900_003,
        "This field is required.",
        "Dieses Feld wird benötigt.",
    ),
    (
        "not_possible",
        4_900_004,
        "This is not possible at the moment. Please try again later.",
        "Das ist im Moment nicht möglich. Bitte versuchen Sie es später noch einmal.",
    ),
    (
        "immutable",
        4_900_005,
        "This value cannot be changed.",
        "Dieser Wert kann nicht geändert werden.",
    ),
    (
        "form_used",
        4_900_006,
        "This form has been used already. Please sign in, or reload the page and start again.",
        "Dieses Formular wurde bereits verwendet. Bitte melden Sie sich an, oder laden Sie die Seite neu und beginnen Sie noch einmal.",
    ),
    (
        "account_refused",
        4_900_007,
        "This account cannot be used. Please contact support.",
        "Dieses Konto kann nicht verwendet werden. Bitte wenden Sie sich an den Support.",
    ),
];

/// The ids that operators can use.
const OPERATOR_IDS: std::ops::RangeInclusive<u32> = 4_900_100..=4_999_999;

/// The messages of the file.
pub(super) struct Messages<'a> {
    pub builtin: Option<BuiltinMessages>,
    named: BTreeMap<String, Named<'a>>,
}

/// The position of an id.
#[derive(Clone)]
pub(super) struct Numbered {
    path: String,
    at: Position,
    /// The texts, if the message is in a check.
    beside: Option<IndexMap<String, Value>>,
}

/// Returns the texts by language tag. A text for every language has the tag "".
fn texts_of(file: &file::NamedMessage) -> IndexMap<String, Value> {
    let text = file.text.as_ref().map(|file::Template(text)| text.as_str());
    let text = text.map(|text| (String::new(), text.into()));
    text.into_iter()
        .chain(
            file.texts
                .iter()
                .map(|(tag, text)| (tag.clone(), text.clone())),
        )
        .collect()
}

/// Returns the key of a text with this language tag.
fn key_of(tag: &str) -> &str {
    if tag.is_empty() { "text" } else { tag }
}

struct Named<'a> {
    cursor: Cursor<'a>,
    id: u32,
    texts: Vec<(String, String)>,
}

impl<'a> Resolver<'a> {
    pub(super) fn messages(&mut self) -> Messages<'a> {
        let cursor = self.root.key("messages");
        let mut named = BTreeMap::new();
        for entry in cursor.entries() {
            let cursor = cursor.key(&entry.key);
            self.name(&cursor, entry, "a message");
            let own = BUILTIN
                .iter()
                .find(|(name, ..)| *name == entry.key)
                .map(|(_, id, ..)| *id);
            self.number(&cursor, own, None);
            let Some(file) = self.decode::<file::NamedMessage>(&cursor) else {
                continue;
            };
            if file.id.is_none() && own.is_none() {
                self.report(
                    &cursor,
                    "`id` is missing",
                    Some(format!(
                        "use a number from {} to {}",
                        OPERATOR_IDS.start(),
                        OPERATOR_IDS.end()
                    )),
                );
            }
            let id = file.id.or(own).unwrap_or(INLINE_ID);
            if let Some(texts) = self.texts(&cursor, &file) {
                named.insert(entry.key.clone(), Named { cursor, id, texts });
            }
        }
        // Unused messages too, so that their problems are found before they are used.
        let everything = self.scope(&Variable::ALL, self.names_of("checks"));
        for message in named.values() {
            for (tag, text) in &message.texts {
                self.template(&message.cursor.key(key_of(tag)), text, &everything);
            }
        }
        self.review_messages();
        let builtin = self.builtin(&named);
        Messages { builtin, named }
    }

    /// Reports an id that operators cannot use, or that is used already. Several checks can have the same message with
    /// the same id.
    fn number(
        &mut self,
        cursor: &Cursor<'_>,
        own: Option<u32>,
        beside: Option<&IndexMap<String, Value>>,
    ) {
        let at = cursor.key("id");
        let Some(id) = at
            .node
            .and_then(|node| node.to_value().as_u64())
            .and_then(|id| u32::try_from(id).ok())
        else {
            return;
        };
        if Some(id) == own {
            return;
        }
        if !OPERATOR_IDS.contains(&id) {
            let message = format!(
                "{id} is not from {} to {}",
                OPERATOR_IDS.start(),
                OPERATOR_IDS.end()
            );
            self.report(
                &at,
                message,
                Some("other numbers belong to Kratos and Vestibule".to_owned()),
            );
        } else if let Some(first) = self.numbers.get(&id) {
            if beside.is_some() && beside == first.beside.as_ref() {
                return;
            }
            let message = format!(
                "{id} is already the id of `{}` (line {})",
                first.path, first.at.line
            );
            self.report(&at, message, Some("use a different number".to_owned()));
        } else {
            let numbered = Numbered {
                path: cursor.path.clone(),
                at: at.at,
                beside: beside.cloned(),
            };
            self.numbers.insert(id, numbered);
        }
    }

    fn texts(
        &mut self,
        cursor: &Cursor<'_>,
        file: &file::NamedMessage,
    ) -> Option<Vec<(String, String)>> {
        let mut texts: Vec<(String, String)> = Vec::new();
        let written = texts_of(file);
        if file.text.is_some() && !file.texts.is_empty() {
            self.report(
                &cursor.key("text"),
                "`text` cannot be used together with texts by language",
                Some("write its language in place of `text`, as in `en`".to_owned()),
            );
        }
        for (tag, text) in &written {
            let cursor = cursor.key(key_of(tag));
            if !tag.is_empty() && LanguageTag::parse(tag.as_str()).is_err() {
                let hint = languages::instead(tag).unwrap_or_else(|| {
                    "use a language tag as the key, as in `en`, `de` or `pt-BR`".to_owned()
                });
                self.report(
                    &cursor,
                    format!("`{tag}` is not a BCP 47 language tag"),
                    Some(hint),
                );
                continue;
            }
            if let Some((other, _)) = texts
                .iter()
                .find(|(other, _)| other.eq_ignore_ascii_case(tag))
            {
                self.report(
                    &cursor,
                    format!("`{tag}` and `{other}` are the same language"),
                    None,
                );
                continue;
            }
            match text {
                Value::String(text) if text.trim().is_empty() => self.empty_message(&cursor),
                Value::String(text) => {
                    if !tag.is_empty() {
                        self.warn_about_language(&cursor, tag);
                    }
                    self.warn_about_html(&cursor, text);
                    texts.push((tag.clone(), text.clone()));
                }
                _ => self.report(&cursor, "expected a text", None),
            }
        }
        if written.is_empty() {
            self.report(
                cursor,
                "there is no text in any language",
                Some("as in {id: 4900101, en: \"…\"}".to_owned()),
            );
        }
        (!texts.is_empty()).then_some(texts)
    }

    fn empty_message(&mut self, cursor: &Cursor<'_>) {
        self.report(
            cursor,
            "the message is empty",
            Some("write what the visitor must correct".to_owned()),
        );
    }

    fn builtin(&mut self, named: &BTreeMap<String, Named<'a>>) -> Option<BuiltinMessages> {
        let mut templates = BTreeMap::new();
        // Some built-in messages are used without a visitor's data, so they cannot read variables.
        let nothing = self.scope(&[], Vec::new());
        for (name, id, english, german) in BUILTIN {
            let (id, texts, cursor) = if let Some(own) = named.get(name) {
                (own.id, own.texts.clone(), own.cursor.clone())
            } else {
                let texts = [("en", english), ("de", german)]
                    .map(|(tag, text)| (tag.to_owned(), text.to_owned()));
                (id, texts.to_vec(), self.root.clone())
            };
            let before = self.problems.len();
            let compiled = self.compile_texts(&cursor, &texts, &nothing);
            self.explain(
                before,
                "a built-in message is also used without a visitor's data, so it cannot read variables",
            );
            let texts = compiled?;
            templates.insert(
                name,
                Arc::new(MessageTemplate {
                    name: Some(name.to_owned()),
                    id,
                    texts,
                }),
            );
        }
        Some(BuiltinMessages {
            try_again: templates.remove("try_again")?,
            not_valid: templates.remove("not_valid")?,
            required: templates.remove("required")?,
            immutable: templates.remove("immutable")?,
            not_possible: templates.remove("not_possible")?,
            form_used: templates.remove("form_used")?,
            account_refused: templates.remove("account_refused")?,
        })
    }

    fn compile_texts(
        &mut self,
        cursor: &Cursor<'_>,
        texts: &[(String, String)],
        scope: &Scope,
    ) -> Option<Vec<(String, Template)>> {
        let since = self.uses.len();
        let compiled = texts
            .iter()
            .map(|(tag, text)| {
                self.template(&cursor.key(key_of(tag)), text, scope)
                    .map(|template| (tag.clone(), template))
            })
            .collect();
        self.place_uses(since, Place::Message);
        compiled
    }

    /// Adds the reason to each problem since `before`, and removes duplicates.
    fn explain(&mut self, before: usize, why: &str) {
        for problem in self.problems.split_off(before) {
            let known = self.problems.iter().any(|known| {
                (&known.path, known.at, &known.message)
                    == (&problem.path, problem.at, &problem.message)
            });
            if !known {
                let hint = match &problem.hint {
                    Some(hint) => format!("{hint}; {why}"),
                    None => why.to_owned(),
                };
                self.problems.push(problem.with_hint(Some(hint)));
            }
        }
    }

    /// Resolves the message of a check.
    pub(super) fn message_template(
        &mut self,
        cursor: &Cursor<'a>,
        message: &file::Message,
        scope: &Scope,
        messages: &Messages<'a>,
    ) -> Option<Arc<MessageTemplate>> {
        let message = match message {
            file::Message::Text(file::Template(text)) if is_name(text) => {
                match messages.named.get(text) {
                    Some(named) => {
                        let before = self.problems.len();
                        let compiled = self.compile_texts(&named.cursor, &named.texts, scope);
                        self.explain(before, &format!("`{}` uses this message", cursor.path));
                        let texts = compiled?;
                        MessageTemplate {
                            name: Some(text.clone()),
                            id: named.id,
                            texts,
                        }
                    }
                    None => return self.unnamed(cursor, text, messages),
                }
            }
            file::Message::Text(file::Template(text)) if text.trim().is_empty() => {
                self.empty_message(cursor);
                return None;
            }
            file::Message::Text(file::Template(text)) => {
                self.warn_about_html(cursor, text);
                let since = self.uses.len();
                let template = self.template(cursor, text, scope);
                self.place_uses(since, Place::Message);
                let template = template?;
                MessageTemplate {
                    name: None,
                    id: INLINE_ID,
                    texts: vec![(String::new(), template)],
                }
            }
            file::Message::Inline(file) => {
                self.number(cursor, None, Some(&texts_of(file)));
                let texts = self.texts(cursor, file)?;
                let texts = self.compile_texts(cursor, &texts, scope)?;
                MessageTemplate {
                    name: None,
                    id: file.id.unwrap_or(INLINE_ID),
                    texts,
                }
            }
        };
        Some(Arc::new(message))
    }

    fn unnamed(
        &mut self,
        cursor: &Cursor<'_>,
        name: &str,
        messages: &Messages<'_>,
    ) -> Option<Arc<MessageTemplate>> {
        let own = BUILTIN.map(|(own, ..)| own);
        if let (Some(builtin), true) = (&messages.builtin, own.contains(&name)) {
            return Some(Arc::clone(match name {
                "try_again" => &builtin.try_again,
                "not_valid" => &builtin.not_valid,
                "required" => &builtin.required,
                "immutable" => &builtin.immutable,
                "form_used" => &builtin.form_used,
                "account_refused" => &builtin.account_refused,
                _ => &builtin.not_possible,
            }));
        }
        let section = self.root.key("messages");
        let written: Vec<&str> = section
            .entries()
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        if written.contains(&name) {
            // Its own problem is reported at the message.
            return None;
        }
        let known = || written.iter().copied().chain(own);
        let form = format!("for a text of one word, write `{{text: \"{name}\"}}`");
        let hint = match did_you_mean(name, known()) {
            Some(near) => format!("{near} {}", capitalised(&form)),
            None => format!(
                "{form}; a single word in lower case is the name of a message: {}",
                listed(known())
            ),
        };
        self.problems.push(
            Problem::new(
                cursor.path.clone(),
                cursor.at,
                format!("there is no message `{name}`"),
            )
            .with_hint(Some(hint)),
        );
        None
    }

    /// Returns the variables that expressions can use here.
    pub(super) fn scope(&self, roots: &[Variable], checks: Vec<String>) -> Scope {
        Scope {
            roots: roots.to_vec(),
            checks,
            lists: Arc::clone(&self.lists),
            client_ip: self.client_ip,
            optional_paths: Arc::clone(&self.optional_paths),
            headers: self.request_headers.clone(),
            has_other_headers: self.lacks_a_header_name(),
        }
    }

    /// Returns the keys of a section.
    pub(super) fn names_of(&self, section: &str) -> Vec<String> {
        self.root
            .key(section)
            .entries()
            .iter()
            .map(|entry| entry.key.clone())
            .collect()
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
