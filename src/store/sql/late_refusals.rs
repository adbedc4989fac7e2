//! Late refusals: stored with the answer that refused, in force until they are lifted.

use futures_util::FutureExt as _;
use uuid::Uuid;

use async_trait::async_trait;
use sqlx::Row as _;

use super::again::again;
use super::row::{self, DbRow};
use super::{Connection, Database, outbox};
use crate::clock::Timestamp;
use crate::delivery::New;
use crate::late_refusal::LateRefusal;
use crate::store::Error;
use crate::store::late_refusals::{LateRefusalStore, VERSION};

const STORE: &str = "
INSERT INTO late_refusals (identity_id, check_name, message, refused_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (identity_id, check_name) DO UPDATE
SET message = excluded.message, refused_at = excluded.refused_at, deactivated_at = NULL, lifted_at = NULL
WHERE late_refusals.lifted_at IS NOT NULL";

// A new value each time, so that every instance sees that something has changed.
const NEW_VERSION: &str = "
INSERT INTO facts (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Within a transaction.
pub(super) async fn store(
    connection: &mut Connection,
    refusals: &[&LateRefusal],
) -> Result<(), Error> {
    for refusal in refusals {
        sqlx::query(STORE)
            .bind(refusal.identity_id.to_string())
            .bind(&refusal.check)
            .bind(refusal.message.as_ref().map(row::text))
            .bind(row::moment(refusal.refused_at))
            .execute(&mut *connection)
            .await?;
    }
    if !refusals.is_empty() {
        new_version(connection).await?;
    }
    Ok(())
}

pub(super) async fn new_version(connection: &mut Connection) -> Result<(), Error> {
    sqlx::query(NEW_VERSION)
        .bind(VERSION)
        .bind(Uuid::new_v4().to_string())
        .execute(connection)
        .await?;
    Ok(())
}

macro_rules! in_force {
    ($more:literal) => {
        concat!(
            "SELECT identity_id, check_name, message, refused_at, deactivated_at FROM late_refusals
WHERE lifted_at IS NULL",
            $more,
            " ORDER BY identity_id, refused_at, check_name"
        )
    };
}

fn read(row: &DbRow) -> Result<LateRefusal, sqlx::Error> {
    Ok(LateRefusal {
        identity_id: row::uuid(row, "identity_id")?,
        check: row.try_get("check_name")?,
        message: row::optional_json(row, "message")?,
        refused_at: row::timestamp(row, "refused_at")?,
        deactivated_at: row::optional_timestamp(row, "deactivated_at")?,
    })
}

const LIFT: &str = "
UPDATE late_refusals SET lifted_at = $3, message = NULL
WHERE identity_id = $1 AND (CAST($2 AS TEXT) IS NULL OR check_name = $2) AND lifted_at IS NULL";

const DEACTIVATED: &str =
    "UPDATE late_refusals SET deactivated_at = $2 WHERE identity_id = $1 AND lifted_at IS NULL";

impl Database {
    async fn lift_once(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        now: Timestamp,
        deliveries: &[New],
    ) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(LIFT)
            .bind(identity_id.to_string())
            .bind(check)
            .bind(row::moment(now))
            .execute(&mut *transaction)
            .await?;
        let lifted = done.rows_affected();
        if lifted > 0 {
            new_version(&mut transaction).await?;
            outbox::accept(&mut transaction, deliveries).await?;
        }
        transaction.commit().await?;
        Ok(lifted)
    }

    async fn deactivated_once(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query(DEACTIVATED)
            .bind(identity_id.to_string())
            .bind(row::moment(at))
            .execute(&mut *transaction)
            .await?;
        new_version(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn in_force(&self) -> Result<Vec<LateRefusal>, Error> {
        let rows = sqlx::query(in_force!("")).fetch_all(self.readers()).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    async fn in_force_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error> {
        let rows = sqlx::query(in_force!(" AND identity_id = $1"))
            .bind(identity_id.to_string())
            .fetch_all(self.readers())
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }
}

#[async_trait]
impl LateRefusalStore for Database {
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error> {
        again(|| self.in_force().boxed()).await
    }

    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error> {
        again(|| self.in_force_of(identity_id).boxed()).await
    }

    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        now: Timestamp,
        deliveries: &[New],
    ) -> Result<u64, Error> {
        again(|| self.lift_once(identity_id, check, now, deliveries).boxed()).await
    }

    async fn record_deactivation(&self, identity_id: Uuid, at: Timestamp) -> Result<(), Error> {
        again(|| self.deactivated_once(identity_id, at).boxed()).await
    }
}
