//! The result of an expression as JSON, and as text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cel::Value as CelValue;
use cel::objects::OptionalValue;
use chrono::{SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Number, Value};

use super::EvaluationError;

/// A value of the language as JSON.
///
/// Timestamps become RFC 3339, durations seconds (`90s`), bytes base64, types their name, an
/// optional its value or null; the keys of a map become texts, in order.
pub(super) fn to_json(value: &CelValue) -> Result<Value, EvaluationError> {
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(bool) => Value::Bool(*bool),
        CelValue::Int(int) => Value::from(*int),
        CelValue::UInt(uint) => Value::from(*uint),
        CelValue::Float(double) => Number::from_f64(*double)
            .map(Value::Number)
            .ok_or_else(|| error("a double that is no number, such as 0.0 / 0.0"))?,
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
            None => return Err(error("something that has no form in JSON")),
        },
        _ => return Err(error("something that has no form in JSON")),
    })
}

/// `1.5s`
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

/// A value as part of a text.
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

/// What kind of value it is, for a message.
pub(super) fn kind(value: &CelValue) -> &'static str {
    match value {
        CelValue::Opaque(opaque) if opaque.downcast_ref::<OptionalValue>().is_some() => {
            named("optional")
        }
        value => named(&value.type_of().to_string()),
    }
}

/// The name of a type of the language, for a message.
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
