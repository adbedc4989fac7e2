//! Implements [`ReservationStore`]: what services keep for sign-ups.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::pending_writes::must_change;
use super::{Database, row};
use crate::base::clock::Timestamp;
use crate::model::reservation::{Details, ReleaseReason, Reservation, State};
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::write_set::Release;
use crate::store::{Error, ReservationStore};

#[async_trait]
impl ReservationStore for Database {
    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error> {
        self.pool.write(|on| share(on, id, until).boxed()).await
    }

    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        self.pool
            .transaction(|on| take_over(on, reservation, former, submission, (now, until)).boxed())
            .await
    }

    async fn mark_reserved(&self, id: Uuid, details: &Details) -> Result<bool, Error> {
        self.pool
            .write(|on| mark_reserved(on, id, details).boxed())
            .await
    }

    async fn cancel_reservation(&self, id: Uuid) -> Result<(), Error> {
        self.pool.write(|on| cancel(on, id).boxed()).await
    }

    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error> {
        self.pool
            .read(|on| unused(on, now, expired_at, limit).boxed())
            .await
    }
}

static RESERVE: Sql = Sql::new(
    "
INSERT INTO reservations
    (id, flow_id, check_name, request_hash, state, details, created_at, expires_at, submission, in_use_until, release_reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);

pub(super) async fn reserve(
    connection: &mut Connection<'_>,
    reservations: &[Reservation],
) -> Result<(), Error> {
    for reservation in reservations {
        let reserve = query(&RESERVE)
            .bind(reservation.id)
            .bind(reservation.flow_id)
            .bind(&reservation.check)
            .bind(&reservation.request_hash)
            .bind(reservation.state.as_str())
            .bind(reservation.details.as_ref().map(row::text))
            .bind(reservation.created_at)
            .bind(reservation.expires_at)
            .bind(&reservation.submission)
            .bind(reservation.in_use_until)
            .bind(reservation.release_reason.map(ReleaseReason::as_str));
        reserve.execute(connection).await?;
    }
    Ok(())
}

static CONFIRM: Sql = Sql::new(
    "UPDATE reservations SET state = 'confirmed', details = NULL WHERE id = $1 AND state = 'taken'",
);

pub(super) async fn confirm(connection: &mut Connection<'_>, ids: &[Uuid]) -> Result<(), Error> {
    for id in ids {
        must_change(query(&CONFIRM).bind(*id).execute(connection).await?)?;
    }
    Ok(())
}

// Another call with the same request may have accepted the answer. Then the reservation is taken, and stays.
static RELEASE: Sql = Sql::new(
    "
UPDATE reservations SET state = 'released', details = $4, release_reason = $2
WHERE id = $1 AND in_use_until <= $3 AND (state = 'taking' OR state = 'taken' AND CAST($2 AS TEXT) NOT IN ('unclear', 'answer_refused'))",
);

pub(super) async fn release(
    connection: &mut Connection<'_>,
    released: &[Release],
) -> Result<(), Error> {
    for release in released {
        let release = query(&RELEASE)
            .bind(release.id)
            .bind(release.release_reason.as_str())
            .bind(release.unused_since)
            .bind(release.kept.as_ref().map(row::text));
        must_change(release.execute(connection).await?)?;
    }
    Ok(())
}

static TAKE_AGAIN: Sql = Sql::new(
    "UPDATE reservations SET details = NULL WHERE id = $1 AND state = 'released' AND details IS NOT NULL",
);

/// Moves reservations into deliveries within a transaction. The delivery keeps the request from now on.
pub(super) async fn take_again(connection: &mut Connection<'_>, ids: &[Uuid]) -> Result<(), Error> {
    for id in ids {
        must_change(query(&TAKE_AGAIN).bind(*id).execute(connection).await?)?;
    }
    Ok(())
}

static OF_FLOW: Sql = Sql::new(
    "
SELECT id, flow_id, check_name, request_hash, state, details, release_reason, created_at, expires_at, submission, in_use_until
FROM reservations WHERE flow_id = $1 ORDER BY id",
);

pub(super) async fn of_flow(
    connection: &mut Connection<'_>,
    flow_id: Uuid,
) -> Result<Vec<Reservation>, Error> {
    let of_flow = query(&OF_FLOW).bind(flow_id);
    row::read_all(&of_flow.fetch_all(connection).await?, reservation)
}

fn reservation(row: &Row) -> Result<Reservation, sqlx::Error> {
    let release_reason = row.optional_text("release_reason")?;
    Ok(Reservation {
        id: row.uuid("id")?,
        flow_id: row.uuid("flow_id")?,
        check: row.string("check_name")?,
        request_hash: row.string("request_hash")?,
        state: row.named("state", State::named)?,
        details: row.optional_json("details")?,
        release_reason: release_reason.and_then(ReleaseReason::named),
        created_at: row.timestamp("created_at")?,
        expires_at: row.timestamp("expires_at")?,
        submission: row.string("submission")?,
        in_use_until: row.timestamp("in_use_until")?,
    })
}

static MARK_RESERVED: Sql = Sql::new(
    "UPDATE reservations SET state = 'taken', details = $2 WHERE id = $1 AND state IN ('taking', 'taken')",
);

async fn mark_reserved(
    connection: &mut Connection<'_>,
    id: Uuid,
    details: &Details,
) -> Result<bool, Error> {
    let taken = query(&MARK_RESERVED).bind(id).bind(row::text(details));
    Ok(taken.execute(connection).await? == 1)
}

static CANCEL: Sql = Sql::new("DELETE FROM reservations WHERE id = $1 AND state = 'taking'");

async fn cancel(connection: &mut Connection<'_>, id: Uuid) -> Result<(), Error> {
    query(&CANCEL).bind(id).execute(connection).await?;
    Ok(())
}

static USE: Sql = Sql::new(
    "
UPDATE reservations SET in_use_until = CASE WHEN in_use_until < $2 THEN $2 ELSE in_use_until END
WHERE id = $1 AND state = 'taken'",
);

/// Marks reservations as used within a transaction.
pub(super) async fn use_all(
    connection: &mut Connection<'_>,
    used: &[(Uuid, Timestamp)],
) -> Result<(), Error> {
    for (id, until) in used {
        let mark = query(&USE).bind(*id).bind(*until);
        must_change(mark.execute(connection).await?)?;
    }
    Ok(())
}

static SHARE: Sql = Sql::new(
    "
UPDATE reservations SET in_use_until = CASE WHEN in_use_until < $2 THEN $2 ELSE in_use_until END
WHERE id = $1 AND state IN ('taking', 'taken')",
);

async fn share(connection: &mut Connection<'_>, id: Uuid, until: Timestamp) -> Result<bool, Error> {
    let share = query(&SHARE).bind(id).bind(until);
    Ok(share.execute(connection).await? == 1)
}

static TAKE_OVER: Sql = Sql::new(
    "
UPDATE reservations SET submission = $3, in_use_until = $4
WHERE id = $1 AND submission = $2 AND in_use_until <= $5 AND state IN ('taking', 'taken')",
);

/// Gives a reservation to another submission within a transaction. `former` is the released row of the submission that
/// had the reservation.
async fn take_over(
    connection: &mut Connection<'_>,
    reservation: &Reservation,
    former: Option<&Reservation>,
    submission: &str,
    (now, until): (Timestamp, Timestamp),
) -> Result<bool, Error> {
    let take_over = query(&TAKE_OVER)
        .bind(reservation.id)
        .bind(&reservation.submission)
        .bind(submission)
        .bind(until)
        .bind(now);
    let is_taken_over = take_over.execute(connection).await? == 1;
    if let Some(former) = former.filter(|_| is_taken_over) {
        reserve(connection, std::slice::from_ref(former)).await?;
    }
    Ok(is_taken_over)
}

// Of a closed flow, all reservations that were not confirmed. Of other flows, those that no open submission can need
// any more.
static UNUSED: Sql = Sql::new(
    "
SELECT id, flow_id, check_name, request_hash, state, details, release_reason, created_at, expires_at, submission, in_use_until
FROM reservations
WHERE state IN ('taking', 'taken') AND in_use_until <= $1 AND (
    EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.identity_id IS NOT NULL)
    OR expires_at <= $2 AND NOT EXISTS (
        SELECT 1 FROM pending_sign_ups
        WHERE pending_sign_ups.flow_id = reservations.flow_id AND pending_sign_ups.state = 'open'
            AND EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.next_lookup_at IS NOT NULL)))
ORDER BY expires_at LIMIT $3",
);

async fn unused(
    connection: &mut Connection<'_>,
    now: Timestamp,
    expired_at: Timestamp,
    limit: u32,
) -> Result<Vec<Reservation>, Error> {
    let unused = query(&UNUSED).bind(now).bind(expired_at).bind(limit);
    row::read_all(&unused.fetch_all(connection).await?, reservation)
}
