//! The secrets of a settings file: which are written in clear, and which files hold others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::config::tree::{Kind, Node, join};

/// Sections whose texts are secrets.
const SECRET_KEYS: [&str; 7] = [
    "keys", "token", "password", "value", "secret", "secrets", "headers",
];

/// Returns the keys that lead to the first secret that is written in clear.
pub(super) fn clear_secret(root: Option<&Node>) -> Option<String> {
    let root = root?;
    let dsn = root.get("dsn").filter(|node| has_clear_password(node));
    if dsn.is_some() {
        return Some("dsn".to_owned());
    }
    ["hooks", "serve", "services", "kratos"]
        .into_iter()
        .find_map(|name| {
            let is_secret = false;
            find_clear(root.get(name)?, name.to_owned(), is_secret)
        })
}

/// Checks, subscriptions and messages hold values of visitors, and no secrets.
fn find_clear(node: &Node, path: String, is_secret: bool) -> Option<String> {
    match &node.kind {
        Kind::Text { text, .. } if is_secret && is_clear(text) => Some(path),
        Kind::List(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_clear(item, format!("{path}[{index}]"), is_secret)),
        Kind::Map(entries) => entries.iter().find_map(|entry| {
            // The names of request headers that expressions read are no secrets.
            let is_list_of_names = path == "hooks" && entry.key == "headers";
            let named = SECRET_KEYS.contains(&entry.key.as_str()) && !is_list_of_names;
            find_clear(&entry.value, join(&path, &entry.key), is_secret || named)
        }),
        _ => None,
    }
}

fn is_clear(text: &str) -> bool {
    !text.is_empty() && !text.contains("${")
}

/// `postgres://user:password@host/database`
fn has_clear_password(node: &Node) -> bool {
    let Kind::Text { text, .. } = &node.kind else {
        return false;
    };
    let authority = text.split_once("://").map_or("", |(_, rest)| rest);
    let password = authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':'));
    password.is_some_and(|(_, password)| is_clear(password))
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
            let inserted = text.split("${file:").skip(1);
            let paths = inserted.filter_map(|rest| rest.split('}').next());
            files.extend(paths.map(PathBuf::from));
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

    #[test]
    fn a_secret_in_clear_is_found_and_an_inserted_one_is_not() {
        for (text, expected) in [
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
                "services: {crm: {headers: {X-Key: abc}}}",
                Some("services.crm.headers.X-Key"),
            ),
            (
                "services: {crm: {sign: {secret: w}}}",
                Some("services.crm.sign.secret"),
            ),
            ("services: {crm: {url: \"http://crm\"}}", None),
            ("dsn: \"postgres://u:p@h/d\"", Some("dsn")),
            ("dsn: \"postgres://u:${env:P}@h/d\"", None),
            ("dsn: \"postgres://u@h/d\"", None),
            ("dsn: \"sqlite:///v.db\"", None),
            ("checks: {a: {ask: {headers: {A: b}}}}", None),
        ] {
            let root = tree::read(text, &mut Vec::new());
            assert_eq!(clear_secret(root.as_ref()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_files_of_inserted_values_are_found() {
        let text = "hooks: {keys: [\"${file:/run/a}\", \"x${file:/run/b}y${file:/run/a}\"]}";
        let root = tree::read(text, &mut Vec::new());
        let files: Vec<PathBuf> = secret_files(root.as_ref()).into_iter().collect();
        assert_eq!(files, [PathBuf::from("/run/a"), PathBuf::from("/run/b")]);
    }
}
