//! Implements [`IdentityWriteStore`]: writes into identities until they are verified. The settings calls that can undo
//! them are in `settings_calls`.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::{Database, row, settings_calls};
use crate::base::clock::Timestamp;
use crate::model::delivery::time_ordered_id;
use crate::model::identity_write::{IdentityWrites, SavedChange, VERIFY_AFTER};
use crate::store::Error;
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::identity_writes::IdentityWriteStore;

/// The maximum number of changes of one identity that are compared.
const MAX_CHANGES: u32 = 100;

#[async_trait]
impl IdentityWriteStore for Database {
    async fn identity_writes(&self, identity_id: Uuid) -> Result<Option<IdentityWrites>, Error> {
        self.pool.read(|on| writes(on, identity_id).boxed()).await
    }

    async fn store_identity_writes(&self, writes: &IdentityWrites) -> Result<(), Error> {
        self.pool.write(|on| store(on, writes).boxed()).await
    }

    async fn lease_identity_writes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<IdentityWrites>, Error> {
        self.pool
            .write(|on| lease(on, now, lease_until, limit).boxed())
            .await
    }

    async fn reschedule_verification(
        &self,
        identity_id: Uuid,
        verified: (usize, Option<Timestamp>),
        lease_until: Timestamp,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        self.pool
            .write(|on| reschedule(on, identity_id, verified, lease_until, verify_at).boxed())
            .await
    }

    async fn end_verification(
        &self,
        identity_id: Uuid,
        lease_until: Timestamp,
    ) -> Result<(), Error> {
        self.pool
            .transaction(|on| end_verification(on, identity_id, lease_until).boxed())
            .await
    }

    async fn verify_identities(&self, ids: &[Uuid], at: Timestamp) -> Result<(), Error> {
        self.pool.write(|on| verify(on, ids, at).boxed()).await
    }

    async fn verify_once(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error> {
        self.pool
            .write(|on| verify_once(on, identity_id, at).boxed())
            .await
    }

    async fn next_verification(&self) -> Result<Option<Timestamp>, Error> {
        self.pool.read(|on| next_verification(on).boxed()).await
    }

    async fn begin_settings_call(&self, identity_id: Uuid, now: Timestamp) -> Result<(), Error> {
        self.pool
            .write(|on| settings_calls::begin(on, identity_id, now).boxed())
            .await
    }

    async fn end_settings_call(&self, identity_id: Uuid) -> Result<(), Error> {
        self.pool
            .transaction(|on| settings_calls::end(on, identity_id).boxed())
            .await
    }

    async fn settings_pending_since(&self, identity_id: Uuid) -> Result<Option<Timestamp>, Error> {
        self.pool
            .read(|on| settings_calls::pending_since(on, identity_id).boxed())
            .await
    }

    async fn store_saved_change(
        &self,
        identity_id: Uuid,
        change: &SavedChange,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        self.pool
            .transaction(|on| store_change(on, identity_id, change, verify_at).boxed())
            .await
    }
}

static GET: Sql = Sql::new(
    "
SELECT identity_id, writes, written_at, verified, verify_at, seen_at FROM identity_writes WHERE identity_id = $1",
);

async fn writes(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
) -> Result<Option<IdentityWrites>, Error> {
    let get = query(&GET).bind(identity_id);
    match get.fetch_optional(connection).await? {
        Some(row) => Ok(Some(with_changes(connection, read(&row)?).await?)),
        None => Ok(None),
    }
}

fn read(row: &Row) -> Result<IdentityWrites, sqlx::Error> {
    Ok(IdentityWrites {
        identity_id: row.uuid("identity_id")?,
        writes: row.json("writes")?,
        written_at: row.timestamp("written_at")?,
        verified: row.count("verified")?,
        verify_at: row.timestamp("verify_at")?,
        saved: Vec::new(),
        seen_at: row.optional_timestamp("seen_at")?,
    })
}

static CHANGES: Sql =
    Sql::new("SELECT change FROM saved_changes WHERE identity_id = $1 ORDER BY id DESC LIMIT $2");

async fn with_changes(
    connection: &mut Connection<'_>,
    mut writes: IdentityWrites,
) -> Result<IdentityWrites, Error> {
    let changes = query(&CHANGES).bind(writes.identity_id).bind(MAX_CHANGES);
    let rows = changes.fetch_all(connection).await?;
    writes.saved = row::read_all(&rows, |row| row.json("change"))?;
    writes.saved.reverse();
    Ok(writes)
}

static STORE: Sql = Sql::new(
    "
INSERT INTO identity_writes (identity_id, writes, written_at, verified, verify_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (identity_id) DO UPDATE
SET writes = excluded.writes, written_at = excluded.written_at, verified = excluded.verified, verify_at = excluded.verify_at",
);

async fn store(connection: &mut Connection<'_>, writes: &IdentityWrites) -> Result<(), Error> {
    let store = query(&STORE)
        .bind(writes.identity_id)
        .bind(row::text(&writes.writes))
        .bind(writes.written_at)
        .bind(count(writes.verified))
        .bind(writes.verify_at);
    store.execute(connection).await?;
    Ok(())
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

// On PostgreSQL, rows that another instance is leasing are skipped.
static LEASE: Sql = Sql::new(
    "
UPDATE identity_writes SET verify_at = $2
WHERE identity_id IN (
    SELECT identity_id FROM identity_writes WHERE verify_at <= $1
    ORDER BY verify_at LIMIT $3 /* postgres: FOR UPDATE SKIP LOCKED */)
RETURNING identity_id, writes, written_at, verified, verify_at, seen_at",
);

async fn lease(
    connection: &mut Connection<'_>,
    now: Timestamp,
    lease_until: Timestamp,
    limit: u32,
) -> Result<Vec<IdentityWrites>, Error> {
    let lease = query(&LEASE).bind(now).bind(lease_until).bind(limit);
    let rows = lease.fetch_all(connection).await?;
    let mut leased = Vec::with_capacity(rows.len());
    for row in &rows {
        leased.push(with_changes(connection, read(row)?).await?);
    }
    Ok(leased)
}

static RESCHEDULE: Sql = Sql::new(
    "
UPDATE identity_writes
SET verified = $2, verify_at = CASE WHEN verify_at = $3 THEN $4 ELSE verify_at END, seen_at = coalesce($5, seen_at)
WHERE identity_id = $1",
);

async fn reschedule(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    (verified, seen_at): (usize, Option<Timestamp>),
    lease_until: Timestamp,
    verify_at: Timestamp,
) -> Result<(), Error> {
    let reschedule = query(&RESCHEDULE)
        .bind(identity_id)
        .bind(count(verified))
        .bind(lease_until)
        .bind(verify_at)
        .bind(seen_at);
    reschedule.execute(connection).await?;
    Ok(())
}

static END: Sql = Sql::new("DELETE FROM identity_writes WHERE identity_id = $1 AND verify_at = $2");
static END_CHANGES: Sql = Sql::new(
    "
DELETE FROM saved_changes WHERE identity_id = $1
    AND NOT EXISTS (SELECT 1 FROM identity_writes WHERE identity_id = $1)",
);

async fn end_verification(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    lease_until: Timestamp,
) -> Result<(), Error> {
    let end = query(&END).bind(identity_id).bind(lease_until);
    end.execute(connection).await?;
    let end_changes = query(&END_CHANGES).bind(identity_id);
    end_changes.execute(connection).await?;
    Ok(())
}

static VERIFY: Sql = Sql::new(
    "
UPDATE identity_writes SET verify_at = $2
WHERE verify_at > $2 AND identity_id IN (SELECT value ->> 'id' FROM json_each($1))",
);

async fn verify(connection: &mut Connection<'_>, ids: &[Uuid], at: Timestamp) -> Result<(), Error> {
    let verify = query(&VERIFY).bind(row::list(ids)).bind(at);
    verify.execute(connection).await?;
    Ok(())
}

// The statement changes nothing of a write that began meanwhile.
static VERIFY_ONCE: Sql = Sql::new(
    "
INSERT INTO identity_writes (identity_id, writes, written_at, verified, verify_at) VALUES ($1, '[]', 0, $2, $3)
ON CONFLICT (identity_id) DO UPDATE
SET verify_at = CASE WHEN identity_writes.verify_at > excluded.verify_at THEN excluded.verify_at ELSE identity_writes.verify_at END",
);

async fn verify_once(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    at: Timestamp,
) -> Result<(), Error> {
    let verify = query(&VERIFY_ONCE)
        .bind(identity_id)
        .bind(count(VERIFY_AFTER.len()))
        .bind(at);
    verify.execute(connection).await?;
    Ok(())
}

static NEXT: Sql = Sql::new("SELECT min(verify_at) AS verify_at FROM identity_writes");

async fn next_verification(connection: &mut Connection<'_>) -> Result<Option<Timestamp>, Error> {
    let row = query(&NEXT).fetch_one(connection).await?;
    Ok(row.optional_timestamp("verify_at")?)
}

static STORE_CHANGE: Sql = Sql::new(
    "
INSERT INTO saved_changes (id, identity_id, change, saved_at)
SELECT $1, identity_id, $3, $4 FROM identity_writes WHERE identity_id = $2",
);

async fn store_change(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    change: &SavedChange,
    verify_at: Timestamp,
) -> Result<(), Error> {
    let store = query(&STORE_CHANGE)
        .bind(time_ordered_id(change.saved_at))
        .bind(identity_id)
        .bind(row::text(change))
        .bind(change.saved_at);
    store.execute(connection).await?;
    verify(connection, &[identity_id], verify_at).await
}
