//! Inserts placeholders for `${env:…}` and `${file:…}` that cannot be looked up, so that a file can be checked where
//! its secrets are not: in CI.

use serde_json::Value;

use super::expand::{choices, takes_text};
use super::interpolation::{Environment, pieces, replace_missing};
use super::tree::{Kind, Node, join, plain};
use super::validate::enum_values;

/// A schema with which every trait is possible: `{"properties": {"traits": {"type": "object"}}}`.
const ANY_SCHEMA: &str = "base64://eyJwcm9wZXJ0aWVzIjp7InRyYWl0cyI6eyJ0eXBlIjoib2JqZWN0In19fQ==";
/// The first id for messages whose id is not known.
const FIRST_ID: u32 = 4_990_000;
/// The first port.
const FIRST_PORT: u32 = 40_000;

/// Inserts placeholders into a file.
pub(super) struct Placeholders<'a> {
    /// The whole schema, for references.
    pub root: &'a Value,
    /// The environment for lookups.
    pub environment: &'a Environment,
    /// The number of ids and ports that were inserted. They must differ.
    pub ids: u32,
    /// Whether the request that is being filled names its service. Then it has a path and not a URL.
    pub has_service: bool,
}

impl Placeholders<'_> {
    /// Inserts placeholders into the node and everything in it.
    pub fn fill(&mut self, node: &mut Node, schema: &Value, path: &str) {
        let root = self.root;
        let choices = choices(root, schema);
        match &mut node.kind {
            Kind::Text { text, .. } if text.contains("${") => {
                let replaced = self.text(text, &choices, path);
                if choices.iter().copied().any(takes_text) {
                    *text = replaced;
                } else if *text != replaced {
                    node.written = Some(std::mem::replace(text, replaced.clone()));
                    node.kind = plain(&replaced);
                }
            }
            Kind::List(items) => {
                let items_schema = choices
                    .iter()
                    .find(|choice| choice["items"].is_object())
                    .map_or(&Value::Null, |choice| &choice["items"]);
                for (index, item) in items.iter_mut().enumerate() {
                    self.fill(item, items_schema, &format!("{path}[{index}]"));
                }
            }
            Kind::Map(entries) => {
                let tag = entries.iter().find(|entry| entry.key == "type");
                let tag = tag.map(|entry| entry.value.to_value());
                let of_the_tag = |choice: &&&Value| match &choice["properties"]["type"]["const"] {
                    Value::Null => choice["type"] == "object",
                    name => tag.as_ref() == Some(name),
                };
                let section = choices.iter().find(of_the_tag).copied();
                let section = section.unwrap_or(&Value::Null);
                self.has_service = entries.iter().any(|entry| entry.key == "service");
                for entry in entries {
                    let property = match &section["properties"][&entry.key] {
                        Value::Null => &section["additionalProperties"],
                        property => property,
                    };
                    self.fill(&mut entry.value, property, &join(path, &entry.key));
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str, choices: &[&Value], path: &str) -> String {
        let is_expression = |choice: &&Value| choice["format"] == "expression";
        if choices.iter().any(is_expression) {
            // `${…}` in an expression is a problem.
            return text.to_owned();
        }
        let is_missing = pieces(text, self.environment).is_err_and(|error| error.is_missing);
        if is_missing && let Some(whole) = file_placeholder(path) {
            return whole.to_owned();
        }
        let kinds = Kinds {
            path,
            choices,
            has_service: self.has_service,
        };
        let ids = &mut self.ids;
        replace_missing(text, self.environment, |before, behind| {
            kinds.placeholder(before, behind, ids)
        })
    }
}

/// Returns the placeholder for the name of a file that is read.
fn file_placeholder(path: &str) -> Option<&'static str> {
    if path.starts_with("kratos.identity_schema") {
        Some(ANY_SCHEMA)
    } else {
        let key = path.strip_prefix("lists.")?.rsplit_once('.')?.1;
        (key == "file").then_some("/dev/null")
    }
}

/// What a value at a path can be.
struct Kinds<'s> {
    path: &'s str,
    choices: &'s [&'s Value],
    has_service: bool,
}

impl Kinds<'_> {
    /// Returns a placeholder for a `${…}` between these texts.
    fn placeholder(&self, before: &str, behind: &str, ids: &mut u32) -> String {
        let is_whole = before.is_empty() && behind.is_empty();
        let key = self.path.rsplit('.').next().unwrap_or(self.path);
        let key = key.split('[').next().unwrap_or(key);
        let has = |name: &str, value: &str| self.choices.iter().any(|choice| choice[name] == value);
        if let Some(names) = self.choices.iter().find_map(|choice| enum_values(choice)) {
            return names.first().copied().unwrap_or_default().to_owned();
        }
        if has("format", "duration-with-unit") {
            let whole = match (self.path.split('.').next(), key) {
                (Some("retention"), _) => "30d",
                (_, "every" | "max_elapsed") => "1d",
                _ => "5s",
            };
            return if is_whole { whole } else { "5" }.to_owned();
        }
        if is_whole && (key == "id" || key == "port") {
            *ids += 1;
            let first = if key == "id" { FIRST_ID } else { FIRST_PORT };
            return (first + *ids).to_string();
        }
        if has("type", "boolean") {
            return "false".to_owned();
        }
        if has("type", "integer") || has("format", "number") {
            return "1".to_owned();
        }
        self.text(key, before, behind).to_owned()
    }

    fn text(&self, key: &str, before: &str, behind: &str) -> &'static str {
        let in_hooks = self.path.starts_with("hooks.keys");
        let in_serve = self.path.starts_with("serve.");
        match key {
            // A port, or a password.
            _ if before.ends_with(':') => "1",
            _ if !before.is_empty() => "placeholder",
            "url" | "admin_url" | "get" | "post" | "put" | "patch" | "delete"
                if behind.starts_with("://") =>
            {
                "http"
            }
            "get" | "post" | "put" | "patch" | "delete" if self.has_service => "/placeholder",
            "url" | "admin_url" | "get" | "post" | "put" | "patch" | "delete" => {
                "http://placeholder.invalid"
            }
            "dsn" => "sqlite://placeholder.db",
            "keys" if in_hooks => "placeholder-of-a-key",
            "token" if in_serve => "placeholder-of-a-key",
            "secret" | "secrets" => "whsec_cGxhY2Vob2xkZXItcGxhY2Vob2xkZXItcGxhY2U=",
            "host" => "127.0.0.1",
            "default_language" => "en",
            "since" => "2026-01-01",
            _ => "placeholder",
        }
    }
}
