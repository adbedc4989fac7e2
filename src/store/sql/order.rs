//! The statements that keep the deliveries of one subscription to one identity in order.
//!
//! A delivery that is not the first of its subscription and identity is blocked. A claim marks blocked deliveries as
//! waiting, which removes them from the index of due deliveries. So claims stay quick, however many deliveries are
//! blocked. Whatever ends a delivery, or its lease, resumes the next one.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::row;
use crate::base::clock::Timestamp;
use crate::model::delivery::NewDelivery;
use crate::store::Error;
use crate::store::adapter::{Connection, Sql, query};

// A delivery that is being attempted is left alone. Its result decides.
pub(super) static SUPERSEDE: Sql = Sql::new(
    "
UPDATE deliveries
SET state = 'superseded', action = NULL, context = NULL, settled_at = $2, waiting = 0, reason = NULL
WHERE state = 'pending' AND leased = 0 AND supersedes = 1 AND id IN (
    SELECT older.id
    FROM (SELECT value ->> 'id' AS touched_id FROM json_each($1)) AS touched
    JOIN deliveries AS one ON one.id = touched.touched_id
    JOIN deliveries AS older
        ON older.subscription = one.subscription AND older.identity_id = one.identity_id AND older.state = 'pending'
            AND older.ordered_at IS NOT NULL
    WHERE EXISTS (
        SELECT 1 FROM deliveries AS newer
        WHERE newer.identity_id = older.identity_id AND newer.subscription = older.subscription
            AND newer.supersedes = 1 AND (newer.ordered_at, newer.id) > (older.ordered_at, older.id)
            AND (newer.state = 'pending' OR (newer.state = 'delivered' AND older.id = one.id AND CAST($3 AS BIGINT) = 1))
    )
)
RETURNING id, subscription",
);

/// What a transaction superseded.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    pub(super) ids: HashSet<Uuid>,
    /// The subscription of each superseded delivery.
    pub(super) subscriptions: Vec<String>,
}

/// Supersedes older deliveries among those of the same subscriptions and identities as these, within a transaction.
/// `are_new`: these deliveries were just stored, so one that arrived late is superseded by a delivered one too.
pub(super) async fn supersede(
    connection: &mut Connection<'_>,
    ids: &[Uuid],
    are_new: bool,
    now: Timestamp,
) -> Result<Superseded, Error> {
    let mut superseded = Superseded::default();
    if ids.is_empty() {
        return Ok(superseded);
    }
    let supersede = query(&SUPERSEDE)
        .bind(row::list(ids))
        .bind(now)
        .bind(u32::from(are_new));
    for row in &supersede.fetch_all(connection).await? {
        superseded.ids.insert(row.uuid("id")?);
        superseded.subscriptions.push(row.string("subscription")?);
    }
    let ended: Vec<Uuid> = superseded.ids.iter().copied().collect();
    resume(connection, &ended).await?;
    Ok(superseded)
}

// The first that waits, even if an earlier one is pending that does not wait: another transaction may be ending that one.
pub(super) static RESUME: Sql = Sql::new(
    "
UPDATE deliveries SET waiting = 0
WHERE id IN (
    SELECT (
        SELECT next.id FROM deliveries AS next
        WHERE next.subscription = ended.subscription AND next.identity_id = ended.identity_id AND next.state = 'pending'
            AND next.ordered_at IS NOT NULL AND next.waiting = 1
        ORDER BY next.ordered_at, next.id LIMIT 1)
    FROM (SELECT value ->> 'id' AS ended_id FROM json_each($1)) AS list
    JOIN deliveries AS ended ON ended.id = list.ended_id
    WHERE ended.ordered_at IS NOT NULL
)",
);

/// Resumes the delivery that waits for each of these. They have ended, or are no longer leased.
pub(super) async fn resume(connection: &mut Connection<'_>, ended: &[Uuid]) -> Result<(), Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let resume = query(&RESUME).bind(row::list(ended));
    resume.execute(connection).await?;
    Ok(())
}

// A delivery with `once` is stored only if its key is new.
static KEEP_ONCE: Sql = Sql::new(
    "
INSERT INTO sent_once (identity_id, subscription)
SELECT value ->> 'of_identity', value ->> 'of_subscription' FROM json_each($1)
WHERE true
ON CONFLICT (identity_id, subscription) DO NOTHING
RETURNING identity_id, subscription",
);

/// Stores the keys of deliveries with `once`, within a transaction. Returns the deliveries whose key was stored before.
pub(super) async fn keep_once(
    connection: &mut Connection<'_>,
    deliveries: &[NewDelivery],
) -> Result<HashSet<Uuid>, Error> {
    let once = || deliveries.iter().filter(|new| new.order.once);
    let keys: Vec<Value> = once()
        .map(|new| json!({"of_identity": new.identity_id, "of_subscription": new.subscription}))
        .collect();
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let keep = query(&KEEP_ONCE).bind(Value::Array(keys).to_string());
    let mut fresh = HashSet::new();
    for row in &keep.fetch_all(connection).await? {
        fresh.insert((row.uuid("identity_id")?, row.string("subscription")?));
    }
    let is_used =
        |new: &&NewDelivery| !fresh.contains(&(new.identity_id, new.subscription.clone()));
    Ok(once().filter(is_used).map(|new| new.id).collect())
}
