//! Paths: the steps of a name like `identity.traits.vat_id` into a JSON value.
//!
//! A path is found during compilation, and walked during evaluation. So only the value at the end of the path is
//! converted, however large the payload is.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::{Variable, Variables};

/// A variable and the steps behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub root: Variable,
    pub steps: Vec<Step>,
}

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub key: Key,
    /// Whether the step is written `.?key` or `[?key]`. Then a missing value is an empty optional and not an error.
    pub optional: bool,
}

/// The key of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `.key`
    Field(String),
    /// `["key"]`
    Text(String),
    /// `[3]`
    Index(i64),
}

/// The constant beginning of a path that an expression reads, behind the variable: `traits.address.city`.
///
/// An expression has the same result for two identities that have the same values at all its paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadPath(Vec<Segment>);

/// One step of a [`ReadPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Name(String),
    Index(i64),
}

/// One step of a [`ReadPath`], as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStep<'p> {
    /// `.name` or `["name"]`
    Name(&'p str),
    /// `[3]`
    Index(i64),
}

/// The result of walking a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'v> {
    /// A value. `optional` means that the expression sees an optional value.
    Value { value: &'v Value, optional: bool },
    /// An empty optional.
    Nothing,
}

/// The reason why a path has no value. Steps are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The variable has no value in this evaluation.
    Variable,
    /// The check made no call to a service.
    Check,
    /// The map has no key of this step.
    Key(usize),
    /// The list is too short for this step.
    Bounds(usize),
    /// The value before this step has no parts of this kind.
    Parts(usize, &'static str),
}

impl ReadPath {
    /// Creates the path of these names.
    #[must_use]
    pub fn of_names(names: &[&str]) -> Self {
        Self(
            names
                .iter()
                .map(|name| Segment::Name((*name).to_owned()))
                .collect(),
        )
    }

    /// Creates the path of these names of a field, in which a number is an index: `traits.emails.0`.
    #[must_use]
    pub fn of_dotted(names: &[&str]) -> Self {
        let segment = |name: &&str| match name.parse() {
            Ok(index) => Segment::Index(index),
            Err(_) => Segment::Name((*name).to_owned()),
        };
        Self(names.iter().map(segment).collect())
    }

    /// Returns whether the path is the variable itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first name, or `None` for the variable itself and for an index.
    #[must_use]
    pub fn first_name(&self) -> Option<&str> {
        match self.0.first() {
            Some(Segment::Name(name)) => Some(name),
            Some(Segment::Index(_)) | None => None,
        }
    }

    /// Returns the names, if every step is a name.
    #[must_use]
    pub fn names(&self) -> Option<Vec<&str>> {
        self.0
            .iter()
            .map(|segment| match segment {
                Segment::Name(name) => Some(name.as_str()),
                Segment::Index(_) => None,
            })
            .collect()
    }

    /// Returns whether the path is one of these, or leads into one of them.
    pub(super) fn is_within_any(&self, paths: &BTreeSet<Self>) -> bool {
        (1..=self.0.len()).any(|length| paths.contains(&Self(self.0[..length].to_vec())))
    }

    /// Returns whether the path and these names are equal, or one contains the other. A number among the names is an index
    /// too, as in a field.
    #[must_use]
    pub fn meets(&self, names: &[String]) -> bool {
        let is_same = |(segment, name): (&Segment, &String)| match segment {
            Segment::Name(own) => own == name,
            Segment::Index(index) => name.parse() == Ok(*index),
        };
        self.0.iter().zip(names).all(is_same)
    }

    /// Returns whether the path is that of these names.
    #[must_use]
    pub fn is_at(&self, names: &[String]) -> bool {
        self.0.len() == names.len() && self.meets(names)
    }

    /// Returns whether the path is that of these names, or leads to a part of it.
    #[must_use]
    pub fn is_within(&self, names: &[String]) -> bool {
        self.0.len() >= names.len() && self.meets(names)
    }

    /// Returns the steps.
    pub fn steps(&self) -> impl Iterator<Item = ReadStep<'_>> {
        self.0.iter().map(|segment| match segment {
            Segment::Name(name) => ReadStep::Name(name),
            Segment::Index(index) => ReadStep::Index(*index),
        })
    }

    /// Returns the first steps of the path.
    #[must_use]
    pub fn beginning(&self, length: usize) -> Self {
        Self(self.0.iter().take(length).cloned().collect())
    }

    /// Returns the number of steps, if the other path begins with this one.
    pub(super) fn steps_within(&self, other: &Self) -> Option<usize> {
        other.0.starts_with(&self.0).then_some(self.0.len())
    }

    /// Returns the path as an expression: `identity.traits.nick`. Steps from `optional` on have the mark `?`.
    #[must_use]
    pub fn written(&self, root: Variable, optional: usize) -> String {
        let mut text = root.name().to_owned();
        for (at, segment) in self.0.iter().enumerate() {
            let mark = if at >= optional { "?" } else { "" };
            let _ = match segment {
                Segment::Name(name) if is_plain(name) => write!(text, ".{mark}{name}"),
                // Expressions are often in double quotes.
                Segment::Name(name) if !name.contains(['\'', '\\']) => {
                    write!(text, "[{mark}'{name}']")
                }
                Segment::Name(name) => write!(text, "[{mark}{name:?}]"),
                Segment::Index(index) => write!(text, "[{mark}{index}]"),
            };
        }
        text
    }

    /// Returns a condition that is true if there is a value: `has(identity.traits.nick)`.
    #[must_use]
    pub fn guard(&self, root: Variable) -> String {
        match self.0.last() {
            Some(Segment::Name(name)) if is_plain(name) => {
                format!("has({})", self.written(root, usize::MAX))
            }
            Some(_) => format!("{}.hasValue()", self.written(root, self.0.len() - 1)),
            None => format!("has({}.traits)", root.name()),
        }
    }

    /// Returns the value at the end of the path.
    ///
    /// An index only applies to a list, and a name only to an object. Otherwise there is no value.
    #[must_use]
    pub fn value_in<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.0
            .iter()
            .try_fold(root, |value, segment| match (value, segment) {
                (Value::Object(map), Segment::Name(name)) => map.get(name),
                (Value::Array(list), Segment::Index(index)) => {
                    usize::try_from(*index).ok().and_then(|at| list.get(at))
                }
                _ => None,
            })
    }
}

impl std::fmt::Display for ReadPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Name(name) if at == 0 => formatter.write_str(name)?,
                Segment::Name(name) => write!(formatter, ".{name}")?,
                Segment::Index(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Path {
    /// Returns the constant beginning of the path: the keys of its steps without the optional marks.
    pub fn constant(&self) -> ReadPath {
        ReadPath(
            self.steps
                .iter()
                .map(|step| match &step.key {
                    Key::Field(name) | Key::Text(name) => Segment::Name(name.clone()),
                    Key::Index(index) => Segment::Index(*index),
                })
                .collect(),
        )
    }

    /// Walks the path to its value.
    pub fn walk<'v>(&self, variables: &Variables<'v>) -> Result<Found<'v>, Miss> {
        let (mut value, done) = match self.start(variables) {
            Ok(start) => start,
            Err(_) if self.steps.first().is_some_and(|step| step.optional) => {
                return Ok(Found::Nothing);
            }
            Err(miss) => return Err(miss),
        };
        let mut optional = self.steps[..done].iter().any(|step| step.optional);
        for (at, step) in self.steps.iter().enumerate().skip(done) {
            // The language has the same rule. Behind an optional step a field may be missing. A step into a value
            // without fields is still an error.
            let index = !matches!(step.key, Key::Field(_));
            match step.of(value, at) {
                Ok(part) => value = part,
                Err(Miss::Parts(..)) if optional && !step.optional && !index && !holds(value) => {
                    return Err(Miss::Parts(at, kind(value)));
                }
                Err(_) if optional || step.optional => return Ok(Found::Nothing),
                Err(miss) => return Err(miss),
            }
            optional |= step.optional;
        }
        Ok(Found::Value { value, optional })
    }

    /// Returns whether the path may be absent: a step is optional, or the identity schema does not require the value.
    /// Only data of Kratos may be absent. An absent part of a response is a response of an unexpected shape.
    pub fn may_be_absent(&self, optional: &BTreeSet<ReadPath>) -> bool {
        let is_optional = || self.steps.iter().any(|step| step.optional);
        match self.root {
            Variable::Identity | Variable::Previous => {
                is_optional() || self.constant().is_within_any(optional)
            }
            Variable::Flow | Variable::Request => is_optional(),
            _ => false,
        }
    }

    /// Returns whether the path has no value, or the value null.
    pub fn is_absent(&self, variables: &Variables<'_>) -> bool {
        match self.walk(variables) {
            Ok(Found::Value { value, .. }) => value.is_null(),
            Ok(Found::Nothing) | Err(_) => true,
        }
    }

    /// Evaluates `has(…)` of the path: whether its last step has a value.
    ///
    /// In Kratos's data, a missing or null part has no fields, and that is not an error. `has(previous.traits.x)` is
    /// false in a registration, and `metadata_public` is often null. In an answer, only the last step may be missing.
    /// Otherwise an answer of an unexpected shape would count as one without the field.
    pub fn exists(&self, variables: &Variables<'_>) -> Result<bool, Miss> {
        let lenient = !matches!(
            self.root,
            Variable::Response | Variable::Checks | Variable::Taken
        );
        match self.walk(variables) {
            Ok(found) => Ok(matches!(found, Found::Value { .. })),
            Err(Miss::Variable | Miss::Check) => Ok(false),
            Err(Miss::Key(_) | Miss::Bounds(_) | Miss::Parts(_, "null")) if lenient => Ok(false),
            Err(Miss::Key(at)) if at + 1 == self.steps.len() => Ok(false),
            Err(miss) => Err(miss),
        }
    }

    /// Returns the value of the variable, and the number of steps that lead to it.
    fn start<'v>(&self, variables: &Variables<'v>) -> Result<(&'v Value, usize), Miss> {
        let value = match self.root {
            Variable::Identity => variables.identity,
            Variable::Previous => variables.previous,
            Variable::Value => variables.value,
            Variable::Flow => variables.flow,
            Variable::Request => variables.request,
            Variable::Response => variables.response,
            Variable::Taken => variables.taken,
            Variable::Checks => {
                let name = self.steps.first().and_then(Step::name);
                let check = variables
                    .checks
                    .zip(name)
                    .and_then(|(checks, name)| checks.get(name));
                return check.map(|check| (check.as_ref(), 1)).ok_or(Miss::Check);
            }
            Variable::Method | Variable::Now | Variable::Lists => None,
        };
        value.map(|value| (value, 0)).ok_or(Miss::Variable)
    }

    /// Returns the path as it is written, up to but without step `end`.
    pub fn written(&self, end: usize) -> String {
        let mut text = self.root.name().to_owned();
        for step in &self.steps[..end.min(self.steps.len())] {
            let mark = if step.optional { "?" } else { "" };
            let _ = match &step.key {
                Key::Field(name) => write!(text, ".{mark}{name}"),
                Key::Text(name) => write!(text, "[{mark}{name:?}]"),
                Key::Index(index) => write!(text, "[{mark}{index}]"),
            };
        }
        text
    }

    /// Returns the error message for a miss. The message only contains what the operator wrote.
    pub fn explain(&self, miss: Miss) -> String {
        match miss {
            Miss::Variable => format!("`{}` has no value here", self.root.name()),
            Miss::Check => format!("`{}` has no response", self.written(1)),
            Miss::Key(at) | Miss::Bounds(at) if self.steps[at].name().is_none() => {
                format!("index out of range: `{}`", self.written(at + 1))
            }
            Miss::Key(at) | Miss::Bounds(at) => format!(
                "no such key `{}` in `{}`",
                self.steps[at].name().unwrap_or_default(),
                self.written(at)
            ),
            Miss::Parts(at, kind) => format!(
                "`{}` is {kind}, so there is no `{}`",
                self.written(at),
                self.written(at + 1)
            ),
        }
    }
}

impl Step {
    /// Returns the key, if the key is a name.
    pub fn name(&self) -> Option<&str> {
        match &self.key {
            Key::Field(name) | Key::Text(name) => Some(name),
            Key::Index(_) => None,
        }
    }

    fn of<'v>(&self, value: &'v Value, at: usize) -> Result<&'v Value, Miss> {
        match (value, &self.key) {
            (Value::Object(map), Key::Field(name) | Key::Text(name)) => {
                map.get(name).ok_or(Miss::Key(at))
            }
            (Value::Object(_), Key::Index(_)) => Err(Miss::Key(at)),
            (Value::Array(list), Key::Index(index)) => usize::try_from(*index)
                .ok()
                .and_then(|index| list.get(index))
                .ok_or(Miss::Bounds(at)),
            _ => Err(Miss::Parts(at, kind(value))),
        }
    }
}

/// Returns whether a name can follow a dot.
fn is_plain(name: &str) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    name.chars().all(is_word)
        && !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !["false", "in", "null", "true"].contains(&name)
}

fn holds(value: &Value) -> bool {
    matches!(value, Value::Object(_) | Value::Array(_))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
