//! The statements that erase the data of an identity.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Connection, Pool, late_refusals, row};
use crate::base::clock::Timestamp;
use crate::store::Error;

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
