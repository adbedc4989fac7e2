//! The guards that `help:` lines show.

use super::Place;
use crate::expression::{Expression, ReadPath, Variable};

/// The maximum length of an expression that a `help:` line repeats.
const MAX_REPEATED: usize = 160;

/// A condition that a value is there.
pub(super) struct Guard {
    pub holds: String,
    /// The opposite.
    pub fails: String,
}

impl Guard {
    /// `has(path)`
    pub fn has(path: &ReadPath, root: Variable) -> Self {
        Self::of(path.guard(root))
    }

    /// A guard whose opposite has a `!` before it.
    pub fn of(holds: String) -> Self {
        let fails = format!("!{holds}");
        Self { holds, fails }
    }

    /// `value != null`
    pub fn not_null(value: &str) -> Self {
        Self {
            holds: format!("{value} != null"),
            fails: format!("{value} == null"),
        }
    }
}

/// Returns the expression with a guard before it, if it is short enough to be copied. Only the operands of `||` that
/// mention the name need it. What accepts holds without the value.
pub(super) fn guarded(guard: &Guard, place: Place, expression: &Expression, name: &str) -> String {
    let source = expression.source().trim();
    let Guard { holds, fails } = guard;
    let is_long = source.len() > MAX_REPEATED || source.contains('\n');
    let has_choice = source.contains(" ? ");
    if place == Place::Acceptance {
        return match source {
            _ if is_long => format!("{fails} || (…)"),
            _ if has_choice || source.contains("&&") => format!("{fails} || ({source})"),
            _ => format!("{fails} || {source}"),
        };
    }
    let operands = operands(source);
    if is_long {
        format!("{holds} && (…)")
    } else if has_choice {
        format!("{holds} && ({source})")
    } else if operands.len() == 1 {
        format!("{holds} && {source}")
    } else if operands.iter().any(|operand| operand.contains(name)) {
        let with_guard = |operand: &&str| {
            if operand.contains(name) {
                format!("({holds} && {operand})")
            } else {
                (*operand).to_owned()
            }
        };
        let operands: Vec<String> = operands.iter().map(with_guard).collect();
        operands.join(" || ")
    } else {
        format!("{holds} && ({source})")
    }
}

/// Splits an expression at the outermost `||`.
fn operands(source: &str) -> Vec<&str> {
    let mut operands = Vec::new();
    let (mut start, mut depth) = (0, 0_i32);
    let mut quote = None;
    for (at, character) in source.char_indices() {
        match (quote, character) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != character),
            (None, '\'' | '"') => quote = Some(character),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, '|') if depth == 0 && at >= start && source[at..].starts_with("||") => {
                operands.push(source[start..at].trim());
                start = at + 2;
            }
            _ => {}
        }
    }
    operands.push(source.get(start..).unwrap_or_default().trim());
    operands
}
