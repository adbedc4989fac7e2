//! Sizes of lists and texts of which only a part is known, and how they compare.

use cel::common::ast::operators;
use serde_json::Value;

use super::outcome::{Outcome, Shape};

/// Returns whether a function is `<`, `<=`, `>` or `>=`.
pub(super) fn is_comparison(name: &str) -> bool {
    [
        operators::LESS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::GREATER_EQUALS,
    ]
    .contains(&name)
}

/// Returns the outcome of `size(x)`.
pub(super) fn size(of: &Outcome) -> Outcome {
    let (least, most) = match &of.shape {
        Shape::Known(Value::Array(list)) => exactly(list.len()),
        Shape::Known(Value::String(text)) => exactly(text.chars().count()),
        Shape::Short(length) => (0, *length),
        Shape::Present => (1, i64::MAX),
        _ => return Outcome::ANY,
    };
    Outcome {
        fails: false,
        shape: Shape::Between(least, most),
    }
}

fn exactly(length: usize) -> (i64, i64) {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    (length, length)
}

/// Returns the bounds of a whole number.
pub(super) fn bounds(shape: &Shape) -> Option<(i64, i64)> {
    match shape {
        Shape::Between(least, most) => Some((*least, *most)),
        Shape::Known(Value::Number(number)) => number.as_i64().map(|number| (number, number)),
        _ => None,
    }
}

/// Returns the outcome of a comparison of two numbers; `None` if they are not known well enough.
pub(super) fn ordered(name: &str, one: &Outcome, other: &Outcome) -> Option<Outcome> {
    let (one_bounds, other_bounds) = (bounds(&one.shape)?, bounds(&other.shape)?);
    let ((least, most), (other_least, other_most)) = match name {
        operators::LESS | operators::LESS_EQUALS => (one_bounds, other_bounds),
        _ => (other_bounds, one_bounds),
    };
    let is_strict = [operators::LESS, operators::GREATER].contains(&name);
    let (holds, fails) = if is_strict {
        (most < other_least, least >= other_most)
    } else {
        (most <= other_least, least > other_most)
    };
    Some(Outcome::condition(!fails, !holds, one.fails || other.fails))
}
