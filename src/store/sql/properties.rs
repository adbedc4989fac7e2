//! The statements for properties.

use sqlx::Row as _;

use super::Pool;
use crate::store::Error;

pub(super) async fn get_property(readers: &Pool, name: &str) -> Result<Option<String>, Error> {
    let row = sqlx::query("SELECT value FROM properties WHERE name = $1")
        .bind(name)
        .fetch_optional(readers)
        .await?;
    Ok(row.map(|row| row.try_get("value")).transpose()?)
}

const SET_PROPERTY: &str = "
INSERT INTO properties (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value";

pub(super) async fn set_property(
    writer: &Pool,
    name: &str,
    value: Option<&str>,
) -> Result<(), Error> {
    let statement = match value {
        Some(value) => sqlx::query(SET_PROPERTY).bind(name).bind(value),
        None => sqlx::query("DELETE FROM properties WHERE name = $1").bind(name),
    };
    statement.execute(writer).await?;
    Ok(())
}

const INSERT_PROPERTY: &str = "
INSERT INTO properties (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = properties.value
RETURNING value";

pub(super) async fn get_or_insert_property(
    writer: &Pool,
    name: &str,
    value: &str,
) -> Result<String, Error> {
    let row = sqlx::query(INSERT_PROPERTY)
        .bind(name)
        .bind(value)
        .fetch_one(writer)
        .await?;
    Ok(row.try_get("value")?)
}
