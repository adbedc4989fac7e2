//! Reads values of the model from rows, and serializes values for statements.

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::Flow;
use crate::model::delivery::{Event, State};
use crate::store::Error;
use crate::store::adapter::{Row, unknown};

/// Reads each row.
pub(super) fn read_all<T>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, Error> {
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Serializes a value as JSON. All map keys are texts, so serialization cannot fail.
pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Serializes ids or names for a statement that reads them as `value ->> 'id'`.
pub(super) fn list(ids: impl IntoIterator<Item = impl Serialize>) -> String {
    #[derive(Serialize)]
    struct Element<T> {
        id: T,
    }
    let elements: Vec<_> = ids.into_iter().map(|id| Element { id }).collect();
    text(&elements)
}

/// Converts a time to milliseconds.
pub(super) fn moment(timestamp: Timestamp) -> i64 {
    timestamp.timestamp_millis()
}

impl Row {
    pub(super) fn timestamp(&self, column: &'static str) -> Result<Timestamp, sqlx::Error> {
        self.optional_timestamp(column)?
            .ok_or_else(|| unknown(column))
    }

    pub(super) fn optional_timestamp(
        &self,
        column: &'static str,
    ) -> Result<Option<Timestamp>, sqlx::Error> {
        self.optional_integer(column)?
            .map(|moment| Timestamp::from_timestamp_millis(moment).ok_or_else(|| unknown(column)))
            .transpose()
    }

    pub(super) fn uuid(&self, column: &'static str) -> Result<Uuid, sqlx::Error> {
        self.optional_uuid(column)?.ok_or_else(|| unknown(column))
    }

    pub(super) fn optional_uuid(&self, column: &'static str) -> Result<Option<Uuid>, sqlx::Error> {
        self.optional_text(column)?
            .map(|text| Uuid::parse_str(text).map_err(|_| unknown(column)))
            .transpose()
    }

    pub(super) fn string(&self, column: &'static str) -> Result<String, sqlx::Error> {
        self.text(column).map(str::to_owned)
    }

    pub(super) fn optional_string(
        &self,
        column: &'static str,
    ) -> Result<Option<String>, sqlx::Error> {
        Ok(self.optional_text(column)?.map(str::to_owned))
    }

    /// Reads a value that is stored as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, sqlx::Error> {
        self.optional_json(column)?.ok_or_else(|| unknown(column))
    }

    /// Reads an optional value that is stored as JSON.
    pub(super) fn optional_json<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, sqlx::Error> {
        self.optional_text(column)?
            .map(|text| serde_json::from_str(text).map_err(|_| unknown(column)))
            .transpose()
    }

    /// Reads a text that is the name of a value.
    pub(super) fn named<T>(
        &self,
        column: &'static str,
        named: impl Fn(&str) -> Option<T>,
    ) -> Result<T, sqlx::Error> {
        named(self.text(column)?).ok_or_else(|| unknown(column))
    }

    pub(super) fn event(&self) -> Result<Event, sqlx::Error> {
        self.named("event", Event::named)
    }

    pub(super) fn state(&self) -> Result<State, sqlx::Error> {
        self.named("state", State::named)
    }

    pub(super) fn flow(&self) -> Result<Flow, sqlx::Error> {
        self.named("flow", Flow::named)
    }

    /// Reads a number that is never negative.
    pub(super) fn count<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, sqlx::Error> {
        T::try_from(self.integer(column)?).map_err(|_| unknown(column))
    }
}
