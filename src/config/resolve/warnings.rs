//! Warns about settings that are valid, but probably a mistake.

use std::sync::{Arc, LazyLock};

use regex::{Captures, Regex};

use super::{Cursor, Resolver};
use crate::checks::{Absent, Check, Mode, Policy, Reads};
use crate::config::languages;
use crate::config::tree::{Kind, Node};
use crate::expression::{Expression, Scope, Template, Variable};
use crate::kratos::Flow;
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

/// Entities of HTML, and what they mean.
const ENTITIES: [(&str, &str); 8] = [
    ("&amp;", "&"),
    ("&apos;", "'"),
    ("&gt;", ">"),
    ("&lt;", "<"),
    ("&nbsp;", " "),
    ("&quot;", "\""),
    ("&#34;", "\""),
    ("&#39;", "'"),
];

/// Tags that begin a line.
const BREAKS: [&str; 7] = ["br", "p", "div", "hr", "li", "td", "tr"];

/// An expression in doubled braces. A template inserts nothing there.
static DOUBLED: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{\{\s*([a-z]+)((?:\.[\w?.\[\]']+)?)\s*\}\}").ok());

/// An expression in braces.
static LITERAL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\{\s*([a-z]+)(?:\.[^{}]*)?\}").ok());

/// A tag or an entity of HTML.
static HTML: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let names = "a|abbr|b|big|blockquote|br|code|div|em|font|h[1-6]|hr|i|img|li|mark|ol|p|pre|script|small|span|strong|sub|sup|table|td|tr|u|ul";
    Regex::new(&format!(
        r"(?i)</?(?:{names})(?:\s[^<>]*)?/?>|&(?:[a-z]{{2,8}}|#\d{{1,6}});"
    ))
    .ok()
});

/// Returns the text without tags, and with the characters that its entities mean.
fn without_html(pattern: &Regex, text: &str) -> String {
    let plain = pattern.replace_all(text, |found: &Captures<'_>| {
        let found = &found[0];
        let entity = ENTITIES.iter().find(|(name, _)| *name == found);
        let name = found.trim_start_matches(['<', '/']).to_lowercase();
        let breaks = BREAKS.iter().any(|known| {
            name.strip_prefix(known)
                .is_some_and(|rest| rest.starts_with([' ', '/', '>']))
        });
        match entity {
            Some((_, character)) => *character,
            None if breaks || found.starts_with('&') => " ",
            None => "",
        }
    });
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl<'a> Resolver<'a> {
    pub(super) fn warn_about_checks(&mut self, checks: &[(Check, Cursor<'a>)]) {
        for (check, cursor) in checks {
            self.warn_about_purpose(cursor);
            self.warn_about_types(check, cursor);
            self.warn_about_accept(check, cursor);
            self.warn_about_acceptance(check, cursor);
            self.warn_about_no_effect(check, cursor);
            self.warn_about_reserve(check, cursor);
            self.warn_about_immutable(check, cursor);
        }
    }

    /// A check that compares a field with the previous one keeps the value only until the visitor empties the field. And
    /// `immutable` keeps it only while `when` is true.
    fn warn_about_immutable(&mut self, check: &Check, cursor: &Cursor<'a>) {
        let Some(field) = &check.field else {
            return;
        };
        let mut when = check
            .when
            .iter()
            .flat_map(|when| when.paths(Variable::Identity));
        let changeable =
            when.find(|path| path.first_name() == Some("traits") && !path.is_within(field.names()));
        if let (true, Some(path)) = (check.immutable, changeable) {
            self.warn(
                &cursor.key("when"),
                format!("`immutable` counts only while `when` is true, and a visitor can change `{path}`, which `when` reads"),
                "remove `when`, or read only what no visitor can change, such as `identity.schema_id`",
            );
        }
        let skips = check.absent == Absent::Skip && check.required_if.is_none();
        let refuses = check.flows.contains(&Flow::Settings) && !check.refuse.is_empty();
        let compares = || {
            let mut read = check
                .conditions()
                .flat_map(|one| one.paths(Variable::Previous));
            read.any(|path| path.meets(field.names()))
        };
        if !check.immutable && skips && refuses && compares() {
            self.warn(
                &cursor.key("refuse"),
                format!("a visitor can empty `{field}`, because an absent field skips the check, and then choose any value"),
                "if the value cannot change once it is there, write `immutable: true` in place of the comparison with `previous`; \
                 if it can, write `required: true`",
            );
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

    /// Warns about an expression without braces, which is a text like any other.
    pub(super) fn warn_about_missing_braces(
        &mut self,
        cursor: &Cursor<'_>,
        template: &Template,
        scope: &Scope,
    ) {
        let Some(text) = template.constant().map(str::trim) else {
            return;
        };
        let names_a_root = |root: &Variable| {
            text.contains(&format!("{}.", root.name()))
                || text.contains(&format!("({})", root.name()))
        };
        if !scope.roots.iter().any(names_a_root) {
            return;
        }
        let compiled = Expression::compile(text, scope);
        let reads = |one: &Expression| Variable::ALL.iter().any(|root| one.reads(*root));
        if compiled.is_ok_and(|one| reads(&one)) {
            self.warn(
                cursor,
                format!("`{text}` is used as this text, because an expression needs braces"),
                format!("write `{{{text}}}`"),
            );
        }
    }

    /// Warns about an expression in a text that is no template.
    pub(super) fn warn_about_literal_braces(&mut self, cursor: &Cursor<'_>, text: &str) {
        let Some(pattern) = LITERAL.as_ref() else {
            return;
        };
        if let Some(found) = pattern.captures(text)
            && Variable::ALL.iter().any(|root| root.name() == &found[1])
        {
            self.warn(
                cursor,
                format!(
                    "`{}` inserts no value: this text is the same for every request",
                    &found[0]
                ),
                "write it in the request, under `headers`",
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
            let plain = without_html(pattern, text);
            let help = if plain.is_empty() {
                "write what the visitor must correct".to_owned()
            } else {
                format!("write `{plain}`")
            };
            self.warn(
                cursor,
                "a message is plain text, so visitors see the HTML in it as it is written",
                help,
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
            && (check.ask.is_some() || check.reserve.is_some())
            && check.mode == Mode::Enforce
        {
            self.warn(
                &cursor.key("on_unavailable"),
                "`accept` admits sign-ups unchecked while the service is down or slow, and a visitor may be able to cause that",
                if check.reserve.is_some() {
                    "write `refuse`, or name the kinds, as in `{timeout: accept}`"
                } else {
                    "write `defer` to repeat the question once the account exists, or name the kinds, as in `{timeout: accept}`"
                },
            );
        }
    }
}
