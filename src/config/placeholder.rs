//! Inserts placeholders for `${env:…}` and `${file:…}` that cannot be looked up, so that a file can be checked where
//! its secrets are not: in CI.

use std::collections::BTreeSet;

use serde_json::Value;

use super::expand::{choices, expect_text};
use super::interpolation::{Environment, pieces, replace_missing};
use super::schema::resolved;
use super::tree::{Entry, Kind, Node, join, plain};
use super::validate::{enum_values, types};

/// A schema with which every trait is possible: `{"properties": {"traits": {"type": "object"}}}`.
const ANY_SCHEMA: &str = "base64://eyJwcm9wZXJ0aWVzIjp7InRyYWl0cyI6eyJ0eXBlIjoib2JqZWN0In19fQ==";
/// The first id for messages whose id is not known.
const FIRST_ID: u32 = 4_990_000;
/// The maximum number of combinations of choices that are tried.
const MAX_ROUNDS: usize = 24;
/// The first port.
const FIRST_PORT: u32 = 40_000;

/// Inserts placeholders into a file.
pub(super) struct Placeholders<'a> {
    /// The whole schema, for references.
    pub root: &'a Value,
    /// The environment for lookups.
    pub environment: &'a Environment,
    /// The number of the round, counted from 0. It decides which of its choices a missing value has.
    pub round: usize,
    /// The names of the file's services and checks.
    pub services: Vec<String>,
    pub checks: Vec<String>,
    /// What was inserted.
    pub inserted: Inserted,
    /// Whether the request that is being filled names its service. Then it has a path and not a URL.
    pub has_service: bool,
}

/// What was inserted.
pub(super) struct Inserted {
    /// The paths of the values with a placeholder.
    pub paths: BTreeSet<String>,
    /// The number of rounds in which each missing value has each of its choices, together with each choice of the others
    /// if they are few.
    pub rounds: usize,
    /// The number of combinations of the choices so far.
    combinations: usize,
    /// The number of ids and ports. They must differ.
    ids: u32,
}

impl Default for Inserted {
    fn default() -> Self {
        Self {
            paths: BTreeSet::new(),
            rounds: 1,
            combinations: 1,
            ids: 0,
        }
    }
}

impl Inserted {
    /// Returns which of so many choices a missing value has in a round.
    fn choose(&mut self, round: usize, count: usize) -> usize {
        let combinations = self.combinations * count;
        if combinations > MAX_ROUNDS {
            self.rounds = self.rounds.max(count);
            return round % count;
        }
        let chosen = round / self.combinations % count;
        self.combinations = combinations;
        self.rounds = self.rounds.max(combinations);
        chosen
    }
}

impl<'a> Placeholders<'a> {
    pub fn new(root: &'a Value, environment: &'a Environment, file: &Node, round: usize) -> Self {
        let names = |section: &str| {
            let entries = file.get(section).map_or(&[][..], Node::entries);
            entries.iter().map(|entry| entry.key.clone()).collect()
        };
        Self {
            root,
            environment,
            round,
            services: names("services"),
            checks: names("checks"),
            inserted: Inserted::default(),
            has_service: false,
        }
    }

    /// Inserts placeholders into the node and everything in it.
    pub fn fill(&mut self, node: &mut Node, schema: &Value, path: &str) {
        let root = self.root;
        let choices = choices(root, schema);
        match &mut node.kind {
            Kind::Text { text, .. } if text.contains("${") => {
                let replaced = self.text(text, &choices, path);
                if *text == replaced {
                    return;
                }
                self.inserted.paths.insert(path.to_owned());
                if expect_text(&choices) {
                    *text = replaced;
                } else {
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
            Kind::Map(entries) => self.section(entries, &choices, path),
            _ => {}
        }
    }

    fn section(&mut self, entries: &mut [Entry], choices: &[&Value], path: &str) {
        self.tag(entries, choices, path);
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

    /// Inserts a missing `type` of `{type, config}`: the type that has the keys of `config`.
    fn tag(&mut self, entries: &mut [Entry], choices: &[&Value], path: &str) {
        let config = entries.iter().find(|entry| entry.key == "config");
        let keys: Vec<String> = config
            .map_or(&[][..], |config| config.value.entries())
            .iter()
            .map(|entry| entry.key.clone())
            .collect();
        let fitting = choices.iter().find_map(|choice| {
            let name = choice["properties"]["type"]["const"].as_str()?;
            let config = resolved(self.root, &choice["properties"]["config"]);
            let has = |key: &String| config["properties"].get(key).is_some();
            keys.iter().all(has).then_some(name)
        });
        let tag = entries.iter_mut().find(|entry| entry.key == "type");
        let (Some(tag), Some(name)) = (tag, fitting) else {
            return;
        };
        let Kind::Text { text, .. } = &mut tag.value.kind else {
            return;
        };
        if pieces(text, self.environment).is_err_and(|error| error.is_missing) {
            self.inserted.paths.insert(join(path, "type"));
            tag.value.written = Some(std::mem::take(text));
            tag.value.kind = plain(name);
        }
    }

    fn text(&mut self, text: &str, choices: &[&Value], path: &str) -> String {
        let is_expression = |choice: &&Value| choice["format"] == "expression";
        if choices.iter().any(is_expression) && expect_text(choices) {
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
        let names = kinds.names(&self.services, &self.checks);
        let inserted = &mut self.inserted;
        let chosen =
            (is_missing && !names.is_empty()).then(|| inserted.choose(self.round, names.len()));
        replace_missing(text, self.environment, |before, behind| {
            if let Some(name) = chosen.and_then(|index| names.get(index)) {
                return name.clone();
            }
            kinds.placeholder(before, behind, &mut inserted.ids)
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
    /// Returns the values, if they are known.
    fn names(&self, services: &[String], checks: &[String]) -> Vec<String> {
        let is = |kind: &str| self.choices.iter().any(|one| types(one).contains(&kind));
        if is("boolean") {
            return vec!["true".to_owned(), "false".to_owned()];
        }
        let listed: Vec<String> = self
            .choices
            .iter()
            .filter_map(|choice| enum_values(choice))
            .flatten()
            .map(ToOwned::to_owned)
            .collect();
        let parts: Vec<&str> = self.path.split('.').collect();
        match parts.as_slice() {
            _ if !listed.is_empty() => listed,
            ["checks" | "subscriptions", .., "service"] => services.to_vec(),
            ["checks", own, after] if after.starts_with("after[") => {
                checks.iter().filter(|name| name != own).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns a placeholder for a `${…}` between these texts.
    fn placeholder(&self, before: &str, behind: &str, ids: &mut u32) -> String {
        let is_whole = before.is_empty() && behind.is_empty();
        let key = self.path.rsplit('.').next().unwrap_or(self.path);
        let key = key.split('[').next().unwrap_or(key);
        let has = |name: &str, value: &str| self.choices.iter().any(|choice| choice[name] == value);
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
        if has("type", "integer") || has("format", "number") {
            return "1".to_owned();
        }
        if self.choices.len() > 1 && has("format", "template") {
            // A message of one word would be a name.
            return "a placeholder".to_owned();
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
            "field" => "traits.placeholder",
            _ => "placeholder",
        }
    }
}
