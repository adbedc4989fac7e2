//! Converts errors of an evaluation to messages without values.
//!
//! The library's own messages contain the values that caused the error, which are a visitor's data. So Vestibule's
//! messages only contain names that the operator wrote and names of types.

use cel::ExecutionError;

use super::EvaluationError;
use super::budget::METER_TYPE;
use super::convert::{kind, named};
use super::functions::{FUNCTIONS, NO_DOMAIN, NO_TEXT, TOO_MANY};
use super::path::Miss;
use super::resolve::Resolver;
use super::texts::{NOT_BASE64, NOT_TEXT, TOO_LONG};

/// The errors of Vestibule's own functions. None of them holds a value.
const OWN_ERRORS: [&str; 6] = [NO_DOMAIN, NO_TEXT, TOO_MANY, TOO_LONG, NOT_BASE64, NOT_TEXT];

/// Converts an error of the library. `written` returns whether the operator wrote a key.
pub(super) fn explain(
    error: &ExecutionError,
    resolver: &Resolver<'_>,
    written: impl Fn(&str) -> bool,
) -> EvaluationError {
    if let ExecutionError::UndeclaredReference(name) = error
        && let Some((path, miss)) = resolver.miss(name)
    {
        return EvaluationError {
            message: path.explain(miss),
            missing_check: miss == Miss::Check,
            missing_input: path.root.is_input(),
            is_over_budget: false,
        };
    }
    EvaluationError::new(message(error, written))
}

fn message(error: &ExecutionError, written: impl Fn(&str) -> bool) -> String {
    match error {
        ExecutionError::NoSuchKey(key) if written(key) => format!("no such key `{key}`"),
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::NoSuchOverload(overload) => {
            let arguments = overload.argument_types().iter();
            let arguments = arguments.filter(|kind| *kind != METER_TYPE.name());
            let kinds = arguments.map(|kind| named(kind));
            unsuited(overload.function(), &kinds.collect::<Vec<_>>())
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            unsuited(operator, &[kind(left), kind(right)])
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", kind(left), kind(right))
        }
        ExecutionError::UnsupportedIndex(index, value) => {
            unsuited("_[_]", &[kind(value), kind(index)])
        }
        ExecutionError::UnexpectedType { got, want } if want == "bool" => {
            format!("{} is used where true or false is needed", named(got))
        }
        ExecutionError::UnexpectedType { got, want } if want == "iterable" => {
            format!("{} is used where a list is needed", named(got))
        }
        ExecutionError::UnexpectedType { got, .. } => {
            format!("{} is used where it is not allowed", named(got))
        }
        ExecutionError::UnsupportedTargetType { target } => {
            format!("{} is used where it is not allowed", kind(target))
        }
        ExecutionError::NotSupportedAsMethod { method, target } => {
            unsuited(method, &[kind(target)])
        }
        ExecutionError::UnsupportedKeyType(key) => {
            format!("{} cannot be the key of a map", kind(key))
        }
        ExecutionError::FunctionError { function, message } => failed(function, message),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "remainder of a division by zero".to_owned(),
        ExecutionError::Overflow(operator, ..) => {
            format!("the result of {} is too large", symbol(operator))
        }
        ExecutionError::IndexOutOfBounds(_) => "index out of range".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("a function takes {expected} arguments, and got {actual}")
        }
        _ => "cannot be evaluated".to_owned(),
    }
}

fn unsuited(function: &str, kinds: &[&str]) -> String {
    match (function, kinds) {
        ("_._" | "_?._", [value, ..]) => format!("{value} has no keys"),
        ("_[_]" | "_[?_]", [value, index]) => format!("{value} has no element by {index}"),
        (_, kinds) => format!(
            "{} does not work on {}",
            symbol(function),
            kinds.join(" and ")
        ),
    }
}

/// Formats the error of a function that was called with the right types.
fn failed(function: &str, message: &str) -> String {
    if OWN_ERRORS.contains(&message) {
        return format!("{}: {message}", symbol(function));
    }
    match function {
        "substring" | "charAt" | "indexOf" | "lastIndexOf" | "slice" => {
            format!("`{function}`: the text or list is not that long")
        }
        "value" => "`value`: the optional value is empty".to_owned(),
        "bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint" => {
            format!("`{function}` cannot convert its argument")
        }
        _ => format!("{} cannot use its arguments", symbol(function)),
    }
}

/// Returns a function or operator as it is written.
fn symbol(function: &str) -> String {
    let written = match function {
        "add" | "_+_" => "+",
        "sub" | "_-_" | "-_" => "-",
        "mul" | "_*_" => "*",
        "div" | "_/_" => "/",
        "rem" | "_%_" => "%",
        "_==_" => "==",
        "_!=_" => "!=",
        "_<_" => "<",
        "_<=_" => "<=",
        "_>_" => ">",
        "_>=_" => ">=",
        "_&&_" => "&&",
        "_||_" => "||",
        "!_" => "!",
        "_?_:_" => "? :",
        "@in" => "in",
        "@sortByAssociatedKeys" => "sortBy",
        name => {
            let name = name.trim_start_matches('@');
            let mut known = FUNCTIONS.iter().filter(|known| known.name == name);
            known.next().map_or("a function", |known| known.name)
        }
    };
    match written {
        "a function" => written.to_owned(),
        _ => format!("`{written}`"),
    }
}
