//! The statements that delete old records.

use serde_json::json;
use sqlx::Row as _;

use super::{Connection, Pool, row};
use crate::base::clock::Timestamp;
use crate::store::Error;

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
    SELECT flow_id FROM flows WHERE expires_at < $1 AND next_lookup_at IS NULL ORDER BY expires_at LIMIT $2
)";
const DELETE_FLOWS: &str = "
DELETE FROM flows WHERE flow_id IN (
    SELECT flow_id FROM flows WHERE expires_at < $1 AND next_lookup_at IS NULL ORDER BY expires_at LIMIT $2
)";
const DELETE_RESERVATIONS: &str = "
DELETE FROM reservations WHERE id IN (
    SELECT id FROM reservations
    WHERE state IN ('confirmed', 'released') AND expires_at < $1
        AND NOT EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.next_lookup_at IS NOT NULL)
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
