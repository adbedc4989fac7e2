//! The statements for reservations.

use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::row::{self, DbRow};
use super::{Connection, Pool};
use crate::base::clock::Timestamp;
use crate::model::reservation::{Details, ReleaseReason, Reservation, State};
use crate::store::Error;
use crate::store::write_set::Release;

const RESERVE: &str = "
INSERT INTO reservations
    (id, flow_id, check_name, request_hash, state, details, created_at, expires_at, submission, in_use_until, release_reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

pub(super) async fn reserve(
    connection: &mut Connection,
    reservations: &[Reservation],
) -> Result<(), Error> {
    for reservation in reservations {
        sqlx::query(RESERVE)
            .bind(reservation.id.to_string())
            .bind(reservation.flow_id.to_string())
            .bind(&reservation.check)
            .bind(&reservation.request_hash)
            .bind(reservation.state.as_str())
            .bind(
                reservation
                    .details
                    .as_ref()
                    .map(|details| json!(details).to_string()),
            )
            .bind(row::moment(reservation.created_at))
            .bind(row::moment(reservation.expires_at))
            .bind(&reservation.submission)
            .bind(row::moment(reservation.in_use_until))
            .bind(reservation.release_reason.map(ReleaseReason::as_str))
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
            return Err(Error::Conflict);
        }
    }
    Ok(())
}

// Another call with the same request may have accepted the answer. Then the reservation is taken, and stays.
const RELEASE: &str = "
UPDATE reservations SET state = 'released', details = $4, release_reason = $2
WHERE id = $1 AND in_use_until <= $3 AND (state = 'taking' OR state = 'taken' AND CAST($2 AS TEXT) NOT IN ('unclear', 'answer_refused'))";

pub(super) async fn release(
    connection: &mut Connection,
    released: &[Release],
) -> Result<(), Error> {
    for release in released {
        let done = sqlx::query(RELEASE)
            .bind(release.id.to_string())
            .bind(release.release_reason.as_str())
            .bind(row::moment(release.unused_since))
            .bind(release.kept.as_ref().map(row::text))
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Conflict);
        }
    }
    Ok(())
}

const TAKE_AGAIN: &str = "UPDATE reservations SET details = NULL WHERE id = $1 AND state = 'released' AND details IS NOT NULL";

/// Moves reservations into deliveries within a transaction. The delivery keeps the request from now on.
pub(super) async fn take_again(connection: &mut Connection, ids: &[Uuid]) -> Result<(), Error> {
    for id in ids {
        let done = sqlx::query(TAKE_AGAIN)
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Conflict);
        }
    }
    Ok(())
}

const OF_FLOW: &str = "
SELECT id, flow_id, check_name, request_hash, state, details, release_reason, created_at, expires_at, submission, in_use_until
FROM reservations WHERE flow_id = $1 ORDER BY id";

pub(super) async fn of_flow(readers: &Pool, flow_id: Uuid) -> Result<Vec<Reservation>, Error> {
    let rows = sqlx::query(OF_FLOW)
        .bind(flow_id.to_string())
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(reservation).collect::<Result<_, _>>()?)
}

fn reservation(row: &DbRow) -> Result<Reservation, sqlx::Error> {
    let state: &str = row.try_get("state")?;
    let release_reason: Option<&str> = row.try_get("release_reason")?;
    Ok(Reservation {
        id: row::uuid(row, "id")?,
        flow_id: row::uuid(row, "flow_id")?,
        check: row.try_get("check_name")?,
        request_hash: row.try_get("request_hash")?,
        state: State::named(state).ok_or_else(|| row::unknown("state"))?,
        details: row::optional_json(row, "details")?,
        release_reason: release_reason.and_then(ReleaseReason::named),
        created_at: row::timestamp(row, "created_at")?,
        expires_at: row::timestamp(row, "expires_at")?,
        submission: row.try_get("submission")?,
        in_use_until: row::timestamp(row, "in_use_until")?,
    })
}

const MARK_RESERVED: &str = "UPDATE reservations SET state = 'taken', details = $2 WHERE id = $1 AND state IN ('taking', 'taken')";

pub(super) async fn mark_reserved(
    writer: &Pool,
    id: Uuid,
    details: &Details,
) -> Result<bool, Error> {
    let done = sqlx::query(MARK_RESERVED)
        .bind(id.to_string())
        .bind(json!(details).to_string())
        .execute(writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

const CANCEL: &str = "DELETE FROM reservations WHERE id = $1 AND state = 'taking'";

pub(super) async fn cancel_reservation(writer: &Pool, id: Uuid) -> Result<(), Error> {
    sqlx::query(CANCEL)
        .bind(id.to_string())
        .execute(writer)
        .await?;
    Ok(())
}

const USE: &str = "
UPDATE reservations SET in_use_until = CASE WHEN in_use_until < $2 THEN $2 ELSE in_use_until END
WHERE id = $1 AND state = 'taken'";

/// Marks reservations as used within a transaction.
pub(super) async fn use_all(
    connection: &mut Connection,
    used: &[(Uuid, Timestamp)],
) -> Result<(), Error> {
    for (id, until) in used {
        let done = sqlx::query(USE)
            .bind(id.to_string())
            .bind(row::moment(*until))
            .execute(&mut *connection)
            .await?;
        if done.rows_affected() == 0 {
            return Err(Error::Conflict);
        }
    }
    Ok(())
}

const SHARE: &str = "
UPDATE reservations SET in_use_until = CASE WHEN in_use_until < $2 THEN $2 ELSE in_use_until END
WHERE id = $1 AND state IN ('taking', 'taken')";

pub(super) async fn share(writer: &Pool, id: Uuid, until: Timestamp) -> Result<bool, Error> {
    let done = sqlx::query(SHARE)
        .bind(id.to_string())
        .bind(row::moment(until))
        .execute(writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

const TAKE_OVER: &str = "
UPDATE reservations SET submission = $3, in_use_until = $4
WHERE id = $1 AND submission = $2 AND in_use_until <= $5 AND state IN ('taking', 'taken')";

/// Gives a reservation to another submission within a transaction. `former` is the released row of the submission that
/// had the reservation.
pub(super) async fn take_over(
    connection: &mut Connection,
    reservation: &Reservation,
    former: Option<&Reservation>,
    submission: &str,
    (now, until): (Timestamp, Timestamp),
) -> Result<bool, Error> {
    let done = sqlx::query(TAKE_OVER)
        .bind(reservation.id.to_string())
        .bind(&reservation.submission)
        .bind(submission)
        .bind(row::moment(until))
        .bind(row::moment(now))
        .execute(&mut *connection)
        .await?;
    let is_taken_over = done.rows_affected() == 1;
    if let Some(former) = former.filter(|_| is_taken_over) {
        reserve(connection, std::slice::from_ref(former)).await?;
    }
    Ok(is_taken_over)
}

// Of a closed flow, all reservations that were not confirmed. Of other flows, those that no open submission can need
// any more.
const UNUSED: &str = "
SELECT id, flow_id, check_name, request_hash, state, details, release_reason, created_at, expires_at, submission, in_use_until
FROM reservations
WHERE state IN ('taking', 'taken') AND in_use_until <= $1 AND (
    EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.identity_id IS NOT NULL)
    OR expires_at <= $2 AND NOT EXISTS (
        SELECT 1 FROM pending_sign_ups
        WHERE pending_sign_ups.flow_id = reservations.flow_id AND pending_sign_ups.state = 'open'
            AND EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.next_lookup_at IS NOT NULL)))
ORDER BY expires_at LIMIT $3";

pub(super) async fn unused(
    readers: &Pool,
    now: Timestamp,
    expired_at: Timestamp,
    limit: u32,
) -> Result<Vec<Reservation>, Error> {
    let rows = sqlx::query(UNUSED)
        .bind(row::moment(now))
        .bind(row::moment(expired_at))
        .bind(i64::from(limit))
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(reservation).collect::<Result<_, _>>()?)
}
