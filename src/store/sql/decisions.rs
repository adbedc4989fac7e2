//! The statement that stores decisions.

use sqlx::QueryBuilder;

use super::row;
use super::{Db, Pool};
use crate::model::decision::Decision;
use crate::store::Error;

const RECORD: &str =
    "INSERT INTO decisions (at, flow_id, flow, method, outcome, duration_ms, checks) ";

/// Stores all decisions with one statement, and so in one transaction.
pub(super) async fn record(writer: &Pool, decisions: &[Decision]) -> Result<(), Error> {
    if decisions.is_empty() {
        return Ok(());
    }
    let mut statement = QueryBuilder::<Db>::new(RECORD);
    statement.push_values(decisions, |mut row, decision| {
        row.push_bind(row::moment(decision.at))
            .push_bind(decision.flow_id.to_string())
            .push_bind(decision.hook.flow.as_str())
            .push_bind(&decision.hook.method)
            .push_bind(decision.outcome)
            .push_bind(i64::try_from(decision.duration_ms).unwrap_or(i64::MAX))
            .push_bind(serde_json::to_string(&decision.checks).unwrap_or_default());
    });
    // The statement's text depends on the number of rows, so a cached statement for each would only use memory.
    statement.build().persistent(false).execute(writer).await?;
    Ok(())
}
