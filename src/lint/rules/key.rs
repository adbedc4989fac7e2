//! The key in Vestibule's hooks.

use super::super::context::Context;
use super::super::document::Node;
use super::super::finding::Findings;
use super::super::hooks::Hook;
use crate::kratos::snippet::{EXAMPLE_KEY, KEY_HEADER};

/// The text that `vestibule kratos hooks` prints in place of a key.
const NO_KEY: &str = "PUT-YOUR-KEY-HERE";

/// The key of a hook.
enum Key<'k> {
    /// The hook sends no key.
    None,
    /// The header is named, and its value is missing.
    WithoutValue,
    /// The value.
    Value(&'k Node),
}

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    for list in &context.lists {
        for (hook, _) in list.ours() {
            match key(hook) {
                Key::None => missing(hook, findings),
                Key::WithoutValue => without_value(context, hook, findings),
                Key::Value(value) => check_value(context, value, findings),
            }
        }
    }
}

/// Returns the key in `headers` or in `auth`.
fn key<'k>(hook: &Hook<'k>) -> Key<'k> {
    let is_key = |name: &str| name.eq_ignore_ascii_case(KEY_HEADER);
    let headers = hook.config.get("headers").map(Node::entries);
    let mut headers = headers.unwrap_or_default().iter();
    if let Some((_, value)) = headers.find(|(name, _)| is_key(name)) {
        return Key::Value(value);
    }
    let Some(auth) = hook.config.get("auth") else {
        return Key::None;
    };
    let has = |keys: &[&str], text: &str| auth.text_at(keys) == Some(text);
    if !has(&["type"], "api_key")
        || !has(&["config", "in"], "header")
        || !auth.text_at(&["config", "name"]).is_some_and(is_key)
    {
        return Key::None;
    }
    auth.find(&["config", "value"])
        .map_or(Key::WithoutValue, Key::Value)
}

fn missing(hook: &Hook<'_>, findings: &mut Findings) {
    findings.problem(
        "key-missing",
        hook.config.nearest(&["auth"]),
        format!("the hook sends no key in the header `{KEY_HEADER}`, so Vestibule rejects the call"),
        format!(
            "auth: {{type: api_key, config: {{in: header, name: {KEY_HEADER}, value: \"{NO_KEY}\"}}}}"
        ),
    );
}

fn without_value(context: &Context<'_>, hook: &Hook<'_>, findings: &mut Findings) {
    if context.environment_file.is_some() {
        findings.problem(
            "key-missing",
            hook.config.nearest(&["auth", "config"]),
            "the key has no value, neither here nor in the environment".to_owned(),
            format!("value: \"{NO_KEY}\""),
        );
    } else {
        findings.not_checked(
            "keys without a value in kratos.yml: the environment of Kratos is not known (--env-file FILE)",
        );
    }
}

fn check_value(context: &Context<'_>, value: &Node, findings: &mut Findings) {
    let is_in_environment = context.environment_file == Some(value.place.file);
    let text = value.text().unwrap_or_default();
    check_is_known(context, value, text, findings);
    if text == NO_KEY || text.is_empty() {
        findings.problem(
            "key-placeholder",
            value,
            "this is no key yet".to_owned(),
            "write the output of `vestibule keygen` here, and under `hooks.keys` in vestibule.yaml"
                .to_owned(),
        );
    } else if is_placeholder(text) {
        findings.not_checked("keys that are placeholders: which key Kratos uses is not known");
        findings.warning(
            "key-placeholder",
            value,
            "this looks like a placeholder; Kratos fills in nothing, so another tool must replace it before Kratos reads the file"
                .to_owned(),
            format!("remove `value`, and give the key to Kratos in the environment variable {}", variable(value)),
        );
    } else if text == EXAMPLE_KEY && !is_for_development(context) {
        findings.problem(
            "key-of-example",
            value,
            "this key is in Vestibule's example, so it is public".to_owned(),
            "replace it with the output of `vestibule keygen`".to_owned(),
        );
    } else if !is_in_environment && !is_for_development(context) {
        findings.warning(
            "key-in-clear",
            value,
            "the key is readable in this file".to_owned(),
            format!(
                "remove `value`, and give the key to Kratos in the environment variable {}",
                variable(value)
            ),
        );
    }
}

/// Vestibule accepts only the keys of its settings.
fn check_is_known(context: &Context<'_>, value: &Node, text: &str, findings: &mut Findings) {
    let is_key = !text.is_empty() && text != NO_KEY && !is_placeholder(text);
    let Some(file) = context.settings.filter(|_| is_key) else {
        return;
    };
    let keys = &file.settings.hooks.keys;
    if keys.is_empty() || keys.iter().any(|key| key.matches(text.as_bytes())) {
        return;
    }
    if !file.has_all_keys {
        findings.not_checked(
            "whether the hooks send a key of `hooks.keys`: its environment variable or file is missing here",
        );
        return;
    }
    findings.problem(
        "key-unknown",
        value,
        "this key is not one of `hooks.keys` in the settings, so Vestibule rejects the call"
            .to_owned(),
        "write the same key here and under `hooks.keys` in vestibule.yaml".to_owned(),
    );
}

/// Returns the environment variable that sets a value.
fn variable(value: &Node) -> String {
    let name = value.path.replace('[', "_").replace(']', "");
    name.replace('.', "_").to_uppercase()
}

fn is_placeholder(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|letter| {
                letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_'
            })
    };
    text.contains("${")
        || text.contains("{{")
        || text.strip_prefix('$').is_some_and(is_name)
        || text.starts_with('<') && text.ends_with('>')
}

/// Returns whether this Kratos is for development: its own public URL is on this machine.
fn is_for_development(context: &Context<'_>) -> bool {
    let url = context
        .kratos
        .text_at(&["serve", "public", "base_url"])
        .unwrap_or_default();
    let host = url.split_once("://").map_or("", |(_, rest)| rest);
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|local| {
        host.strip_prefix(local)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    })
}
