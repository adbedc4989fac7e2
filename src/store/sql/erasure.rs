//! The statements that erase the data of an identity.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{late_refusals, row};
use crate::base::clock::Timestamp;
use crate::store::Error;
use crate::store::adapter::{Connection, Sql, query};

pub(super) static IDENTITIES_WITH_DATA: Sql = Sql::new(
    "
SELECT DISTINCT identity_id FROM deliveries
WHERE action IS NOT NULL AND identity_id > $1 AND event <> 'identity.deleted'
ORDER BY identity_id LIMIT $2",
);
static IDENTITIES_WITH_LATE_REFUSALS: Sql = Sql::new(
    "
SELECT DISTINCT identity_id FROM late_refusals
WHERE message IS NOT NULL AND identity_id > $1
ORDER BY identity_id LIMIT $2",
);

pub(super) async fn identities_with_data(
    connection: &mut Connection<'_>,
    after: Uuid,
    limit: u32,
) -> Result<Vec<Uuid>, Error> {
    let mut ids = BTreeSet::new();
    for statement in [&IDENTITIES_WITH_DATA, &IDENTITIES_WITH_LATE_REFUSALS] {
        let identities = query(statement).bind(after).bind(limit);
        let rows = identities.fetch_all(connection).await?;
        ids.extend(row::read_all(&rows, |row| row.uuid("identity_id"))?);
    }
    Ok(ids.into_iter().take(limit as usize).collect())
}

// A delivery of `identity.deleted` holds only the id, and is what other systems erase the person by. So it stays.
pub(super) static ERASE_DELIVERIES: Sql = Sql::new(
    "
UPDATE deliveries
SET action = NULL, context = NULL, leased = 0, waiting = 0, settled_at = coalesce(settled_at, $2), state = 'discarded',
    last_error = 'the identity was deleted'
WHERE identity_id = $1 AND action IS NOT NULL AND event <> 'identity.deleted'",
);
// A delivery without an action has no payload, but its identity does not exist any more. No delivery is pending now. Of the others, only their existence is kept.
pub(super) static ERASE_WITHOUT_ACTION: Sql = Sql::new(
    "
UPDATE deliveries
SET state = CASE state WHEN 'abandoned' THEN 'discarded' ELSE state END, settled_at = coalesce(settled_at, $2),
    last_error = 'the identity was deleted'
WHERE identity_id = $1 AND (state = 'abandoned' OR last_error IS NOT NULL) AND event <> 'identity.deleted'",
);
// The error message of a service may contain personal data. What the deletion waited for is discarded, so it waits no longer.
static ERASE_ERRORS: Sql = Sql::new(
    "
UPDATE deliveries SET last_error = NULL, waiting = 0
WHERE identity_id = $1 AND event = 'identity.deleted' AND (last_error IS NOT NULL OR waiting = 1)",
);
// The error message of a service may contain personal data.
pub(super) static ERASE_ATTEMPTS: Sql = Sql::new(
    "
DELETE FROM attempts WHERE delivery_id IN (SELECT id FROM deliveries WHERE identity_id = $1)",
);

// The message may hold a value. The refusal is still in force: erasure does not lift it.
static ERASE_LATE_REFUSALS: Sql = Sql::new(
    "UPDATE late_refusals SET message = NULL WHERE identity_id = $1 AND message IS NOT NULL",
);
static ERASE_SENT_ONCE: Sql = Sql::new("DELETE FROM sent_once WHERE identity_id = $1");
static ERASE_IDENTITY_WRITES: Sql = Sql::new("DELETE FROM identity_writes WHERE identity_id = $1");
static ERASE_SAVED_CHANGES: Sql = Sql::new("DELETE FROM saved_changes WHERE identity_id = $1");
static ERASE_PENDING_SETTINGS: Sql =
    Sql::new("DELETE FROM pending_settings WHERE identity_id = $1");

// The details of released reservations of the flows that this identity used.
static ERASE_RESERVATIONS: Sql = Sql::new(
    "
UPDATE reservations SET details = NULL
WHERE state = 'released' AND details IS NOT NULL AND flow_id IN (
    SELECT flow_id FROM flows WHERE identity_id = $1
    UNION SELECT flow_id FROM pending_sign_ups WHERE identity_id = $1
    UNION SELECT flow_id FROM pending_sign_ups WHERE changed_identity_id = $1)",
);

// Which person a decision was about is personal data.
static ERASE_DECISIONS: Sql =
    Sql::new("UPDATE decisions SET identity_id = NULL WHERE identity_id = $1");

// The identity stays known, so that its deletion is still noticed.
static ERASE_FINGERPRINT: Sql =
    Sql::new("UPDATE identities SET fingerprint = '' WHERE identity_id = $1");

// The details contain the identity before its save, and the keys to look it up.
static ERASE_PENDING_SIGN_UPS: Sql = Sql::new(
    "UPDATE pending_sign_ups SET details = NULL WHERE changed_identity_id = $1 AND details IS NOT NULL",
);

/// Erases the data of an identity within a transaction. Returns how many deliveries held data.
pub(super) async fn forget(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    now: Timestamp,
) -> Result<u64, Error> {
    let forget = query(&ERASE_DELIVERIES).bind(identity_id).bind(now);
    let forgotten = forget.execute(connection).await?;
    let others = query(&ERASE_WITHOUT_ACTION).bind(identity_id).bind(now);
    others.execute(connection).await?;
    for statement in [
        &ERASE_ERRORS,
        &ERASE_ATTEMPTS,
        &ERASE_SENT_ONCE,
        &ERASE_FINGERPRINT,
        &ERASE_IDENTITY_WRITES,
        &ERASE_SAVED_CHANGES,
        &ERASE_PENDING_SETTINGS,
        &ERASE_RESERVATIONS,
        &ERASE_DECISIONS,
        &ERASE_PENDING_SIGN_UPS,
    ] {
        let forget = query(statement).bind(identity_id);
        forget.execute(connection).await?;
    }
    let refusals = query(&ERASE_LATE_REFUSALS).bind(identity_id);
    if refusals.execute(connection).await? > 0 {
        late_refusals::new_version(connection).await?;
    }
    Ok(forgotten)
}
