//! The right form of a value that has the wrong type or place, as text that can be copied.

use serde_json::Value;

use super::tree::{Entry, Kind, Node, plain};
use crate::base::diagnostics::quoted;

/// The maximum length of a value in a hint. Longer values are shortened.
const MAX_LENGTH: usize = 100;

/// Sections whose entries have names.
const NAMED: [(&str, &str); 5] = [
    ("checks", "vat_number"),
    ("lists", "throwaway"),
    ("messages", "vat_unknown"),
    ("services", "crm"),
    ("subscriptions", "crm_contact"),
];

/// Sections of names and values.
const PAIRS: [&str; 5] = ["form", "headers", "query", "set", "write_back"];

/// Requests, with the method that a request of this key usually has.
const REQUESTS: [(&str, &str); 5] = [
    ("ask", "get"),
    ("confirm", "post"),
    ("release", "delete"),
    ("send", "post"),
    ("take", "post"),
];

/// Other names of the types of `auth`.
const AUTH_ALIASES: [(&str, &str); 8] = [
    ("api-key", "api_key"),
    ("basic", "basic_auth"),
    ("basic-auth", "basic_auth"),
    ("header", "api_key"),
    ("jwt", "bearer"),
    ("key", "api_key"),
    ("password", "basic_auth"),
    ("token", "bearer"),
];

/// Returns the right form of a value with the wrong type. `types` are the expected types of the JSON Schema.
pub(super) fn of_wrong_type(
    node: &Node,
    schema: &Value,
    types: &[&str],
    path: &str,
) -> Option<String> {
    if node.written.is_some() {
        return None;
    }
    let wants = |name: &str| types.contains(&name);
    let key = last_key(path);
    match &node.kind {
        Kind::List(items) if wants("object") => list_for_section(items, path, key),
        Kind::Number(_, written) if schema["format"] == "expression" => {
            Some(number_for_expression(written, path))
        }
        Kind::Number(_, written) if wants("object") => number_for_section(written, path, key),
        Kind::Text { text, .. } if wants("object") && !wants("string") && !wants("array") => {
            text_for_section(text, path, key)
        }
        Kind::Text { text, .. } if wants("array") && key == "refuse" => {
            Some(format!("write `refuse: [{{when: {}}}]`", quoted(text)))
        }
        Kind::Number(_, written) if wants("array") && key == "refuse" => {
            Some(format!("write `refuse: [{{when: {written}}}]`"))
        }
        Kind::Text { text, .. } if wants("array") && is_every(text) => match key {
            "events" => Some(
                "name each event, as in `events: [identity.created, identity.updated]`".to_owned(),
            ),
            "flows" => Some("write `flows: [registration, settings]`".to_owned()),
            _ => None,
        },
        Kind::Map(_) | Kind::Text { .. } | Kind::Number(..) if wants("array") => Some(format!(
            "put it in brackets: `{key}: {}`",
            in_brackets(node)
        )),
        _ => scalar(node, types),
    }
}

/// Returns whether a word stands for every entry of a list.
fn is_every(text: &str) -> bool {
    ["*", "all", "any", "both"].contains(&text)
}

/// Returns the right form of a text, a number or a boolean that has the wrong type.
fn scalar(node: &Node, types: &[&str]) -> Option<String> {
    let wants = |name: &str| types.contains(&name);
    let wants_text = wants("string") && !wants("integer");
    match &node.kind {
        Kind::Map(entries)
            if wants("string")
                && entries
                    .iter()
                    .all(|entry| matches!(entry.value.kind, Kind::Null)) =>
        {
            let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            Some(format!(
                "quote a value that begins with `{{`: {}",
                quoted(&format!("{{{}}}", keys.join(", ")))
            ))
        }
        Kind::Number(_, written) if wants_text => Some(format!("quote it: \"{written}\"")),
        Kind::Bool(truth) if wants_text => Some(format!("quote it: \"{truth}\"")),
        Kind::Text { text, quoted: true }
            if matches!((plain(text), wants("boolean")), (Kind::Bool(_), true))
                || matches!((plain(text), wants("integer")), (Kind::Number(..), true)) =>
        {
            Some(format!("remove the quotes: {text}"))
        }
        Kind::Text { text, .. }
            if wants("boolean") && ["yes", "no", "on", "off"].contains(&text.as_str()) =>
        {
            Some("write `true` or `false`".to_owned())
        }
        _ => None,
    }
}

fn list_for_section(items: &[Node], path: &str, key: &str) -> Option<String> {
    if let Some((_, example)) = NAMED.iter().find(|(section, _)| *section == path) {
        let entries: Vec<String> = items
            .iter()
            .map(|item| named_entry(item, example))
            .collect();
        let written = shortened(&entries, &format!("{example}: {{…}}"));
        return Some(format!(
            "write each entry under its name: `{key}: {{{written}}}`"
        ));
    }
    if key == "identity_schemas" {
        return Some(schemas_by_id(items));
    }
    if PAIRS.contains(&key) {
        let pairs: Vec<String> = items
            .iter()
            .flat_map(Node::entries)
            .map(|entry| format!("{}: {}", entry.key, flow(&entry.value)))
            .collect();
        let written = shortened(&pairs, "name: …");
        return Some(format!("write names and values: `{key}: {{{written}}}`"));
    }
    match items {
        [
            only @ Node {
                kind: Kind::Map(_), ..
            },
        ] => Some(format!(
            "remove the brackets or the `-`: `{key}: {}`",
            shortened(&[flow(only)], "{…}")
        )),
        _ => None,
    }
}

/// Returns the list of identity schemas in kratos.yml as a section.
fn schemas_by_id(items: &[Node]) -> String {
    let text = |item: &Node, key: &str| {
        let value = item.get(key)?.to_value();
        value.as_str().map(scalar_text)
    };
    let pairs: Vec<String> = items
        .iter()
        .filter_map(|item| Some(format!("{}: {}", text(item, "id")?, text(item, "url")?)))
        .collect();
    let example = "default: \"file://identity.schema.json\"";
    let written = shortened(&pairs, example);
    let written = if written.is_empty() {
        example
    } else {
        &written
    };
    format!("write each schema under its id: `identity_schemas: {{{written}}}`")
}

/// Returns an item of a list as an entry with its name: the value of its key `name` or `id`.
fn named_entry(item: &Node, example: &str) -> String {
    if let Kind::Text { text, .. } = &item.kind {
        return format!("{text}: {{…}}");
    }
    let name = ["name", "id"].into_iter().find_map(|key| {
        let node = item.get(key)?;
        matches!(&node.kind, Kind::Text { .. })
            .then(|| node.to_value().as_str().map(ToOwned::to_owned))
            .flatten()
            .map(|name| (key, name))
    });
    let rest: Vec<&Entry> = item
        .entries()
        .iter()
        .filter(|entry| name.as_ref().is_none_or(|(key, _)| entry.key != *key))
        .collect();
    let name = name.map_or_else(|| example.to_owned(), |(_, name)| name);
    format!("{name}: {}", section(&rest))
}

fn number_for_expression(written: &str, path: &str) -> String {
    let is_status = written
        .parse()
        .is_ok_and(|status: u16| (100..=599).contains(&status));
    let parts: Vec<&str> = path.split('.').collect();
    match parts.as_slice() {
        ["checks", _, "when"] if is_status => format!(
            "`when` decides whether the check runs; write a status as `refuse: [{{when: {written}}}]`"
        ),
        ["subscriptions", _, "success_when" | "abandon_when"]
        | ["checks", _, "on_unavailable", "when"]
            if is_status =>
        {
            format!("write `{}: response.status == {written}`", last_key(path))
        }
        ["subscriptions", _, "when"] => {
            "write a condition, as in `when: has(identity.traits.company)`".to_owned()
        }
        _ => format!("quote it: \"{written}\""),
    }
}

fn number_for_section(written: &str, path: &str, key: &str) -> Option<String> {
    match path {
        "serve" => Some(format!("write `serve: {{hooks: {{port: {written}}}}}`")),
        "serve.hooks" | "serve.admin" => Some(format!("write `{key}: {{port: {written}}}`")),
        _ if key.starts_with("refuse[") => Some(format!("write `refuse: [{{when: {written}}}]`")),
        _ => None,
    }
}

fn text_for_section(text: &str, path: &str, key: &str) -> Option<String> {
    if let Some((_, method)) = REQUESTS.iter().find(|(request, _)| *request == key) {
        return Some(format!(
            "write `{key}: {{{method}: {}}}`",
            scalar_text(text)
        ));
    }
    if matches!(path, "serve.hooks" | "serve.admin") {
        let (host, port) = text.rsplit_once(':')?;
        return Some(format!("write `{key}: {{host: \"{host}\", port: {port}}}`"));
    }
    if key.starts_with("refuse[") {
        return Some(
            "write `refuse: [{when: \"…\", message: \"…\"}]`, with a condition or a status"
                .to_owned(),
        );
    }
    match key {
        "client_ip" => Some(format!(
            "write `client_ip: {{header: {}}}`",
            scalar_text(text)
        )),
        "auth" => Some(auth_form(auth_alias(text).unwrap_or("bearer"))),
        "reserve" => Some(format!(
            "write `reserve: {{take: {{post: {}}}, release: {{delete: \"…\"}}}}`",
            scalar_text(text)
        )),
        "sign" => Some("write `sign: {secret: \"${env:CRM_SIGNING_SECRET}\"}`".to_owned()),
        "retry" => Some("write `retry: {initial_interval: 5s, max_elapsed: 8d}`".to_owned()),
        _ => match path.split_once('.') {
            Some(("services", name)) if !name.contains('.') => {
                Some(format!("write `{name}: {{url: {}}}`", scalar_text(text)))
            }
            _ => None,
        },
    }
}

/// Returns the type of `auth` that another name means.
pub(super) fn auth_alias(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    let first = text.split_whitespace().next().unwrap_or_default();
    let known = ["api_key", "basic_auth", "bearer"];
    known.into_iter().find(|name| *name == first).or_else(|| {
        AUTH_ALIASES
            .iter()
            .find(|(alias, _)| *alias == first)
            .map(|(_, name)| *name)
    })
}

/// Returns the type of `auth` that the keys of a section belong to.
pub(super) fn auth_type_of(entries: &[Entry]) -> Option<&'static str> {
    entries.iter().find_map(|entry| match entry.key.as_str() {
        "token" => Some("bearer"),
        "user" | "username" | "password" => Some("basic_auth"),
        "in" | "name" | "value" => Some("api_key"),
        key => auth_alias(key),
    })
}

/// Returns `auth` of this type as it is written. The credentials are left out, because they are secrets.
pub(super) fn auth_form(kind: &str) -> String {
    let config = match kind {
        "basic_auth" => "user: …, password: \"${env:PASSWORD}\"",
        "api_key" => "name: …, value: \"${env:API_KEY}\", in: header",
        _ => "token: \"${env:TOKEN}\"",
    };
    format!("write `auth: {{type: {kind}, config: {{{config}}}}}`")
}

/// Returns a value in one line of YAML.
fn flow(node: &Node) -> String {
    if let Some(written) = &node.written {
        return scalar_text(written);
    }
    match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Bool(truth) => truth.to_string(),
        Kind::Number(_, written) => written.clone(),
        Kind::Text { text, .. } => scalar_text(text),
        Kind::List(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Kind::Map(entries) => section(&entries.iter().collect::<Vec<_>>()),
    }
}

fn section(entries: &[&Entry]) -> String {
    let pairs: Vec<String> = entries
        .iter()
        .map(|entry| format!("{}: {}", entry.key, flow(&entry.value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Returns the items of a list in brackets. A text with commas has several items.
fn in_brackets(node: &Node) -> String {
    let items: Vec<String> = match &node.kind {
        Kind::Text { text, .. } if text.contains(", ") => text
            .split(',')
            .map(|item| scalar_text(item.trim()))
            .collect(),
        _ => vec![flow(node)],
    };
    format!("[{}]", shortened(&items, "…"))
}

fn shortened(items: &[String], instead: &str) -> String {
    let joined = items.join(", ");
    if joined.chars().count() <= MAX_LENGTH && !joined.contains('\n') {
        joined
    } else {
        instead.to_owned()
    }
}

/// Quotes a text if YAML would read it as something else.
fn scalar_text(text: &str) -> String {
    let is_plain = |character: char| character.is_alphanumeric() || "_-./".contains(character);
    let begins = text.starts_with(|first: char| first.is_alphanumeric());
    let stays_text = matches!(plain(text), Kind::Text { .. });
    if begins && stays_text && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Returns the last key of a path, with its index.
fn last_key(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// Other words for a choice.
const CHOICE_ALIASES: [(&str, &[&str]); 3] = [
    (
        "accept",
        &["admit", "allow", "continue", "ignore", "open", "pass"],
    ),
    ("defer", &["later", "postpone", "retry"]),
    (
        "refuse",
        &["abort", "block", "closed", "deny", "fail", "reject"],
    ),
];

/// Returns the choice that another word means, or of which it is the last part: `identity.created` for `created`.
pub(super) fn choice(text: &str, names: &[&str]) -> Option<String> {
    let alias = CHOICE_ALIASES
        .iter()
        .find(|(name, aliases)| names.contains(name) && aliases.contains(&text))
        .map(|(name, _)| *name);
    let is_end = |name: &&&str| name.ends_with(&format!(".{text}"));
    let meant = alias.or_else(|| names.iter().find(is_end).copied());
    meant.map(|name| format!("write `{name}`"))
}
