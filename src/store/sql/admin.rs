//! The statements with which an operator lists, retries and discards deliveries.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row as _;
use uuid::Uuid;

use super::row::{self, DbRow};
use super::{Arguments, Db, Pool};
use crate::base::clock::{Timestamp, saturating_add};
use crate::model::delivery::State;
use crate::store::{Backlog, DeliveryDetails, DeliverySummary, Error, Filter, ListedAttempt};

/// A condition whose parameters 1 to 7 are the fields of a [`Filter`].
macro_rules! filter {
    () => {
        concat!(
            " (CAST($1 AS TEXT) IS NULL OR id IN ",
            texts!("$1"),
            ")
    AND (CAST($2 AS TEXT) IS NULL OR subscription = $2)
    AND (CAST($3 AS TEXT) IS NULL OR state = $3)
    AND (CAST($4 AS TEXT) IS NULL OR identity_id = $4)
    AND (CAST($5 AS BIGINT) IS NULL OR created_at >= $5)
    AND (CAST($6 AS BIGINT) IS NULL OR created_at < $6)
    AND (CAST($7 AS TEXT) IS NULL OR subscription NOT IN ",
            texts!("$7"),
            ")"
        )
    };
}

/// Creates a statement whose first seven parameters are the filter's.
fn filtered(
    statement: &'static str,
    filter: &Filter,
) -> sqlx::query::Query<'static, Db, Arguments> {
    sqlx::query(statement)
        .bind((!filter.ids.is_empty()).then(|| json!(filter.ids).to_string()))
        .bind(filter.subscription.clone())
        .bind(filter.state.map(State::as_str))
        .bind(filter.identity.map(|id| id.to_string()))
        .bind(filter.since.map(row::moment))
        .bind(filter.until.map(row::moment))
        .bind(
            (!filter.exclude_subscriptions.is_empty())
                .then(|| json!(filter.exclude_subscriptions).to_string()),
        )
}

// Ids are ordered by time.
const LIST: &str = concat!(
    "
SELECT id, subscription, event, identity_id, state, attempts, last_error, created_at, run_at, settled_at
FROM deliveries WHERE",
    filter!(),
    "
    AND (CAST($8 AS TEXT) IS NULL OR id < $8)
ORDER BY id DESC
LIMIT $9"
);

pub(super) async fn list(
    readers: &Pool,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<DeliverySummary>, Error> {
    let rows = filtered(LIST, filter)
        .bind(filter.cursor.map(|id| id.to_string()))
        .bind(i64::from(limit))
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(listed).collect::<Result<_, _>>()?)
}

fn listed(row: &DbRow) -> Result<DeliverySummary, sqlx::Error> {
    let state = row::state(row)?;
    let run_at = row::timestamp(row, "run_at")?;
    Ok(DeliverySummary {
        id: row::uuid(row, "id")?,
        subscription: row.try_get("subscription")?,
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

const UNFINISHED_QUEUES: &str = "
SELECT DISTINCT subscription FROM deliveries WHERE identity_id = $1 AND state IN ('pending', 'abandoned')";

pub(super) async fn unfinished_queues(
    readers: &Pool,
    identity_id: Uuid,
) -> Result<Vec<String>, Error> {
    let rows = sqlx::query(UNFINISHED_QUEUES)
        .bind(identity_id.to_string())
        .fetch_all(readers)
        .await?;
    let queues = rows.iter().map(|row| row.try_get("subscription"));
    Ok(queues.collect::<Result<_, _>>()?)
}

const IS_PENDING: &str = "SELECT 1 AS one FROM deliveries WHERE subscription = $1 AND unique_key = $2 AND state = 'pending'";

pub(super) async fn is_pending(
    readers: &Pool,
    subscription: &str,
    unique_key: &str,
) -> Result<bool, Error> {
    let row = sqlx::query(IS_PENDING)
        .bind(subscription)
        .bind(unique_key)
        .fetch_optional(readers)
        .await?;
    Ok(row.is_some())
}

const SHOW: &str = "
SELECT id, subscription, event, identity_id, state, attempts, last_error, created_at, run_at, settled_at, keep_trying_until, action
FROM deliveries WHERE id = $1";

const ATTEMPTS: &str = "
SELECT attempt, began_at, duration_ms, status, error FROM attempts WHERE delivery_id = $1 ORDER BY attempt";

pub(super) async fn show(readers: &Pool, id: Uuid) -> Result<Option<DeliveryDetails>, Error> {
    let id = id.to_string();
    let Some(row) = sqlx::query(SHOW).bind(&id).fetch_optional(readers).await? else {
        return Ok(None);
    };
    let tries = sqlx::query(ATTEMPTS).bind(&id).fetch_all(readers).await?;
    Ok(Some(DeliveryDetails {
        listed: listed(&row)?,
        keep_trying_until: row::timestamp(&row, "keep_trying_until")?,
        tries: tries.iter().map(tried).collect::<Result<_, _>>()?,
        action: row::optional_json(&row, "action").unwrap_or_default(),
    }))
}

fn tried(row: &DbRow) -> Result<ListedAttempt, sqlx::Error> {
    let whole = |column| row.try_get::<i64, _>(column);
    let status: Option<i64> = row.try_get("status")?;
    Ok(ListedAttempt {
        attempt: u32::try_from(whole("attempt")?).unwrap_or(u32::MAX),
        began_at: row::timestamp(row, "began_at")?,
        duration_ms: u64::try_from(whole("duration_ms")?).unwrap_or_default(),
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: row.try_get("error")?,
    })
}

/// A change to deliveries that are pending or abandoned.
#[derive(Clone, Copy)]
pub(super) enum AdminAction {
    /// The deliveries become due now. Abandoned deliveries are retried for this long.
    Retry(Duration),
    /// The deliveries are discarded.
    Discard,
}

/// The number of rows that one statement changes. Other writers can write between two statements.
const STEP: i64 = 500;

macro_rules! changed {
    ($condition:literal) => {
        concat!(
            " AND state IN ('pending', 'abandoned') AND NOT (leased = 1 AND run_at > $8)",
            $condition
        )
    };
}

/// The parameters 8 to 10 are the current time, the id after which to continue, and the number of rows. The condition
/// is there twice, because a dispatcher may claim a row between its selection and its update.
macro_rules! change {
    ($what:literal, $condition:literal) => {
        concat!(
            "UPDATE deliveries SET ",
            $what,
            " WHERE id IN (SELECT id FROM deliveries WHERE",
            filter!(),
            " AND id > $9",
            changed!($condition),
            " ORDER BY id LIMIT $10)",
            changed!($condition),
            " RETURNING id"
        )
    };
}

const RETRY: &str = change!(
    "state = 'pending', leased = 0, run_at = $8, settled_at = NULL,
    keep_trying_until = CASE state WHEN 'abandoned' THEN $11 ELSE keep_trying_until END",
    " AND action IS NOT NULL"
);

const DISCARD: &str = change!(
    "state = 'discarded', leased = 0, settled_at = $8, action = NULL, context = NULL",
    ""
);

/// Changes the next deliveries after the id `after`. Returns how many were selected, and the last id.
pub(super) async fn step(
    writer: &Pool,
    deed: AdminAction,
    filter: &Filter,
    now: Timestamp,
    after: &str,
) -> Result<(u64, Option<String>), Error> {
    let statement = match deed {
        AdminAction::Retry(_) => RETRY,
        AdminAction::Discard => DISCARD,
    };
    let statement = filtered(statement, filter)
        .bind(row::moment(now))
        .bind(after.to_owned())
        .bind(STEP);
    let statement = match deed {
        AdminAction::Retry(keep_trying_for) => {
            statement.bind(row::moment(saturating_add(now, keep_trying_for)))
        }
        AdminAction::Discard => statement,
    };
    let rows = statement.fetch_all(writer).await?;
    let ids = rows
        .iter()
        .map(|row| row.try_get::<String, _>("id"))
        .collect::<Result<Vec<_>, _>>()?;
    Ok((ids.len() as u64, ids.into_iter().max()))
}

const UNFINISHED: &str = concat!(
    "SELECT count(*) AS number FROM deliveries WHERE",
    filter!(),
    " AND state IN ('pending', 'abandoned')"
);

pub(super) async fn unfinished(readers: &Pool, filter: &Filter) -> Result<u64, Error> {
    let row = filtered(UNFINISHED, filter).fetch_one(readers).await?;
    Ok(row::number(&row, "number")?)
}

pub(super) const BACKLOG: &str = "
SELECT state, count(*) AS number, min(created_at) AS oldest
FROM deliveries WHERE state IN ('pending', 'abandoned') GROUP BY state";

pub(super) async fn backlog(readers: &Pool) -> Result<Backlog, Error> {
    let mut backlog = Backlog::default();
    for row in &sqlx::query(BACKLOG).fetch_all(readers).await? {
        match row::state(row)? {
            State::Pending => {
                backlog.pending = row::number(row, "number")?;
                backlog.oldest_pending = row::optional_timestamp(row, "oldest")?;
            }
            State::Abandoned => backlog.abandoned = row::number(row, "number")?,
            State::Delivered | State::Discarded => {}
        }
    }
    Ok(backlog)
}

const EXISTING_KEYS: &str = concat!(
    "SELECT deliveries.subscription AS subscription, deliveries.unique_key AS unique_key FROM ",
    rows!("of_subscription" "TEXT", "of_key" "TEXT"),
    " JOIN deliveries ON deliveries.subscription = new.of_subscription AND deliveries.unique_key = new.of_key"
);

pub(super) async fn existing_keys(
    readers: &Pool,
    keys: &[(String, String)],
) -> Result<HashSet<(String, String)>, Error> {
    let rows: Value = keys
        .iter()
        .map(|(subscription, key)| json!({"of_subscription": subscription, "of_key": key}))
        .collect();
    let known = sqlx::query(EXISTING_KEYS)
        .bind(rows.to_string())
        .fetch_all(readers)
        .await?;
    let pair = |row: &DbRow| {
        Ok::<_, sqlx::Error>((row.try_get("subscription")?, row.try_get("unique_key")?))
    };
    Ok(known.iter().map(pair).collect::<Result<_, _>>()?)
}
