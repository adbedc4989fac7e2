//! Implements [`KnownIdentityStore`].

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde::Serialize;
use uuid::Uuid;

use super::pending_writes::must_change;
use super::{Database, row};
use crate::base::clock::Timestamp;
use crate::model::known_identity::{IdentityRecord, KnownIdentity};
use crate::store::Error;
use crate::store::adapter::{Connection, Sql, query};
use crate::store::known_identities::KnownIdentityStore;

#[async_trait]
impl KnownIdentityStore for Database {
    async fn known_identities(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, String>, Error> {
        self.pool.read(|on| known(on, ids).boxed()).await
    }

    async fn touch_identities(&self, ids: &[Uuid], now: Timestamp) -> Result<(), Error> {
        self.pool.write(|on| touch(on, ids, now).boxed()).await
    }

    async fn replace_fingerprint(&self, from: &str, to: &KnownIdentity) -> Result<bool, Error> {
        let replace = self
            .pool
            .write(|on| replace_fingerprint(on, from, to).boxed());
        Ok(replace.await? > 0)
    }

    async fn sample_identities(&self, from: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        self.pool.read(|on| sample(on, from, limit).boxed()).await
    }

    async fn unseen_identities(
        &self,
        before: Timestamp,
        after: (Timestamp, Uuid),
        limit: u32,
    ) -> Result<Vec<(Timestamp, Uuid)>, Error> {
        self.pool
            .read(|on| unseen(on, before, after, limit).boxed())
            .await
    }

    async fn delete_unseen_identities(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        self.pool
            .write(|on| delete_unseen(on, before, limit).boxed())
            .await
    }

    async fn has_open_change(&self, identity_id: Uuid) -> Result<bool, Error> {
        self.pool
            .read(|on| has_open_change(on, identity_id).boxed())
            .await
    }
}

static KNOWN: Sql = Sql::new(
    "
SELECT identity_id, fingerprint FROM identities WHERE identity_id IN (SELECT value ->> 'id' FROM json_each($1))",
);

async fn known(
    connection: &mut Connection<'_>,
    ids: &[Uuid],
) -> Result<HashMap<Uuid, String>, Error> {
    let known = query(&KNOWN).bind(row::list(ids));
    let rows = known.fetch_all(connection).await?;
    let pairs = row::read_all(&rows, |row| {
        Ok((row.uuid("identity_id")?, row.string("fingerprint")?))
    });
    Ok(pairs?.into_iter().collect())
}

static TOUCH: Sql = Sql::new(
    "
UPDATE identities SET seen_at = $2
WHERE seen_at < $2 AND identity_id IN (SELECT value ->> 'id' FROM json_each($1))",
);

async fn touch(connection: &mut Connection<'_>, ids: &[Uuid], now: Timestamp) -> Result<(), Error> {
    let touch = query(&TOUCH).bind(row::list(ids)).bind(now);
    touch.execute(connection).await?;
    Ok(())
}

static REPLACE: Sql = Sql::new(
    "
UPDATE identities SET fingerprint = $3, updated_at = $4, seen_at = CASE WHEN seen_at < $5 THEN $5 ELSE seen_at END
WHERE identity_id = $1 AND fingerprint = $2",
);

async fn replace_fingerprint(
    connection: &mut Connection<'_>,
    from: &str,
    to: &KnownIdentity,
) -> Result<u64, Error> {
    let replace = query(&REPLACE)
        .bind(to.id)
        .bind(from)
        .bind(&to.fingerprint)
        .bind(to.updated_at)
        .bind(to.seen_at);
    Ok(replace.execute(connection).await?)
}

static SAMPLE: Sql = Sql::new(
    "
SELECT identity_id FROM identities WHERE identity_id >= $1 ORDER BY identity_id LIMIT $2",
);
static SAMPLE_BEFORE: Sql = Sql::new(
    "
SELECT identity_id FROM identities WHERE identity_id < $1 ORDER BY identity_id LIMIT $2",
);

async fn sample(
    connection: &mut Connection<'_>,
    from: Uuid,
    limit: u32,
) -> Result<Vec<Uuid>, Error> {
    let mut ids = Vec::new();
    for statement in [&SAMPLE, &SAMPLE_BEFORE] {
        let sample = query(statement).bind(from).bind(limit);
        let rows = sample.fetch_all(connection).await?;
        ids.extend(row::read_all(&rows, |row| row.uuid("identity_id"))?);
    }
    ids.truncate(limit as usize);
    Ok(ids)
}

static UNSEEN: Sql = Sql::new(
    "
SELECT seen_at, identity_id FROM identities
WHERE seen_at < $1 AND (seen_at, identity_id) > ($2, $3)
ORDER BY seen_at, identity_id LIMIT $4",
);

async fn unseen(
    connection: &mut Connection<'_>,
    before: Timestamp,
    (seen_at, id): (Timestamp, Uuid),
    limit: u32,
) -> Result<Vec<(Timestamp, Uuid)>, Error> {
    let unseen = query(&UNSEEN)
        .bind(before)
        .bind(seen_at)
        .bind(id)
        .bind(limit);
    row::read_all(&unseen.fetch_all(connection).await?, |row| {
        Ok((row.timestamp("seen_at")?, row.uuid("identity_id")?))
    })
}

static DELETE_UNSEEN: Sql = Sql::new(
    "
DELETE FROM identities WHERE identity_id IN (
    SELECT identity_id FROM identities WHERE seen_at < $1 ORDER BY seen_at, identity_id LIMIT $2
)",
);

async fn delete_unseen(
    connection: &mut Connection<'_>,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Error> {
    let delete = query(&DELETE_UNSEEN).bind(before).bind(limit);
    Ok(delete.execute(connection).await?)
}

static OPEN_CHANGE: Sql = Sql::new(
    "
SELECT flow_id FROM pending_sign_ups
WHERE changed_identity_id = $1 AND identity_id IS NULL AND state = 'open' LIMIT 1",
);

async fn has_open_change(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
) -> Result<bool, Error> {
    let open = query(&OPEN_CHANGE).bind(identity_id);
    Ok(open.fetch_optional(connection).await?.is_some())
}

// Hooks can arrive in another order than Kratos saved. So an older state does not replace a newer one. `WHERE true` lets
// SQLite parse `ON` as part of the upsert and not of a join.
static REPORTED: Sql = Sql::new(
    "
INSERT INTO identities (identity_id, fingerprint, updated_at, seen_at)
SELECT value ->> 'id', value ->> 'fingerprint', CAST(value ->> 'updated_at' AS BIGINT), CAST(value ->> 'seen_at' AS BIGINT)
FROM json_each($1)
WHERE true
ON CONFLICT (identity_id) DO UPDATE
SET fingerprint = excluded.fingerprint, updated_at = excluded.updated_at,
    seen_at = CASE WHEN identities.seen_at < excluded.seen_at THEN excluded.seen_at ELSE identities.seen_at END
WHERE identities.updated_at <= excluded.updated_at",
);
static FOUND: Sql = Sql::new(
    "
INSERT INTO identities (identity_id, fingerprint, updated_at, seen_at)
SELECT value ->> 'id', value ->> 'fingerprint', CAST(value ->> 'updated_at' AS BIGINT), CAST(value ->> 'seen_at' AS BIGINT)
FROM json_each($1)
WHERE true
ON CONFLICT (identity_id) DO NOTHING",
);
static DELETED: Sql = Sql::new("DELETE FROM identities WHERE identity_id = $1");

#[derive(Serialize)]
struct IdentityRow<'a> {
    id: Uuid,
    fingerprint: &'a str,
    updated_at: i64,
    seen_at: i64,
}

/// Records identities within a transaction.
pub(super) async fn record(
    connection: &mut Connection<'_>,
    records: &[IdentityRecord],
) -> Result<(), Error> {
    let (mut reported, mut found) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            IdentityRecord::Reported(known) => reported.push(known),
            IdentityRecord::Found(known) => found.push(known),
            IdentityRecord::Changed(from, to) => {
                must_change(replace_fingerprint(connection, from, to).await?)?;
            }
            IdentityRecord::Deleted(id) => {
                let delete = query(&DELETED).bind(*id);
                must_change(delete.execute(connection).await?)?;
            }
        }
    }
    for (statement, known) in [(&FOUND, found), (&REPORTED, reported)] {
        if !known.is_empty() {
            let insert = query(statement).bind(rows(known));
            insert.execute(connection).await?;
        }
    }
    Ok(())
}

/// Serializes the newest state of each identity, because a statement may change each row only once, and must lock rows in
/// one order.
fn rows(known: Vec<&KnownIdentity>) -> String {
    let mut newest: BTreeMap<Uuid, &KnownIdentity> = BTreeMap::new();
    for one in known {
        let kept = newest.entry(one.id).or_insert(one);
        if kept.updated_at <= one.updated_at {
            *kept = one;
        }
    }
    let rows: Vec<IdentityRow<'_>> = newest
        .into_values()
        .map(|one| IdentityRow {
            id: one.id,
            fingerprint: &one.fingerprint,
            updated_at: row::moment(one.updated_at),
            seen_at: row::moment(one.seen_at),
        })
        .collect();
    row::text(&rows)
}

#[cfg(test)]
mod tests {
    use sqlx::AssertSqlSafe;

    use super::*;
    use crate::store::adapter::Connections;
    use crate::store::sqlite;

    #[tokio::test]
    async fn no_statement_reads_or_sorts_all_known_identities() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&folder.path().join("vestibule.db"))
            .await
            .unwrap();
        let Connections::Sqlite { writer, .. } = &store.pool.connections else {
            panic!("not a file");
        };
        for statement in [
            &KNOWN,
            &TOUCH,
            &REPLACE,
            &SAMPLE,
            &SAMPLE_BEFORE,
            &UNSEEN,
            &DELETE_UNSEEN,
            &OPEN_CHANGE,
            &DELETED,
        ] {
            let statement = statement.for_sqlite();
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(explain).fetch_all(writer).await.unwrap();
            for (.., step) in steps {
                let is_whole_table = step.contains("SCAN") && !step.contains("json_each");
                assert!(!is_whole_table, "{step} in {statement}");
                assert!(!step.contains("TEMP B-TREE"), "{step} in {statement}");
            }
        }
    }
}
