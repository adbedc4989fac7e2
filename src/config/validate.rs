//! Compares a file with the schema, and reports every unknown key, wrong type and missing key.

use serde_json::Value;

use super::hints;
use super::schema::resolved;
use super::tree::{Entry, Kind, Node, join};
use crate::base::diagnostics::{Problem, did_you_mean, listed};

/// Planned keys that do not exist yet, by the path of their section.
const NOT_YET_SUPPORTED: [(&str, &[&str]); 6] = [
    ("", &["console"]),
    ("hooks", &["concurrent"]),
    ("services.*", &["retries", "cache", "breaker"]),
    ("lists.*", &["url", "refresh"]),
    ("checks.*", &["limit", "cache"]),
    ("checks.*.on_unavailable", &["breaker_open", "overloaded"]),
];

/// Planned flows that do not exist yet.
const NOT_YET_SUPPORTED_KEYS: [&str; 3] = ["login", "verification", "recovery"];

/// Compares nodes with their schemas.
pub struct Validator<'a> {
    /// The whole schema, for references.
    pub root: &'a Value,
    /// The list to which problems are added.
    pub problems: &'a mut Vec<Problem>,
    /// Paths of values that could not be looked up and cannot be checked.
    pub unknown: &'a [String],
}

impl Validator<'_> {
    /// Adds every problem of `node`, compared with `schema`.
    pub fn check(&mut self, node: &Node, schema: &Value, path: &str) {
        if self.unknown.iter().any(|unknown| unknown == path) {
            return;
        }
        let root = self.root;
        let schema = resolved(root, schema);
        if let Some(choices) = schema["oneOf"]
            .as_array()
            .or_else(|| schema["anyOf"].as_array())
        {
            return self.choose(node, choices, schema, path);
        }
        if let Some(names) = enum_values(schema) {
            return self.check_enum_value(node, &names, path);
        }
        let types = types(schema);
        if types.is_empty() {
            return;
        }
        match &node.kind {
            Kind::Null => self.nothing(node, path),
            Kind::Map(entries) if types.contains(&"object") => {
                self.section(node, entries, schema, path);
            }
            Kind::List(items) if types.contains(&"array") => {
                for (index, item) in items.iter().enumerate() {
                    self.check(item, &schema["items"], &format!("{path}[{index}]"));
                }
            }
            Kind::Bool(_) if types.contains(&"boolean") => {}
            Kind::Number(number, _) if types.contains(&"integer") && !number.is_f64() => {
                self.range(node, number, schema, path);
            }
            Kind::Number(..) if types.contains(&"number") => {}
            Kind::Text { .. } if types.contains(&"string") => {}
            // A missing unit is reported where durations are parsed.
            Kind::Number(..) if schema["format"] == "duration-with-unit" => {}
            _ => self.wrong(node, schema, &types, path),
        }
    }

    fn section(&mut self, node: &Node, entries: &[Entry], schema: &Value, path: &str) {
        let nothing = serde_json::Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&nothing);
        for entry in entries {
            let inner = join(path, &entry.key);
            if let Some(property) = properties.get(&entry.key) {
                if !self.may_be_left_empty(&entry.value, property) {
                    self.check(&entry.value, property, &inner);
                }
            } else if is_misspelt(entry, properties) {
                self.unknown(entry, properties.keys().map(String::as_str), path);
            } else if schema["additionalProperties"].is_object() {
                self.check(&entry.value, &schema["additionalProperties"], &inner);
            } else if schema["additionalProperties"] == false {
                self.unknown(entry, properties.keys().map(String::as_str), path);
            }
        }
        for key in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !entries.iter().any(|entry| entry.key == key) {
                self.problems.push(Problem::new(
                    path.to_owned(),
                    node.at,
                    format!("`{key}` is missing"),
                ));
            }
        }
    }

    fn unknown<'k>(
        &mut self,
        entry: &Entry,
        known: impl Iterator<Item = &'k str> + Clone,
        path: &str,
    ) {
        let key = &entry.key;
        let message = if is_later(path, key) {
            format!("`{key}` is not in this version")
        } else {
            format!("there is no key `{key}` here")
        };
        let hint = match key.as_str() {
            _ if is_later(path, key) => "remove it".to_owned(),
            "on" if known.clone().any(|known| known == "flows") => {
                "did you mean `flows`?".to_owned()
            }
            "<<" => "sections are not merged; write the keys out".to_owned(),
            _ => did_you_mean(key, known.clone())
                .unwrap_or_else(|| format!("the keys here are {}", listed(known))),
        };
        self.problems
            .push(Problem::new(join(path, key), entry.at, message).with_hint(Some(hint)));
    }

    /// Returns whether the node may have no value. An empty section is valid: `checks:` without any check. But a check,
    /// an `ask` or a `when` without a value would admit every sign-up.
    fn may_be_left_empty(&self, node: &Node, property: &Value) -> bool {
        let schema = resolved(self.root, property);
        // In the schema, an optional section is an object or null. It cannot be empty.
        matches!(node.kind, Kind::Null)
            && schema["type"] == "object"
            && schema["required"].as_array().is_none_or(Vec::is_empty)
    }

    fn nothing(&mut self, node: &Node, path: &str) {
        if !self.has_problem(path) {
            self.problems
                .push(Problem::nothing(path.to_owned(), node.at));
        }
    }

    /// Returns whether this path has a problem already: a tag, or a duplicate key.
    fn has_problem(&self, path: &str) -> bool {
        self.problems.iter().any(|problem| problem.path == path)
    }

    /// Chooses the alternative whose type matches the value.
    fn choose(&mut self, node: &Node, choices: &[Value], schema: &Value, path: &str) {
        if matches!(node.kind, Kind::Null) {
            return self.nothing(node, path);
        }
        let choices = flat(self.root, choices);
        let all_words: Option<Vec<Vec<&str>>> =
            choices.iter().map(|choice| enum_values(choice)).collect();
        if let Some(names) = all_words {
            return self.check_enum_value(node, &names.concat(), path);
        }
        // `{type: …, config: {…}}`: the type decides.
        if let Some(kinds) = tags(&choices) {
            return self.tagged(node, &kinds, path);
        }
        let fits = |choice: &&&Value| {
            let types = types(choice);
            match &node.kind {
                Kind::Map(_) => types.contains(&"object"),
                Kind::List(_) => types.contains(&"array"),
                Kind::Bool(_) => types.contains(&"boolean"),
                Kind::Number(number, _) => {
                    types.contains(&"number") || types.contains(&"integer") && !number.is_f64()
                }
                Kind::Text { .. } => types.contains(&"string") || enum_values(choice).is_some(),
                Kind::Null => false,
            }
        };
        let expression = choices
            .iter()
            .find(|choice| choice["format"] == "expression");
        let is_truth = choices.iter().any(|choice| choice["type"] == "boolean");
        let is_no_expression = is_truth && expression.is_some() && is_word(node);
        if let Some(choice) = choices.iter().find(fits).filter(|_| !is_no_expression) {
            self.check(node, choice, path);
        } else {
            let schema = expression.copied().unwrap_or(schema);
            let expected: Vec<&str> = choices
                .iter()
                .flat_map(|choice| {
                    if enum_values(choice).is_some() {
                        vec!["string"]
                    } else {
                        types(choice)
                    }
                })
                .collect();
            self.wrong(node, schema, &expected, path);
        }
    }

    fn tagged(&mut self, node: &Node, kinds: &[(&str, &Value)], path: &str) {
        let Kind::Map(entries) = &node.kind else {
            return self.wrong(node, &Value::Null, &["object"], path);
        };
        match node.get("type") {
            None => {
                let hint = match hints::auth_type_of(entries) {
                    Some(kind) => hints::auth_form(kind),
                    None => format!("use one of {}", listed(kinds.iter().map(|(name, _)| *name))),
                };
                let message = "`type` is missing".to_owned();
                self.problems
                    .push(Problem::new(path.to_owned(), node.at, message).with_hint(Some(hint)));
            }
            Some(tag) => {
                let known = kinds
                    .iter()
                    .find(|(name, _)| matches!(&tag.kind, Kind::Text { text, .. } if text == name));
                if let Some((name, schema)) = known {
                    if !self.outside_config(node, name, schema, path) {
                        self.section(node, node.entries(), schema, path);
                    }
                } else {
                    let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
                    self.check_enum_value(tag, &names, &join(path, "type"));
                }
            }
        }
    }

    /// Reports keys of `config` that are written beside it, once. Returns whether there are any.
    fn outside_config(&mut self, node: &Node, kind: &str, schema: &Value, path: &str) -> bool {
        let config = resolved(self.root, &schema["properties"]["config"]);
        let entries = node.entries();
        let belongs = |entry: &&Entry| config["properties"].get(&entry.key).is_some();
        let outside = entries.iter().find(belongs);
        let (at, what) = match outside {
            Some(entry) => (entry.at, format!("`{}` belongs into `config`", entry.key)),
            None if node.get("config").is_none() => (node.at, "`config` is missing".to_owned()),
            None => return false,
        };
        let path = outside.map_or_else(|| path.to_owned(), |entry| join(path, &entry.key));
        self.problems
            .push(Problem::new(path, at, what).with_hint(Some(hints::auth_form(kind))));
        true
    }

    fn check_enum_value(&mut self, node: &Node, names: &[&str], path: &str) {
        match &node.kind {
            Kind::Null => self.nothing(node, path),
            Kind::Text { text, .. } if names.contains(&text.as_str()) => {}
            Kind::Text { text, .. }
                if NOT_YET_SUPPORTED_KEYS.contains(&text.as_str()) && node.written.is_none() =>
            {
                let hint = format!(
                    "use {}",
                    listed(names.iter().copied()).replace(" and ", " or ")
                );
                let message = format!("`{text}` is not in this version");
                self.problems
                    .push(Problem::new(path.to_owned(), node.at, message).with_hint(Some(hint)));
            }
            other => {
                let message = format!(
                    "expected one of {}, found {}",
                    listed(names.iter().copied()),
                    node.describe()
                );
                let hint = match other {
                    Kind::Text { text, .. } if node.written.is_none() => hints::auth_alias(text)
                        .filter(|kind| path.ends_with(".auth.type") && names.contains(kind))
                        .map(hints::auth_form)
                        .or_else(|| hints::choice(text, names))
                        .or_else(|| did_you_mean(text, names.iter().copied())),
                    _ => None,
                };
                self.problems
                    .push(Problem::new(path.to_owned(), node.at, message).with_hint(hint));
            }
        }
    }

    fn range(&mut self, node: &Node, number: &serde_json::Number, schema: &Value, path: &str) {
        let value = number.as_i64().map_or(f64::INFINITY, |value| {
            #[expect(clippy::cast_precision_loss, reason = "compared with small bounds")]
            let value = value as f64;
            value
        });
        let most = match schema["format"].as_str() {
            Some("uint16") => Some(f64::from(u16::MAX)),
            Some("uint32") => Some(f64::from(u32::MAX)),
            _ => schema["maximum"].as_f64(),
        };
        let least = schema["minimum"].as_f64();
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let bounds = format!(
                "from {} to {}",
                least.unwrap_or(0.0),
                most.unwrap_or(f64::INFINITY)
            );
            let message = format!("expected a number {bounds}, found {}", node.describe());
            self.problems
                .push(Problem::new(path.to_owned(), node.at, message));
        }
    }

    fn wrong(&mut self, node: &Node, schema: &Value, types: &[&str], path: &str) {
        if self.has_problem(path) {
            return;
        }
        let mut expected: Vec<&str> = types.iter().map(|name| describe(name, schema)).collect();
        expected.dedup();
        let expected = match expected.split_last() {
            Some((last, others)) if !others.is_empty() => {
                let others = others.join(", ").replace("` or `", "`, `");
                format!("{others} or {last}")
            }
            _ => expected.concat(),
        };
        let message = format!("expected {expected}, found {}", node.describe());
        let hint = hints::of_wrong_type(node, schema, types, path);
        self.problems
            .push(Problem::new(path.to_owned(), node.at, message).with_hint(hint));
    }
}

/// Returns whether a number has a name that is near to a key of the section. Beside the keys of a message are texts by
/// language.
fn is_misspelt(entry: &Entry, properties: &serde_json::Map<String, Value>) -> bool {
    matches!(entry.value.kind, Kind::Number(..))
        && did_you_mean(&entry.key, properties.keys().map(String::as_str)).is_some()
}

/// Returns whether the node is a word where `true`, `false` or an expression is expected: `yes`, `always`, or anything that
/// was inserted.
fn is_word(node: &Node) -> bool {
    let Kind::Text { text, .. } = &node.kind else {
        return false;
    };
    let is_plain = |character: char| character.is_alphanumeric() || "_-".contains(character);
    let is_truth = ["true", "false"].contains(&text.as_str());
    node.written.is_some() || (text.chars().all(is_plain) && !is_truth)
}

fn describe<'a>(name: &'a str, schema: &Value) -> &'a str {
    match (name, schema["format"].as_str()) {
        ("string", Some("duration-with-unit")) => "a duration with a unit (5s)",
        ("string", Some("expression")) => "an expression",
        ("integer", _) | ("string", Some("number")) => "a whole number",
        ("string", _) => "a text",
        ("boolean", _) => "`true` or `false`",
        ("array", _) => "a list",
        ("object", _) => "a section of keys",
        (other, _) => other,
    }
}

/// Returns the types of a schema without null: an optional key cannot be empty.
pub(super) fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ => Vec::new(),
    }
}

/// Returns the names of an enumeration.
pub(super) fn enum_values(schema: &Value) -> Option<Vec<&str>> {
    if let Some(names) = schema["enum"].as_array() {
        return Some(names.iter().filter_map(Value::as_str).collect());
    }
    schema["const"].as_str().map(|name| vec![name])
}

/// Returns the alternatives of `{type, config}` by type; `None` for other alternatives.
fn tags<'a>(choices: &[&'a Value]) -> Option<Vec<(&'a str, &'a Value)>> {
    choices
        .iter()
        .map(|choice| {
            choice["properties"]["type"]["const"]
                .as_str()
                .map(|name| (name, *choice))
        })
        .collect()
}

/// Flattens nested alternatives into one list.
pub(super) fn flat<'a>(root: &'a Value, choices: &'a [Value]) -> Vec<&'a Value> {
    choices
        .iter()
        .map(|choice| resolved(root, choice))
        .flat_map(|choice| {
            match choice["oneOf"]
                .as_array()
                .or_else(|| choice["anyOf"].as_array())
            {
                Some(inner) => flat(root, inner),
                None => vec![choice],
            }
        })
        .filter(|choice| choice["type"] != "null")
        .collect()
}

/// Returns whether a key is planned and does not exist yet.
fn is_later(path: &str, key: &str) -> bool {
    let generic: Vec<&str> = path
        .split('.')
        .enumerate()
        .map(|(depth, name)| {
            if depth == 1
                && NOT_YET_SUPPORTED.iter().any(|(known, _)| {
                    known.starts_with(&format!("{}.*", path.split('.').next().unwrap_or_default()))
                })
            {
                "*"
            } else {
                name
            }
        })
        .collect();
    let generic = generic.join(".");
    NOT_YET_SUPPORTED
        .iter()
        .any(|(section, keys)| *section == generic && keys.contains(&key))
}
