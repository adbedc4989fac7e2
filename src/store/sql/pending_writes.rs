//! The statements of a write set that concern flows and their accepted submissions.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::row;
use crate::model::pending::{PendingKey, PendingSignUp};
use crate::store::adapter::{Connection, Sql, query};
use crate::store::write_set::{Acceptance, Closing, Ending};
use crate::store::{Error, PendingEnd};

// A closed flow is not changed. The upsert locks the row, so recording an acceptance and closing the flow exclude each
// other. `WHERE true` lets SQLite parse `ON` as part of the upsert and not of a join.
static FLOWS: Sql = Sql::new(
    "
INSERT INTO flows (flow_id, flow, external_id, expires_at, newest_at, next_lookup_at, lookups)
SELECT value ->> 'flow_id', value ->> 'flow', value ->> 'external_id', CAST(value ->> 'expires_at' AS BIGINT),
    CAST(value ->> 'newest_at' AS BIGINT), CAST(value ->> 'next_lookup_at' AS BIGINT), 0
FROM json_each($1)
WHERE true
ON CONFLICT (flow_id) DO UPDATE
SET external_id = coalesce(excluded.external_id, flows.external_id), expires_at = excluded.expires_at, newest_at = excluded.newest_at,
    next_lookup_at = CASE WHEN excluded.next_lookup_at IS NULL THEN flows.next_lookup_at ELSE excluded.next_lookup_at END, lookups = 0,
    leased_at = CASE WHEN excluded.next_lookup_at IS NULL THEN flows.leased_at END
WHERE flows.identity_id IS NULL",
);

// A call that is recorded after its flow was closed, or its submission attributed, changes nothing.
static SUBMISSIONS: Sql = Sql::new(
    "
INSERT INTO pending_sign_ups
    (flow_id, submission, flow, method, traits_hash, transient_payload_hash, guarded, absent_at, accepted_at, expires_at, state,
     details, changed_identity_id)
SELECT value ->> 'flow_id', value ->> 'submission', value ->> 'flow', value ->> 'method', value ->> 'traits_hash',
    value ->> 'transient_payload_hash', CAST(value ->> 'guarded' AS BIGINT), CAST(value ->> 'absent_at' AS BIGINT),
    CAST(value ->> 'accepted_at' AS BIGINT), CAST(value ->> 'expires_at' AS BIGINT), 'open', value ->> 'details',
    value ->> 'changed_identity_id'
FROM json_each($1)
WHERE NOT EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = value ->> 'flow_id' AND flows.identity_id IS NOT NULL)
ON CONFLICT (flow_id, submission) DO UPDATE
SET method = excluded.method, traits_hash = excluded.traits_hash, transient_payload_hash = excluded.transient_payload_hash,
    guarded = excluded.guarded, accepted_at = excluded.accepted_at, expires_at = excluded.expires_at, state = excluded.state,
    details = excluded.details
WHERE pending_sign_ups.identity_id IS NULL",
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

impl<'a> FlowRow<'a> {
    fn of(one: &'a Acceptance) -> Self {
        let sign_up = &one.sign_up;
        let external_id = sign_up.details.lookup_keys.external_id.as_deref();
        Self {
            flow_id: sign_up.key.flow_id,
            flow: sign_up.flow.as_str(),
            external_id: external_id.filter(|_| sign_up.guarded),
            expires_at: row::moment(sign_up.expires_at),
            newest_at: row::moment(sign_up.accepted_at),
            next_lookup_at: one.next_lookup_at.map(row::moment),
        }
    }
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
    connection: &mut Connection<'_>,
    acceptances: &[Acceptance],
) -> Result<(), Error> {
    for must_hold in [true, false] {
        // A statement may change each row only once, and must lock rows in one order.
        let mut flows: BTreeMap<Uuid, FlowRow<'_>> = BTreeMap::new();
        let mut submissions: BTreeMap<&PendingKey, SubmissionRow<'_>> = BTreeMap::new();
        for one in acceptances.iter().filter(|one| one.must_hold == must_hold) {
            let sign_up = &one.sign_up;
            flows.insert(sign_up.key.flow_id, FlowRow::of(one));
            submissions.insert(&sign_up.key, SubmissionRow::of(sign_up));
        }
        if flows.is_empty() {
            continue;
        }
        let rows: Vec<FlowRow<'_>> = flows.into_values().collect();
        let open = query(&FLOWS).bind(row::text(&rows));
        let open = open.execute(connection).await?;
        if must_hold && open < rows.len() as u64 {
            return Err(Error::Conflict);
        }
        let rows: Vec<SubmissionRow<'_>> = submissions.into_values().collect();
        let record = query(&SUBMISSIONS).bind(row::text(&rows));
        record.execute(connection).await?;
    }
    Ok(())
}

// A `post` can arrive without a recorded `pre`.
static CLOSE: Sql = Sql::new(
    "
INSERT INTO flows (flow_id, flow, identity_id, expires_at, newest_at, next_lookup_at, lookups)
VALUES ($1, $2, $3, $4, $5, NULL, 0)
ON CONFLICT (flow_id) DO UPDATE SET identity_id = excluded.identity_id, next_lookup_at = NULL
WHERE flows.identity_id IS NULL OR flows.identity_id = excluded.identity_id",
);
static DELETE_OF_FLOW: Sql = Sql::new("DELETE FROM pending_sign_ups WHERE flow_id = $1");
// The flow cannot create another account, so no reservation is taken again.
static ERASE_RELEASED: Sql = Sql::new(
    "
UPDATE reservations SET details = NULL WHERE flow_id = $1 AND state = 'released' AND details IS NOT NULL",
);

/// Closes flows within a transaction.
pub(super) async fn close(
    connection: &mut Connection<'_>,
    closings: &[Closing],
) -> Result<(), Error> {
    for closing in closings {
        let close = query(&CLOSE)
            .bind(closing.flow_id)
            .bind(closing.flow.as_str())
            .bind(closing.identity_id)
            .bind(closing.expires_at)
            .bind(closing.at);
        must_change(close.execute(connection).await?)?;
        for statement in [&DELETE_OF_FLOW, &ERASE_RELEASED] {
            let statement = query(statement).bind(closing.flow_id);
            statement.execute(connection).await?;
        }
    }
    Ok(())
}

static ATTRIBUTED: Sql = Sql::new(
    "
UPDATE pending_sign_ups SET state = 'attributed', identity_id = $4, details = NULL
WHERE flow_id = $1 AND submission = $2 AND accepted_at = $3 AND identity_id IS NULL",
);
// The details are kept until the flow is deleted: `registration.failed` reads them, and a late `post` may need them.
static CONCLUDE: Sql = Sql::new(
    "
UPDATE pending_sign_ups SET state = $4
WHERE flow_id = $1 AND submission = $2 AND accepted_at = $3 AND state = 'open'",
);

/// Ends submissions within a transaction. Each must be as it was when it was read.
pub(super) async fn end(connection: &mut Connection<'_>, endings: &[Ending]) -> Result<(), Error> {
    for ending in endings {
        let (statement, value) = match ending.end {
            PendingEnd::Attributed(identity_id) => (&ATTRIBUTED, identity_id.to_string()),
            end => (&CONCLUDE, end.as_str().to_owned()),
        };
        let end = query(statement)
            .bind(ending.key.flow_id)
            .bind(&ending.key.submission)
            .bind(ending.accepted_at)
            .bind(value);
        must_change(end.execute(connection).await?)?;
    }
    Ok(())
}

/// Fails if a statement changed nothing, because the row is not as it was when it was read.
pub(super) fn must_change(rows: u64) -> Result<(), Error> {
    if rows == 0 {
        return Err(Error::Conflict);
    }
    Ok(())
}
