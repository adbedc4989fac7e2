//! Reports old names in a settings file, each with its new name. Reads the values under the new names, so that one run
//! of `vestibule validate` finds every problem.

use super::tree::{Entry, Kind, Node, join};
use crate::base::diagnostics::{Position, Problem};

/// Old and new names of the sections.
const SECTIONS: [(&str, &str); 1] = [("deliveries", "subscriptions")];
/// Old and new names of the keys of a check.
const CHECK: [(&str, &str); 3] = [
    ("invalid", "invalid_message"),
    ("unavailable", "on_unavailable"),
    ("late_refusal", "on_late_refusal"),
];
/// Old and new names of the keys of a subscription.
const SUBSCRIPTION: [(&str, &str); 3] = [
    ("delivered", "success_when"),
    ("give_up", "abandon_when"),
    ("save", "write_back"),
];
/// Old and new names of the keys of `retry`.
const RETRY: [(&str, &str); 2] = [
    ("first_pause", "initial_interval"),
    ("longest_pause", "max_interval"),
];

/// Gives every old key and value its new name, and returns a problem for each. The paths of the problems are as the
/// operator wrote them.
pub(super) fn rename(root: &mut Node) -> Vec<Problem> {
    let mut renamer = Renamer::default();
    for section in entries(root) {
        let path = section.key.as_str();
        match path {
            "hooks" => renamer.client_ip(&mut section.value, path),
            "log" => renamer.value(&mut section.value, path, "format", ("human", "text")),
            "checks" => {
                for check in entries(&mut section.value) {
                    let path = join(path, &check.key);
                    renamer.keys(&mut check.value, &path, &CHECK);
                }
            }
            "deliveries" | "subscriptions" => {
                for subscription in entries(&mut section.value) {
                    let path = join(path, &subscription.key);
                    renamer.subscription(&mut subscription.value, &path);
                }
            }
            _ => {}
        }
    }
    renamer.keys(root, "", &SECTIONS);
    renamer.problems
}

#[derive(Default)]
struct Renamer {
    problems: Vec<Problem>,
}

impl Renamer {
    fn subscription(&mut self, node: &mut Node, path: &str) {
        self.keys(node, path, &SUBSCRIPTION);
        for entry in entries(node)
            .iter_mut()
            .filter(|entry| entry.key == "retry")
        {
            self.keys(&mut entry.value, &join(path, "retry"), &RETRY);
        }
        let Some(old) = take(node, "keep_trying_for") else {
            return;
        };
        let new = format!("max_elapsed: {}", written(&old.value));
        let help = if node.get("retry").is_some() {
            format!("add `{new}` to `retry`")
        } else {
            format!("write `retry: {{{new}}}`")
        };
        self.report(path, &old, "retry.max_elapsed", help);
        let at = old.at;
        let max_elapsed = Entry {
            key: "max_elapsed".to_owned(),
            ..old
        };
        put(
            node,
            "retry",
            at,
            Node::new(at, Kind::Map(vec![max_elapsed])),
        );
    }

    fn client_ip(&mut self, node: &mut Node, path: &str) {
        let Some(old) = take(node, "client_ip_header") else {
            return;
        };
        let help = format!("write `client_ip: {{header: {}}}`", written(&old.value));
        self.report(path, &old, "client_ip.header", help);
        let at = old.at;
        let header = Entry {
            key: "header".to_owned(),
            ..old
        };
        put(
            node,
            "client_ip",
            at,
            Node::new(at, Kind::Map(vec![header])),
        );
    }

    fn keys(&mut self, node: &mut Node, path: &str, names: &[(&str, &str)]) {
        for (old, new) in names {
            if let Some(entry) = take(node, old) {
                self.report(path, &entry, new, format!("write `{new}`"));
                put(node, new, entry.at, entry.value);
            }
        }
    }

    fn value(&mut self, node: &mut Node, path: &str, key: &str, (old, new): (&str, &str)) {
        for entry in entries(node).iter_mut().filter(|entry| entry.key == key) {
            if let Kind::Text { text, .. } = &mut entry.value.kind
                && text == old
            {
                new.clone_into(text);
                let message = format!("`{old}` is now `{new}`");
                self.problems.push(
                    Problem::new(join(path, key), entry.value.at, message)
                        .with_hint(Some(format!("write `{new}`"))),
                );
            }
        }
    }

    fn report(&mut self, path: &str, entry: &Entry, new: &str, help: String) {
        let message = format!("`{}` is now `{new}`", entry.key);
        self.problems
            .push(Problem::new(join(path, &entry.key), entry.at, message).with_hint(Some(help)));
    }
}

fn entries(node: &mut Node) -> &mut [Entry] {
    match &mut node.kind {
        Kind::Map(entries) => entries,
        _ => &mut [],
    }
}

/// Removes the entry with this key.
fn take(node: &mut Node, key: &str) -> Option<Entry> {
    let Kind::Map(entries) = &mut node.kind else {
        return None;
    };
    let index = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(index))
}

/// Adds a value under this key. If the key exists, sections are merged, and the existing value wins.
fn put(node: &mut Node, key: &str, at: Position, value: Node) {
    let Kind::Map(entries) = &mut node.kind else {
        return;
    };
    let Some(existing) = entries.iter_mut().find(|entry| entry.key == key) else {
        entries.push(Entry {
            key: key.to_owned(),
            at,
            value,
        });
        return;
    };
    match (&mut existing.value.kind, value.kind) {
        (Kind::Map(existing), Kind::Map(others)) => {
            for other in others {
                if existing.iter().all(|entry| entry.key != other.key) {
                    existing.push(other);
                }
            }
        }
        (existing @ Kind::Null, kind) => *existing = kind,
        _ => {}
    }
}

/// Returns a scalar as the operator wrote it.
fn written(node: &Node) -> &str {
    match &node.kind {
        Kind::Text { text, .. } | Kind::Number(_, text) => text,
        _ => "…",
    }
}
