//! The statements that store the results of attempts.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{late_refusals, outbox, row};
use crate::base::clock::milliseconds;
use crate::model::delivery::{NewDelivery, Outcome, State};
use crate::model::late_refusal::LateRefusal;
use crate::store::adapter::{Connection, Sql, query};
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
RETURNING id",
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

/// Settles deliveries within a transaction. Also returns how many deliveries were stored.
pub(super) async fn settle(
    connection: &mut Connection<'_>,
    settlements: &[Settlement],
) -> Result<(HashSet<Uuid>, usize), Error> {
    let rows: Value = settlements.iter().map(settled_row).collect();
    let settle = query(&SETTLE).bind(rows.to_string());
    let settled = outbox::ids(&settle.fetch_all(connection).await?)?;
    let counted = || settlements.iter().filter(|one| settled.contains(&one.id));
    let attempts: Value = counted().map(attempt_row).collect();
    let keep_attempts = query(&KEEP_ATTEMPTS).bind(attempts.to_string());
    keep_attempts.execute(connection).await?;
    let follow_up_deliveries: Vec<NewDelivery> = counted()
        .flat_map(|one| one.follow_up_deliveries.iter().cloned())
        .collect();
    let followed = outbox::accept(connection, &follow_up_deliveries).await?;
    let refusals: Vec<&LateRefusal> = counted()
        .filter_map(|one| one.late_refusal.as_ref())
        .collect();
    late_refusals::store(connection, &refusals).await?;
    let lifts: Vec<RefusalLift> = counted()
        .filter_map(|one| one.refusal_lift.clone())
        .collect();
    let written = late_refusals::lift_accepted(connection, &lifts).await?;
    let questions: Vec<SettledQuestion> = counted()
        .filter_map(|one| one.question_settled.clone())
        .collect();
    settle_questions(connection, &questions).await?;
    Ok((settled, followed.len() + written.len()))
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
