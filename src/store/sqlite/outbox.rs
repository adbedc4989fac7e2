//! The way of a delivery: accepted, claimed, settled or given back.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqlitePool};
use uuid::Uuid;

use super::row;
use crate::clock::{Timestamp, later};
use crate::delivery::{Claimed, New, Outcome, State};
use crate::store::{AttemptRecord, Error, NextDue};

// `WHERE true` tells SQLite that `ON` does not belong to a join.
const ACCEPT: &str = "
INSERT INTO deliveries
    (id, plan, event, unique_key, identity_id, request, state, leased, run_at, attempts,
     keep_trying_until, created_at, settled_at, last_error)
SELECT
    value ->> 'id', value ->> 'plan', value ->> 'event', value ->> 'unique_key', value ->> 'identity_id',
    value ->> 'request', value ->> 'state', 0, value ->> 'created_at', 0,
    value ->> 'keep_trying_until', value ->> 'created_at', value ->> 'settled_at', value ->> 'last_error'
FROM json_each(?1)
WHERE true
ON CONFLICT (plan, unique_key) DO NOTHING
RETURNING id";

pub(super) async fn accept(
    writer: &SqlitePool,
    deliveries: &[New],
) -> Result<HashSet<Uuid>, Error> {
    if deliveries.is_empty() {
        return Ok(HashSet::new());
    }
    let rows: Value = deliveries.iter().map(new_row).collect();
    let new = sqlx::query(ACCEPT)
        .bind(rows.to_string())
        .fetch_all(writer)
        .await?;
    Ok(new
        .iter()
        .map(|row| row::uuid(row, "id"))
        .collect::<Result<_, _>>()?)
}

fn new_row(new: &New) -> Value {
    let (request, state, error) = match &new.request {
        Ok(request) => (Some(json!(request).to_string()), State::Pending, None),
        Err(reason) => (None, State::Abandoned, Some(reason)),
    };
    json!({
        "id": new.id,
        "plan": new.plan,
        "event": new.event,
        "unique_key": new.unique_key,
        "identity_id": new.identity_id,
        "request": request,
        "state": state,
        "keep_trying_until": row::moment(new.keep_trying_until),
        "created_at": row::moment(new.created_at),
        "settled_at": error.is_some().then(|| row::moment(new.created_at)),
        "last_error": error,
    })
}

// Leaps from plan to plan along the index, however many deliveries each has.
pub(super) const NEXT_DUE: &str = "
WITH RECURSIVE plans (plan) AS (
    SELECT min(plan) FROM deliveries WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(plan) FROM deliveries WHERE state = 'pending' AND plan > plans.plan)
    FROM plans WHERE plan IS NOT NULL
)
SELECT plan, (SELECT min(run_at) FROM deliveries WHERE state = 'pending' AND plan = plans.plan) AS run_at
FROM plans WHERE plan IS NOT NULL";

pub(super) async fn next_due(readers: &SqlitePool) -> Result<Vec<NextDue>, Error> {
    let rows = sqlx::query(NEXT_DUE).fetch_all(readers).await?;
    let read = |row: &SqliteRow| {
        Ok(NextDue {
            plan: row.try_get("plan")?,
            at: row::timestamp(row, "run_at")?,
        })
    };
    rows.iter().map(read).collect()
}

pub(super) const CLAIM: &str = "
UPDATE deliveries SET leased = 1, run_at = ?1, attempts = attempts + 1
WHERE id IN (
    SELECT id FROM deliveries WHERE state = 'pending' AND plan = ?2 AND run_at <= ?3
    ORDER BY run_at, id LIMIT ?4
)
RETURNING id, plan, event, request, attempts, created_at, keep_trying_until";

pub(super) async fn claim(
    writer: &SqlitePool,
    plan: &str,
    now: Timestamp,
    lease: Duration,
    limit: u32,
) -> Result<Vec<Claimed>, Error> {
    let rows = sqlx::query(CLAIM)
        .bind(row::moment(later(now, lease)))
        .bind(plan)
        .bind(row::moment(now))
        .bind(limit)
        .fetch_all(writer)
        .await?;
    let mut held = Vec::with_capacity(rows.len());
    for row in &rows {
        match claimed(row) {
            Ok(claimed) => held.push(claimed),
            Err(error) => {
                abandon_unreadable(writer, row.try_get("id")?, now).await?;
                tracing::error!(plan, %error, "A stored delivery cannot be read; it is kept as abandoned");
            }
        }
    }
    held.sort_by_key(|claimed| claimed.id);
    Ok(held)
}

fn claimed(row: &SqliteRow) -> Result<Claimed, sqlx::Error> {
    Ok(Claimed {
        id: row::uuid(row, "id")?,
        plan: row.try_get("plan")?,
        event: row::event(row)?,
        request: row::json(row, "request")?,
        attempt: row.try_get("attempts")?,
        created_at: row::timestamp(row, "created_at")?,
        keep_trying_until: row::timestamp(row, "keep_trying_until")?,
    })
}

const ABANDON_UNREADABLE: &str = "
UPDATE deliveries
SET state = 'abandoned', leased = 0, settled_at = ?2, last_error = 'this version cannot read the stored delivery'
WHERE id = ?1";

/// Takes a delivery that another version wrote out of the others' way.
async fn abandon_unreadable(
    writer: &SqlitePool,
    id: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let statement = sqlx::query(ABANDON_UNREADABLE)
        .bind(id)
        .bind(row::moment(now));
    statement.execute(writer).await.map(drop)
}

const SETTLE: &str = "
UPDATE deliveries
SET state = ?3, leased = 0, run_at = coalesce(?4, run_at), settled_at = ?5, last_status = ?6, last_error = ?7,
    request = CASE ?3 WHEN 'delivered' THEN NULL ELSE request END
WHERE id = ?1 AND attempts = ?2 AND leased = 1";

pub(super) async fn settle(
    writer: &SqlitePool,
    held: &Claimed,
    attempt: &AttemptRecord,
    outcome: &Outcome,
) -> Result<bool, Error> {
    let ended_at = row::moment(attempt.ended_at);
    let (state, run_at, settled_at) = match outcome {
        Outcome::Delivered => (State::Delivered, None, Some(ended_at)),
        Outcome::RetryAt(next) => (State::Pending, Some(row::moment(*next)), None),
        Outcome::Abandoned => (State::Abandoned, None, Some(ended_at)),
    };
    let done = sqlx::query(SETTLE)
        .bind(held.id.to_string())
        .bind(held.attempt)
        .bind(state.as_str())
        .bind(run_at)
        .bind(settled_at)
        .bind(attempt.status)
        .bind(&attempt.error)
        .execute(writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

const GIVE_BACK: &str = "
UPDATE deliveries SET leased = 0, run_at = ?2, attempts = attempts - 1
FROM json_each(?1) AS held
WHERE deliveries.id = held.value ->> 'id' AND attempts = held.value ->> 'attempt' AND leased = 1";

pub(super) async fn give_back(
    writer: &SqlitePool,
    held: &[Claimed],
    now: Timestamp,
) -> Result<(), Error> {
    let rows: Value = held
        .iter()
        .map(|claimed| json!({"id": claimed.id, "attempt": claimed.attempt}))
        .collect();
    let statement = sqlx::query(GIVE_BACK)
        .bind(rows.to_string())
        .bind(row::moment(now));
    statement.execute(writer).await?;
    Ok(())
}
