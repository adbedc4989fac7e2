//! What a node of an expression can give, and how operators combine it.

use serde_json::Value;

use super::sizes::bounds;

/// The methods of calls that have `previous`, and of no others.
const ONLY_WITH_PREVIOUS: [&str; 3] = ["lookup_secret", "profile", "totp"];

/// What a node can give.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub fails: bool,
    pub shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// No value: the node always fails.
    Nothing,
    Known(Value),
    EmptyOptional,
    /// An optional with the value null.
    NullOptional,
    /// A value that is neither null nor empty, or an optional with it.
    Present,
    /// A list of at most so many entries, or an optional that may have it.
    Short(i64),
    /// A whole number with these bounds.
    Between(i64, i64),
    /// A type: that of null, or another.
    Type(bool),
    /// The method of a call without `previous`.
    Method,
    Any,
}

impl Outcome {
    pub const ANY: Self = Self {
        fails: false,
        shape: Shape::Any,
    };
    pub const EMPTY: Self = Self {
        fails: false,
        shape: Shape::EmptyOptional,
    };
    pub const FAILED: Self = Self {
        fails: true,
        shape: Shape::Nothing,
    };

    pub fn known(value: impl Into<Value>) -> Self {
        Self {
            fails: false,
            shape: Shape::Known(value.into()),
        }
    }

    /// Returns whether the node can be true, and whether it can be false.
    pub fn truth(&self) -> (bool, bool) {
        match &self.shape {
            Shape::Any | Shape::Present => (true, true),
            Shape::Known(Value::Bool(truth)) => (*truth, !truth),
            _ => (false, false),
        }
    }

    /// Returns the outcome of a condition with these possible results.
    pub fn condition(can_hold: bool, can_not: bool, fails: bool) -> Self {
        let shape = match (can_hold, can_not) {
            (true, true) => Shape::Any,
            (false, false) => Shape::Nothing,
            (truth, _) => Shape::Known(truth.into()),
        };
        Self { fails, shape }
    }

    pub fn or_else_fails(self, fails: bool) -> Self {
        Self {
            fails: self.fails || fails,
            ..self
        }
    }

    /// Returns whether a function that needs a value fails with this one.
    pub fn is_no_value(&self) -> bool {
        matches!(
            self.shape,
            Shape::Known(Value::Null) | Shape::EmptyOptional | Shape::NullOptional
        )
    }

    /// Returns whether the node can fail as a condition. A value that is neither true nor false fails too.
    pub fn is_failure(&self) -> bool {
        self.fails || self.truth() == (false, false)
    }
}

pub(super) fn negated(operand: &Outcome) -> Outcome {
    let (holds, not) = operand.truth();
    Outcome::condition(not, holds, operand.is_failure())
}

pub(super) fn compared(one: &Outcome, other: &Outcome) -> Outcome {
    let result = match (&one.shape, &other.shape) {
        (Shape::Nothing, _) | (_, Shape::Nothing) => return Outcome::FAILED,
        (Shape::Known(one), Shape::Known(other)) => Outcome::known(is_same(one, other)),
        (Shape::EmptyOptional, Shape::EmptyOptional) => Outcome::known(true),
        (Shape::EmptyOptional | Shape::NullOptional, Shape::Known(_))
        | (Shape::Known(_), Shape::EmptyOptional | Shape::NullOptional)
        | (Shape::EmptyOptional, Shape::NullOptional | Shape::Present)
        | (Shape::NullOptional | Shape::Present, Shape::EmptyOptional) => Outcome::known(false),
        (Shape::Present, Shape::Known(other)) | (Shape::Known(other), Shape::Present)
            if is_empty(other) =>
        {
            Outcome::known(false)
        }
        (Shape::Type(is_null), Shape::Type(other)) if is_null != other => Outcome::known(false),
        (one, other) if is_apart(one, other) => Outcome::known(false),
        (one, other) if is_same_number(one, other) => Outcome::known(true),
        (Shape::Method, Shape::Known(method)) | (Shape::Known(method), Shape::Method)
            if needs_previous(method) =>
        {
            Outcome::known(false)
        }
        _ => Outcome::ANY,
    };
    result.or_else_fails(one.fails || other.fails)
}

pub(super) fn contained(one: &Outcome, list: &Outcome) -> Outcome {
    let result = match (&one.shape, &list.shape) {
        (Shape::Nothing, _) | (_, Shape::Nothing) => return Outcome::FAILED,
        _ if list.is_no_value() => return Outcome::FAILED,
        (Shape::Known(one), Shape::Known(Value::Array(list))) => {
            Outcome::known(list.iter().any(|entry| is_same(one, entry)))
        }
        (Shape::Method, Shape::Known(Value::Array(list))) if list.iter().all(needs_previous) => {
            Outcome::known(false)
        }
        (Shape::Present, Shape::Known(Value::Array(list))) if list.iter().all(is_empty) => {
            Outcome::known(false)
        }
        _ => Outcome::ANY,
    };
    result.or_else_fails(one.fails || list.fails)
}

/// Returns whether a value that is present never equals this one.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns whether two whole numbers have no value in common.
fn is_apart(one: &Shape, other: &Shape) -> bool {
    bounds(one)
        .zip(bounds(other))
        .is_some_and(|(one, other)| one.1 < other.0 || other.1 < one.0)
}

/// Returns whether two whole numbers are known, and equal.
fn is_same_number(one: &Shape, other: &Shape) -> bool {
    bounds(one)
        .zip(bounds(other))
        .is_some_and(|(one, other)| one == other && one.0 == one.1)
}

fn needs_previous(method: &Value) -> bool {
    method
        .as_str()
        .is_some_and(|method| ONLY_WITH_PREVIOUS.contains(&method))
}

/// Compares as the language does: numbers are equal across their types.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        #[expect(clippy::float_cmp, reason = "the language compares in the same way")]
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}
