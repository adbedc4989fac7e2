//! The statements that store the results of attempts.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::outbox::Accepted;
use super::{late_refusals, order, outbox, row};
use crate::base::clock::milliseconds;
use crate::model::delivery::{NewDelivery, Outcome, State};
use crate::model::late_refusal::LateRefusal;
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::{Error, RefusalLift, SettledQuestion, Settlement};

static SETTLE: Sql = Sql::new(
    "
UPDATE deliveries
SET state = new.new_state, leased = 0, run_at = coalesce(new.next_at, deliveries.run_at), settled_at = new.ended_at,
    last_status = new.status, last_error = new.error,
    action = CASE new.new_state WHEN 'delivered' THEN NULL ELSE deliveries.action END,
    context = CASE new.new_state WHEN 'delivered' THEN NULL ELSE deliveries.context END
FROM (
    SELECT value ->> 'delivery' AS delivery, CAST(value ->> 'attempt' AS BIGINT) AS attempt,
        value ->> 'new_state' AS new_state, CAST(value ->> 'next_at' AS BIGINT) AS next_at,
        CAST(value ->> 'ended_at' AS BIGINT) AS ended_at, CAST(value ->> 'status' AS BIGINT) AS status,
        value ->> 'error' AS error
    FROM json_each($1)
) AS new
WHERE deliveries.id = new.delivery AND deliveries.attempts = new.attempt AND deliveries.leased = 1
RETURNING id, state, supersedes",
);

// `WHERE true` lets SQLite parse `ON` as part of the upsert and not of a join.
static KEEP_ATTEMPTS: Sql = Sql::new(
    "
INSERT INTO attempts (delivery_id, attempt, began_at, duration_ms, status, error)
SELECT value ->> 'delivery', CAST(value ->> 'attempt' AS BIGINT), CAST(value ->> 'began_at' AS BIGINT),
    CAST(value ->> 'duration_ms' AS BIGINT), CAST(value ->> 'status' AS BIGINT), value ->> 'error'
FROM json_each($1)
WHERE true
ON CONFLICT (delivery_id, attempt) DO NOTHING",
);

/// What a transaction settled and stored.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The deliveries whose lease the caller still held.
    pub(super) ids: HashSet<Uuid>,
    /// What storing their follow-up deliveries did.
    pub(super) accepted: Accepted,
}

/// Settles deliveries within a transaction.
pub(super) async fn settle(
    connection: &mut Connection<'_>,
    settlements: &[Settlement],
) -> Result<Settled, Error> {
    let rows: Value = settlements.iter().map(settled_row).collect();
    let settle = query(&SETTLE).bind(rows.to_string());
    let rows = settle.fetch_all(connection).await?;
    let ids = outbox::ids(&rows)?;
    let counted = || settlements.iter().filter(|one| ids.contains(&one.id));
    let attempts: Value = counted().map(attempt_row).collect();
    let keep_attempts = query(&KEEP_ATTEMPTS).bind(attempts.to_string());
    keep_attempts.execute(connection).await?;
    let follow_up_deliveries: Vec<NewDelivery> = counted()
        .flat_map(|one| one.follow_up_deliveries.iter().cloned())
        .collect();
    let mut accepted = outbox::accept(connection, &follow_up_deliveries).await?;
    let refusals: Vec<&LateRefusal> = counted()
        .filter_map(|one| one.late_refusal.as_ref())
        .collect();
    late_refusals::store(connection, &refusals).await?;
    let lifts: Vec<RefusalLift> = counted()
        .filter_map(|one| one.refusal_lift.clone())
        .collect();
    accepted
        .new
        .extend(late_refusals::lift_accepted(connection, &lifts).await?);
    let questions: Vec<SettledQuestion> = counted()
        .filter_map(|one| one.question_settled.clone())
        .collect();
    settle_questions(connection, &questions).await?;
    continue_order(connection, settlements, &rows, &mut accepted).await?;
    Ok(Settled { ids, accepted })
}

/// Supersedes deliveries that failed while a newer one arrived, and resumes those that waited.
async fn continue_order(
    connection: &mut Connection<'_>,
    settlements: &[Settlement],
    rows: &[Row],
    accepted: &mut Accepted,
) -> Result<(), Error> {
    let mut failed = Vec::new();
    for row in rows {
        if row.state()? == State::Pending && row.integer("supersedes")? == 1 {
            failed.push(row.uuid("id")?);
        }
    }
    let ended_at = settlements.iter().map(|one| one.record.ended_at).max();
    let now = ended_at.unwrap_or_default();
    let superseded = order::supersede(connection, &failed, false, now).await?;
    accepted.superseded.ids.extend(superseded.ids);
    accepted
        .superseded
        .subscriptions
        .extend(superseded.subscriptions);
    let settled: Vec<Uuid> = settlements.iter().map(|one| one.id).collect();
    order::resume(connection, &settled).await
}

fn settled_row(settlement: &Settlement) -> Value {
    let ended_at = row::moment(settlement.record.ended_at);
    let (state, next_at, ended_at) = match &settlement.outcome {
        Outcome::Delivered => (State::Delivered, None, Some(ended_at)),
        Outcome::RetryAt(next) => (State::Pending, Some(row::moment(*next)), None),
        Outcome::Abandoned => (State::Abandoned, None, Some(ended_at)),
    };
    json!({
        "delivery": settlement.id,
        "attempt": settlement.attempt,
        "new_state": state,
        "next_at": next_at,
        "ended_at": ended_at,
        "status": settlement.record.status,
        "error": settlement.record.error,
    })
}

fn attempt_row(settlement: &Settlement) -> Value {
    let record = &settlement.record;
    json!({
        "delivery": settlement.id,
        "attempt": settlement.attempt,
        "began_at": row::moment(record.began_at),
        "duration_ms": milliseconds(record.began_at, record.ended_at),
        "status": record.status,
        "error": record.error,
    })
}

// The result of a running attempt is ignored, because its lease is removed.
static SETTLE_DEFERRED: Sql = Sql::new(
    "
UPDATE deliveries
SET state = 'discarded', action = NULL, context = NULL, leased = 0, settled_at = $3,
    last_error = 'the check has accepted the value that replaced this one'
WHERE subscription = $1 AND identity_id = $2 AND state IN ('pending', 'abandoned')",
);

/// Discards deferred checks within a transaction.
async fn settle_questions(
    connection: &mut Connection<'_>,
    settled: &[SettledQuestion],
) -> Result<(), Error> {
    for question in settled {
        let settle = query(&SETTLE_DEFERRED)
            .bind(&question.subscription)
            .bind(question.identity_id)
            .bind(question.at);
        settle.execute(connection).await?;
    }
    Ok(())
}
