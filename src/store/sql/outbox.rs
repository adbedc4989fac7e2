//! The statements of the outbox: accept, claim, settle and return deliveries.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::Row as _;
use uuid::Uuid;

use super::row::{self, DbRow};
use super::{Connection, Pool, late_refusals, pending};
use crate::base::clock::{Timestamp, milliseconds, saturating_add};
use crate::model::delivery::{Claimed, Event, NewDelivery, Outcome, State};
use crate::model::late_refusal::LateRefusal;
use crate::store::{Error, NextDue, RefusalLift, SettledQuestion, Settlement};

// `WHERE true` lets SQLite parse `ON` as part of the upsert and not of a join. An existing delivery is kept. Only a
// delivery that could not be built is replaced by one that could be built with more data.
const ACCEPT: &str = concat!(
    "
INSERT INTO deliveries
    (id, subscription, event, unique_key, identity_id, action, context, state, leased, run_at, attempts,
     keep_trying_until, created_at, settled_at, last_error)
SELECT id, subscription, event, unique_key, identity_id, action, context, state, 0, run_at, 0,
    keep_trying_until, created_at, settled_at, last_error
FROM ",
    rows!(
        "id" "TEXT", "subscription" "TEXT", "event" "TEXT", "unique_key" "TEXT", "identity_id" "TEXT", "action" "TEXT",
        "context" "TEXT", "state" "TEXT", "run_at" "BIGINT", "keep_trying_until" "BIGINT", "created_at" "BIGINT",
        "settled_at" "BIGINT", "last_error" "TEXT"
    ),
    " WHERE true ON CONFLICT (subscription, unique_key) DO UPDATE
SET id = excluded.id, action = excluded.action, context = excluded.context, state = excluded.state, run_at = excluded.run_at,
    keep_trying_until = excluded.keep_trying_until, created_at = excluded.created_at, settled_at = NULL, last_error = NULL
WHERE deliveries.action IS NULL AND deliveries.state = 'abandoned' AND excluded.action IS NOT NULL
RETURNING id"
);

pub(super) async fn accept(
    connection: &mut Connection,
    deliveries: &[NewDelivery],
) -> Result<HashSet<Uuid>, Error> {
    if deliveries.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Vec<NewRow<'_>> = each_once(deliveries).map(NewRow::of).collect();
    let new = sqlx::query(ACCEPT)
        .bind(row::text(&rows))
        .fetch_all(connection)
        .await?;
    ids(&new)
}

/// Removes duplicates, because a statement may change each row only once.
fn each_once(deliveries: &[NewDelivery]) -> impl Iterator<Item = &NewDelivery> {
    let mut seen = HashSet::with_capacity(deliveries.len());
    deliveries
        .iter()
        .filter(move |new| seen.insert((&new.subscription, &new.unique_key)))
}

fn ids(rows: &[DbRow]) -> Result<HashSet<Uuid>, Error> {
    Ok(rows
        .iter()
        .map(|row| row::uuid(row, "id"))
        .collect::<Result<_, _>>()?)
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
pub(super) const NEXT_DUE: &str = "
WITH RECURSIVE subscriptions (subscription) AS (
    SELECT min(subscription) FROM deliveries WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(subscription) FROM deliveries WHERE state = 'pending' AND subscription > subscriptions.subscription)
    FROM subscriptions WHERE subscription IS NOT NULL
)
SELECT subscription, (SELECT min(run_at) FROM deliveries WHERE state = 'pending' AND subscription = subscriptions.subscription) AS run_at
FROM subscriptions WHERE subscription IS NOT NULL";

pub(super) async fn next_due(readers: &Pool) -> Result<Vec<NextDue>, Error> {
    let rows = sqlx::query(NEXT_DUE).fetch_all(readers).await?;
    // If the last delivery of a subscription is settled between the two reads, the time is NULL.
    let mut due = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(at) = row::optional_timestamp(row, "run_at")? {
            due.push(NextDue {
                subscription: row.try_get("subscription")?,
                at,
            });
        }
    }
    Ok(due)
}

// Ordered by time alone, like the index. With the id as well, each claim would read and sort all deliveries that are
// due at one moment. There may be a million of them, as after a `retry` of all.
pub(super) const CLAIM: &str = concat!(
    "
UPDATE deliveries SET leased = 1, run_at = $1, attempts = attempts + 1
WHERE id IN (
    SELECT id FROM deliveries WHERE state = 'pending' AND subscription = $2 AND run_at <= $3
    ORDER BY run_at LIMIT $4",
    skip_locked!(),
    ")
RETURNING id, subscription, event, identity_id, action, context, attempts, created_at, keep_trying_until"
);

pub(super) async fn claim(
    writer: &Pool,
    subscription: &str,
    now: Timestamp,
    lease: Duration,
    limit: u32,
) -> Result<Vec<Claimed>, Error> {
    let rows = sqlx::query(CLAIM)
        .bind(row::moment(saturating_add(now, lease)))
        .bind(subscription)
        .bind(row::moment(now))
        .bind(i64::from(limit))
        .fetch_all(writer)
        .await?;
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        match claimed(row) {
            Ok(claimed) => held.push(claimed),
            Err(error) => {
                abandon_unreadable(writer, row.try_get("id")?, now).await?;
                tracing::error!(subscription, %error, "A stored delivery cannot be read; it is kept as abandoned");
            }
        }
    }
    held.sort_by_key(|claimed| claimed.id);
    Ok(held)
}

fn claimed(row: &DbRow) -> Result<Claimed, sqlx::Error> {
    Ok(Claimed {
        id: row::uuid(row, "id")?,
        subscription: row.try_get("subscription")?,
        event: row::event(row)?,
        identity_id: row::uuid(row, "identity_id")?,
        action: row::json(row, "action")?,
        context: row::optional_json(row, "context")?,
        attempt: row::count(row, "attempts")?,
        created_at: row::timestamp(row, "created_at")?,
        keep_trying_until: row::timestamp(row, "keep_trying_until")?,
    })
}

const ABANDON_UNREADABLE: &str = "
UPDATE deliveries
SET state = 'abandoned', leased = 0, settled_at = $2, last_error = 'this version cannot read the stored delivery'
WHERE id = $1";

/// Abandons a delivery that another version wrote, so that the delivery does not block the others.
async fn abandon_unreadable(writer: &Pool, id: &str, now: Timestamp) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(ABANDON_UNREADABLE)
        .bind(id)
        .bind(row::moment(now));
    statement.execute(writer).await.map(drop)
}

const SETTLE: &str = concat!(
    "
UPDATE deliveries
SET state = new.new_state, leased = 0, run_at = coalesce(new.next_at, deliveries.run_at), settled_at = new.ended_at,
    last_status = new.status, last_error = new.error,
    action = CASE new.new_state WHEN 'delivered' THEN NULL ELSE deliveries.action END,
    context = CASE new.new_state WHEN 'delivered' THEN NULL ELSE deliveries.context END
FROM ",
    rows!(
        "delivery" "TEXT", "attempt" "BIGINT", "new_state" "TEXT", "next_at" "BIGINT", "ended_at" "BIGINT",
        "status" "INT4", "error" "TEXT"
    ),
    " WHERE deliveries.id = new.delivery AND deliveries.attempts = new.attempt AND deliveries.leased = 1
RETURNING id"
);

const KEEP_ATTEMPTS: &str = concat!(
    "
INSERT INTO attempts (delivery_id, attempt, began_at, duration_ms, status, error)
SELECT delivery, attempt, began_at, duration_ms, status, error FROM ",
    rows!(
        "delivery" "TEXT", "attempt" "BIGINT", "began_at" "BIGINT", "duration_ms" "BIGINT", "status" "BIGINT",
        "error" "TEXT"
    ),
    " WHERE true ON CONFLICT (delivery_id, attempt) DO NOTHING"
);

/// Settles deliveries within a transaction. Also returns how many deliveries were stored.
pub(super) async fn settle(
    connection: &mut Connection,
    settlements: &[Settlement],
) -> Result<(HashSet<Uuid>, usize), Error> {
    let rows: Value = settlements.iter().map(settled_row).collect();
    let settled = sqlx::query(SETTLE)
        .bind(rows.to_string())
        .fetch_all(&mut *connection)
        .await?;
    let settled = ids(&settled)?;
    let counted = || settlements.iter().filter(|one| settled.contains(&one.id));
    let attempts: Value = counted().map(attempt_row).collect();
    sqlx::query(KEEP_ATTEMPTS)
        .bind(attempts.to_string())
        .execute(&mut *connection)
        .await?;
    let follow_up_deliveries: Vec<NewDelivery> = counted()
        .flat_map(|one| one.follow_up_deliveries.iter().cloned())
        .collect();
    let followed = accept(&mut *connection, &follow_up_deliveries).await?;
    let refusals: Vec<&LateRefusal> = counted()
        .filter_map(|one| one.late_refusal.as_ref())
        .collect();
    late_refusals::store(&mut *connection, &refusals).await?;
    let lifts: Vec<RefusalLift> = counted()
        .filter_map(|one| one.refusal_lift.clone())
        .collect();
    let written = late_refusals::lift_accepted(&mut *connection, &lifts).await?;
    let questions: Vec<SettledQuestion> = counted()
        .filter_map(|one| one.question_settled.clone())
        .collect();
    pending::settle_questions(connection, &questions).await?;
    Ok((settled, followed.len() + written.len()))
}

fn settled_row(settlement: &Settlement) -> Value {
    let ended_at = row::moment(settlement.record.ended_at);
    let (state, next_at, ended_at) = match &settlement.outcome {
        Outcome::Delivered => (State::Delivered, None, Some(ended_at)),
        Outcome::RetryAt(next) => (State::Pending, Some(row::moment(*next)), None),
        Outcome::Abandoned => (State::Abandoned, None, Some(ended_at)),
    };
    json!({
        "delivery": settlement.id,
        "attempt": settlement.attempt,
        "new_state": state,
        "next_at": next_at,
        "ended_at": ended_at,
        "status": settlement.record.status,
        "error": settlement.record.error,
    })
}

fn attempt_row(settlement: &Settlement) -> Value {
    let record = &settlement.record;
    json!({
        "delivery": settlement.id,
        "attempt": settlement.attempt,
        "began_at": row::moment(record.began_at),
        "duration_ms": milliseconds(record.began_at, record.ended_at),
        "status": record.status,
        "error": record.error,
    })
}

const GIVE_BACK: &str = concat!(
    "
UPDATE deliveries SET leased = 0, run_at = $2, attempts = deliveries.attempts - 1
FROM ",
    rows!("delivery" "TEXT", "attempt" "BIGINT"),
    " WHERE deliveries.id = new.delivery AND deliveries.attempts = new.attempt AND deliveries.leased = 1"
);

pub(super) async fn give_back(
    writer: &Pool,
    held: &[Claimed],
    due_at: Timestamp,
) -> Result<(), Error> {
    let rows: Value = held
        .iter()
        .map(|claimed| json!({"delivery": claimed.id, "attempt": claimed.attempt}))
        .collect();
    let statement = sqlx::query(GIVE_BACK)
        .bind(rows.to_string())
        .bind(row::moment(due_at));
    statement.execute(writer).await?;
    Ok(())
}
