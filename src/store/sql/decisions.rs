//! Implements [`DecisionStore`].

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::Serialize;
use uuid::Uuid;

use super::{Database, row};
use crate::base::clock::Timestamp;
use crate::model::decision::{Decision, DecisionOutcome};
use crate::store::Error;
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::decisions::{DecisionFilter, DecisionStore, FlowIdentity, RecordedDecision};

#[async_trait]
impl DecisionStore for Database {
    async fn record(&self, decisions: &[Decision]) -> Result<(), Error> {
        if decisions.is_empty() {
            return Ok(());
        }
        self.pool.write(|on| record(on, decisions).boxed()).await
    }

    async fn record_identities(&self, identities: &[FlowIdentity]) -> Result<Vec<Uuid>, Error> {
        if identities.is_empty() {
            return Ok(Vec::new());
        }
        self.pool
            .write(|on| record_identities(on, identities).boxed())
            .await
    }

    async fn decisions(
        &self,
        filter: &DecisionFilter,
        limit: u32,
    ) -> Result<Vec<RecordedDecision>, Error> {
        self.pool.read(|on| list(on, filter, limit).boxed()).await
    }

    async fn decisions_of_flow(&self, flow_id: Uuid) -> Result<Vec<RecordedDecision>, Error> {
        self.pool.read(|on| of_flow(on, flow_id).boxed()).await
    }
}

static RECORD: Sql = Sql::new(
    "
INSERT INTO decisions (at, flow_id, flow, method, outcome, duration_ms, checks, identity_id)
SELECT CAST(value ->> 'at' AS BIGINT), value ->> 'flow_id', value ->> 'flow', value ->> 'method', value ->> 'outcome',
    CAST(value ->> 'duration_ms' AS BIGINT), value ->> 'checks', value ->> 'identity_id'
FROM json_each($1)",
);

#[derive(Serialize)]
struct DecisionRow<'a> {
    at: i64,
    flow_id: Uuid,
    flow: &'static str,
    method: &'a str,
    outcome: &'static str,
    duration_ms: i64,
    checks: String,
    identity_id: Option<Uuid>,
}

impl<'a> DecisionRow<'a> {
    fn of(decision: &'a Decision) -> Self {
        Self {
            at: row::moment(decision.at),
            flow_id: decision.flow_id,
            flow: decision.hook.flow.as_str(),
            method: &decision.hook.method,
            outcome: decision.outcome,
            duration_ms: i64::try_from(decision.duration_ms).unwrap_or(i64::MAX),
            checks: row::text(&decision.checks),
            identity_id: decision.identity_id,
        }
    }
}

/// Stores all decisions with one statement, and so in one transaction.
async fn record(connection: &mut Connection<'_>, decisions: &[Decision]) -> Result<(), Error> {
    let rows: Vec<DecisionRow<'_>> = decisions.iter().map(DecisionRow::of).collect();
    let record = query(&RECORD).bind(row::text(&rows));
    record.execute(connection).await?;
    Ok(())
}

static RECORD_IDENTITIES: Sql = Sql::new(
    "
UPDATE decisions SET identity_id = list.identity_id
FROM (SELECT value ->> 'flow_id' AS flow_id, value ->> 'identity_id' AS identity_id FROM json_each($1)) AS list
WHERE decisions.flow_id = list.flow_id
RETURNING decisions.flow_id AS flow_id",
);

#[derive(Serialize)]
struct IdentityRow {
    flow_id: Uuid,
    identity_id: Uuid,
}

async fn record_identities(
    connection: &mut Connection<'_>,
    identities: &[FlowIdentity],
) -> Result<Vec<Uuid>, Error> {
    let rows: Vec<IdentityRow> = identities
        .iter()
        .map(|one| IdentityRow {
            flow_id: one.flow_id,
            identity_id: one.identity_id,
        })
        .collect();
    let record = query(&RECORD_IDENTITIES).bind(row::text(&rows));
    row::read_all(&record.fetch_all(connection).await?, |row| {
        row.uuid("flow_id")
    })
}

// The results of the checks are JSON in a fixed order of members, so a pattern finds a check with its outcome.
static LIST: Sql = Sql::new(
    "
SELECT id, at, flow_id, flow, method, outcome, duration_ms, identity_id, checks
FROM decisions
WHERE (CAST($1 AS TEXT) IS NULL OR outcome IN (SELECT value ->> 'id' FROM json_each($1)))
    AND (CAST($2 AS TEXT) IS NULL OR EXISTS (
        SELECT 1 FROM json_each($2) WHERE decisions.checks LIKE (value ->> 'id') ESCAPE '!'))
    AND (CAST($3 AS TEXT) IS NULL OR flow_id = $3)
    AND (CAST($4 AS TEXT) IS NULL OR identity_id = $4)
    AND (CAST($5 AS BIGINT) IS NULL OR at >= $5)
    AND (CAST($6 AS BIGINT) IS NULL OR id < $6)
ORDER BY id DESC
LIMIT $7",
);

async fn list(
    connection: &mut Connection<'_>,
    filter: &DecisionFilter,
    limit: u32,
) -> Result<Vec<RecordedDecision>, Error> {
    let (outcomes, patterns) = (outcomes(filter), patterns(filter));
    let list = query(&LIST)
        .bind((!outcomes.is_empty()).then(|| row::list(outcomes)))
        .bind((!patterns.is_empty()).then(|| row::list(&patterns)))
        .bind(filter.flow_id)
        .bind(filter.identity)
        .bind(filter.since)
        .bind(filter.cursor)
        .bind(limit);
    row::read_all(&list.fetch_all(connection).await?, recorded)
}

/// The outcomes of a call that match the filter; none if all do.
fn outcomes(filter: &DecisionFilter) -> &'static [&'static str] {
    match filter.outcome {
        Some(DecisionOutcome::Refused) => &["refused"],
        Some(DecisionOutcome::Admitted) => &["admitted", "changed"],
        Some(DecisionOutcome::Changed) => &["changed"],
        Some(DecisionOutcome::Unavailable) | None => &[],
    }
}

/// The patterns of which the checks of a decision must match one; none if all decisions match.
fn patterns(filter: &DecisionFilter) -> Vec<String> {
    let outcomes: &[&str] = match (filter.outcome, &filter.check) {
        (Some(DecisionOutcome::Unavailable), _) => &["unavailable"],
        (_, None) => return Vec::new(),
        (Some(DecisionOutcome::Refused), Some(_)) => &["refused"],
        (Some(DecisionOutcome::Admitted | DecisionOutcome::Changed) | None, Some(_)) => {
            &["accepted", "refused", "unavailable"]
        }
    };
    let check = filter.check.as_ref().map_or_else(String::new, |name| {
        let name = row::text(name)
            .replace('!', "!!")
            .replace('%', "!%")
            .replace('_', "!_");
        format!("\"check\":{name},")
    });
    let pattern = |outcome: &&str| format!("%{check}\"outcome\":\"{outcome}\"%");
    outcomes.iter().map(pattern).collect()
}

static OF_FLOW: Sql = Sql::new(
    "
SELECT id, at, flow_id, flow, method, outcome, duration_ms, identity_id, checks
FROM decisions
WHERE flow_id = $1
ORDER BY id",
);

async fn of_flow(
    connection: &mut Connection<'_>,
    flow_id: Uuid,
) -> Result<Vec<RecordedDecision>, Error> {
    let of_flow = query(&OF_FLOW).bind(flow_id);
    row::read_all(&of_flow.fetch_all(connection).await?, recorded)
}

fn recorded(row: &Row) -> Result<RecordedDecision, sqlx::Error> {
    let at: Timestamp = row.timestamp("at")?;
    Ok(RecordedDecision {
        id: row.integer("id")?,
        at,
        flow_id: row.uuid("flow_id")?,
        flow: row.string("flow")?,
        method: row.string("method")?,
        outcome: row.string("outcome")?,
        duration_ms: row.count("duration_ms")?,
        identity_id: row.optional_uuid("identity_id")?,
        checks: row.json("checks")?,
    })
}
