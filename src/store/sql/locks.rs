//! The statements for locks.

use uuid::Uuid;

use super::{Pool, row};
use crate::base::clock::Timestamp;
use crate::store::Error;

const ACQUIRE_LOCK: &str = "
INSERT INTO locks (name, holder, until) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE locks.until <= $4 OR locks.holder = excluded.holder";

pub(super) async fn acquire_lock(
    writer: &Pool,
    name: &str,
    holder: Uuid,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, Error> {
    let done = sqlx::query(ACQUIRE_LOCK)
        .bind(name)
        .bind(holder.to_string())
        .bind(row::moment(until))
        .bind(row::moment(now))
        .execute(writer)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn release_lock(writer: &Pool, name: &str, holder: Uuid) -> Result<(), Error> {
    sqlx::query("DELETE FROM locks WHERE name = $1 AND holder = $2")
        .bind(name)
        .bind(holder.to_string())
        .execute(writer)
        .await?;
    Ok(())
}
