//! The secrets of a settings file: which are written in clear, and which files hold others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::interpolation::{Part, parts};
use crate::config::tree::{Kind, Node, join};
use crate::outbound::services::IDEMPOTENCY_KEY;

/// Sections whose texts are secrets.
const SECRET_KEYS: [&str; 6] = ["keys", "token", "password", "value", "secret", "secrets"];

/// What a request header or parameter with a secret is called. Each is compared with the end of the name.
const SECRET_NAMES: [&str; 7] = [
    "authorization",
    "cookie",
    "token",
    "password",
    "secret",
    "signature",
    "-key",
];
/// Words before an inserted secret that are none.
const SCHEMES: [&str; 8] = [
    "bearer", "basic", "token", "digest", "apikey", "api", "key", "genie",
];
/// Marks an inserted value.
const INSERTED: char = '\0';

/// Returns the keys that lead to the first secret that is written in clear.
pub(super) fn clear_secret(root: Option<&Node>) -> Option<String> {
    let root = root?;
    let dsn = root.get("dsn").filter(|node| has_clear_password(node));
    if dsn.is_some() {
        return Some("dsn".to_owned());
    }
    let of_sections = ["hooks", "serve", "services", "kratos"]
        .into_iter()
        .find_map(|name| find_clear(root.get(name)?, name.to_owned(), false));
    of_sections.or_else(|| {
        ["checks", "subscriptions"]
            .into_iter()
            .find_map(|name| find_in_requests(root.get(name)?, name))
    })
}

fn find_clear(node: &Node, path: String, is_secret: bool) -> Option<String> {
    match &node.kind {
        Kind::Text { text, .. } if is_secret && is_clear(&written(text)) => Some(path),
        Kind::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_clear(item, format!("{path}[{index}]"), is_secret)),
        Kind::Map(entries) => entries.iter().find_map(|entry| {
            let is_header = path.ends_with(".headers") && is_secret_name(&entry.key);
            let named = SECRET_KEYS.contains(&entry.key.as_str()) || is_header;
            find_clear(&entry.value, join(&path, &entry.key), is_secret || named)
        }),
        _ => None,
    }
}

/// Checks and subscriptions hold values of visitors. Secrets are in headers, forms and queries of their requests.
fn find_in_requests(node: &Node, path: &str) -> Option<String> {
    match &node.kind {
        Kind::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_in_requests(item, &format!("{path}[{index}]"))),
        Kind::Map(entries) => entries.iter().find_map(|entry| {
            let path = join(path, &entry.key);
            match (&entry.value.kind, entry.key.as_str()) {
                (Kind::Text { text, .. }, "get" | "post" | "put" | "patch" | "delete") => {
                    has_secret_parameter(&written(text)).then_some(path)
                }
                (Kind::Map(values), "headers" | "query" | "form") => values
                    .iter()
                    .find(|value| is_secret_name(&value.key) && is_clear_template(&value.value))
                    .map(|value| join(&path, &value.key)),
                _ => find_in_requests(&entry.value, &path),
            }
        }),
        _ => None,
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase().replace('_', "-");
    let is_secret = |ending: &&str| name.ends_with(*ending);
    name == "apikey" || name != IDEMPOTENCY_KEY && SECRET_NAMES.iter().any(is_secret)
}

fn is_clear_template(node: &Node) -> bool {
    match &node.kind {
        Kind::Text { text, .. } => is_clear(&without_expressions(&written(text))),
        Kind::Number(..) => true,
        _ => false,
    }
}

/// `/path?token=secret`
fn has_secret_parameter(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or_default();
        is_secret_name(name) && is_clear(&without_expressions(value))
    })
}

/// Returns what the operator wrote: defaults in place of variables, and [`INSERTED`] for what comes from elsewhere.
fn written(text: &str) -> String {
    let mut result = String::new();
    for part in parts(text) {
        match part {
            Part::Text(text) => result.push_str(&text),
            Part::Variable(inside, _) => match inside.split_once(":-") {
                Some((_, default)) if !default.is_empty() => result.push_str(default),
                _ => result.push(INSERTED),
            },
            Part::Unclosed(_) => {}
        }
    }
    result
}

/// Replaces each `{expression}` by [`INSERTED`].
fn without_expressions(text: &str) -> String {
    let text = text.replace("{{", "").replace("}}", "");
    let mut parts = text.split('{');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        result.push(INSERTED);
        result.push_str(part.split_once('}').map_or("", |(_, rest)| rest));
    }
    result
}

/// Returns whether a text is a secret, or has a part of one beside inserted values.
fn is_clear(written: &str) -> bool {
    if !written.contains(INSERTED) {
        return !written.trim().is_empty();
    }
    let words = written.split(|character: char| !character.is_alphanumeric());
    let mut words = words.filter(|word| !word.is_empty());
    words.any(|word| !SCHEMES.contains(&word.to_lowercase().as_str()))
}

/// `postgres://user:password@host/database?password=password`
fn has_clear_password(node: &Node) -> bool {
    let Kind::Text { text, .. } = &node.kind else {
        return false;
    };
    let dsn = written(text);
    let rest = dsn.split_once("://").map_or("", |(_, rest)| rest);
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let password = user.split_once(':').map_or("", |(_, password)| password);
    let mut parameters = query.split('&').filter_map(|pair| pair.split_once('='));
    is_clear(password) || parameters.any(|(name, value)| is_secret_name(name) && is_clear(value))
}

/// Returns the files that `${file:…}` names, in order.
pub(super) fn secret_files(root: Option<&Node>) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    if let Some(root) = root {
        collect_files(root, &mut files);
    }
    files
}

fn collect_files(node: &Node, files: &mut BTreeSet<PathBuf>) {
    match &node.kind {
        Kind::Text { text, .. } => {
            let named = parts(text).into_iter().filter_map(|part| match part {
                Part::Variable(inside, _) => inside.strip_prefix("file:").map(PathBuf::from),
                _ => None,
            });
            files.extend(named);
        }
        Kind::List(items) => items.iter().for_each(|item| collect_files(item, files)),
        Kind::Map(entries) => {
            for entry in entries {
                collect_files(&entry.value, files);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    /// Asserts where the first secret in clear of each text is.
    fn assert_found(cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            let root = tree::read(text, &mut Vec::new());
            assert_eq!(clear_secret(root.as_ref()).as_deref(), *expected, "{text}");
        }
    }

    #[test]
    fn a_secret_in_clear_is_found_and_an_inserted_one_is_not() {
        assert_found(&[
            ("hooks: {keys: [abc]}", Some("hooks.keys[0]")),
            ("hooks: {keys: [\"${env:KEY}\"]}", None),
            ("hooks: {headers: [X-Country]}", None),
            ("serve: {admin: {token: abc}}", Some("serve.admin.token")),
            (
                "services: {crm: {auth: {type: bearer, config: {token: abc}}}}",
                Some("services.crm.auth.config.token"),
            ),
            (
                "services: {crm: {auth: {type: basic_auth, config: {user: u, password: \"${file:/p}\"}}}}",
                None,
            ),
            (
                "services: {crm: {headers: {Accept: application/json, X-Key: abc}}}",
                Some("services.crm.headers.X-Key"),
            ),
            (
                "services: {crm: {sign: {secret: w}}}",
                Some("services.crm.sign.secret"),
            ),
            ("services: {crm: {url: \"http://crm\"}}", None),
        ]);
    }

    #[test]
    fn a_password_of_the_database_in_clear_is_found() {
        assert_found(&[
            ("dsn: \"postgres://u:p@h/d\"", Some("dsn")),
            ("dsn: \"postgres://u:${env:P}@h/d\"", None),
            ("dsn: \"postgres://u@h/d\"", None),
            ("dsn: \"sqlite:///v.db\"", None),
            ("dsn: \"postgres://${env:U}@h/d\"", None),
            ("dsn: \"postgres://u@h/d?password=p\"", Some("dsn")),
            ("dsn: \"postgres://u@h/d?password=${env:P}\"", None),
            ("dsn: \"postgres://u@h/d?sslmode=require\"", None),
            ("dsn: \"${env:DSN:-postgres://u:p@h/d}\"", Some("dsn")),
            ("dsn: \"${env:DSN}\"", None),
        ]);
    }

    #[test]
    fn a_default_and_what_is_beside_an_inserted_value_are_in_clear() {
        assert_found(&[
            (
                "hooks: {keys: [\"${env:KEY:-clear-secret}\"]}",
                Some("hooks.keys[0]"),
            ),
            ("hooks: {keys: [\"${env:KEY:-}\"]}", None),
            (
                "hooks: {keys: [\"${env:HOME}clear\"]}",
                Some("hooks.keys[0]"),
            ),
            ("hooks: {keys: [\"$${env}\"]}", Some("hooks.keys[0]")),
            (
                "services: {crm: {headers: {Authorization: \"Bearer ${env:T}\"}}}",
                None,
            ),
        ]);
    }

    #[test]
    fn a_secret_of_a_request_is_found_by_the_name_of_its_header_or_parameter() {
        assert_found(&[
            ("checks: {a: {ask: {headers: {A: b}}}}", None),
            (
                "checks: {a: {ask: {headers: {Authorization: Bearer abc}}}}",
                Some("checks.a.ask.headers.Authorization"),
            ),
            (
                "checks: {a: {ask: {headers: {Authorization: \"Bearer ${env:T}\"}}}}",
                None,
            ),
            (
                "checks: {a: {ask: {headers: {X-Token: \"{value}\"}}}}",
                None,
            ),
            (
                "checks: {a: {ask: {query: {api_key: abc}}}}",
                Some("checks.a.ask.query.api_key"),
            ),
            (
                "checks: {a: {ask: {get: \"http://s/{value}?token=abc\"}}}",
                Some("checks.a.ask.get"),
            ),
            (
                "checks: {a: {ask: {get: \"http://s/?token=${env:T}&a=b\"}}}",
                None,
            ),
            (
                "subscriptions: {a: {send: {headers: {X-Api-Key: abc}}}}",
                Some("subscriptions.a.send.headers.X-Api-Key"),
            ),
            (
                "subscriptions: {a: {send: {headers: {Content-Type: text/plain}}}}",
                None,
            ),
        ]);
    }

    #[test]
    fn the_files_of_inserted_values_are_found() {
        let text = "hooks: {keys: [\"${file:/run/a}\", \"x${file:/run/b}y${file:/run/a}\"]}";
        let root = tree::read(text, &mut Vec::new());
        let files: Vec<PathBuf> = secret_files(root.as_ref()).into_iter().collect();
        assert_eq!(files, [PathBuf::from("/run/a"), PathBuf::from("/run/b")]);
    }
}
