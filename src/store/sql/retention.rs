//! Implements [`Retention`]: deletes old records. Erasure is in `erasure`.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::{Database, erasure, row};
use crate::base::clock::Timestamp;
use crate::model::delivery::first_id_of;
use crate::store::adapter::{Connection, Sql, query};
use crate::store::{Error, Retention};

#[async_trait]
impl Retention for Database {
    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.pool
            .transaction(|on| delete_settled(on, before, limit).boxed())
            .await
    }

    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.pool
            .write(|on| delete_decisions(on, before, limit).boxed())
            .await
    }

    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.pool
            .transaction(|on| delete_ended(on, before, limit).boxed())
            .await
    }

    async fn identities_with_data(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        self.pool
            .read(|on| erasure::identities_with_data(on, after, limit).boxed())
            .await
    }

    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error> {
        self.pool
            .transaction(|on| erasure::forget(on, identity_id, now).boxed())
            .await
    }
}

// Ids begin with the time, so old deliveries come first. An abandoned delivery is kept for the operator, unless it
// belongs to no identity with which it could be erased.
static SETTLED_DELIVERIES: Sql = Sql::new(
    "
SELECT id FROM deliveries
WHERE id < $1 AND settled_at < $2
    AND (state IN ('delivered', 'discarded', 'superseded') OR (state = 'abandoned' AND identity_id = '00000000-0000-0000-0000-000000000000'))
ORDER BY id LIMIT $3",
);
static DELETE_ATTEMPTS: Sql = Sql::new(
    "DELETE FROM attempts WHERE delivery_id IN (SELECT value ->> 'id' FROM json_each($1))",
);
static DELETE_DELIVERIES: Sql =
    Sql::new("DELETE FROM deliveries WHERE id IN (SELECT value ->> 'id' FROM json_each($1))");

/// Deletes settled deliveries within a transaction.
async fn delete_settled(
    connection: &mut Connection<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let old = query(&SETTLED_DELIVERIES)
        .bind(first_id_of(before))
        .bind(before)
        .bind(limit);
    let ids = row::read_all(&old.fetch_all(connection).await?, |row| row.string("id"))?;
    if ids.is_empty() {
        return Ok(0);
    }
    let ids = row::list(&ids);
    let attempts = query(&DELETE_ATTEMPTS).bind(&ids);
    attempts.execute(connection).await?;
    let deliveries = query(&DELETE_DELIVERIES).bind(ids);
    Ok(deliveries.execute(connection).await?)
}

// Reads only the oldest rows, however many there are.
static DELETE_DECISIONS: Sql = Sql::new(
    "
DELETE FROM decisions WHERE id IN (
    SELECT id FROM (SELECT id, at FROM decisions ORDER BY id LIMIT $2) AS oldest WHERE at < $1
)",
);

async fn delete_decisions(
    connection: &mut Connection<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let delete = query(&DELETE_DECISIONS).bind(before).bind(limit);
    Ok(delete.execute(connection).await?)
}

static DELETE_SUBMISSIONS: Sql = Sql::new(
    "
DELETE FROM pending_sign_ups WHERE flow_id IN (
    SELECT flow_id FROM flows WHERE expires_at < $1 AND next_lookup_at IS NULL ORDER BY expires_at LIMIT $2
)",
);
static DELETE_FLOWS: Sql = Sql::new(
    "
DELETE FROM flows WHERE flow_id IN (
    SELECT flow_id FROM flows WHERE expires_at < $1 AND next_lookup_at IS NULL ORDER BY expires_at LIMIT $2
)",
);
static DELETE_RESERVATIONS: Sql = Sql::new(
    "
DELETE FROM reservations WHERE id IN (
    SELECT id FROM reservations
    WHERE state IN ('confirmed', 'released') AND expires_at < $1
        AND NOT EXISTS (SELECT 1 FROM flows WHERE flows.flow_id = reservations.flow_id AND flows.next_lookup_at IS NOT NULL)
    ORDER BY expires_at LIMIT $2
)",
);

// The holders of these locks have ended without releasing them.
static DELETE_LOCKS: Sql = Sql::new(
    "
DELETE FROM locks WHERE name IN (SELECT name FROM locks WHERE until < $1 LIMIT $2)",
);

static DELETE_LATE_REFUSALS: Sql = Sql::new(
    "
DELETE FROM late_refusals WHERE identity_id IN (
    SELECT identity_id FROM late_refusals WHERE lifted_at < $1 ORDER BY lifted_at LIMIT $2
) AND lifted_at < $1",
);

// The `post` of these calls was lost.
static DELETE_PENDING_SETTINGS: Sql = Sql::new(
    "
DELETE FROM pending_settings WHERE identity_id IN (
    SELECT identity_id FROM pending_settings WHERE first_at < $1 ORDER BY first_at LIMIT $2
)",
);

/// Deletes ended flows, reservations, refusals and calls within a transaction.
async fn delete_ended(
    connection: &mut Connection<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let mut deleted = 0;
    for statement in [
        &DELETE_SUBMISSIONS,
        &DELETE_FLOWS,
        &DELETE_RESERVATIONS,
        &DELETE_LOCKS,
        &DELETE_LATE_REFUSALS,
        &DELETE_PENDING_SETTINGS,
    ] {
        let delete = query(statement).bind(before).bind(limit);
        deleted += delete.execute(connection).await?;
    }
    Ok(deleted)
}
