//! The statements for locks, properties, retention and erasure.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::row;
use super::{Connection, Pool, late_refusals};
use crate::base::clock::Timestamp;
use crate::store::Error;

const ACQUIRE_LOCK: &str = "
INSERT INTO locks (name, holder, until) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE locks.until <= $4 OR locks.holder = excluded.holder";

pub(super) async fn acquire_lock(
    writer: &Pool,
    name: &str,
    holder: Uuid,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query(ACQUIRE_LOCK)
        .bind(name)
        .bind(holder.to_string())
        .bind(row::moment(until))
        .bind(row::moment(now))
        .execute(writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn release_lock(writer: &Pool, name: &str, holder: Uuid) -> Result<(), Error> {
    sqlx::query("DELETE FROM locks WHERE name = $1 AND holder = $2")
        .bind(name)
        .bind(holder.to_string())
        .execute(writer)
        .await?;
    Ok(())
}

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

// Ids begin with the time, so old deliveries come first. An abandoned delivery is kept for the operator, unless it
// belongs to no identity with which it could be erased.
const SETTLED_DELIVERIES: &str = "
SELECT id FROM deliveries
WHERE id < $1 AND settled_at < $2
    AND (state IN ('delivered', 'discarded') OR (state = 'abandoned' AND identity_id = '00000000-0000-0000-0000-000000000000'))
ORDER BY id LIMIT $3";
const DELETE_ATTEMPTS: &str = concat!("DELETE FROM attempts WHERE delivery_id IN ", texts!("$1"));
const DELETE_DELIVERIES: &str = concat!("DELETE FROM deliveries WHERE id IN ", texts!("$1"));

/// Deletes settled deliveries within a transaction.
pub(super) async fn delete_settled(
    connection: &mut Connection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let rows = sqlx::query(SETTLED_DELIVERIES)
        .bind(crate::model::delivery::first_id_of(before).to_string())
        .bind(row::moment(before))
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
    let ids = rows
        .iter()
        .map(|row| row.try_get::<String, _>("id"))
        .collect::<Result<Vec<_>, _>>()?;
    if ids.is_empty() {
        return Ok(0);
    }
    let ids = json!(ids).to_string();
    sqlx::query(DELETE_ATTEMPTS)
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    let done = sqlx::query(DELETE_DELIVERIES)
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    Ok(done.rows_affected())
}

// Reads only the oldest rows, however many there are.
const DELETE_DECISIONS: &str = "
DELETE FROM decisions WHERE id IN (
    SELECT id FROM (SELECT id, at FROM decisions ORDER BY id LIMIT $2) AS oldest WHERE at < $1
)";

pub(super) async fn delete_decisions(
    writer: &Pool,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let done = sqlx::query(DELETE_DECISIONS)
        .bind(row::moment(before))
        .bind(i64::from(limit))
        .execute(writer)
        .await?;
    Ok(done.rows_affected())
}

const DELETE_SUBMISSIONS: &str = "
DELETE FROM pending_sign_ups WHERE flow_id IN (
    SELECT flow_id FROM flows WHERE expires_at < $1 AND look_at IS NULL ORDER BY expires_at LIMIT $2
)";
const DELETE_FLOWS: &str = "
DELETE FROM flows WHERE flow_id IN (
    SELECT flow_id FROM flows WHERE expires_at < $1 AND look_at IS NULL ORDER BY expires_at LIMIT $2
)";
const DELETE_RESERVATIONS: &str = "
DELETE FROM reservations WHERE id IN (
    SELECT id FROM reservations
    WHERE state IN ('confirmed', 'released') AND expires_at < $1
        AND NOT EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.look_at IS NOT NULL)
    ORDER BY expires_at LIMIT $2
)";

// The holders of these locks have ended without releasing them.
const DELETE_LOCKS: &str = "
DELETE FROM locks WHERE name IN (SELECT name FROM locks WHERE until < $1 LIMIT $2)";

const DELETE_LATE_REFUSALS: &str = "
DELETE FROM late_refusals WHERE identity_id IN (
    SELECT identity_id FROM late_refusals WHERE lifted_at < $1 ORDER BY lifted_at LIMIT $2
) AND lifted_at < $1";

// The `post` of these calls was lost.
const DELETE_PENDING_SETTINGS: &str = "
DELETE FROM pending_settings WHERE identity_id IN (
    SELECT identity_id FROM pending_settings WHERE first_at < $1 ORDER BY first_at LIMIT $2
)";

pub(super) async fn delete_ended(
    connection: &mut Connection,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let mut deleted = 0;
    for statement in [
        DELETE_SUBMISSIONS,
        DELETE_FLOWS,
        DELETE_RESERVATIONS,
        DELETE_LOCKS,
        DELETE_LATE_REFUSALS,
        DELETE_PENDING_SETTINGS,
    ] {
        let done = sqlx::query(statement)
            .bind(row::moment(before))
            .bind(i64::from(limit))
            .execute(&mut *connection)
            .await?;
        deleted += done.rows_affected();
    }
    Ok(deleted)
}

pub(super) const IDENTITIES_WITH_DATA: &str = "
SELECT DISTINCT identity_id FROM deliveries
WHERE action IS NOT NULL AND identity_id > $1
ORDER BY identity_id LIMIT $2";
pub(super) const IDENTITIES_WITH_LATE_REFUSALS: &str = "
SELECT DISTINCT identity_id FROM late_refusals
WHERE message IS NOT NULL AND identity_id > $1
ORDER BY identity_id LIMIT $2";

pub(super) async fn identities_with_data(
    readers: &Pool,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Uuid>, Error> {
    let mut ids = BTreeSet::new();
    for statement in [IDENTITIES_WITH_DATA, IDENTITIES_WITH_LATE_REFUSALS] {
        let rows = sqlx::query(statement)
            .bind(after.to_string())
            .bind(i64::from(limit))
            .fetch_all(readers)
            .await?;
        for row in &rows {
            ids.insert(row::uuid(row, "identity_id")?);
        }
    }
    Ok(ids.into_iter().take(limit as usize).collect())
}

pub(super) const ERASE_DELIVERIES: &str = "
UPDATE deliveries
SET action = NULL, context = NULL, leased = 0, settled_at = coalesce(settled_at, $2), state = 'discarded',
    last_error = 'the identity was deleted'
WHERE identity_id = $1 AND action IS NOT NULL";
// The error message of a service may contain personal data.
pub(super) const ERASE_ATTEMPTS: &str = "
DELETE FROM attempts WHERE delivery_id IN (SELECT id FROM deliveries WHERE identity_id = $1)";
// A delivery that could not be built has no payload, but its identity does not exist any more. No delivery is pending
// now. Of the others, only their existence is kept.
pub(super) const ERASE_UNBUILT: &str = "
UPDATE deliveries
SET state = CASE state WHEN 'abandoned' THEN 'discarded' ELSE state END, settled_at = coalesce(settled_at, $2),
    last_error = 'the identity was deleted'
WHERE identity_id = $1 AND (state = 'abandoned' OR last_error IS NOT NULL)";

// The message may hold a value. The refusal is still in force: erasure does not lift it.
const ERASE_LATE_REFUSALS: &str =
    "UPDATE late_refusals SET message = NULL WHERE identity_id = $1 AND message IS NOT NULL";
const ERASE_IDENTITY_WRITES: &str = "DELETE FROM identity_writes WHERE identity_id = $1";
const ERASE_SAVED_CHANGES: &str = "DELETE FROM saved_changes WHERE identity_id = $1";
const ERASE_PENDING_SETTINGS: &str = "DELETE FROM pending_settings WHERE identity_id = $1";

// The details of released reservations of the flows that this identity used.
const ERASE_RESERVATIONS: &str = "
UPDATE reservations SET details = NULL
WHERE state = 'released' AND details IS NOT NULL AND flow_id IN (
    SELECT flow_id FROM flows WHERE identity_id = $1
    UNION SELECT flow_id FROM pending_sign_ups WHERE identity_id = $1
    UNION SELECT flow_id FROM pending_sign_ups WHERE changed_identity_id = $1)";

// The details contain the identity before its save, and the keys to look it up.
const ERASE_PENDING_SIGN_UPS: &str = "UPDATE pending_sign_ups SET details = NULL WHERE changed_identity_id = $1 AND details IS NOT NULL";

/// Erases the data of an identity within a transaction.
pub(super) async fn forget(
    connection: &mut Connection,
    identity_id: Uuid,
    now: Timestamp,
) -> Result<u64, Error> {
    let id = identity_id.to_string();
    let done = sqlx::query(ERASE_DELIVERIES)
        .bind(&id)
        .bind(row::moment(now))
        .execute(&mut *connection)
        .await?;
    sqlx::query(ERASE_UNBUILT)
        .bind(&id)
        .bind(row::moment(now))
        .execute(&mut *connection)
        .await?;
    for statement in [
        ERASE_ATTEMPTS,
        ERASE_LATE_REFUSALS,
        ERASE_IDENTITY_WRITES,
        ERASE_SAVED_CHANGES,
        ERASE_PENDING_SETTINGS,
        ERASE_RESERVATIONS,
        ERASE_PENDING_SIGN_UPS,
    ] {
        let done = sqlx::query(statement)
            .bind(&id)
            .execute(&mut *connection)
            .await?;
        if statement == ERASE_LATE_REFUSALS && done.rows_affected() > 0 {
            late_refusals::new_version(&mut *connection).await?;
        }
    }
    Ok(done.rows_affected())
}
