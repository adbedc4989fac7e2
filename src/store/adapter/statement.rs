//! Statements and their parameters.

use std::sync::OnceLock;

use sqlx::postgres::PgArguments;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Postgres, Sqlite};
use uuid::Uuid;

use super::{Connection, Driver, Row};
use crate::base::clock::Timestamp;

/// A statement for both databases, in the syntax of SQLite. It can be pasted into `sqlite3` as it is.
///
/// For PostgreSQL it is changed in two places. `json_each($1)`, the elements of a JSON list, becomes
/// `jsonb_array_elements(CAST($1 AS JSONB))`. A comment `/* postgres: … */` becomes its text.
pub struct Sql {
    sqlite: &'static str,
    postgres: OnceLock<String>,
}

impl Sql {
    pub const fn new(sqlite: &'static str) -> Self {
        Self {
            sqlite,
            postgres: OnceLock::new(),
        }
    }

    pub fn for_sqlite(&self) -> &'static str {
        self.sqlite
    }

    fn for_postgres(&'static self) -> &'static str {
        self.postgres.get_or_init(|| to_postgres(self.sqlite))
    }
}

fn to_postgres(sqlite: &str) -> String {
    let mut parts = sqlite.split("json_each(");
    let start = parts.next().unwrap_or_default().to_owned();
    let lists = parts.map(|part| {
        let (list, rest) = part.split_once(')').unwrap_or((part, ""));
        format!("jsonb_array_elements(CAST({list} AS JSONB)){rest}")
    });
    let postgres: String = std::iter::once(start).chain(lists).collect();
    postgres.replace("/* postgres: ", "").replace(" */", "")
}

/// The value of a parameter.
pub enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
}

/// What a parameter can be: a text or an integer, or what is stored as one of them. Timestamps are stored as
/// milliseconds.
pub trait Parameter {
    /// NULL, which has a type in PostgreSQL.
    const NULL: Value;

    fn value(self) -> Value;
}

macro_rules! parameters {
    ($($type:ty: $kind:ident, |$self:ident| $stored:expr;)+) => {
        $(
            impl Parameter for $type {
                const NULL: Value = Value::$kind(None);

                fn value($self) -> Value {
                    Value::$kind(Some($stored))
                }
            }
        )+
    };
}

parameters! {
    String: Text, |self| self;
    &String: Text, |self| self.clone();
    &str: Text, |self| self.to_owned();
    Uuid: Text, |self| self.to_string();
    i64: Integer, |self| self;
    u32: Integer, |self| self.into();
    Timestamp: Integer, |self| self.timestamp_millis();
}

impl<P: Parameter> Parameter for Option<P> {
    const NULL: Value = P::NULL;

    fn value(self) -> Value {
        self.map_or(P::NULL, P::value)
    }
}

/// A statement with the values of its parameters.
#[must_use]
pub struct Query {
    sql: &'static Sql,
    values: Vec<Value>,
}

/// Creates a query without values. The connection keeps the prepared statement.
pub fn query(sql: &'static Sql) -> Query {
    let values = Vec::new();
    Query { sql, values }
}

impl Query {
    /// Adds the value of the next parameter: `$1`, `$2` and so on.
    pub fn bind(mut self, parameter: impl Parameter) -> Self {
        self.values.push(parameter.value());
        self
    }

    /// Returns all rows.
    pub async fn fetch_all(self, connection: &mut Connection<'_>) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match connection.driver() {
            Driver::Sqlite(connection) => {
                let rows = self.for_sqlite().fetch_all(connection).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Driver::Postgres(connection) => {
                let rows = self.for_postgres().fetch_all(connection).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Returns the first row, if there is one.
    pub async fn fetch_optional(
        self,
        connection: &mut Connection<'_>,
    ) -> Result<Option<Row>, sqlx::Error> {
        Ok(match connection.driver() {
            Driver::Sqlite(connection) => {
                let row = self.for_sqlite().fetch_optional(connection).await?;
                row.map(Row::Sqlite)
            }
            Driver::Postgres(connection) => {
                let row = self.for_postgres().fetch_optional(connection).await?;
                row.map(Row::Postgres)
            }
        })
    }

    /// Returns the first row.
    pub async fn fetch_one(self, connection: &mut Connection<'_>) -> Result<Row, sqlx::Error> {
        let row = self.fetch_optional(connection).await?;
        row.ok_or(sqlx::Error::RowNotFound)
    }

    /// Returns how many rows the statement changed.
    pub async fn execute(self, connection: &mut Connection<'_>) -> Result<u64, sqlx::Error> {
        Ok(match connection.driver() {
            Driver::Sqlite(connection) => {
                let done = self.for_sqlite().execute(connection).await?;
                done.rows_affected()
            }
            Driver::Postgres(connection) => {
                let done = self.for_postgres().execute(connection).await?;
                done.rows_affected()
            }
        })
    }

    fn for_sqlite(self) -> sqlx::query::Query<'static, Sqlite, SqliteArguments> {
        let query = sqlx::query(self.sql.for_sqlite());
        let values = self.values.into_iter();
        values.fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Integer(integer) => query.bind(integer),
        })
    }

    fn for_postgres(self) -> sqlx::query::Query<'static, Postgres, PgArguments> {
        let query = sqlx::query(self.sql.for_postgres());
        let values = self.values.into_iter();
        values.fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Integer(integer) => query.bind(integer),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_for_postgres_differs_in_lists_and_comments() {
        let sql = "
UPDATE flows SET look_at = $2 WHERE flow_id IN (SELECT value ->> 'id' FROM json_each($1)) AND name IN (
    SELECT value ->> 'name' FROM json_each($3) LIMIT 1 /* postgres: FOR UPDATE SKIP LOCKED */)";
        assert_eq!(
            to_postgres(sql),
            "
UPDATE flows SET look_at = $2 WHERE flow_id IN (SELECT value ->> 'id' FROM jsonb_array_elements(CAST($1 AS JSONB))) AND name IN (
    SELECT value ->> 'name' FROM jsonb_array_elements(CAST($3 AS JSONB)) LIMIT 1 FOR UPDATE SKIP LOCKED)"
        );
    }

    #[test]
    fn a_statement_without_lists_and_comments_is_the_same_for_both_databases() {
        let sql = "DELETE FROM locks WHERE name = $1";
        assert_eq!(to_postgres(sql), sql);
    }
}
