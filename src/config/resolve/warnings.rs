//! Warns about settings that are valid, but probably a mistake.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::{Cursor, Resolver};
use crate::checks::{Check, Mode, Policy, Reads};
use crate::config::languages;
use crate::config::tree::{Kind, Node};
use crate::expression::Scope;
use crate::kratos::schema::Step;

/// The keys with which a check can refuse or change a sign-up.
const PURPOSES: [&str; 9] = [
    "absent",
    "accept",
    "ask",
    "immutable",
    "rate_limit",
    "refuse",
    "required",
    "reserve",
    "set",
];

/// An expression in doubled braces. A template inserts nothing there.
static DOUBLED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{\{\s*([a-z]+)((?:\.[\w?.\[\]']+)?)\s*\}\}").ok());

/// A tag or an entity of HTML.
static HTML: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let names = "a|abbr|b|big|blockquote|br|code|div|em|font|h[1-6]|hr|i|img|li|mark|ol|p|pre|script|small|span|strong|sub|sup|table|td|tr|u|ul";
    Regex::new(&format!(
        r"(?i)</?(?:{names})(?:\s[^<>]*)?/?>|&(?:[a-z]{{2,8}}|#\d{{1,6}});"
    ))
    .ok()
});

impl<'a> Resolver<'a> {
    pub(super) fn warn_about_checks(&mut self, checks: &[(Check, Cursor<'a>)]) {
        for (check, cursor) in checks {
            self.warn_about_purpose(cursor);
            self.warn_about_types(check, cursor);
            self.warn_about_accept(check, cursor);
            self.warn_about_reserve(check, cursor);
        }
    }

    /// A check without any rule always accepts.
    fn warn_about_purpose(&mut self, cursor: &Cursor<'a>) {
        let is_used = |node: &Node| match &node.kind {
            Kind::Null | Kind::Bool(false) => false,
            Kind::List(items) => !items.is_empty(),
            Kind::Map(entries) => !entries.is_empty(),
            Kind::Text { text, .. } => text != "skip",
            Kind::Bool(true) | Kind::Number(..) => true,
        };
        let has_purpose = PURPOSES
            .iter()
            .any(|key| cursor.key(key).node.is_some_and(is_used));
        if !has_purpose {
            self.warn(
                cursor,
                "this check never refuses and never changes a sign-up",
                "add `required: true`, `refuse`, `ask` or `set`, or remove the check",
            );
        }
    }

    /// Warns about `{{value}}`, which produces `{value}`.
    pub(super) fn warn_about_braces(&mut self, cursor: &Cursor<'_>, text: &str, scope: &Scope) {
        let Some(pattern) = DOUBLED.as_ref() else {
            return;
        };
        for found in pattern.captures_iter(text) {
            let (whole, root, rest) = (&found[0], &found[1], &found[2]);
            if !scope.roots.iter().any(|known| known.name() == root) {
                continue;
            }
            self.warn(
                cursor,
                format!("`{whole}` inserts no value: doubled braces produce braces"),
                format!("write `{{{root}{rest}}}`"),
            );
        }
    }

    /// Warns about a language that no browser asks for.
    pub(super) fn warn_about_language(&mut self, cursor: &Cursor<'_>, tag: &str) {
        if let Some(help) = languages::instead(tag) {
            self.warn(
                cursor,
                format!("no browser asks for the language `{tag}`"),
                help,
            );
        }
    }

    /// Warns about HTML in a message. Front ends show messages as text.
    pub(super) fn warn_about_html(&mut self, cursor: &Cursor<'_>, text: &str) {
        let Some(pattern) = HTML.as_ref() else {
            return;
        };
        if pattern.is_match(text) {
            let plain = pattern.replace_all(text, "");
            self.warn(
                cursor,
                "a message is plain text, so visitors see the HTML in it as it is written",
                format!("write `{}`", plain.trim()),
            );
        }
    }

    fn warn_about_reserve(&mut self, check: &Check, cursor: &Cursor<'a>) {
        if check.reserve.is_some() && !self.has_admin_url() {
            self.warn(
                &cursor.key("reserve"),
                "without Kratos's admin API, Vestibule cannot look up sign-ups: a client that disconnects at the right moment keeps its \
                 account while what was reserved for it is released, and a form that was refused by Kratos may have to wait until it expires",
                "set `kratos: {admin_url: \"http://kratos:4434\"}`",
            );
        }
    }

    /// In Kratos, a trait without a type can hold anything. A visitor can send a list where the check expects a text.
    fn warn_about_types(&mut self, check: &Check, cursor: &Cursor<'a>) {
        let schemas = Arc::clone(&self.schemas);
        let reads = Reads::of(check);
        let field = check.field.iter().map(|field| {
            let names = field.names().iter().map(String::as_str).collect::<Vec<_>>();
            (cursor.key("field"), names)
        });
        let others = reads.identity.iter().filter_map(|path| {
            let names = path.names()?;
            (names.len() > 1 && names[0] == "traits").then(|| (cursor.clone(), names))
        });
        for (cursor, names) in field.chain(others) {
            let path = names.join(".");
            let knowledge = schemas.look_up(&Step::of_names(names));
            if !knowledge.named_in.is_empty() && !knowledge.types.is_given() {
                self.warn(
                    &cursor,
                    format!(
                        "the identity schema gives `{path}` no type, so a visitor can send a list or an object"
                    ),
                    "add a type to the identity schema, as in `\"type\": \"string\"`",
                );
            }
        }
    }

    fn warn_about_accept(&mut self, check: &Check, cursor: &Cursor<'a>) {
        if check.on_unavailable.default == Policy::Accept
            && check.ask.is_some()
            && check.mode == Mode::Enforce
        {
            self.warn(
                &cursor.key("on_unavailable"),
                "`accept` admits sign-ups unchecked while the service is down or slow, and a visitor may be able to cause that",
                "write `defer` to repeat the question once the account exists, or name the kinds, as in `{timeout: accept}`",
            );
        }
    }
}
