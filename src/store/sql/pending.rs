//! The statements for flows and their accepted submissions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::Row as _;
use uuid::Uuid;

use super::row::{self, DbRow};
use super::{Connection, Pool};
use crate::base::clock::{Timestamp, saturating_add};
use crate::model::pending::{
    AttributedSubmission, Details, FlowRecord, LookupKind, PendingKey, PendingSignUp, PendingState,
    SubmissionHash, URGENT_LOOKUP_INTERVAL,
};
use crate::store::write_set::{Acceptance, Closing, Ending, SettledQuestion};
use crate::store::{Error, PendingEnd};

// A closed flow is not changed. The upsert locks the row, so recording an acceptance and closing the flow exclude each
// other.
const FLOWS: &str = concat!(
    "
INSERT INTO flows (flow_id, flow, external_id, expires_at, newest_at, next_lookup_at, lookups)
SELECT flow_id, flow, external_id, expires_at, newest_at, next_lookup_at, 0
FROM ",
    rows!(
        "flow_id" "TEXT", "flow" "TEXT", "external_id" "TEXT", "expires_at" "BIGINT", "newest_at" "BIGINT", "next_lookup_at" "BIGINT"
    ),
    " WHERE true
ON CONFLICT (flow_id) DO UPDATE
SET external_id = coalesce(excluded.external_id, flows.external_id), expires_at = excluded.expires_at, newest_at = excluded.newest_at,
    next_lookup_at = CASE WHEN excluded.next_lookup_at IS NULL THEN flows.next_lookup_at ELSE excluded.next_lookup_at END, lookups = 0,
    leased_at = CASE WHEN excluded.next_lookup_at IS NULL THEN flows.leased_at END
WHERE flows.identity_id IS NULL"
);

// A call that is recorded after its submission was attributed changes nothing.
const SUBMISSIONS: &str = concat!(
    "
INSERT INTO pending_sign_ups
    (flow_id, submission, flow, method, traits_hash, transient_payload_hash, guarded, absent_at, accepted_at, expires_at, state,
     details, changed_identity_id)
SELECT flow_id, submission, flow, method, traits_hash, transient_payload_hash, guarded, absent_at, accepted_at, expires_at, 'open',
    details, changed_identity_id
FROM ",
    rows!(
        "flow_id" "TEXT", "submission" "TEXT", "flow" "TEXT", "method" "TEXT", "traits_hash" "TEXT",
        "transient_payload_hash" "TEXT", "guarded" "BIGINT", "absent_at" "BIGINT", "accepted_at" "BIGINT",
        "expires_at" "BIGINT", "details" "TEXT", "changed_identity_id" "TEXT"
    ),
    " WHERE true
ON CONFLICT (flow_id, submission) DO UPDATE
SET method = excluded.method, traits_hash = excluded.traits_hash, transient_payload_hash = excluded.transient_payload_hash,
    guarded = excluded.guarded, accepted_at = excluded.accepted_at, expires_at = excluded.expires_at, state = excluded.state,
    details = excluded.details
WHERE pending_sign_ups.identity_id IS NULL"
);

#[derive(Serialize)]
struct FlowRow<'a> {
    flow_id: Uuid,
    flow: &'static str,
    external_id: Option<&'a str>,
    expires_at: i64,
    newest_at: i64,
    next_lookup_at: Option<i64>,
}

#[derive(Serialize)]
struct SubmissionRow<'a> {
    flow_id: Uuid,
    submission: &'a str,
    flow: &'static str,
    method: &'a str,
    traits_hash: &'a str,
    transient_payload_hash: &'a str,
    guarded: i64,
    absent_at: i64,
    accepted_at: i64,
    expires_at: i64,
    details: String,
    changed_identity_id: Option<Uuid>,
}

impl<'a> SubmissionRow<'a> {
    fn of(one: &'a PendingSignUp) -> Self {
        Self {
            flow_id: one.key.flow_id,
            submission: &one.key.submission,
            flow: one.flow.as_str(),
            method: &one.method,
            traits_hash: &one.hash.traits,
            transient_payload_hash: &one.hash.transient_payload,
            guarded: one.guarded.into(),
            absent_at: row::moment(one.last_known_absent_at),
            accepted_at: row::moment(one.accepted_at),
            expires_at: row::moment(one.expires_at),
            details: row::text(&one.details),
            changed_identity_id: one.details.lookup_keys.identity_id,
        }
    }
}

/// Records acceptances within a transaction. If the flow is closed, a durable acceptance fails, and any other
/// acceptance changes nothing.
pub(super) async fn accept(
    connection: &mut Connection,
    acceptances: &[Acceptance],
) -> Result<(), Error> {
    for must_hold in [true, false] {
        let some = || acceptances.iter().filter(|one| one.must_hold == must_hold);
        // A statement may change each row only once, and must lock rows in one order.
        let mut flows: BTreeMap<Uuid, FlowRow<'_>> = BTreeMap::new();
        let mut submissions: BTreeMap<&PendingKey, SubmissionRow<'_>> = BTreeMap::new();
        for one in some() {
            let sign_up = &one.sign_up;
            flows.insert(
                sign_up.key.flow_id,
                FlowRow {
                    flow_id: sign_up.key.flow_id,
                    flow: sign_up.flow.as_str(),
                    external_id: sign_up
                        .details
                        .lookup_keys
                        .external_id
                        .as_deref()
                        .filter(|_| sign_up.guarded),
                    expires_at: row::moment(sign_up.expires_at),
                    newest_at: row::moment(sign_up.accepted_at),
                    next_lookup_at: one.next_lookup_at.map(row::moment),
                },
            );
            submissions.insert(&sign_up.key, SubmissionRow::of(sign_up));
        }
        if flows.is_empty() {
            continue;
        }
        let expected = flows.len() as u64;
        let rows: Vec<FlowRow<'_>> = flows.into_values().collect();
        let done = sqlx::query(FLOWS)
            .bind(row::text(&rows))
            .execute(&mut *connection)
            .await?;
        if must_hold && done.rows_affected() < expected {
            return Err(Error::Conflict);
        }
        let rows: Vec<SubmissionRow<'_>> = submissions.into_values().collect();
        sqlx::query(SUBMISSIONS)
            .bind(row::text(&rows))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

// A `post` can arrive without a recorded `pre`.
const CLOSE: &str = "
INSERT INTO flows (flow_id, flow, identity_id, expires_at, newest_at, next_lookup_at, lookups)
VALUES ($1, $2, $3, $4, $5, NULL, 0)
ON CONFLICT (flow_id) DO UPDATE SET identity_id = excluded.identity_id, next_lookup_at = NULL
WHERE flows.identity_id IS NULL OR flows.identity_id = excluded.identity_id";
const DELETE_OF_FLOW: &str = "DELETE FROM pending_sign_ups WHERE flow_id = $1";
// The flow cannot create another account, so no reservation is taken again.
const ERASE_RELEASED: &str = "
UPDATE reservations SET details = NULL WHERE flow_id = $1 AND state = 'released' AND details IS NOT NULL";

/// Closes flows within a transaction.
pub(super) async fn close(connection: &mut Connection, closings: &[Closing]) -> Result<(), Error> {
    for closing in closings {
        let flow_id = closing.flow_id.to_string();
        let done = sqlx::query(CLOSE)
            .bind(&flow_id)
            .bind(closing.flow.as_str())
            .bind(closing.identity_id.to_string())
            .bind(row::moment(closing.expires_at))
            .bind(row::moment(closing.at))
            .execute(&mut *connection)
            .await?;
        must_change(done.rows_affected())?;
        for statement in [DELETE_OF_FLOW, ERASE_RELEASED] {
            sqlx::query(statement)
                .bind(&flow_id)
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}

const ATTRIBUTED: &str = "
UPDATE pending_sign_ups SET state = 'attributed', identity_id = $4, details = NULL
WHERE flow_id = $1 AND submission = $2 AND accepted_at = $3 AND identity_id IS NULL";
// The details are kept until the flow is deleted: `registration.failed` reads them, and a late `post` may need them.
const CONCLUDE: &str = "
UPDATE pending_sign_ups SET state = $4
WHERE flow_id = $1 AND submission = $2 AND accepted_at = $3 AND state = 'open'";

/// Ends submissions within a transaction. Each must be as it was when it was read.
pub(super) async fn end(connection: &mut Connection, endings: &[Ending]) -> Result<(), Error> {
    for ending in endings {
        let (statement, value) = match ending.end {
            PendingEnd::Attributed(identity_id) => (ATTRIBUTED, identity_id.to_string()),
            end => (CONCLUDE, end.as_str().to_owned()),
        };
        let statement = sqlx::query(statement)
            .bind(ending.key.flow_id.to_string())
            .bind(&ending.key.submission)
            .bind(row::moment(ending.accepted_at))
            .bind(value);
        must_change(statement.execute(&mut *connection).await?.rows_affected())?;
    }
    Ok(())
}

// The result of a running attempt is ignored, because its lease is removed.
const SETTLE_DEFERRED: &str = "
UPDATE deliveries
SET state = 'discarded', action = NULL, context = NULL, leased = 0, settled_at = $3,
    last_error = 'the check has accepted the value that replaced this one'
WHERE subscription = $1 AND identity_id = $2 AND state IN ('pending', 'abandoned')";

/// Discards deferred checks within a transaction.
pub(super) async fn settle_questions(
    connection: &mut Connection,
    settled: &[SettledQuestion],
) -> Result<(), Error> {
    for question in settled {
        sqlx::query(SETTLE_DEFERRED)
            .bind(&question.subscription)
            .bind(question.identity_id.to_string())
            .bind(row::moment(question.at))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn must_change(rows: u64) -> Result<(), Error> {
    if rows == 0 {
        return Err(Error::Conflict);
    }
    Ok(())
}

const RECORDS: &str = concat!(
    "
SELECT flow_id, flow, identity_id, expires_at, newest_at, lookups,
    (SELECT count(*) FROM pending_sign_ups WHERE pending_sign_ups.flow_id = flows.flow_id) AS submissions
FROM flows WHERE flow_id IN ",
    texts!("$1")
);

pub(super) async fn records(readers: &Pool, flow_ids: &[Uuid]) -> Result<Vec<FlowRecord>, Error> {
    let rows = sqlx::query(RECORDS)
        .bind(row::text(&flow_ids))
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(flow_record).collect::<Result<_, _>>()?)
}

const OPEN_FLOW: &str = "SELECT flow_id FROM flows WHERE external_id = $1 AND identity_id IS NULL";

pub(super) async fn open_flow(readers: &Pool, external_id: &str) -> Result<Option<Uuid>, Error> {
    let row = sqlx::query(OPEN_FLOW)
        .bind(external_id)
        .fetch_optional(readers)
        .await?;
    Ok(row.map(|row| row::uuid(&row, "flow_id")).transpose()?)
}

// A saved submission never belongs to two changes, so a few rows are enough.
const FLOWS_OF_CHANGE: &str = "
SELECT DISTINCT flow_id FROM pending_sign_ups
WHERE changed_identity_id = $1 AND traits_hash = $2 AND identity_id IS NULL
LIMIT 20";

pub(super) async fn flows_of_change(
    readers: &Pool,
    identity_id: Uuid,
    traits_hash: &str,
) -> Result<Vec<Uuid>, Error> {
    let rows = sqlx::query(FLOWS_OF_CHANGE)
        .bind(identity_id.to_string())
        .bind(traits_hash)
        .fetch_all(readers)
        .await?;
    let ids = rows.iter().map(|row| row::uuid(row, "flow_id"));
    Ok(ids.collect::<Result<_, _>>()?)
}

// A reservation without details was taken again after its release, unless it was not used.
const ATTRIBUTED_TO: &str = "
SELECT pending_sign_ups.flow_id, pending_sign_ups.submission, pending_sign_ups.flow, pending_sign_ups.traits_hash,
    pending_sign_ups.accepted_at, reservations.check_name, reservations.request_hash
FROM pending_sign_ups
LEFT JOIN reservations ON reservations.flow_id = pending_sign_ups.flow_id
    AND reservations.submission = pending_sign_ups.submission
    AND (reservations.state = 'confirmed'
        OR (reservations.state = 'released' AND reservations.details IS NULL AND reservations.release_reason <> 'not_used'))
WHERE pending_sign_ups.identity_id = $1";

pub(super) async fn attributed_to(
    readers: &Pool,
    identity_id: Uuid,
) -> Result<Vec<AttributedSubmission>, Error> {
    let rows = sqlx::query(ATTRIBUTED_TO)
        .bind(identity_id.to_string())
        .fetch_all(readers)
        .await?;
    let submissions = rows.iter().map(|row| {
        let check: Option<String> = row.try_get("check_name")?;
        let request_hash: Option<String> = row.try_get("request_hash")?;
        Ok::<_, sqlx::Error>(AttributedSubmission {
            key: PendingKey {
                flow_id: row::uuid(row, "flow_id")?,
                submission: row.try_get("submission")?,
            },
            flow: row::flow(row)?,
            traits_hash: row.try_get("traits_hash")?,
            accepted_at: row::timestamp(row, "accepted_at")?,
            reserved: check.zip(request_hash),
        })
    });
    Ok(submissions.collect::<Result<_, _>>()?)
}

fn flow_record(row: &DbRow) -> Result<FlowRecord, sqlx::Error> {
    let count = |column: &str| {
        row.try_get::<i64, _>(column)
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    };
    Ok(FlowRecord {
        flow_id: row::uuid(row, "flow_id")?,
        flow: row::flow(row)?,
        identity_id: row::optional_uuid(row, "identity_id")?,
        expires_at: row::timestamp(row, "expires_at")?,
        newest_at: row::timestamp(row, "newest_at")?,
        lookups: count("lookups")?,
        submissions: count("submissions")?,
    })
}

const OF_FLOW: &str = "
SELECT flow_id, submission, flow, method, traits_hash, transient_payload_hash, guarded, absent_at, accepted_at, expires_at, state,
    identity_id, details
FROM pending_sign_ups WHERE flow_id = $1 ORDER BY accepted_at, submission";

pub(super) async fn of_flow(readers: &Pool, flow_id: Uuid) -> Result<Vec<PendingSignUp>, Error> {
    let rows = sqlx::query(OF_FLOW)
        .bind(flow_id.to_string())
        .fetch_all(readers)
        .await?;
    Ok(rows.iter().map(sign_up).collect::<Result<_, _>>()?)
}

fn sign_up(row: &DbRow) -> Result<PendingSignUp, sqlx::Error> {
    let details: Option<Details> = row::optional_json(row, "details")?;
    let state: &str = row.try_get("state")?;
    Ok(PendingSignUp {
        key: PendingKey {
            flow_id: row::uuid(row, "flow_id")?,
            submission: row.try_get("submission")?,
        },
        flow: row::flow(row)?,
        method: row.try_get("method")?,
        hash: SubmissionHash {
            traits: row.try_get("traits_hash")?,
            transient_payload: row.try_get("transient_payload_hash")?,
        },
        guarded: row.try_get::<i64, _>("guarded")? == 1,
        last_known_absent_at: row::timestamp(row, "absent_at")?,
        accepted_at: row::timestamp(row, "accepted_at")?,
        expires_at: row::timestamp(row, "expires_at")?,
        state: PendingState::named(state).ok_or_else(|| row::unknown("state"))?,
        identity_id: row::optional_uuid(row, "identity_id")?,
        details: details.unwrap_or_default(),
    })
}

const LEASE: &str = concat!(
    "
UPDATE flows SET next_lookup_at = $1, leased_at = $2, lookups = lookups + 1
WHERE flow_id IN (
    SELECT flow_id FROM flows
    WHERE next_lookup_at IS NOT NULL AND next_lookup_at <= $2 AND (CASE WHEN urgent_at = next_lookup_at THEN 1 ELSE 0 END) = $4
    ORDER BY next_lookup_at LIMIT $3",
    skip_locked!(),
    ")
RETURNING flow_id, flow, identity_id, expires_at, newest_at, lookups, CAST(0 AS BIGINT) AS submissions"
);

pub(super) async fn lease(
    writer: &Pool,
    kind: LookupKind,
    now: Timestamp,
    lease: Duration,
    limit: u32,
) -> Result<Vec<FlowRecord>, Error> {
    let rows = sqlx::query(LEASE)
        .bind(row::moment(saturating_add(now, lease)))
        .bind(row::moment(now))
        .bind(i64::from(limit))
        .bind(i64::from(kind == LookupKind::Urgent))
        .fetch_all(writer)
        .await?;
    Ok(rows.iter().map(flow_record).collect::<Result<_, _>>()?)
}

// A newer submission has set its own time. A `post` that could not be read during the look-up needs another look-up.
const RESCHEDULE: &str = "
UPDATE flows
SET next_lookup_at = CASE
        WHEN urgent_at > leased_at AND (CAST($3 AS BIGINT) IS NULL OR urgent_at < $3) THEN urgent_at
        ELSE $3
    END,
    leased_at = NULL
WHERE flow_id = $1 AND newest_at = $2 AND identity_id IS NULL";

pub(super) async fn reschedule(
    writer: &Pool,
    record: &FlowRecord,
    at: Option<Timestamp>,
) -> Result<(), Error> {
    sqlx::query(RESCHEDULE)
        .bind(record.flow_id.to_string())
        .bind(row::moment(record.newest_at))
        .bind(at.map(row::moment))
        .execute(writer)
        .await?;
    Ok(())
}

// A change in settings keeps its time, because its own `post` may be running. A leased flow keeps its lease, so that
// only one look-up of it runs at a time, and is looked up again afterwards. A flow that is due soon enough is not
// changed.
const ALL_NOW: &str = "
UPDATE flows
SET urgent_at = CASE WHEN urgent_at + $3 > $1 THEN urgent_at + $3 ELSE $1 END,
    next_lookup_at = CASE
        WHEN leased_at IS NOT NULL THEN next_lookup_at
        WHEN urgent_at + $3 > $1 THEN urgent_at + $3
        ELSE $1
    END
WHERE next_lookup_at IS NOT NULL AND next_lookup_at > $1 AND newest_at <= $1 AND newest_at >= $2 AND flow = 'registration'
    AND (urgent_at IS NULL OR (urgent_at <= $1 AND (leased_at IS NOT NULL OR urgent_at + $3 < next_lookup_at)))";

pub(super) async fn look_up_all_now(
    writer: &Pool,
    now: Timestamp,
    accepted_since: Timestamp,
) -> Result<u64, Error> {
    let done = sqlx::query(ALL_NOW)
        .bind(row::moment(now))
        .bind(row::moment(accepted_since))
        .bind(whole_milliseconds(URGENT_LOOKUP_INTERVAL))
        .execute(writer)
        .await?;
    Ok(done.rows_affected())
}

fn whole_milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const NEXT: &str =
    "SELECT min(next_lookup_at) AS next_lookup_at FROM flows WHERE next_lookup_at IS NOT NULL";

pub(super) async fn next_lookup(readers: &Pool) -> Result<Option<Timestamp>, Error> {
    let row = sqlx::query(NEXT).fetch_one(readers).await?;
    Ok(row::optional_timestamp(&row, "next_lookup_at")?)
}
