//! Converts the result of an expression to JSON and to text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cel::Value as CelValue;
use cel::objects::OptionalValue;
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Number, Value};

use super::EvaluationError;

/// Converts a CEL value to JSON.
///
/// Timestamps become RFC 3339, durations seconds (`90s`), bytes base64 and types their name. An optional becomes its
/// value or null. The keys of a map become texts, in order.
pub(super) fn to_json(value: &CelValue) -> Result<Value, EvaluationError> {
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(bool) => Value::Bool(*bool),
        CelValue::Int(int) => Value::from(*int),
        CelValue::UInt(uint) => Value::from(*uint),
        CelValue::Float(double) => Number::from_f64(*double)
            .map(Value::Number)
            .ok_or_else(|| error("a double that is not a number, like 0.0 / 0.0"))?,
        CelValue::String(text) => Value::String(text.to_string()),
        CelValue::Bytes(bytes) => Value::String(BASE64_STANDARD.encode(bytes.as_slice())),
        CelValue::Timestamp(time) => {
            let time = time.with_timezone(&Utc);
            Value::String(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
        }
        CelValue::Duration(duration) => Value::String(seconds(*duration)),
        CelValue::List(list) => Value::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        CelValue::Map(map) => {
            let mut entries = map
                .map
                .iter()
                .map(|(key, value)| Ok((key.to_string(), to_json(value)?)))
                .collect::<Result<Vec<_>, EvaluationError>>()?;
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(Map::from_iter(entries))
        }
        CelValue::Opaque(opaque) => match opaque.downcast_ref::<OptionalValue>() {
            Some(optional) => optional.value().map_or(Ok(Value::Null), to_json)?,
            None => return Err(error("a value that JSON cannot express")),
        },
        _ => return Err(error("a value that JSON cannot express")),
    })
}

/// Formats a duration as `1.5s`.
fn seconds(duration: TimeDelta) -> String {
    let nanoseconds = duration.subsec_nanos();
    let sign = if duration < TimeDelta::zero() {
        "-"
    } else {
        ""
    };
    let whole = duration.num_seconds().unsigned_abs();
    if nanoseconds == 0 {
        return format!("{sign}{whole}s");
    }
    let fraction = format!("{:09}", nanoseconds.unsigned_abs());
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

/// Converts a value to a part of a text.
pub(super) fn text(value: &Value) -> Result<String, EvaluationError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err(EvaluationError::new(
            "null cannot be put into a text".to_owned(),
        )),
        Value::Array(_) => Err(EvaluationError::new(
            "a list cannot be put into a text".to_owned(),
        )),
        Value::Object(_) => Err(EvaluationError::new(
            "a map cannot be put into a text".to_owned(),
        )),
    }
}

/// Returns the type of a value, for a message.
pub(super) fn kind(value: &CelValue) -> &'static str {
    match value {
        CelValue::Opaque(opaque) if opaque.downcast_ref::<OptionalValue>().is_some() => {
            named("optional")
        }
        value => named(&value.type_of().to_string()),
    }
}

/// Returns the name of a CEL type, for a message.
pub(super) fn named(name: &str) -> &'static str {
    match name {
        "bool" => "a bool",
        "bytes" => "bytes",
        "double" | "float" => "a double",
        "int" => "an int",
        "null" | "null_type" => "null",
        "optional" | "optional_type" => "an optional value",
        "pattern" => "a pattern",
        "string" => "a string",
        "type" => "a type",
        "uint" => "a uint",
        "google.protobuf.Duration" | "duration" => "a duration",
        "google.protobuf.Timestamp" | "timestamp" => "a timestamp",
        name if name.starts_with("list") => "a list",
        name if name.starts_with("map") => "a map",
        _ => "something else",
    }
}

fn error(what: &str) -> EvaluationError {
    EvaluationError::new(format!("gave {what}"))
}
