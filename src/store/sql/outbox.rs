//! The statements of the outbox: accept, claim and return deliveries.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::order::{self, Superseded};
use super::row;
use crate::base::clock::{Timestamp, saturating_add};
use crate::model::delivery::subscription::Built;
use crate::model::delivery::{AbandonReason, Action, Claimed, Event, NewDelivery, State};
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::{Error, NextDue};

// An existing delivery is kept. Only a delivery that could not be built is replaced by one that could be built with more
// data. A delivery with `only_replaces` is not stored in another way.
static ACCEPT: Sql = Sql::new(
    "
INSERT INTO deliveries
    (id, subscription, event, unique_key, identity_id, action, context, state, leased, run_at, attempts,
     keep_trying_until, created_at, settled_at, last_error, reason, ordered_at, supersedes)
SELECT value ->> 'id', value ->> 'subscription', value ->> 'event', value ->> 'unique_key', value ->> 'identity_id',
    value ->> 'action', value ->> 'context', value ->> 'state', 0, CAST(value ->> 'run_at' AS BIGINT), 0,
    CAST(value ->> 'keep_trying_until' AS BIGINT), CAST(value ->> 'created_at' AS BIGINT),
    CAST(value ->> 'settled_at' AS BIGINT), value ->> 'last_error', value ->> 'reason',
    CAST(value ->> 'ordered_at' AS BIGINT), CAST(value ->> 'supersedes' AS INTEGER)
FROM json_each($1)
WHERE CAST(value ->> 'only_replaces' AS INTEGER) = 0 OR EXISTS (
    SELECT 1 FROM deliveries AS stored
    WHERE stored.subscription = value ->> 'subscription' AND stored.unique_key = value ->> 'unique_key')
ON CONFLICT (subscription, unique_key) DO UPDATE
SET id = excluded.id, event = excluded.event, action = excluded.action, context = excluded.context, state = excluded.state,
    run_at = excluded.run_at, keep_trying_until = excluded.keep_trying_until, created_at = excluded.created_at,
    settled_at = NULL, last_error = NULL, reason = NULL, ordered_at = excluded.ordered_at, supersedes = excluded.supersedes
WHERE deliveries.state = 'abandoned' AND (deliveries.action IS NULL OR deliveries.reason = 'not_built')
    AND excluded.action IS NOT NULL AND excluded.reason IS NULL
RETURNING id",
);

/// What storing deliveries did.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    /// The ids of the new deliveries.
    pub(super) new: HashSet<Uuid>,
    /// What the new deliveries superseded.
    pub(super) superseded: Superseded,
}

/// Returns whether storing these deliveries takes several statements.
pub(super) fn needs_transaction(deliveries: &[NewDelivery]) -> bool {
    deliveries
        .iter()
        .any(|new| new.order.once || new.order.supersedes)
}

/// Stores deliveries, within a transaction if they [need](needs_transaction) one.
pub(super) async fn accept(
    connection: &mut Connection<'_>,
    deliveries: &[NewDelivery],
) -> Result<Accepted, Error> {
    if deliveries.is_empty() {
        return Ok(Accepted::default());
    }
    let used = order::keep_once(connection, deliveries).await?;
    let rows: Vec<NewRow<'_>> = each_once(deliveries)
        .map(|new| NewRow::of(new, used.contains(&new.id)))
        .collect();
    let accept = query(&ACCEPT).bind(row::text(&rows));
    let new = ids(&accept.fetch_all(connection).await?)?;
    let superseding: Vec<&NewDelivery> = deliveries
        .iter()
        .filter(|one| one.order.supersedes && new.contains(&one.id))
        .collect();
    let superseding_ids: Vec<Uuid> = superseding.iter().map(|one| one.id).collect();
    let now = superseding.iter().map(|one| one.created_at).max();
    let superseded =
        order::supersede(connection, &superseding_ids, true, now.unwrap_or_default()).await?;
    Ok(Accepted { new, superseded })
}

/// Removes duplicates, because a statement may change each row only once.
fn each_once(deliveries: &[NewDelivery]) -> impl Iterator<Item = &NewDelivery> {
    let mut seen = HashSet::with_capacity(deliveries.len());
    deliveries
        .iter()
        .filter(move |new| seen.insert((&new.subscription, &new.unique_key)))
}

pub(super) fn ids(rows: &[Row]) -> Result<HashSet<Uuid>, Error> {
    let ids = rows.iter().map(|row| row.uuid("id"));
    Ok(ids.collect::<Result<_, _>>()?)
}

#[derive(Serialize)]
struct NewRow<'a> {
    id: Uuid,
    subscription: &'a str,
    event: Event,
    unique_key: &'a str,
    identity_id: Uuid,
    action: Option<String>,
    context: Option<String>,
    state: State,
    run_at: i64,
    keep_trying_until: i64,
    created_at: i64,
    settled_at: Option<i64>,
    last_error: Option<&'a str>,
    reason: Option<&'static str>,
    ordered_at: Option<i64>,
    supersedes: u32,
    only_replaces: u32,
}

impl<'a> NewRow<'a> {
    fn of(new: &'a NewDelivery, only_replaces: bool) -> Self {
        let action = new.action.as_ref().ok().map(row::text);
        let last_error = new.unbuilt_reason();
        let state = match last_error {
            Some(_) => State::Abandoned,
            None => State::Pending,
        };
        let is_unbuilt = matches!(&new.action, Ok(Action::Build(_)));
        let context = new.context.as_ref().filter(|_| action.is_some());
        let created_at = row::moment(new.created_at);
        Self {
            id: new.id,
            subscription: &new.subscription,
            event: new.event,
            unique_key: &new.unique_key,
            identity_id: new.identity_id,
            action,
            context: context.map(row::text),
            state,
            run_at: row::moment(new.due_at),
            keep_trying_until: row::moment(new.keep_trying_until),
            created_at,
            settled_at: last_error.map(|_| created_at),
            last_error,
            reason: is_unbuilt.then_some(AbandonReason::NotBuilt.as_str()),
            ordered_at: new.order.updated_at.map(|at| at.timestamp_micros()),
            supersedes: new.order.supersedes.into(),
            only_replaces: only_replaces.into(),
        }
    }
}

// Jumps from subscription to subscription along the index, however many deliveries each has.
pub(super) static NEXT_DUE: Sql = Sql::new(
    "
WITH RECURSIVE subscriptions (subscription) AS (
    SELECT min(subscription) FROM deliveries WHERE state = 'pending' AND waiting = 0
    UNION ALL
    SELECT (
        SELECT min(subscription) FROM deliveries
        WHERE state = 'pending' AND waiting = 0 AND subscription > subscriptions.subscription)
    FROM subscriptions WHERE subscription IS NOT NULL
)
SELECT subscription, (
    SELECT min(run_at) FROM deliveries
    WHERE state = 'pending' AND waiting = 0 AND subscription = subscriptions.subscription) AS run_at
FROM subscriptions WHERE subscription IS NOT NULL",
);

pub(super) async fn next_due(connection: &mut Connection<'_>) -> Result<Vec<NextDue>, Error> {
    let rows = query(&NEXT_DUE).fetch_all(connection).await?;
    // If the last delivery of a subscription is settled between the two reads, the time is NULL.
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(at) = row.optional_timestamp("run_at")? {
            let subscription = row.string("subscription")?;
            due.push(NextDue { subscription, at });
        }
    }
    Ok(due)
}

// Ordered by time alone, like the index. With the id as well, each claim would read and sort all deliveries that are
// due at one moment. There may be a million of them, as after a `retry` of all. On PostgreSQL, rows that another
// instance is claiming are skipped.
//
// A delivery whose lease has expired goes on, whatever is before it. Any other delivery is blocked by one of its
// subscription and identity that is leased, or that comes first. A blocked delivery is not leased; it is marked as
// waiting. On PostgreSQL it is marked only while the other one is locked. So whatever ends the other one comes after the
// mark, and removes it.
//
// The first statement of a claim checks no more deliveries than it may lease, so it leases all that are not blocked, and
// counts none of them.
pub(super) static CLAIM: Sql = Sql::new(
    "
WITH due AS MATERIALIZED (
    SELECT id, run_at, leased, identity_id, ordered_at FROM deliveries
    WHERE state = 'pending' AND waiting = 0 AND subscription = $2 AND run_at <= $3
    ORDER BY run_at LIMIT $4 /* postgres: FOR UPDATE SKIP LOCKED */
), checked AS MATERIALIZED (
    SELECT id, run_at, identity_id, ordered_at, CASE
        WHEN leased = 1 OR ordered_at IS NULL THEN 0
        WHEN EXISTS (
            SELECT 1 FROM deliveries AS other
            WHERE other.subscription = $2 AND other.identity_id = due.identity_id AND other.leased = 1
                AND other.ordered_at IS NOT NULL) THEN 1
        WHEN EXISTS (
            SELECT 1 FROM deliveries AS other
            WHERE other.subscription = $2 AND other.identity_id = due.identity_id AND other.state = 'pending'
                AND other.ordered_at IS NOT NULL AND (other.ordered_at, other.id) < (due.ordered_at, due.id)) THEN 1
        ELSE 0 END AS is_blocked
    FROM due
), chosen AS MATERIALIZED (
    SELECT id AS chosen_id, is_blocked, CASE is_blocked WHEN 1 THEN (
        SELECT other.id FROM deliveries AS other
        WHERE other.subscription = $2 AND other.identity_id = checked.identity_id AND other.state = 'pending'
            AND other.ordered_at IS NOT NULL AND other.id <> checked.id
            AND (other.leased = 1 OR (other.ordered_at, other.id) < (checked.ordered_at, checked.id))
        LIMIT 1 /* postgres: FOR SHARE SKIP LOCKED */) END AS blocked_by, CASE WHEN $4 <= $5 THEN 0 ELSE (
        SELECT count(*) FROM checked AS earlier
        WHERE earlier.is_blocked = 0 AND (earlier.run_at, earlier.id) < (checked.run_at, checked.id)) END AS place
    FROM checked
)
UPDATE deliveries
SET waiting = chosen.is_blocked, leased = 1 - chosen.is_blocked, attempts = deliveries.attempts + 1 - chosen.is_blocked,
    run_at = CASE chosen.is_blocked WHEN 1 THEN deliveries.run_at ELSE $1 END
FROM chosen
WHERE deliveries.id = chosen.chosen_id AND CASE chosen.is_blocked WHEN 1 THEN chosen.blocked_by IS NOT NULL ELSE chosen.place < $5 END
RETURNING id, subscription, event, identity_id, action, context, attempts, created_at, keep_trying_until, waiting",
);

/// The deliveries that one claim has leased.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) held: Vec<Claimed>,
    /// Those that this version cannot read.
    pub(super) unreadable: Vec<Uuid>,
}

/// How many statements one claim runs at most, if it finds blocked deliveries.
const MAX_ROUNDS: usize = 8;
/// How many due deliveries a statement checks after blocked ones were found. There may be many more of them.
const WINDOW: u32 = 200;

pub(super) async fn claim(
    connection: &mut Connection<'_>,
    subscription: &str,
    now: Timestamp,
    lease: Duration,
    limit: u32,
) -> Result<Claims, Error> {
    let mut claims = Claims::default();
    let mut left = limit;
    let mut window = limit;
    for _ in 0..MAX_ROUNDS {
        let claim = query(&CLAIM)
            .bind(saturating_add(now, lease))
            .bind(subscription)
            .bind(now)
            .bind(window)
            .bind(left);
        let rows = match claim.fetch_all(connection).await {
            // At the same moment, another instance has claimed a delivery of the same subscription and identity.
            Err(error) if is_in_flight(&error) => break,
            rows => rows?,
        };
        let mut has_blocked = false;
        for row in &rows {
            if row.integer("waiting")? == 1 {
                has_blocked = true;
                continue;
            }
            left = left.saturating_sub(1);
            match claimed(row) {
                Ok(claimed) => claims.held.push(claimed),
                Err(error) => {
                    claims.unreadable.push(row.uuid("id")?);
                    tracing::error!(subscription, %error, "A stored delivery cannot be read; it is kept as abandoned");
                }
            }
        }
        // Others may be due behind those that were blocked.
        if left == 0 || !has_blocked {
            break;
        }
        window = WINDOW.max(left);
    }
    claims.held.sort_by_key(|claimed| claimed.id);
    Ok(claims)
}

fn is_in_flight(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.constraint() == Some("deliveries_in_flight"))
}

fn claimed(row: &Row) -> Result<Claimed, sqlx::Error> {
    Ok(Claimed {
        id: row.uuid("id")?,
        subscription: row.string("subscription")?,
        event: row.event()?,
        identity_id: row.uuid("identity_id")?,
        action: row.json("action")?,
        context: row.optional_json("context")?,
        attempt: row.count("attempts")?,
        created_at: row.timestamp("created_at")?,
        keep_trying_until: row.timestamp("keep_trying_until")?,
    })
}

static ABANDON_UNREADABLE: Sql = Sql::new(
    "
UPDATE deliveries
SET state = 'abandoned', leased = 0, settled_at = $2, last_error = 'this version cannot read the stored delivery'
WHERE id IN (SELECT value ->> 'id' FROM json_each($1))",
);

/// Abandons deliveries that another version wrote, within a transaction, so that they do not block the others.
pub(super) async fn abandon_unreadable(
    connection: &mut Connection<'_>,
    ids: &[Uuid],
    now: Timestamp,
) -> Result<(), Error> {
    let abandon = query(&ABANDON_UNREADABLE).bind(row::list(ids)).bind(now);
    abandon.execute(connection).await?;
    order::resume(connection, ids).await
}

static KEEP_BUILT: Sql = Sql::new(
    "
UPDATE deliveries SET action = $3, context = $4, last_error = NULL, reason = NULL
WHERE id = $1 AND attempts = $2 AND leased = 1",
);
static ABANDON_UNBUILT: Sql = Sql::new(
    "
UPDATE deliveries SET state = 'abandoned', leased = 0, attempts = attempts - 1, settled_at = $3, last_error = $4
WHERE id = $1 AND attempts = $2 AND leased = 1",
);

/// Stores the request of a leased delivery, or abandons the delivery again, within a transaction. Returns `false` if the
/// caller no longer held the lease.
pub(super) async fn keep_built(
    connection: &mut Connection<'_>,
    held: &Claimed,
    built: &Result<Built, String>,
    now: Timestamp,
) -> Result<bool, Error> {
    let changed = match built {
        Ok(built) => {
            query(&KEEP_BUILT)
                .bind(held.id)
                .bind(held.attempt)
                .bind(row::text(&Action::Send(built.request.clone())))
                .bind(built.context.as_ref().map(row::text))
                .execute(connection)
                .await?
        }
        Err(reason) => {
            let abandon = query(&ABANDON_UNBUILT).bind(held.id).bind(held.attempt);
            let changed = abandon.bind(now).bind(reason).execute(connection).await?;
            order::resume(connection, &[held.id]).await?;
            changed
        }
    };
    Ok(changed > 0)
}

static GIVE_BACK: Sql = Sql::new(
    "
UPDATE deliveries SET leased = 0, run_at = $2, attempts = deliveries.attempts - 1
FROM (
    SELECT value ->> 'delivery' AS delivery, CAST(value ->> 'attempt' AS BIGINT) AS attempt FROM json_each($1)
) AS new
WHERE deliveries.id = new.delivery AND deliveries.attempts = new.attempt AND deliveries.leased = 1",
);

/// Returns leases, within a transaction.
pub(super) async fn give_back(
    connection: &mut Connection<'_>,
    held: &[Claimed],
    due_at: Timestamp,
) -> Result<(), Error> {
    let rows: Value = held
        .iter()
        .map(|claimed| json!({"delivery": claimed.id, "attempt": claimed.attempt}))
        .collect();
    let give_back = query(&GIVE_BACK).bind(rows.to_string()).bind(due_at);
    give_back.execute(connection).await?;
    let ids: Vec<Uuid> = held.iter().map(|claimed| claimed.id).collect();
    order::resume(connection, &ids).await
}
