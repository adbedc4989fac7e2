//! The statements of the outbox: accept, claim and return deliveries.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::row;
use crate::base::clock::{Timestamp, saturating_add};
use crate::model::delivery::{Claimed, Event, NewDelivery, State};
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::{Error, NextDue};

// `WHERE true` lets SQLite parse `ON` as part of the upsert and not of a join. An existing delivery is kept. Only a
// delivery that could not be built is replaced by one that could be built with more data.
static ACCEPT: Sql = Sql::new(
    "
INSERT INTO deliveries
    (id, subscription, event, unique_key, identity_id, action, context, state, leased, run_at, attempts,
     keep_trying_until, created_at, settled_at, last_error)
SELECT value ->> 'id', value ->> 'subscription', value ->> 'event', value ->> 'unique_key', value ->> 'identity_id',
    value ->> 'action', value ->> 'context', value ->> 'state', 0, CAST(value ->> 'run_at' AS BIGINT), 0,
    CAST(value ->> 'keep_trying_until' AS BIGINT), CAST(value ->> 'created_at' AS BIGINT),
    CAST(value ->> 'settled_at' AS BIGINT), value ->> 'last_error'
FROM json_each($1)
WHERE true
ON CONFLICT (subscription, unique_key) DO UPDATE
SET id = excluded.id, action = excluded.action, context = excluded.context, state = excluded.state, run_at = excluded.run_at,
    keep_trying_until = excluded.keep_trying_until, created_at = excluded.created_at, settled_at = NULL, last_error = NULL
WHERE deliveries.action IS NULL AND deliveries.state = 'abandoned' AND excluded.action IS NOT NULL
RETURNING id",
);

/// Stores deliveries. Returns the ids of the new ones.
pub(super) async fn accept(
    connection: &mut Connection<'_>,
    deliveries: &[NewDelivery],
) -> Result<HashSet<Uuid>, Error> {
    if deliveries.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<NewRow<'_>> = each_once(deliveries).map(NewRow::of).collect();
    let accept = query(&ACCEPT).bind(row::text(&rows));
    ids(&accept.fetch_all(connection).await?)
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
}

impl<'a> NewRow<'a> {
    fn of(new: &'a NewDelivery) -> Self {
        let (action, state, last_error) = match &new.action {
            Ok(action) => (Some(row::text(action)), State::Pending, None),
            Err(reason) => (None, State::Abandoned, Some(reason.as_str())),
        };
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
        }
    }
}

// Jumps from subscription to subscription along the index, however many deliveries each has.
pub(super) static NEXT_DUE: Sql = Sql::new(
    "
WITH RECURSIVE subscriptions (subscription) AS (
    SELECT min(subscription) FROM deliveries WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(subscription) FROM deliveries WHERE state = 'pending' AND subscription > subscriptions.subscription)
    FROM subscriptions WHERE subscription IS NOT NULL
)
SELECT subscription, (SELECT min(run_at) FROM deliveries WHERE state = 'pending' AND subscription = subscriptions.subscription) AS run_at
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
pub(super) static CLAIM: Sql = Sql::new(
    "
UPDATE deliveries SET leased = 1, run_at = $1, attempts = attempts + 1
WHERE id IN (
    SELECT id FROM deliveries WHERE state = 'pending' AND subscription = $2 AND run_at <= $3
    ORDER BY run_at LIMIT $4 /* postgres: FOR UPDATE SKIP LOCKED */)
RETURNING id, subscription, event, identity_id, action, context, attempts, created_at, keep_trying_until",
);

pub(super) async fn claim(
    connection: &mut Connection<'_>,
    subscription: &str,
    now: Timestamp,
    lease: Duration,
    limit: u32,
) -> Result<Vec<Claimed>, Error> {
    let rows = query(&CLAIM)
        .bind(saturating_add(now, lease))
        .bind(subscription)
        .bind(now)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        match claimed(row) {
            Ok(claimed) => held.push(claimed),
            Err(error) => {
                abandon_unreadable(connection, row.text("id")?, now).await?;
                tracing::error!(subscription, %error, "A stored delivery cannot be read; it is kept as abandoned");
            }
        }
    }
    held.sort_by_key(|claimed| claimed.id);
    Ok(held)
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
WHERE id = $1",
);

/// Abandons a delivery that another version wrote, so that the delivery does not block the others.
async fn abandon_unreadable(
    connection: &mut Connection<'_>,
    id: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let abandon = query(&ABANDON_UNREADABLE).bind(id).bind(now);
    abandon.execute(connection).await.map(drop)
}

static GIVE_BACK: Sql = Sql::new(
    "
UPDATE deliveries SET leased = 0, run_at = $2, attempts = deliveries.attempts - 1
FROM (
    SELECT value ->> 'delivery' AS delivery, CAST(value ->> 'attempt' AS BIGINT) AS attempt FROM json_each($1)
) AS new
WHERE deliveries.id = new.delivery AND deliveries.attempts = new.attempt AND deliveries.leased = 1",
);

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
    Ok(())
}
