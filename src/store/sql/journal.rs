//! The yeses of `pre`, and what became of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::row::{self, DbRow};
use super::{Arguments, Connection, Db, Pool};
use crate::clock::{Timestamp, later};
use crate::journal::{Details, End, Entry, PATIENCE, Yes};
use crate::store::Error;

// Of a form that is sent again the account may have come of the first time.
const OPEN: &str = concat!(
    "
INSERT INTO journal (flow_id, flow, method, asked_at, opened_at, expires_at, entry, state, look_at, looks)
SELECT flow_id, flow, method, asked_at, opened_at, expires_at, entry, 'open', look_at, 0
FROM ",
    rows!(
        "flow_id" "TEXT", "flow" "TEXT", "method" "TEXT", "asked_at" "BIGINT", "opened_at" "BIGINT",
        "expires_at" "BIGINT", "entry" "TEXT", "look_at" "BIGINT"
    ),
    " WHERE true
ON CONFLICT (flow_id) DO UPDATE
SET flow = excluded.flow, method = excluded.method,
    asked_at = CASE journal.state WHEN 'open' THEN journal.asked_at ELSE excluded.asked_at END, opened_at = excluded.opened_at,
    expires_at = excluded.expires_at, entry = excluded.entry, state = excluded.state, look_at = excluded.look_at,
    looks = 0"
);

pub(super) async fn open(connection: &mut Connection, entries: &[Entry]) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    // A statement may touch each row once.
    let latest: BTreeMap<Uuid, &Entry> =
        entries.iter().map(|entry| (entry.flow_id, entry)).collect();
    let rows: Vec<Row<'_>> = latest.into_values().map(Row::of).collect();
    sqlx::query(OPEN)
        .bind(row::text(&rows))
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(Serialize)]
struct Row<'a> {
    flow_id: Uuid,
    flow: &'static str,
    method: &'a str,
    asked_at: i64,
    opened_at: i64,
    expires_at: i64,
    entry: String,
    look_at: i64,
}

impl<'a> Row<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            flow_id: entry.flow_id,
            flow: entry.flow.as_str(),
            method: &entry.method,
            asked_at: row::moment(entry.asked_at),
            opened_at: row::moment(entry.opened_at),
            expires_at: row::moment(entry.expires_at),
            entry: row::text(&entry.details),
            look_at: row::moment(later(entry.opened_at, PATIENCE)),
        }
    }
}

const CLOSE: &str = concat!("DELETE FROM journal WHERE flow_id IN ", texts!("$1"));

pub(super) async fn close(connection: &mut Connection, flows: &[Uuid]) -> Result<(), Error> {
    if flows.is_empty() {
        return Ok(());
    }
    sqlx::query(CLOSE)
        .bind(json!(flows).to_string())
        .execute(connection)
        .await?;
    Ok(())
}

const FOUND: &str = "DELETE FROM journal WHERE flow_id = $1 AND opened_at = $2 AND state = 'open'";

pub(super) async fn found(connection: &mut Connection, found: &[Yes]) -> Result<(), Error> {
    for yes in found {
        let statement = of_yes(FOUND, yes);
        must_change(statement.execute(&mut *connection).await?.rows_affected())?;
    }
    Ok(())
}

const END: &str = "
UPDATE journal SET state = $3, entry = NULL WHERE flow_id = $1 AND opened_at = $2 AND state = 'open'";

pub(super) async fn end(connection: &mut Connection, ended: &[(Yes, End)]) -> Result<(), Error> {
    for (yes, end) in ended {
        let statement = of_yes(END, yes).bind(end.as_str());
        must_change(statement.execute(&mut *connection).await?.rows_affected())?;
    }
    Ok(())
}

fn of_yes(statement: &'static str, yes: &Yes) -> sqlx::query::Query<'static, Db, Arguments> {
    sqlx::query(statement)
        .bind(yes.flow_id.to_string())
        .bind(row::moment(yes.opened_at))
}

fn must_change(rows: u64) -> Result<(), Error> {
    if rows == 0 {
        return Err(Error::Changed);
    }
    Ok(())
}

const GET: &str = "
SELECT flow_id, flow, method, asked_at, opened_at, expires_at, entry, looks FROM journal
WHERE flow_id = $1 AND state = 'open'";

pub(super) async fn get(readers: &Pool, flow_id: Uuid) -> Result<Option<Entry>, Error> {
    let row = sqlx::query(GET)
        .bind(flow_id.to_string())
        .fetch_optional(readers)
        .await?;
    Ok(row.as_ref().map(entry).transpose()?)
}

fn entry(row: &DbRow) -> Result<Entry, sqlx::Error> {
    let details: Option<Details> = row::optional_json(row, "entry")?;
    Ok(Entry {
        flow_id: row::uuid(row, "flow_id")?,
        flow: row::flow(row)?,
        method: row.try_get("method")?,
        asked_at: row::timestamp(row, "asked_at")?,
        opened_at: row::timestamp(row, "opened_at")?,
        expires_at: row::timestamp(row, "expires_at")?,
        looks: u32::try_from(row.try_get::<i64, _>("looks")?).unwrap_or(u32::MAX),
        details: details.unwrap_or_default(),
    })
}

const TAKE: &str = concat!(
    "
UPDATE journal SET look_at = $1, looks = looks + 1
WHERE flow_id IN (
    SELECT flow_id FROM journal WHERE state = 'open' AND look_at <= $2 ORDER BY look_at LIMIT $3",
    skip_locked!(),
    ")
RETURNING flow_id, flow, method, asked_at, opened_at, expires_at, entry, looks"
);

pub(super) async fn take(
    writer: &Pool,
    now: Timestamp,
    lease: Duration,
    limit: u32,
) -> Result<Vec<Entry>, Error> {
    let rows = sqlx::query(TAKE)
        .bind(row::moment(later(now, lease)))
        .bind(row::moment(now))
        .bind(i64::from(limit))
        .fetch_all(writer)
        .await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        match entry(row) {
            Ok(entry) => entries.push(entry),
            // It comes again when its lease ends, and holds up nobody.
            Err(error) => {
                tracing::error!(%error, "An entry of the journal cannot be read by this version");
            }
        }
    }
    Ok(entries)
}

const AGAIN: &str = "UPDATE journal SET look_at = $2 WHERE flow_id = $1 AND state = 'open'";

pub(super) async fn look_again(writer: &Pool, flow_id: Uuid, at: Timestamp) -> Result<(), Error> {
    sqlx::query(AGAIN)
        .bind(flow_id.to_string())
        .bind(row::moment(at))
        .execute(writer)
        .await?;
    Ok(())
}

// A change of settings keeps its minute: its own `post` may be under way, and would tell of it a second time.
const ALL_NOW: &str = "
UPDATE journal SET look_at = $1
WHERE state = 'open' AND look_at > $1 AND opened_at <= $1 AND flow = 'registration'";

pub(super) async fn look_at_all(writer: &Pool, now: Timestamp) -> Result<u64, Error> {
    let done = sqlx::query(ALL_NOW)
        .bind(row::moment(now))
        .execute(writer)
        .await?;
    Ok(done.rows_affected())
}

const NEXT: &str = "SELECT min(look_at) AS look_at FROM journal WHERE state = 'open'";

pub(super) async fn next_look(readers: &Pool) -> Result<Option<Timestamp>, Error> {
    let row = sqlx::query(NEXT).fetch_one(readers).await?;
    Ok(row::optional_timestamp(&row, "look_at")?)
}
