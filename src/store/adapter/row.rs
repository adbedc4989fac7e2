//! Rows of a result. A column is a text or an integer, or NULL.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Postgres, Row as _, Type, ValueRef as _};

/// A row.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// The column holds a value that this version does not write. The error never holds the value.
#[derive(Debug, thiserror::Error)]
#[error("the column `{0}` has a value that this version does not know")]
struct Unknown(&'static str);

/// Returns the error for a column that holds a value that this version does not write.
pub fn unknown(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(Unknown(column)),
    }
}

impl Row {
    pub fn text(&self, column: &'static str) -> Result<&str, sqlx::Error> {
        self.optional_text(column)?.ok_or_else(|| unknown(column))
    }

    pub fn optional_text(&self, column: &'static str) -> Result<Option<&str>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }

    pub fn integer(&self, column: &'static str) -> Result<i64, sqlx::Error> {
        self.optional_integer(column)?
            .ok_or_else(|| unknown(column))
    }

    pub fn optional_integer(&self, column: &'static str) -> Result<Option<i64>, sqlx::Error> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            // PostgreSQL has several types of integers, and the driver converts none into another.
            Self::Postgres(row) => {
                let is_int4 =
                    <i32 as Type<Postgres>>::compatible(&row.try_get_raw(column)?.type_info());
                if is_int4 {
                    let value: Option<i32> = row.try_get(column)?;
                    return Ok(value.map(i64::from));
                }
                row.try_get(column)
            }
        }
    }
}
