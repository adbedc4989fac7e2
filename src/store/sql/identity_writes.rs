//! The statements for writes into identities, and for the settings calls that can undo writes.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde_json::json;
use uuid::Uuid;

use super::Database;
use super::retry::with_retry;
use super::row::{self, DbRow};
use crate::base::clock::{Timestamp, earlier};
use crate::model::delivery::time_ordered_id;
use crate::model::identity_write::{
    IdentityWrites, SETTINGS_CALL_TIMEOUT, SavedChange, VERIFY_AFTER,
};
use crate::store::Error;
use crate::store::identity_writes::IdentityWriteStore;

/// The maximum number of changes of one identity that are compared.
const MAX_CHANGES: i64 = 100;

const GET: &str = "
SELECT identity_id, writes, written_at, verified, verify_at, seen_at FROM identity_writes WHERE identity_id = $1";

const STORE: &str = "
INSERT INTO identity_writes (identity_id, writes, written_at, verified, verify_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (identity_id) DO UPDATE
SET writes = excluded.writes, written_at = excluded.written_at, verified = excluded.verified, verify_at = excluded.verify_at";

pub(super) const LEASE: &str = concat!(
    "
UPDATE identity_writes SET verify_at = $2
WHERE identity_id IN (
    SELECT identity_id FROM identity_writes WHERE verify_at <= $1 ORDER BY verify_at LIMIT $3",
    skip_locked!(),
    ")
RETURNING identity_id, writes, written_at, verified, verify_at, seen_at"
);

const RESCHEDULE: &str = "
UPDATE identity_writes
SET verified = $2, verify_at = CASE WHEN verify_at = $3 THEN $4 ELSE verify_at END, seen_at = coalesce($5, seen_at)
WHERE identity_id = $1";

const END: &str = "DELETE FROM identity_writes WHERE identity_id = $1 AND verify_at = $2";
const END_CHANGES: &str = "
DELETE FROM saved_changes WHERE identity_id = $1
    AND NOT EXISTS (SELECT 1 FROM identity_writes WHERE identity_id = $1)";

const VERIFY: &str = concat!(
    "UPDATE identity_writes SET verify_at = $2 WHERE verify_at > $2 AND identity_id IN ",
    texts!("$1")
);

// The statement changes nothing of a write that began meanwhile.
const VERIFY_ONCE: &str = "
INSERT INTO identity_writes (identity_id, writes, written_at, verified, verify_at) VALUES ($1, '[]', 0, $2, $3)
ON CONFLICT (identity_id) DO UPDATE
SET verify_at = CASE WHEN identity_writes.verify_at > excluded.verify_at THEN excluded.verify_at ELSE identity_writes.verify_at END";

const BEGIN_SETTINGS: &str = "
INSERT INTO pending_settings (identity_id, first_at, open_calls) VALUES ($1, $2, 1)
ON CONFLICT (identity_id) DO UPDATE
SET first_at = CASE WHEN pending_settings.first_at <= $3 THEN excluded.first_at ELSE pending_settings.first_at END,
    open_calls = CASE WHEN pending_settings.first_at <= $3 THEN 1 ELSE pending_settings.open_calls + 1 END";

const END_SETTINGS: &str =
    "UPDATE pending_settings SET open_calls = open_calls - 1 WHERE identity_id = $1";
const DELETE_SETTINGS: &str =
    "DELETE FROM pending_settings WHERE identity_id = $1 AND open_calls <= 0";

const STORE_CHANGE: &str = "
INSERT INTO saved_changes (id, identity_id, change, saved_at)
SELECT $1, identity_id, $3, $4 FROM identity_writes WHERE identity_id = $2";

const CHANGES: &str =
    "SELECT change FROM saved_changes WHERE identity_id = $1 ORDER BY id DESC LIMIT $2";

fn read(row: &DbRow) -> Result<IdentityWrites, sqlx::Error> {
    Ok(IdentityWrites {
        identity_id: row::uuid(row, "identity_id")?,
        writes: row::json(row, "writes")?,
        written_at: row::timestamp(row, "written_at")?,
        verified: usize::try_from(row::number(row, "verified")?).unwrap_or(usize::MAX),
        verify_at: row::timestamp(row, "verify_at")?,
        saved: Vec::new(),
        seen_at: row::optional_timestamp(row, "seen_at")?,
    })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Database {
    async fn with_changes(&self, mut writes: IdentityWrites) -> Result<IdentityWrites, Error> {
        let rows = sqlx::query(CHANGES)
            .bind(writes.identity_id.to_string())
            .bind(MAX_CHANGES)
            .fetch_all(self.readers())
            .await?;
        writes.saved = rows
            .iter()
            .rev()
            .map(|row| row::json(row, "change"))
            .collect::<Result<_, _>>()?;
        Ok(writes)
    }

    async fn writes_once(&self, identity_id: Uuid) -> Result<Option<IdentityWrites>, Error> {
        let row = sqlx::query(GET)
            .bind(identity_id.to_string())
            .fetch_optional(self.readers())
            .await?;
        match row {
            Some(row) => Ok(Some(self.with_changes(read(&row)?).await?)),
            None => Ok(None),
        }
    }

    async fn store_writes_once(&self, writes: &IdentityWrites) -> Result<(), Error> {
        sqlx::query(STORE)
            .bind(writes.identity_id.to_string())
            .bind(row::text(&writes.writes))
            .bind(row::moment(writes.written_at))
            .bind(count(writes.verified))
            .bind(row::moment(writes.verify_at))
            .execute(self.writer())
            .await?;
        Ok(())
    }

    async fn lease_once(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<IdentityWrites>, Error> {
        let rows = sqlx::query(LEASE)
            .bind(row::moment(now))
            .bind(row::moment(lease_until))
            .bind(i64::from(limit))
            .fetch_all(self.writer())
            .await?;
        let mut leased = Vec::with_capacity(rows.len());
        for row in &rows {
            leased.push(self.with_changes(read(row)?).await?);
        }
        Ok(leased)
    }

    async fn end_verification_once(
        &self,
        identity_id: Uuid,
        lease_until: Timestamp,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query(END)
            .bind(identity_id.to_string())
            .bind(row::moment(lease_until))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(END_CHANGES)
            .bind(identity_id.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn verify_all_once(&self, ids: &[Uuid], at: Timestamp) -> Result<(), Error> {
        sqlx::query(VERIFY)
            .bind(json!(ids).to_string())
            .bind(row::moment(at))
            .execute(self.writer())
            .await?;
        Ok(())
    }

    async fn next_verification_once(&self) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query("SELECT min(verify_at) AS verify_at FROM identity_writes")
            .fetch_one(self.readers())
            .await?;
        Ok(row::optional_timestamp(&row, "verify_at")?)
    }

    async fn begin_settings_once(&self, identity_id: Uuid, now: Timestamp) -> Result<(), Error> {
        sqlx::query(BEGIN_SETTINGS)
            .bind(identity_id.to_string())
            .bind(row::moment(now))
            .bind(row::moment(earlier(now, SETTINGS_CALL_TIMEOUT)))
            .execute(self.writer())
            .await?;
        Ok(())
    }

    async fn end_settings_once(&self, identity_id: Uuid) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for statement in [END_SETTINGS, DELETE_SETTINGS] {
            sqlx::query(statement)
                .bind(identity_id.to_string())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn pending_since_once(&self, identity_id: Uuid) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query("SELECT first_at FROM pending_settings WHERE identity_id = $1")
            .bind(identity_id.to_string())
            .fetch_optional(self.readers())
            .await?;
        Ok(row
            .map(|row| row::timestamp(&row, "first_at"))
            .transpose()?)
    }

    async fn store_change_once(
        &self,
        identity_id: Uuid,
        change: &SavedChange,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query(STORE_CHANGE)
            .bind(time_ordered_id(change.saved_at).to_string())
            .bind(identity_id.to_string())
            .bind(row::text(change))
            .bind(row::moment(change.saved_at))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(VERIFY)
            .bind(json!([identity_id]).to_string())
            .bind(row::moment(verify_at))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

#[async_trait]
impl IdentityWriteStore for Database {
    async fn identity_writes(&self, identity_id: Uuid) -> Result<Option<IdentityWrites>, Error> {
        with_retry(|| self.writes_once(identity_id).boxed()).await
    }

    async fn store_identity_writes(&self, writes: &IdentityWrites) -> Result<(), Error> {
        with_retry(|| self.store_writes_once(writes).boxed()).await
    }

    async fn lease_identity_writes(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: u32,
    ) -> Result<Vec<IdentityWrites>, Error> {
        with_retry(|| self.lease_once(now, lease_until, limit).boxed()).await
    }

    async fn reschedule_verification(
        &self,
        identity_id: Uuid,
        (verified, seen_at): (usize, Option<Timestamp>),
        lease_until: Timestamp,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        with_retry(|| {
            async move {
                sqlx::query(RESCHEDULE)
                    .bind(identity_id.to_string())
                    .bind(count(verified))
                    .bind(row::moment(lease_until))
                    .bind(row::moment(verify_at))
                    .bind(seen_at.map(row::moment))
                    .execute(self.writer())
                    .await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn end_verification(
        &self,
        identity_id: Uuid,
        lease_until: Timestamp,
    ) -> Result<(), Error> {
        with_retry(|| self.end_verification_once(identity_id, lease_until).boxed()).await
    }

    async fn verify_identities(&self, ids: &[Uuid], at: Timestamp) -> Result<(), Error> {
        with_retry(|| self.verify_all_once(ids, at).boxed()).await
    }

    async fn verify_once(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error> {
        with_retry(|| {
            async move {
                sqlx::query(VERIFY_ONCE)
                    .bind(identity_id.to_string())
                    .bind(count(VERIFY_AFTER.len()))
                    .bind(row::moment(at))
                    .execute(self.writer())
                    .await?;
                Ok(())
            }
            .boxed()
        })
        .await
    }

    async fn next_verification(&self) -> Result<Option<Timestamp>, Error> {
        with_retry(|| self.next_verification_once().boxed()).await
    }

    async fn begin_settings_call(&self, identity_id: Uuid, now: Timestamp) -> Result<(), Error> {
        with_retry(|| self.begin_settings_once(identity_id, now).boxed()).await
    }

    async fn end_settings_call(&self, identity_id: Uuid) -> Result<(), Error> {
        with_retry(|| self.end_settings_once(identity_id).boxed()).await
    }

    async fn settings_pending_since(&self, identity_id: Uuid) -> Result<Option<Timestamp>, Error> {
        with_retry(|| self.pending_since_once(identity_id).boxed()).await
    }

    async fn store_saved_change(
        &self,
        identity_id: Uuid,
        change: &SavedChange,
        verify_at: Timestamp,
    ) -> Result<(), Error> {
        with_retry(|| {
            self.store_change_once(identity_id, change, verify_at)
                .boxed()
        })
        .await
    }
}
