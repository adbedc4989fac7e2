//! What an operator sees of the deliveries, and does with them.

use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgPool, Postgres, Row};

use super::row;
use crate::clock::{Timestamp, later};
use crate::delivery::State;
use crate::store::{Backlog, Error, Filter, Listed};

// Ids are ordered by time.
const LIST: &str = "
SELECT id, plan, event, identity_id, state, attempts, last_error, created_at, run_at, settled_at
FROM deliveries
WHERE ($1::TEXT[] IS NULL OR id = ANY ($1))
    AND ($2::TEXT IS NULL OR plan = $2)
    AND ($3::TEXT IS NULL OR state = $3)
ORDER BY id DESC
LIMIT $4";

pub(super) async fn list(pool: &PgPool, filter: &Filter, limit: u32) -> Result<Vec<Listed>, Error> {
    let rows = filtered(LIST, filter)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    Ok(rows.iter().map(listed).collect::<Result<_, _>>()?)
}

fn listed(row: &PgRow) -> Result<Listed, sqlx::Error> {
    let state = row::state(row)?;
    let run_at = row::timestamp(row, "run_at")?;
    Ok(Listed {
        id: row::uuid(row, "id")?,
        plan: row.try_get("plan")?,
        event: row::event(row)?,
        identity_id: row::uuid(row, "identity_id")?,
        state,
        attempts: row::count(row, "attempts")?,
        last_error: row.try_get("last_error")?,
        created_at: row::timestamp(row, "created_at")?,
        next_attempt_at: (state == State::Pending).then_some(run_at),
        settled_at: row::optional_timestamp(row, "settled_at")?,
    })
}

const RETRY: &str = "
UPDATE deliveries
SET state = 'pending', leased = 0, run_at = $4, settled_at = NULL,
    keep_trying_until = CASE state WHEN 'abandoned' THEN $5 ELSE keep_trying_until END
WHERE ($1::TEXT[] IS NULL OR id = ANY ($1))
    AND ($2::TEXT IS NULL OR plan = $2)
    AND ($3::TEXT IS NULL OR state = $3)
    AND state IN ('pending', 'abandoned')
    AND NOT (leased = 1 AND run_at > $4)
    AND request IS NOT NULL";

pub(super) async fn retry(
    pool: &PgPool,
    filter: &Filter,
    now: Timestamp,
    keep_trying_for: Duration,
) -> Result<u64, Error> {
    let done = filtered(RETRY, filter)
        .bind(row::moment(now))
        .bind(row::moment(later(now, keep_trying_for)))
        .execute(pool)
        .await?;
    Ok(done.rows_affected())
}

fn ids(filter: &Filter) -> Vec<String> {
    filter.ids.iter().map(ToString::to_string).collect()
}

/// A statement whose first three parameters are the filter's.
fn filtered(statement: &'static str, filter: &Filter) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind((!filter.ids.is_empty()).then(|| ids(filter)))
        .bind(filter.plan.clone())
        .bind(filter.state.map(State::as_str))
}

pub(super) const BACKLOG: &str = "
SELECT state, count(*) AS number, min(created_at) AS oldest
FROM deliveries WHERE state <> 'delivered' GROUP BY state";

pub(super) async fn backlog(pool: &PgPool) -> Result<Backlog, Error> {
    let mut backlog = Backlog::default();
    for row in &sqlx::query(BACKLOG).fetch_all(pool).await? {
        match row::state(row)? {
            State::Pending => {
                backlog.pending = number(row)?;
                backlog.oldest_pending = row::optional_timestamp(row, "oldest")?;
            }
            State::Abandoned => backlog.abandoned = number(row)?,
            State::Delivered => {}
        }
    }
    Ok(backlog)
}

fn number(row: &PgRow) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>("number")?).unwrap_or_default())
}
