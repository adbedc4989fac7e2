//! What was decided, written down.

use serde_json::{Value, json};
use sqlx::SqlitePool;

use super::row;
use crate::decision::Decision;
use crate::store::Error;

const RECORD: &str = "
INSERT INTO decisions (at, flow_id, flow, method, outcome, duration_ms, checks)
SELECT
    value ->> 'at', value ->> 'flow_id', value ->> 'flow', value ->> 'method', value ->> 'outcome',
    value ->> 'duration_ms', value -> 'checks'
FROM json_each(?1)";

pub(super) async fn record(writer: &SqlitePool, decisions: &[Decision]) -> Result<(), Error> {
    if decisions.is_empty() {
        return Ok(());
    }
    let rows: Value = decisions.iter().map(decision_row).collect();
    let statement = sqlx::query(RECORD).bind(rows.to_string());
    statement.execute(writer).await?;
    Ok(())
}

fn decision_row(decision: &Decision) -> Value {
    json!({
        "at": row::moment(decision.at),
        "flow_id": decision.flow_id,
        "flow": decision.hook.flow.as_str(),
        "method": decision.hook.method,
        "outcome": decision.outcome,
        "duration_ms": decision.duration_ms,
        "checks": decision.checks,
    })
}
