//! The statements with which an operator lists, retries and discards deliveries.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{order, row};
use crate::base::clock::{Timestamp, saturating_add};
use crate::model::delivery::{AbandonReason, State};
use crate::store::adapter::{Connection, Query, Row, Sql, query};
use crate::store::{
    Backlog, DeliveryDetails, DeliverySummary, Error, Filter, ListedAttempt, RetryOptions,
};

// The condition with the parameters 1 to 7, which are the fields of a filter, is the same in each statement that has a
// filter. Ids are ordered by time.
static LIST: Sql = Sql::new(
    "
SELECT id, subscription, event, identity_id, state, reason, attempts, last_error, created_at, run_at, waiting, settled_at
FROM deliveries
WHERE (CAST($1 AS TEXT) IS NULL OR id IN (SELECT value ->> 'id' FROM json_each($1)))
    AND (CAST($2 AS TEXT) IS NULL OR subscription = $2)
    AND (CAST($3 AS TEXT) IS NULL OR state = $3)
    AND (CAST($4 AS TEXT) IS NULL OR identity_id = $4)
    AND (CAST($5 AS BIGINT) IS NULL OR created_at >= $5)
    AND (CAST($6 AS BIGINT) IS NULL OR created_at < $6)
    AND (CAST($7 AS TEXT) IS NULL OR subscription NOT IN (SELECT value ->> 'id' FROM json_each($7)))
    AND (CAST($8 AS TEXT) IS NULL OR id < $8)
ORDER BY id DESC
LIMIT $9",
);

static UNFINISHED: Sql = Sql::new(
    "
SELECT count(*) AS number
FROM deliveries
WHERE (CAST($1 AS TEXT) IS NULL OR id IN (SELECT value ->> 'id' FROM json_each($1)))
    AND (CAST($2 AS TEXT) IS NULL OR subscription = $2)
    AND (CAST($3 AS TEXT) IS NULL OR state = $3)
    AND (CAST($4 AS TEXT) IS NULL OR identity_id = $4)
    AND (CAST($5 AS BIGINT) IS NULL OR created_at >= $5)
    AND (CAST($6 AS BIGINT) IS NULL OR created_at < $6)
    AND (CAST($7 AS TEXT) IS NULL OR subscription NOT IN (SELECT value ->> 'id' FROM json_each($7)))
    AND state IN ('pending', 'abandoned')",
);

// An abandoned delivery is out of order if a newer one of its subscription and identity has been delivered.
static OUT_OF_ORDER: Sql = Sql::new(
    "
SELECT count(*) AS number
FROM deliveries
WHERE (CAST($1 AS TEXT) IS NULL OR id IN (SELECT value ->> 'id' FROM json_each($1)))
    AND (CAST($2 AS TEXT) IS NULL OR subscription = $2)
    AND (CAST($3 AS TEXT) IS NULL OR state = $3)
    AND (CAST($4 AS TEXT) IS NULL OR identity_id = $4)
    AND (CAST($5 AS BIGINT) IS NULL OR created_at >= $5)
    AND (CAST($6 AS BIGINT) IS NULL OR created_at < $6)
    AND (CAST($7 AS TEXT) IS NULL OR subscription NOT IN (SELECT value ->> 'id' FROM json_each($7)))
    AND state = 'abandoned' AND action IS NOT NULL AND EXISTS (
        SELECT 1 FROM deliveries AS newer
        WHERE newer.identity_id = deliveries.identity_id AND newer.subscription = deliveries.subscription
            AND (newer.ordered_at, newer.id) > (deliveries.ordered_at, deliveries.id) AND newer.state = 'delivered')",
);

static NEXT_UNFINISHED: Sql = Sql::new(
    "
SELECT id
FROM deliveries
WHERE (CAST($1 AS TEXT) IS NULL OR id IN (SELECT value ->> 'id' FROM json_each($1)))
    AND (CAST($2 AS TEXT) IS NULL OR subscription = $2)
    AND (CAST($3 AS TEXT) IS NULL OR state = $3)
    AND (CAST($4 AS TEXT) IS NULL OR identity_id = $4)
    AND (CAST($5 AS BIGINT) IS NULL OR created_at >= $5)
    AND (CAST($6 AS BIGINT) IS NULL OR created_at < $6)
    AND (CAST($7 AS TEXT) IS NULL OR subscription NOT IN (SELECT value ->> 'id' FROM json_each($7)))
    AND state IN ('pending', 'abandoned') AND NOT (leased = 1 AND run_at > $8)
    AND id > $9
ORDER BY id
LIMIT $10",
);

/// Creates a query whose first seven parameters are the filter's.
fn filtered(sql: &'static Sql, filter: &Filter) -> Query {
    let (ids, excluded) = (&filter.ids, &filter.exclude_subscriptions);
    query(sql)
        .bind((!ids.is_empty()).then(|| row::list(ids)))
        .bind(filter.subscription.as_ref())
        .bind(filter.state.map(State::as_str))
        .bind(filter.identity)
        .bind(filter.since)
        .bind(filter.until)
        .bind((!excluded.is_empty()).then(|| row::list(excluded)))
}

pub(super) async fn list(
    connection: &mut Connection<'_>,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<DeliverySummary>, Error> {
    let list = filtered(&LIST, filter).bind(filter.cursor).bind(limit);
    row::read_all(&list.fetch_all(connection).await?, listed)
}

fn listed(row: &Row) -> Result<DeliverySummary, sqlx::Error> {
    let state = row.state()?;
    let reason = row.optional_text("reason")?.and_then(AbandonReason::named);
    let run_at = row.timestamp("run_at")?;
    let is_waiting = row.integer("waiting")? == 1;
    Ok(DeliverySummary {
        id: row.uuid("id")?,
        subscription: row.string("subscription")?,
        event: row.event()?,
        identity_id: row.uuid("identity_id")?,
        state,
        reason: reason.filter(|_| state == State::Abandoned),
        attempts: row.count("attempts")?,
        last_error: row.optional_string("last_error")?,
        created_at: row.timestamp("created_at")?,
        next_attempt_at: (state == State::Pending && !is_waiting).then_some(run_at),
        settled_at: row.optional_timestamp("settled_at")?,
    })
}

static UNFINISHED_QUEUES: Sql = Sql::new(
    "
SELECT DISTINCT subscription FROM deliveries WHERE identity_id = $1 AND state IN ('pending', 'abandoned')",
);

pub(super) async fn unfinished_queues(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
) -> Result<Vec<String>, Error> {
    let queues = query(&UNFINISHED_QUEUES).bind(identity_id);
    row::read_all(&queues.fetch_all(connection).await?, |row| {
        row.string("subscription")
    })
}

static IS_PENDING: Sql = Sql::new(
    "SELECT 1 AS one FROM deliveries WHERE subscription = $1 AND unique_key = $2 AND state = 'pending'",
);

pub(super) async fn is_pending(
    connection: &mut Connection<'_>,
    subscription: &str,
    unique_key: &str,
) -> Result<bool, Error> {
    let is_pending = query(&IS_PENDING).bind(subscription).bind(unique_key);
    Ok(is_pending.fetch_optional(connection).await?.is_some())
}

static SHOW: Sql = Sql::new(
    "
SELECT id, subscription, event, identity_id, state, reason, attempts, last_error, created_at, run_at, waiting, settled_at,
    keep_trying_until, action
FROM deliveries WHERE id = $1",
);

static ATTEMPTS: Sql = Sql::new(
    "
SELECT attempt, began_at, duration_ms, status, error FROM attempts WHERE delivery_id = $1 ORDER BY attempt",
);

pub(super) async fn show(
    connection: &mut Connection<'_>,
    id: Uuid,
) -> Result<Option<DeliveryDetails>, Error> {
    let Some(row) = query(&SHOW).bind(id).fetch_optional(connection).await? else {
        return Ok(None);
    };
    let attempts = query(&ATTEMPTS).bind(id).fetch_all(connection).await?;
    Ok(Some(DeliveryDetails {
        listed: listed(&row)?,
        keep_trying_until: row.timestamp("keep_trying_until")?,
        tries: row::read_all(&attempts, listed_attempt)?,
        action: row.optional_json("action").unwrap_or_default(),
    }))
}

fn listed_attempt(row: &Row) -> Result<ListedAttempt, sqlx::Error> {
    let status = row.optional_integer("status")?;
    Ok(ListedAttempt {
        attempt: u32::try_from(row.integer("attempt")?).unwrap_or(u32::MAX),
        began_at: row.timestamp("began_at")?,
        duration_ms: u64::try_from(row.integer("duration_ms")?).unwrap_or_default(),
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: row.optional_string("error")?,
    })
}

/// A change to deliveries that are pending or abandoned.
#[derive(Clone, Copy)]
pub(super) enum AdminAction {
    /// The deliveries become due now.
    Retry(RetryOptions),
    /// The deliveries are discarded.
    Discard,
}

/// The number of deliveries that one transaction changes. Other writers can write between two transactions.
const STEP: u32 = 500;

// The conditions are those of the selection, because a dispatcher may claim a delivery after its selection. `NOT IN` lets
// SQLite find the rows by their ids: the index of unfinished deliveries holds all of them.
static RETRY: Sql = Sql::new(
    "
UPDATE deliveries
SET state = 'pending', leased = 0, run_at = $2, settled_at = NULL,
    keep_trying_until = CASE state WHEN 'abandoned' THEN $3 ELSE keep_trying_until END
WHERE id IN (SELECT value ->> 'id' FROM json_each($1))
    AND state NOT IN ('delivered', 'discarded', 'superseded') AND NOT (leased = 1 AND run_at > $2) AND action IS NOT NULL
    AND (CAST($4 AS BIGINT) = 1 OR state = 'pending' OR NOT EXISTS (
        SELECT 1 FROM deliveries AS newer
        WHERE newer.identity_id = deliveries.identity_id AND newer.subscription = deliveries.subscription
            AND (newer.ordered_at, newer.id) > (deliveries.ordered_at, deliveries.id) AND newer.state = 'delivered'))",
);

static DISCARD: Sql = Sql::new(
    "
UPDATE deliveries
SET state = 'discarded', leased = 0, waiting = 0, settled_at = $2, action = NULL, context = NULL
WHERE id IN (SELECT value ->> 'id' FROM json_each($1))
    AND state NOT IN ('delivered', 'discarded', 'superseded') AND NOT (leased = 1 AND run_at > $2)",
);

/// Changes the next deliveries after the id `after` within a transaction. Returns how many were changed, and the id of
/// the last one, unless there are no more.
pub(super) async fn step(
    connection: &mut Connection<'_>,
    action: AdminAction,
    filter: &Filter,
    now: Timestamp,
    after: &str,
) -> Result<(u64, Option<String>), Error> {
    let next = filtered(&NEXT_UNFINISHED, filter).bind(now).bind(after);
    let rows = next.bind(STEP).fetch_all(connection).await?;
    let ids = row::read_all(&rows, |row| row.uuid("id"))?;
    let Some(last) = ids.last() else {
        return Ok((0, None));
    };
    let change = match action {
        AdminAction::Retry(options) => query(&RETRY)
            .bind(row::list(&ids))
            .bind(now)
            .bind(saturating_add(now, options.keep_trying_for))
            .bind(u32::from(options.out_of_order)),
        AdminAction::Discard => query(&DISCARD).bind(row::list(&ids)).bind(now),
    };
    let changed = change.execute(connection).await?;
    order::resume(connection, &ids).await?;
    Ok((changed, Some(last.to_string())))
}

pub(super) async fn out_of_order(
    connection: &mut Connection<'_>,
    filter: &Filter,
) -> Result<u64, Error> {
    let row = filtered(&OUT_OF_ORDER, filter)
        .fetch_one(connection)
        .await?;
    Ok(row.count("number")?)
}

pub(super) async fn unfinished(
    connection: &mut Connection<'_>,
    filter: &Filter,
) -> Result<u64, Error> {
    let row = filtered(&UNFINISHED, filter).fetch_one(connection).await?;
    Ok(row.count("number")?)
}

pub(super) static BACKLOG: Sql = Sql::new(
    "
SELECT state, count(*) AS number, min(created_at) AS oldest
FROM deliveries WHERE state IN ('pending', 'abandoned') GROUP BY state",
);

pub(super) async fn backlog(connection: &mut Connection<'_>) -> Result<Backlog, Error> {
    let mut backlog = Backlog::default();
    for row in &query(&BACKLOG).fetch_all(connection).await? {
        match row.state()? {
            State::Pending => {
                backlog.pending = row.count("number")?;
                backlog.oldest_pending = row.optional_timestamp("oldest")?;
            }
            State::Abandoned => backlog.abandoned = row.count("number")?,
            State::Delivered | State::Discarded | State::Superseded => {}
        }
    }
    Ok(backlog)
}

static EXISTING_KEYS: Sql = Sql::new(
    "
SELECT deliveries.subscription AS subscription, deliveries.unique_key AS unique_key
FROM (SELECT value ->> 'of_subscription' AS of_subscription, value ->> 'of_key' AS of_key FROM json_each($1)) AS new
JOIN deliveries ON deliveries.subscription = new.of_subscription AND deliveries.unique_key = new.of_key
WHERE NOT (deliveries.state = 'abandoned' AND coalesce(deliveries.reason, '') = 'not_built')",
);

pub(super) async fn existing_keys(
    connection: &mut Connection<'_>,
    keys: &[(String, String)],
) -> Result<HashSet<(String, String)>, Error> {
    let rows: Value = keys
        .iter()
        .map(|(subscription, key)| json!({"of_subscription": subscription, "of_key": key}))
        .collect();
    let existing = query(&EXISTING_KEYS).bind(rows.to_string());
    let existing = existing.fetch_all(connection).await?;
    let keys = existing
        .iter()
        .map(|row| Ok((row.string("subscription")?, row.string("unique_key")?)));
    Ok(keys.collect::<Result<_, sqlx::Error>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_with_a_filter_has_all_of_its_conditions() {
        let filter = |sql: &Sql| {
            let (_, conditions) = sql.for_sqlite().split_once("\nWHERE ").unwrap();
            let (filter, _) = conditions.split_once("json_each($7)))").unwrap();
            filter.to_owned()
        };
        assert_eq!(filter(&UNFINISHED), filter(&LIST));
        assert_eq!(filter(&OUT_OF_ORDER), filter(&LIST));
        assert_eq!(filter(&NEXT_UNFINISHED), filter(&LIST));
    }
}
