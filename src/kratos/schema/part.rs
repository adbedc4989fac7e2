//! The parts of a JSON Schema that apply to one value.
//!
//! A schema refers to others that apply together (`$ref`, `allOf`) or as alternatives (`anyOf`, `oneOf`, `then`, `else`,
//! `dependencies`). A name is known if any of them has it. A name is required if one of those that apply together requires
//! it, or if every alternative does.

use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::Value;

use super::{Step, Types};
use crate::kratos::field::index;

/// The maximum number of references and choices that are followed one inside another. A schema may refer to itself.
const MAX_DEPTH: usize = 12;

/// What applies where an alternative is not written.
static ANYTHING: Value = Value::Bool(true);

/// A document, in which references are resolved.
pub(super) struct Document<'s> {
    root: &'s Value,
}

/// A part of a schema, as it applies to one value.
#[derive(Clone, Debug)]
pub(super) enum Part<'s> {
    /// One schema of the document.
    One(&'s Value),
    /// All of these apply.
    All(Vec<Part<'s>>),
    /// One of these applies.
    Any(Vec<Part<'s>>),
}

/// The target of a `$ref`.
enum Target<'s> {
    None,
    Here(&'s Value),
    /// Another document, or a place that does not exist.
    Elsewhere,
}

impl<'s> Document<'s> {
    pub fn of(root: &'s Value) -> Self {
        Self { root }
    }

    /// Returns the part that applies to a whole identity.
    pub fn whole(&self) -> Part<'s> {
        Part::One(self.root)
    }

    /// Decides what a step of a dotted path means: a number is an index in a list, and a name everywhere else.
    pub fn settle<'p>(&self, part: &Part<'s>, step: Step<'p>) -> Step<'p> {
        match step {
            Step::Dotted(name) => match index(name) {
                Some(index) if !self.types(part).contains(Types::OBJECT) => Step::Index(index),
                _ => Step::Name(name),
            },
            other => other,
        }
    }

    /// Returns what applies to the member of this name, or to the entry with this index. `None` if the part has no
    /// schema for it.
    pub fn member(&self, part: &Part<'s>, step: Step<'_>) -> Option<Part<'s>> {
        let container = match step {
            Step::Index(_) => Types::LIST,
            Step::Name(_) | Step::Dotted(_) => Types::OBJECT,
        };
        self.types(part)
            .contains(container)
            .then(|| self.member_within(part, step, MAX_DEPTH))
            .flatten()
    }

    fn member_within(&self, part: &Part<'s>, step: Step<'_>, depth: usize) -> Option<Part<'s>> {
        let of_each = |parts: &[Part<'s>]| -> Vec<Part<'s>> {
            parts
                .iter()
                .filter_map(|part| self.member_within(part, step, depth))
                .collect()
        };
        match part {
            Part::All(parts) => joined(of_each(parts), Part::All),
            Part::Any(parts) => joined(of_each(parts), Part::Any),
            Part::One(schema) => {
                let mut found: Vec<Part<'s>> = own_members(schema, step)
                    .into_iter()
                    .map(Part::One)
                    .collect();
                if depth > 0 {
                    let inner = self.inner(schema);
                    found.extend(
                        inner
                            .iter()
                            .filter_map(|part| self.member_within(part, step, depth - 1)),
                    );
                }
                joined(found, Part::All)
            }
        }
    }

    /// Returns the types that the part allows.
    pub fn types(&self, part: &Part<'s>) -> Types {
        self.types_within(part, MAX_DEPTH)
    }

    fn types_within(&self, part: &Part<'s>, depth: usize) -> Types {
        let each = |parts: &[Part<'s>], depth| -> Vec<Types> {
            parts
                .iter()
                .map(|part| self.types_within(part, depth))
                .collect()
        };
        match part {
            Part::All(parts) => each(parts, depth).into_iter().fold(Types::ALL, Types::and),
            Part::Any(parts) => each(parts, depth).into_iter().fold(Types::NONE, Types::or),
            Part::One(schema) if depth == 0 => Types::of_schema(schema),
            Part::One(schema) => each(&self.inner(schema), depth - 1)
                .into_iter()
                .fold(Types::of_schema(schema), Types::and),
        }
    }

    /// Returns whether every valid value has this member or entry.
    pub fn requires(&self, part: &Part<'s>, step: Step<'_>) -> bool {
        self.holds(part, MAX_DEPTH, &|schema| match step {
            Step::Name(name) | Step::Dotted(name) => schema["required"]
                .as_array()
                .is_some_and(|names| names.iter().any(|known| known == name)),
            Step::Index(index) => schema["minItems"]
                .as_u64()
                .and_then(|least| usize::try_from(least).ok())
                .is_some_and(|least| least > index),
        })
    }

    /// Returns whether no valid value has this member or entry.
    pub fn forbids(&self, part: &Part<'s>, step: Step<'_>) -> bool {
        let container = match step {
            Step::Index(_) => Types::LIST,
            Step::Name(_) | Step::Dotted(_) => Types::OBJECT,
        };
        if !self.types(part).contains(container) {
            return true;
        }
        let is_named = self.member(part, step).is_some();
        self.holds(part, MAX_DEPTH, &|schema| {
            let is_own = !own_members(schema, step).is_empty();
            let is_refused = |name| schema["properties"].get(name) == Some(&Value::Bool(false));
            schema["additionalProperties"] == false && !is_own
                || schema["unevaluatedProperties"] == false && !is_named
                || matches!(step, Step::Name(name) if is_refused(name))
        })
    }

    /// Returns whether the part allows members that it does not name: `additionalProperties: true`.
    pub fn allows_more(&self, part: &Part<'s>, step: Step<'_>) -> bool {
        matches!(step, Step::Name(_))
            && self.types(part).contains(Types::OBJECT)
            && !self.forbids(part, step)
            && self.any(part, MAX_DEPTH, &|schema| {
                let more = &schema["additionalProperties"];
                *more == true || more.as_object().is_some_and(serde_json::Map::is_empty)
            })
    }

    /// Returns whether the schema names no members at all, as `{"type": "object"}`, or refers to another document.
    pub fn says_nothing_about(&self, part: &Part<'s>, step: Step<'_>) -> bool {
        let (container, keys): (Types, &[&str]) = match step {
            Step::Index(_) => (Types::LIST, &["items", "prefixItems"]),
            Step::Name(_) | Step::Dotted(_) => (
                Types::OBJECT,
                &["properties", "patternProperties", "additionalProperties"],
            ),
        };
        let names = |schema: &Value| keys.iter().any(|key| schema.get(key).is_some());
        self.types(part).contains(container)
            && (!self.any(part, MAX_DEPTH, &names) || self.refers_elsewhere(part))
    }

    /// Returns whether another document may say more about the part.
    pub fn refers_elsewhere(&self, part: &Part<'s>) -> bool {
        let elsewhere = |schema: &Value| matches!(self.target(schema), Target::Elsewhere);
        self.any(part, MAX_DEPTH, &elsewhere)
    }

    /// Returns the allowed values, if the part lists them.
    pub fn values(&self, part: &Part<'s>) -> Option<Vec<Value>> {
        self.values_within(part, MAX_DEPTH)
    }

    fn values_within(&self, part: &Part<'s>, depth: usize) -> Option<Vec<Value>> {
        match part {
            Part::All(parts) => parts
                .iter()
                .find_map(|part| self.values_within(part, depth)),
            Part::Any(parts) => {
                let each: Option<Vec<_>> = parts
                    .iter()
                    .map(|part| self.values_within(part, depth))
                    .collect();
                each.map(|lists| lists.concat())
            }
            Part::One(schema) => {
                let listed = schema["enum"].as_array().cloned();
                let constant = schema.get("const").map(|value| vec![value.clone()]);
                listed.or(constant).or_else(|| {
                    let inner = self.inner(schema);
                    inner
                        .iter()
                        .filter(|_| depth > 0)
                        .find_map(|part| self.values_within(part, depth - 1))
                })
            }
        }
    }

    /// Returns whether one of the schemas that can apply satisfies a rule.
    pub fn has(&self, part: &Part<'s>, rule: &dyn Fn(&Value) -> bool) -> bool {
        self.any(part, MAX_DEPTH, rule)
    }

    /// Returns the names of the members that the part names.
    pub fn names(&self, part: &Part<'s>) -> Vec<&'s str> {
        let mut names = Vec::new();
        self.each(part, MAX_DEPTH, &mut |schema| {
            let own = schema["properties"].as_object().into_iter().flatten();
            for (name, _) in own {
                if !names.contains(&name.as_str()) {
                    names.push(name.as_str());
                }
            }
        });
        names
    }

    /// Returns whether a rule holds for every valid value: it holds for one of the schemas that apply together, or for
    /// every alternative.
    fn holds(&self, part: &Part<'s>, depth: usize, rule: &dyn Fn(&Value) -> bool) -> bool {
        match part {
            Part::All(parts) => parts.iter().any(|part| self.holds(part, depth, rule)),
            Part::Any(parts) => {
                !parts.is_empty() && parts.iter().all(|part| self.holds(part, depth, rule))
            }
            Part::One(schema) => {
                rule(schema)
                    || depth > 0
                        && self
                            .inner(schema)
                            .iter()
                            .any(|part| self.holds(part, depth - 1, rule))
            }
        }
    }

    /// Returns whether a rule holds for one of the schemas that can apply.
    fn any(&self, part: &Part<'s>, depth: usize, rule: &dyn Fn(&Value) -> bool) -> bool {
        let mut found = false;
        self.each(part, depth, &mut |schema| found |= rule(schema));
        found
    }

    /// Calls a function with each schema that can apply.
    fn each(&self, part: &Part<'s>, depth: usize, then: &mut dyn FnMut(&'s Value)) {
        match part {
            Part::All(parts) | Part::Any(parts) => {
                for part in parts {
                    self.each(part, depth, then);
                }
            }
            Part::One(schema) => {
                then(schema);
                if depth > 0 {
                    for part in self.inner(schema) {
                        self.each(&part, depth - 1, then);
                    }
                }
            }
        }
    }

    /// Returns what applies together with a schema: references, `allOf`, and each choice between alternatives.
    fn inner(&self, schema: &'s Value) -> Vec<Part<'s>> {
        let mut parts = Vec::new();
        if let Target::Here(target) = self.target(schema) {
            parts.push(Part::One(target));
        }
        let listed = |key: &str| schema[key].as_array().into_iter().flatten();
        parts.extend(listed("allOf").map(Part::One));
        for key in ["anyOf", "oneOf"] {
            let choices: Vec<Part<'s>> = listed(key).map(Part::One).collect();
            if !choices.is_empty() {
                parts.push(Part::Any(choices));
            }
        }
        if schema.get("if").is_some() {
            let branches = ["then", "else"].map(|key| schema.get(key).unwrap_or(&ANYTHING));
            parts.push(Part::Any(branches.map(Part::One).to_vec()));
        }
        // What applies only if another member is there.
        for key in ["dependencies", "dependentSchemas"] {
            let dependent = schema[key].as_object().into_iter().flatten();
            let schemas = dependent.filter(|(_, schema)| schema.is_object());
            parts.extend(
                schemas.map(|(_, schema)| Part::Any(vec![Part::One(schema), Part::One(&ANYTHING)])),
            );
        }
        parts
    }

    fn target(&self, schema: &Value) -> Target<'s> {
        let Some(reference) = schema["$ref"].as_str() else {
            return Target::None;
        };
        let own = self.root["$id"].as_str().unwrap_or_default();
        let own = own.trim_end_matches('#');
        let inside = reference.strip_prefix('#').or_else(|| {
            let behind = reference.strip_prefix(own).filter(|_| !own.is_empty())?;
            if behind.is_empty() {
                Some("")
            } else {
                behind.strip_prefix('#')
            }
        });
        let found = inside.and_then(|fragment| {
            let fragment = percent_decode_str(fragment).decode_utf8_lossy();
            if fragment.is_empty() || fragment.starts_with('/') {
                self.root.pointer(&fragment)
            } else {
                anchored(self.root, &fragment)
            }
        });
        found.map_or(Target::Elsewhere, Target::Here)
    }
}

fn joined<'s>(
    mut parts: Vec<Part<'s>>,
    join: impl FnOnce(Vec<Part<'s>>) -> Part<'s>,
) -> Option<Part<'s>> {
    match parts.len() {
        0 => None,
        1 => parts.pop(),
        _ => Some(join(parts)),
    }
}

/// Returns the schemas that a schema itself has for a member or an entry.
fn own_members<'s>(schema: &'s Value, step: Step<'_>) -> Vec<&'s Value> {
    let name = match step {
        Step::Index(index) => return own_entry(schema, index).into_iter().collect(),
        Step::Name(name) | Step::Dotted(name) => name,
    };
    let mut found: Vec<&Value> = schema["properties"].get(name).into_iter().collect();
    let patterns = schema["patternProperties"]
        .as_object()
        .into_iter()
        .flatten();
    found.extend(
        patterns
            // A pattern that Rust cannot read may match.
            .filter(|(pattern, _)| Regex::new(pattern).is_ok_and(|regex| regex.is_match(name)))
            .map(|(_, inner)| inner),
    );
    if found.is_empty() {
        let others = &schema["additionalProperties"];
        found.extend(
            Some(others).filter(|others| others.as_object().is_some_and(|map| !map.is_empty())),
        );
    }
    found.retain(|inner| **inner != false);
    found
}

fn own_entry(schema: &Value, index: usize) -> Option<&Value> {
    let listed = [&schema["prefixItems"], &schema["items"]];
    let own = listed
        .into_iter()
        .find_map(|list| list.as_array()?.get(index));
    own.or_else(|| Some(&schema["items"]).filter(|items| items.is_object() || **items == true))
        .or_else(|| Some(&schema["additionalItems"]).filter(|items| items.is_object()))
}

/// Returns the schema with this anchor.
fn anchored<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    match schema {
        Value::Object(members) => {
            let is_named = schema["$anchor"] == name
                || schema["$id"]
                    .as_str()
                    .is_some_and(|id| id.strip_prefix('#') == Some(name));
            if is_named {
                return Some(schema);
            }
            members.values().find_map(|inner| anchored(inner, name))
        }
        Value::Array(items) => items.iter().find_map(|inner| anchored(inner, name)),
        _ => None,
    }
}
