//! Why an evaluation failed, in words that hold no value.
//!
//! The library's own texts hold the values that it stumbled over, which are a person's data. So
//! only names that the operator wrote and names of types get from there into ours.

use cel::ExecutionError;

use super::EvaluationError;
use super::convert::{kind, named};
use super::functions::{FUNCTIONS, NO_DOMAIN, NO_TEXT, TOO_MANY};
use super::path::Miss;
use super::resolve::{BUDGET, Resolver};

/// The error in our words. `written` tells whether the operator wrote such a key.
pub(super) fn explain(
    error: &ExecutionError,
    resolver: &Resolver<'_>,
    written: impl Fn(&str) -> bool,
) -> EvaluationError {
    if let ExecutionError::UndeclaredReference(name) = error {
        if let Some((path, miss)) = resolver.miss(name) {
            return EvaluationError {
                message: path.explain(miss),
                missing_check: miss == Miss::Check,
            };
        }
        if name.as_str() == BUDGET || resolver.exhausted() {
            return EvaluationError::new(
                "took too many steps: the lists are too long for its loops".to_owned(),
            );
        }
    }
    EvaluationError::new(words(error, written))
}

fn words(error: &ExecutionError, written: impl Fn(&str) -> bool) -> String {
    match error {
        ExecutionError::NoSuchKey(key) if written(key) => format!("no such key `{key}`"),
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::NoSuchOverload(overload) => {
            let kinds = overload.argument_types().iter().map(|kind| named(kind));
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
            format!("{} stands where true or false is needed", named(got))
        }
        ExecutionError::UnexpectedType { got, want } if want == "iterable" => {
            format!("{} stands where a list is needed", named(got))
        }
        ExecutionError::UnexpectedType { got, .. } => {
            format!("{} stands where it cannot be used", named(got))
        }
        ExecutionError::UnsupportedTargetType { target } => {
            format!("{} stands where it cannot be used", kind(target))
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
            format!("a function takes {expected} arguments and was given {actual}")
        }
        _ => "cannot be worked out".to_owned(),
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

/// What a function that was called rightly says of what it was given.
fn failed(function: &str, message: &str) -> String {
    if [NO_DOMAIN, NO_TEXT, TOO_MANY].contains(&message) {
        return format!("{}: {message}", symbol(function));
    }
    match function {
        "substring" | "charAt" | "indexOf" | "lastIndexOf" | "slice" => {
            format!("`{function}`: the text or list is not that long")
        }
        "value" => "`value`: the optional value is empty".to_owned(),
        "bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint" => {
            format!("`{function}` cannot convert what it was given")
        }
        _ => format!("{} cannot work with what it was given", symbol(function)),
    }
}

/// A function or operator as it is written.
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
        "@distinct" => "distinct",
        "@sortByAssociatedKeys" => "sortBy",
        name => FUNCTIONS
            .iter()
            .find(|known| known.name == name)
            .map_or("a function", |known| known.name),
    };
    match written {
        "a function" => written.to_owned(),
        _ => format!("`{written}`"),
    }
}
