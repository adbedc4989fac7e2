//! What a node of an expression can give, and how operators combine it.

use serde_json::Value;

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
            Shape::Any => (true, true),
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
        matches!(self.shape, Shape::Known(Value::Null) | Shape::EmptyOptional)
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
        (Shape::EmptyOptional, Shape::Known(_)) | (Shape::Known(_), Shape::EmptyOptional) => {
            Outcome::known(false)
        }
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
        _ => Outcome::ANY,
    };
    result.or_else_fails(one.fails || list.fails)
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
