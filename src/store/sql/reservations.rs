//! What was taken from services for flows.

use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::row::{self, DbRow};
use super::{Connection, Pool};
use crate::clock::Timestamp;
use crate::reservation::{Because, Details, Reservation, State};
use crate::store::Error;

const RESERVE: &str = "
INSERT INTO reservations (id, flow_id, check_name, asked, state, details, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

pub(super) async fn reserve(
    connection: &mut Connection,
    reservations: &[Reservation],
) -> Result<(), Error> {
    for reservation in reservations {
        sqlx::query(RESERVE)
            .bind(reservation.id.to_string())
            .bind(reservation.flow_id.to_string())
            .bind(&reservation.check)
            .bind(&reservation.asked)
            .bind(reservation.state.as_str())
            .bind(
                reservation
                    .details
                    .as_ref()
                    .map(|details| json!(details).to_string()),
            )
            .bind(row::moment(reservation.created_at))
            .bind(row::moment(reservation.expires_at))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

const CONFIRM: &str =
    "UPDATE reservations SET state = 'confirmed', details = NULL WHERE id = $1 AND state = 'taken'";

pub(super) async fn confirm(connection: &mut Connection, ids: &[Uuid]) -> Result<(), Error> {
    for id in ids {
        let done = sqlx::query(CONFIRM)
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Changed);
        }
    }
    Ok(())
}

const RELEASE: &str = "
UPDATE reservations SET state = 'released', details = NULL, because = $2
WHERE id = $1 AND (state = 'taking' OR state = 'taken' AND CAST($2 AS TEXT) <> 'unclear')";

pub(super) async fn release(
    connection: &mut Connection,
    released: &[(Uuid, Because)],
) -> Result<(), Error> {
    for (id, because) in released {
        let done = sqlx::query(RELEASE)
            .bind(id.to_string())
            .bind(because.as_str())
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Changed);
        }
    }
    Ok(())
}

const OF_FLOW: &str = "
SELECT id, flow_id, check_name, asked, state, details, because, created_at, expires_at FROM reservations
WHERE flow_id = $1 ORDER BY id";

pub(super) async fn of_flow(readers: &Pool, flow_id: Uuid) -> Result<Vec<Reservation>, Error> {
    let rows = sqlx::query(OF_FLOW)
        .bind(flow_id.to_string())
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(reservation).collect::<Result<_, _>>()?)
}

fn reservation(row: &DbRow) -> Result<Reservation, sqlx::Error> {
    let state: &str = row.try_get("state")?;
    let because: Option<&str> = row.try_get("because")?;
    Ok(Reservation {
        id: row::uuid(row, "id")?,
        flow_id: row::uuid(row, "flow_id")?,
        check: row.try_get("check_name")?,
        asked: row.try_get("asked")?,
        state: State::named(state).ok_or_else(|| row::unknown("state"))?,
        details: row::optional_json(row, "details")?,
        because: because.and_then(Because::named),
        created_at: row::timestamp(row, "created_at")?,
        expires_at: row::timestamp(row, "expires_at")?,
    })
}

const TAKEN: &str = "UPDATE reservations SET state = 'taken', details = $2 WHERE id = $1 AND state IN ('taking', 'taken')";

pub(super) async fn taken(writer: &Pool, id: Uuid, details: &Details) -> Result<bool, Error> {
    let done = sqlx::query(TAKEN)
        .bind(id.to_string())
        .bind(json!(details).to_string())
        .execute(writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

const NOT_TAKEN: &str = "DELETE FROM reservations WHERE id = $1 AND state = 'taking'";

pub(super) async fn not_taken(writer: &Pool, id: Uuid) -> Result<(), Error> {
    sqlx::query(NOT_TAKEN)
        .bind(id.to_string())
        .execute(writer)
        .await?;
    Ok(())
}

const EXPIRED: &str = "
SELECT id, flow_id, check_name, asked, state, details, because, created_at, expires_at FROM reservations
WHERE expires_at <= $1 AND state IN ('taking', 'taken')
    AND NOT EXISTS (SELECT 1 FROM journal WHERE journal.flow_id = reservations.flow_id AND journal.state = 'open')
ORDER BY expires_at LIMIT $2";

pub(super) async fn expired(
    readers: &Pool,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Reservation>, Error> {
    let rows = sqlx::query(EXPIRED)
        .bind(row::moment(now))
        .bind(i64::from(limit))
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(reservation).collect::<Result<_, _>>()?)
}
