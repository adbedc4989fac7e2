//! Implements [`PendingStore`]: flows, their accepted submissions, and when they are looked up.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::{Database, reservations, row};
use crate::base::clock::{Timestamp, saturating_add};
use crate::model::pending::{
    AttributedSubmission, FlowRecord, LookupKind, PendingKey, PendingSignUp, PendingState,
    SubmissionHash, URGENT_LOOKUP_INTERVAL,
};
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::{Error, FlowState, PendingStore};

#[async_trait]
impl PendingStore for Database {
    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error> {
        self.pool.read(|on| state(on, flow_id).boxed()).await
    }

    async fn flow_records(&self, flow_ids: &[Uuid]) -> Result<Vec<FlowRecord>, Error> {
        self.pool.read(|on| records(on, flow_ids).boxed()).await
    }

    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error> {
        self.pool
            .read(|on| open_flow(on, external_id).boxed())
            .await
    }

    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error> {
        self.pool
            .read(|on| flows_of_change(on, identity_id, traits_hash).boxed())
            .await
    }

    async fn attributed_to(&self, identity_id: Uuid) -> Result<Vec<AttributedSubmission>, Error> {
        self.pool
            .read(|on| attributed_to(on, identity_id).boxed())
            .await
    }

    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error> {
        let until = saturating_add(now, lease);
        self.pool
            .write(|on| lease_flows(on, kind, now, until, limit).boxed())
            .await
    }

    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error> {
        self.pool
            .write(|on| reschedule(on, record, at).boxed())
            .await
    }

    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error> {
        self.pool
            .write(|on| look_up_all_now(on, now, accepted_since).boxed())
            .await
    }

    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error> {
        self.pool.read(|on| next_lookup(on).boxed()).await
    }
}

/// The order matters: if a later part shows the flow open, the earlier parts are from before it was closed.
async fn state(connection: &mut Connection<'_>, flow_id: Uuid) -> Result<FlowState, Error> {
    let reservations = reservations::of_flow(connection, flow_id).await?;
    let pending = of_flow(connection, flow_id).await?;
    Ok(FlowState {
        record: records(connection, &[flow_id]).await?.pop(),
        pending,
        reservations,
    })
}

static RECORDS: Sql = Sql::new(
    "
SELECT flow_id, flow, identity_id, expires_at, newest_at, lookups,
    (SELECT count(*) FROM pending_sign_ups WHERE pending_sign_ups.flow_id = flows.flow_id) AS submissions
FROM flows WHERE flow_id IN (SELECT value ->> 'id' FROM json_each($1))",
);

async fn records(
    connection: &mut Connection<'_>,
    flow_ids: &[Uuid],
) -> Result<Vec<FlowRecord>, Error> {
    let records = query(&RECORDS).bind(row::list(flow_ids));
    row::read_all(&records.fetch_all(connection).await?, flow_record)
}

fn flow_record(row: &Row) -> Result<FlowRecord, sqlx::Error> {
    let count = |column| {
        row.integer(column)
            .map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    };
    Ok(FlowRecord {
        flow_id: row.uuid("flow_id")?,
        flow: row.flow()?,
        identity_id: row.optional_uuid("identity_id")?,
        expires_at: row.timestamp("expires_at")?,
        newest_at: row.timestamp("newest_at")?,
        lookups: count("lookups")?,
        submissions: count("submissions")?,
    })
}

static OPEN_FLOW: Sql =
    Sql::new("SELECT flow_id FROM flows WHERE external_id = $1 AND identity_id IS NULL");

async fn open_flow(
    connection: &mut Connection<'_>,
    external_id: &str,
) -> Result<Option<Uuid>, Error> {
    let open_flow = query(&OPEN_FLOW).bind(external_id);
    let row = open_flow.fetch_optional(connection).await?;
    Ok(row.map(|row| row.uuid("flow_id")).transpose()?)
}

// A saved submission never belongs to two changes, so a few rows are enough.
static FLOWS_OF_CHANGE: Sql = Sql::new(
    "
SELECT DISTINCT flow_id FROM pending_sign_ups
WHERE changed_identity_id = $1 AND traits_hash = $2 AND identity_id IS NULL
LIMIT 20",
);

async fn flows_of_change(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    traits_hash: &str,
) -> Result<Vec<Uuid>, Error> {
    let flows = query(&FLOWS_OF_CHANGE).bind(identity_id).bind(traits_hash);
    row::read_all(&flows.fetch_all(connection).await?, |row| {
        row.uuid("flow_id")
    })
}

// A reservation without details was taken again after its release, unless it was not used.
static ATTRIBUTED_TO: Sql = Sql::new(
    "
SELECT pending_sign_ups.flow_id, pending_sign_ups.submission, pending_sign_ups.flow, pending_sign_ups.traits_hash,
    pending_sign_ups.accepted_at, reservations.check_name, reservations.request_hash
FROM pending_sign_ups
LEFT JOIN reservations ON reservations.flow_id = pending_sign_ups.flow_id
    AND reservations.submission = pending_sign_ups.submission
    AND (reservations.state = 'confirmed'
        OR (reservations.state = 'released' AND reservations.details IS NULL AND reservations.release_reason <> 'not_used'))
WHERE pending_sign_ups.identity_id = $1",
);

async fn attributed_to(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
) -> Result<Vec<AttributedSubmission>, Error> {
    let attributed = query(&ATTRIBUTED_TO).bind(identity_id);
    row::read_all(
        &attributed.fetch_all(connection).await?,
        attributed_submission,
    )
}

fn attributed_submission(row: &Row) -> Result<AttributedSubmission, sqlx::Error> {
    let check = row.optional_string("check_name")?;
    let request_hash = row.optional_string("request_hash")?;
    Ok(AttributedSubmission {
        key: PendingKey {
            flow_id: row.uuid("flow_id")?,
            submission: row.string("submission")?,
        },
        flow: row.flow()?,
        traits_hash: row.string("traits_hash")?,
        accepted_at: row.timestamp("accepted_at")?,
        reserved: check.zip(request_hash),
    })
}

static OF_FLOW: Sql = Sql::new(
    "
SELECT flow_id, submission, flow, method, traits_hash, transient_payload_hash, guarded, absent_at, accepted_at, expires_at, state,
    identity_id, details
FROM pending_sign_ups WHERE flow_id = $1 ORDER BY accepted_at, submission",
);

async fn of_flow(
    connection: &mut Connection<'_>,
    flow_id: Uuid,
) -> Result<Vec<PendingSignUp>, Error> {
    let of_flow = query(&OF_FLOW).bind(flow_id);
    row::read_all(&of_flow.fetch_all(connection).await?, sign_up)
}

fn sign_up(row: &Row) -> Result<PendingSignUp, sqlx::Error> {
    Ok(PendingSignUp {
        key: PendingKey {
            flow_id: row.uuid("flow_id")?,
            submission: row.string("submission")?,
        },
        flow: row.flow()?,
        method: row.string("method")?,
        hash: SubmissionHash {
            traits: row.string("traits_hash")?,
            transient_payload: row.string("transient_payload_hash")?,
        },
        guarded: row.integer("guarded")? == 1,
        last_known_absent_at: row.timestamp("absent_at")?,
        accepted_at: row.timestamp("accepted_at")?,
        expires_at: row.timestamp("expires_at")?,
        state: row.named("state", PendingState::named)?,
        identity_id: row.optional_uuid("identity_id")?,
        details: row.optional_json("details")?.unwrap_or_default(),
    })
}

// On PostgreSQL, rows that another instance is leasing are skipped.
static LEASE: Sql = Sql::new(
    "
UPDATE flows SET next_lookup_at = $1, leased_at = $2, lookups = lookups + 1
WHERE flow_id IN (
    SELECT flow_id FROM flows
    WHERE next_lookup_at IS NOT NULL AND next_lookup_at <= $2 AND (CASE WHEN urgent_at = next_lookup_at THEN 1 ELSE 0 END) = $4
    ORDER BY next_lookup_at LIMIT $3 /* postgres: FOR UPDATE SKIP LOCKED */)
RETURNING flow_id, flow, identity_id, expires_at, newest_at, lookups, 0 AS submissions",
);

async fn lease_flows(
    connection: &mut Connection<'_>,
    kind: LookupKind,
    now: Timestamp,
    until: Timestamp,
    limit: u32,
) -> Result<Vec<FlowRecord>, Error> {
    let lease = query(&LEASE)
        .bind(until)
        .bind(now)
        .bind(limit)
        .bind(u32::from(kind == LookupKind::Urgent));
    row::read_all(&lease.fetch_all(connection).await?, flow_record)
}

// A newer submission has set its own time. A `post` that could not be read during the look-up needs another look-up.
static RESCHEDULE: Sql = Sql::new(
    "
UPDATE flows
SET next_lookup_at = CASE
        WHEN urgent_at > leased_at AND (CAST($3 AS BIGINT) IS NULL OR urgent_at < $3) THEN urgent_at
        ELSE $3
    END,
    leased_at = NULL
WHERE flow_id = $1 AND newest_at = $2 AND identity_id IS NULL",
);

async fn reschedule(
    connection: &mut Connection<'_>,
    record: &FlowRecord,
    at: Option<Timestamp>,
) -> Result<(), Error> {
    let reschedule = query(&RESCHEDULE)
        .bind(record.flow_id)
        .bind(record.newest_at)
        .bind(at);
    reschedule.execute(connection).await?;
    Ok(())
}

// A change in settings keeps its time, because its own `post` may be running. A leased flow keeps its lease, so that
// only one look-up of it runs at a time, and is looked up again afterwards. A flow that is due soon enough is not
// changed.
static ALL_NOW: Sql = Sql::new(
    "
UPDATE flows
SET urgent_at = CASE WHEN urgent_at + $3 > $1 THEN urgent_at + $3 ELSE $1 END,
    next_lookup_at = CASE
        WHEN leased_at IS NOT NULL THEN next_lookup_at
        WHEN urgent_at + $3 > $1 THEN urgent_at + $3
        ELSE $1
    END
WHERE next_lookup_at IS NOT NULL AND next_lookup_at > $1 AND newest_at <= $1 AND newest_at >= $2 AND flow = 'registration'
    AND (urgent_at IS NULL OR (urgent_at <= $1 AND (leased_at IS NOT NULL OR urgent_at + $3 < next_lookup_at)))",
);

async fn look_up_all_now(
    connection: &mut Connection<'_>,
    now: Timestamp,
    accepted_since: Timestamp,
) -> Result<u64, Error> {
    let interval = i64::try_from(URGENT_LOOKUP_INTERVAL.as_millis()).unwrap_or(i64::MAX);
    let all_now = query(&ALL_NOW)
        .bind(now)
        .bind(accepted_since)
        .bind(interval);
    Ok(all_now.execute(connection).await?)
}

static NEXT: Sql = Sql::new(
    "SELECT min(next_lookup_at) AS next_lookup_at FROM flows WHERE next_lookup_at IS NOT NULL",
);

async fn next_lookup(connection: &mut Connection<'_>) -> Result<Option<Timestamp>, Error> {
    let row = query(&NEXT).fetch_one(connection).await?;
    Ok(row.optional_timestamp("next_lookup_at")?)
}
