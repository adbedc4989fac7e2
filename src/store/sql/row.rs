//! Converts values from and to columns.

use serde::Serialize;
use sqlx::Row;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::Flow;
use crate::model::delivery::{Event, State};

pub(super) use super::DbRow;

/// The column holds a value that this version does not write. The error never holds the value.
#[derive(Debug, thiserror::Error)]
#[error("the column `{0}` has a value that this version does not know")]
struct Unknown(&'static str);

pub(super) fn unknown(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(Unknown(column)),
    }
}

/// Converts a time to milliseconds.
pub(super) fn moment(timestamp: Timestamp) -> i64 {
    timestamp.timestamp_millis()
}

pub(super) fn timestamp(row: &DbRow, column: &'static str) -> Result<Timestamp, sqlx::Error> {
    optional_timestamp(row, column)?.ok_or_else(|| unknown(column))
}

pub(super) fn optional_timestamp(
    row: &DbRow,
    column: &'static str,
) -> Result<Option<Timestamp>, sqlx::Error> {
    row.try_get::<Option<i64>, _>(column)?
        .map(|moment| Timestamp::from_timestamp_millis(moment).ok_or_else(|| unknown(column)))
        .transpose()
}

pub(super) fn uuid(row: &DbRow, column: &'static str) -> Result<Uuid, sqlx::Error> {
    Uuid::parse_str(row.try_get(column)?).map_err(|_| unknown(column))
}

pub(super) fn optional_uuid(
    row: &DbRow,
    column: &'static str,
) -> Result<Option<Uuid>, sqlx::Error> {
    row.try_get::<Option<&str>, _>(column)?
        .map(|text| Uuid::parse_str(text).map_err(|_| unknown(column)))
        .transpose()
}

pub(super) fn event(row: &DbRow) -> Result<Event, sqlx::Error> {
    Event::named(row.try_get("event")?).ok_or_else(|| unknown("event"))
}

pub(super) fn state(row: &DbRow) -> Result<State, sqlx::Error> {
    State::named(row.try_get("state")?).ok_or_else(|| unknown("state"))
}

/// Serializes a value as JSON. All map keys are texts, so serialization cannot fail.
pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Reads a value that is stored as JSON.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &DbRow,
    column: &'static str,
) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|_| unknown(column))
}

/// Reads an optional value that is stored as JSON.
pub(super) fn optional_json<T: serde::de::DeserializeOwned>(
    row: &DbRow,
    column: &'static str,
) -> Result<Option<T>, sqlx::Error> {
    row.try_get::<Option<&str>, _>(column)?
        .map(|text| serde_json::from_str(text).map_err(|_| unknown(column)))
        .transpose()
}

pub(super) fn flow(row: &DbRow) -> Result<Flow, sqlx::Error> {
    Flow::named(row.try_get("flow")?).ok_or_else(|| unknown("flow"))
}

/// Reads a small number that is never negative. PostgreSQL has no unsigned type.
pub(super) fn count(row: &DbRow, column: &'static str) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i32, _>(column)?).map_err(|_| unknown(column))
}

/// Reads a count.
pub(super) fn number(row: &DbRow, column: &'static str) -> Result<u64, sqlx::Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| unknown(column))
}
