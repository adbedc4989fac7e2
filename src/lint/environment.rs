//! Environment variables that override kratos.yml: the keys in capitals, joined with `_`, and list positions.

use super::document::{Kind, Node, Place};
use crate::base::diagnostics::Position;
use crate::config::tree::join;

/// The keys below a value that `lint` reads.
enum Shape {
    Value,
    Keys(&'static [(&'static str, Shape)]),
    List(&'static Shape),
}

use Shape::{Keys, List, Value};

const HOOK: Shape = Keys(&[
    ("hook", Value),
    (
        "config",
        Keys(&[
            ("url", Value),
            ("method", Value),
            ("body", Value),
            ("can_interrupt", Value),
            ("emit_analytics_event", Value),
            ("response", Keys(&[("ignore", Value), ("parse", Value)])),
            (
                "auth",
                Keys(&[
                    ("type", Value),
                    (
                        "config",
                        Keys(&[
                            ("name", Value),
                            ("value", Value),
                            ("in", Value),
                            ("user", Value),
                            ("password", Value),
                        ]),
                    ),
                ]),
            ),
        ]),
    ),
]);
const HOOKS: Shape = Keys(&[("hooks", List(&HOOK))]);
const AFTER: Shape = Keys(&[
    ("hooks", List(&HOOK)),
    ("profile", HOOKS),
    ("password", HOOKS),
    ("oidc", HOOKS),
    ("code", HOOKS),
    ("passkey", HOOKS),
    ("webauthn", HOOKS),
    ("totp", HOOKS),
    ("lookup_secret", HOOKS),
]);
const FLOW: Shape = Keys(&[
    ("enabled", Value),
    ("style", Value),
    ("before", HOOKS),
    ("after", AFTER),
]);
const METHOD: Shape = Keys(&[
    ("enabled", Value),
    ("passwordless_enabled", Value),
    ("config", Keys(&[("passwordless", Value)])),
]);
const ROOT: Shape = Keys(&[
    ("version", Value),
    (
        "selfservice",
        Keys(&[
            (
                "flows",
                Keys(&[
                    ("registration", FLOW),
                    ("login", FLOW),
                    ("settings", FLOW),
                    ("recovery", FLOW),
                    ("verification", FLOW),
                ]),
            ),
            (
                "methods",
                Keys(&[
                    ("password", METHOD),
                    ("oidc", METHOD),
                    ("code", METHOD),
                    ("passkey", METHOD),
                    ("webauthn", METHOD),
                    ("totp", METHOD),
                    ("lookup_secret", METHOD),
                ]),
            ),
        ]),
    ),
    ("serve", Keys(&[("public", Keys(&[("base_url", Value)]))])),
    (
        "clients",
        Keys(&[("web_hook", Keys(&[("header_allowlist", List(&Value))]))]),
    ),
    (
        "identity",
        Keys(&[("schemas", List(&Keys(&[("id", Value), ("url", Value)])))]),
    ),
]);

/// Returns whether a rule depends on a variable. `lint` reports those that it cannot apply.
fn is_relevant(name: &str) -> bool {
    let starts = |start: &str| name.starts_with(start);
    starts("SELFSERVICE_FLOWS_") && name.contains("_HOOKS")
        || starts("CLIENTS_WEB_HOOK_")
        || starts("IDENTITY_SCHEMAS")
        || starts("SESSION_WHOAMI_TOKENIZER")
}

/// A step to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(&'static str),
    Index(usize),
}

/// Puts the variables of a file over the tree. Returns the names of those that concern a rule and cannot be applied.
pub fn apply(root: &mut Node, file: usize, text: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((name, value)) = variable(line) else {
            continue;
        };
        let at = Position {
            line: number + 1,
            column: 1,
        };
        match steps(&ROOT, name) {
            Some(steps) => set(root, &steps, value, Place { file, at }),
            None if is_relevant(name) => {
                unknown.push(name.to_owned());
            }
            None => {}
        }
    }
    unknown
}

/// Returns the name and the value of a line, without quotes.
fn variable(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    let value = inside('"').or_else(|| inside('\'')).unwrap_or(value);
    Some((name.trim(), value))
}

/// Returns the steps that a name stands for. A key can contain `_` itself, so every key that fits is tried.
fn steps(shape: &Shape, name: &str) -> Option<Vec<Step>> {
    let then = |step: Step, shape: &Shape, rest: &str| {
        let mut all = vec![step];
        match rest.strip_prefix('_') {
            Some(rest) => all.extend(steps(shape, rest)?),
            None if rest.is_empty() && matches!(shape, Value) => {}
            None => return None,
        }
        Some(all)
    };
    match shape {
        Value => None,
        Keys(keys) => keys.iter().find_map(|(key, inner)| {
            let rest = name.strip_prefix(key.to_uppercase().as_str())?;
            then(Step::Key(key), inner, rest)
        }),
        List(inner) => {
            let digits = name
                .find(|letter: char| !letter.is_ascii_digit())
                .unwrap_or(name.len());
            let index = name[..digits].parse().ok()?;
            then(Step::Index(index), inner, &name[digits..])
        }
    }
}

/// The longest list that a variable can make.
const MAX_INDEX: usize = 100;

fn set(node: &mut Node, steps: &[Step], value: &str, place: Place) {
    let Some((step, rest)) = steps.split_first() else {
        node.place = place;
        node.kind = match value {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ => Kind::Text(value.to_owned()),
        };
        return;
    };
    let inner = match step {
        Step::Key(key) => member(node, key, place),
        Step::Index(index) => entry(node, *index, place),
    };
    if let Some(inner) = inner {
        set(inner, rest, value, place);
    }
}

fn nothing(path: String, place: Place) -> Node {
    Node {
        path,
        place,
        kind: Kind::Null,
    }
}

/// Returns the value of a key, which is added if it is missing.
fn member<'n>(node: &'n mut Node, key: &str, place: Place) -> Option<&'n mut Node> {
    let path = join(&node.path, key);
    if !matches!(node.kind, Kind::Map(_)) {
        node.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(entries) = &mut node.kind else {
        return None;
    };
    let index = entries.iter().position(|(name, _)| name == key);
    let index = index.unwrap_or_else(|| {
        entries.push((key.to_owned(), nothing(path, place)));
        entries.len() - 1
    });
    entries.get_mut(index).map(|(_, value)| value)
}

/// Returns an entry of a list, which is made long enough.
fn entry(node: &mut Node, index: usize, place: Place) -> Option<&mut Node> {
    if !matches!(node.kind, Kind::List(_)) {
        node.kind = Kind::List(Vec::new());
    }
    let Kind::List(items) = &mut node.kind else {
        return None;
    };
    while items.len() <= index.min(MAX_INDEX) {
        let path = format!("{}[{}]", node.path, items.len());
        items.push(nothing(path, place));
    }
    items.get_mut(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    #[test]
    fn a_variable_names_keys_with_underscores_and_list_positions() {
        for (name, expected) in [
            (
                "SELFSERVICE_METHODS_CODE_ENABLED",
                "selfservice.methods.code.enabled",
            ),
            (
                "SELFSERVICE_FLOWS_SETTINGS_AFTER_LOOKUP_SECRET_HOOKS_1_CONFIG_AUTH_CONFIG_VALUE",
                "selfservice.flows.settings.after.lookup_secret.hooks.1.config.auth.config.value",
            ),
            (
                "SELFSERVICE_FLOWS_LOGIN_AFTER_HOOKS_12_CONFIG_CAN_INTERRUPT",
                "selfservice.flows.login.after.hooks.12.config.can_interrupt",
            ),
            (
                "CLIENTS_WEB_HOOK_HEADER_ALLOWLIST_0",
                "clients.web_hook.header_allowlist.0",
            ),
            ("SELFSERVICE_FLOWS_LOGIN_AFTER_HOOKS", ""),
            ("SELFSERVICE_FLOWS_LOGIN_AFTER_HOOKS_X", ""),
            ("DSN", ""),
        ] {
            let found = steps(&ROOT, name).unwrap_or_default();
            let names: Vec<String> = found
                .iter()
                .map(|step| match step {
                    Step::Key(key) => (*key).to_owned(),
                    Step::Index(index) => index.to_string(),
                })
                .collect();
            assert_eq!(names.join("."), expected, "{name}");
        }
    }

    #[test]
    fn variables_override_and_extend_the_file() {
        let mut problems = Vec::new();
        let text = "selfservice: {methods: {code: {enabled: true}}}\nclients: {web_hook: {header_allowlist: [A, B]}}\n";
        let mut node = Node::of_file(0, &tree::read(text, &mut problems).expect("YAML"));
        let unknown = apply(
            &mut node,
            1,
            "# a comment\n\nSELFSERVICE_METHODS_CODE_ENABLED=false\nexport CLIENTS_WEB_HOOK_HEADER_ALLOWLIST_1=\"C\"\n\
             CLIENTS_WEB_HOOK_HEADER_ALLOWLIST_2='D'\nCLIENTS_WEB_HOOK_HEADER_ALLOWLIST=[]\nSELFSERVICE_METHODS_CODE_LIFESPAN=1h\nPATH=/bin\n",
        );
        let enabled = ["selfservice", "methods", "code", "enabled"];
        assert_eq!(node.bool_at(&enabled), Some(false));
        let place = node.find(&enabled).expect("a value").place;
        assert_eq!((place.file, place.at.line), (1, 3));
        let list = node.find(&["clients", "web_hook", "header_allowlist"]);
        let texts: Vec<_> = list
            .expect("a list")
            .items()
            .iter()
            .map(Node::text)
            .collect();
        assert_eq!(texts, [Some("A"), Some("C"), Some("D")]);
        assert_eq!(unknown, ["CLIENTS_WEB_HOOK_HEADER_ALLOWLIST"]);
    }
}
