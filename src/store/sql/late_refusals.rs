//! The statements for late refusals. A late refusal is stored with the answer that refused, and is in force until it is
//! lifted.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use super::retry::with_retry;
use super::row::{self, DbRow};
use super::{Connection, Database, outbox};
use crate::base::clock::Timestamp;
use crate::model::delivery::NewDelivery;
use crate::model::late_refusal::{LateRefusal, OnLateRefusal};
use crate::store::late_refusals::{LateRefusalFilter, LateRefusalStore, VERSION};
use crate::store::{Error, RefusalLift};

// A refusal in force is replaced only by one with a stronger effect.
const STORE: &str = "
INSERT INTO late_refusals (identity_id, check_name, message, refused_at, effect) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (identity_id, check_name) DO UPDATE
SET message = excluded.message, refused_at = excluded.refused_at, effect = excluded.effect, deactivated_at = NULL, was_active = NULL, lifted_at = NULL
WHERE late_refusals.lifted_at IS NOT NULL
    OR (late_refusals.effect = 'mark' AND excluded.effect = 'deactivate')
    OR (late_refusals.effect = 'notify' AND excluded.effect <> 'notify')";

// The value is new each time, so that every instance sees the change.
const NEW_VERSION: &str = "
INSERT INTO properties (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Stores refusals within a transaction.
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
            .bind(refusal.effect.as_str())
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
    ($more:literal, $order:literal) => {
        concat!(
            "SELECT identity_id, check_name, effect, message, refused_at, deactivated_at, was_active FROM late_refusals
WHERE lifted_at IS NULL",
            $more,
            " ORDER BY ",
            $order
        )
    };
}
const IN_FORCE: &str = in_force!("", "identity_id, refused_at, check_name");
const IN_FORCE_OF: &str = in_force!(" AND identity_id = $1", "refused_at, check_name");
const PAGE: &str = in_force!(
    " AND (CAST($1 AS TEXT) IS NULL OR identity_id = $1) AND (CAST($2 AS TEXT) IS NULL OR check_name = $2)
    AND (CAST($3 AS TEXT) IS NULL OR identity_id > $3 OR (identity_id = $3 AND check_name > $4))",
    "identity_id, check_name LIMIT $5"
);

fn read(row: &DbRow) -> Result<LateRefusal, sqlx::Error> {
    let effect: &str = row.try_get("effect")?;
    Ok(LateRefusal {
        identity_id: row::uuid(row, "identity_id")?,
        check: row.try_get("check_name")?,
        effect: OnLateRefusal::named(effect).ok_or_else(|| row::unknown("effect"))?,
        message: row::optional_json(row, "message")?,
        refused_at: row::timestamp(row, "refused_at")?,
        deactivated_at: row::optional_timestamp(row, "deactivated_at")?,
        was_active: was_active(row)?,
    })
}

fn was_active(row: &DbRow) -> Result<Option<bool>, sqlx::Error> {
    let was_active: Option<i64> = row.try_get("was_active")?;
    Ok(was_active.map(|number| number == 1))
}

const LIFT: &str = concat!(
    "
UPDATE late_refusals SET lifted_at = $3, message = NULL
WHERE identity_id = $1 AND lifted_at IS NULL AND check_name IN ",
    texts!("$2")
);

// A deactivated account cannot have a value accepted, so only an operator lifts its refusal.
const LIFT_ACCEPTED: &str = "
UPDATE late_refusals SET lifted_at = $3, message = NULL
WHERE identity_id = $1 AND check_name = $2 AND lifted_at IS NULL AND effect <> 'deactivate'
RETURNING effect";

/// Lifts refusals within a transaction. Returns the ids of the writes that were stored.
pub(super) async fn lift_accepted(
    connection: &mut Connection,
    lifts: &[RefusalLift],
) -> Result<HashSet<Uuid>, Error> {
    let mut writes = Vec::new();
    for lift in lifts {
        let lifted = sqlx::query(LIFT_ACCEPTED)
            .bind(lift.identity_id.to_string())
            .bind(&lift.check)
            .bind(row::moment(lift.at))
            .fetch_optional(&mut *connection)
            .await?;
        let Some(lifted) = lifted else { continue };
        new_version(&mut *connection).await?;
        if lifted.try_get::<&str, _>("effect")? == OnLateRefusal::Mark.as_str() {
            writes.push(lift.write.clone());
        }
    }
    outbox::accept(connection, &writes).await
}

const WAS_LIFTED: &str = "
SELECT 1 FROM late_refusals WHERE identity_id = $1 AND check_name = $2 AND lifted_at IS NOT NULL";

const STATE_BEFORE: &str = "
UPDATE late_refusals SET was_active = CASE WHEN was_active = 1 THEN 1 WHEN $2 = 1 THEN 1 ELSE 0 END
WHERE identity_id = $1 AND lifted_at IS NULL AND effect = 'deactivate'";
const READ_STATE_BEFORE: &str =
    "SELECT was_active FROM late_refusals WHERE identity_id = $1 AND check_name = $2";

const DEACTIVATED: &str = "
UPDATE late_refusals SET deactivated_at = $2
WHERE identity_id = $1 AND lifted_at IS NULL AND effect = 'deactivate' AND (check_name = $3 OR deactivated_at IS NOT NULL)";

impl Database {
    async fn lift_once(
        &self,
        identity_id: Uuid,
        checks: &[String],
        now: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query(LIFT)
            .bind(identity_id.to_string())
            .bind(json!(checks).to_string())
            .bind(row::moment(now))
            .execute(&mut *transaction)
            .await?;
        let lifted = done.rows_affected();
        let mut stored = HashSet::new();
        if lifted > 0 {
            new_version(&mut transaction).await?;
            stored = outbox::accept(&mut transaction, deliveries).await?;
        }
        transaction.commit().await?;
        self.stored.inc_by(stored.len() as u64);
        Ok(lifted)
    }

    async fn record_state_once(&self, identity_id: Uuid, was_active: bool) -> Result<bool, Error> {
        let done = sqlx::query(STATE_BEFORE)
            .bind(identity_id.to_string())
            .bind(i64::from(was_active))
            .execute(self.writer())
            .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn state_before(&self, identity_id: Uuid, check: &str) -> Result<Option<bool>, Error> {
        let row = sqlx::query(READ_STATE_BEFORE)
            .bind(identity_id.to_string())
            .bind(check)
            .fetch_optional(self.readers())
            .await?;
        Ok(row.as_ref().map(was_active).transpose()?.flatten())
    }

    async fn deactivated_once(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sqlx::query(DEACTIVATED)
            .bind(identity_id.to_string())
            .bind(row::moment(at))
            .bind(check)
            .execute(&mut *transaction)
            .await?;
        new_version(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn in_force(&self) -> Result<Vec<LateRefusal>, Error> {
        let rows = sqlx::query(IN_FORCE).fetch_all(self.readers()).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    async fn in_force_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error> {
        let rows = sqlx::query(IN_FORCE_OF)
            .bind(identity_id.to_string())
            .fetch_all(self.readers())
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    async fn page(
        &self,
        filter: &LateRefusalFilter,
        limit: u32,
    ) -> Result<Vec<LateRefusal>, Error> {
        let (identity, check) = filter.after.as_ref().map(|(id, check)| (id, check)).unzip();
        let rows = sqlx::query(PAGE)
            .bind(filter.identity.map(|id| id.to_string()))
            .bind(&filter.check)
            .bind(identity.map(Uuid::to_string))
            .bind(check)
            .bind(i64::from(limit))
            .fetch_all(self.readers())
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    async fn was_lifted(&self, identity_id: Uuid, check: &str) -> Result<bool, Error> {
        let row = sqlx::query(WAS_LIFTED)
            .bind(identity_id.to_string())
            .bind(check)
            .fetch_optional(self.readers())
            .await?;
        Ok(row.is_some())
    }
}

#[async_trait]
impl LateRefusalStore for Database {
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error> {
        with_retry(|| self.in_force().boxed()).await
    }

    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error> {
        with_retry(|| self.in_force_of(identity_id).boxed()).await
    }

    async fn late_refusals_page(
        &self,
        filter: &LateRefusalFilter,
        limit: u32,
    ) -> Result<Vec<LateRefusal>, Error> {
        with_retry(|| self.page(filter, limit).boxed()).await
    }

    async fn late_refusal_was_lifted(&self, identity_id: Uuid, check: &str) -> Result<bool, Error> {
        with_retry(|| self.was_lifted(identity_id, check).boxed()).await
    }

    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        checks: &[String],
        now: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<u64, Error> {
        with_retry(|| self.lift_once(identity_id, checks, now, deliveries).boxed()).await
    }

    async fn record_state_before(
        &self,
        identity_id: Uuid,
        was_active: bool,
    ) -> Result<bool, Error> {
        with_retry(|| self.record_state_once(identity_id, was_active).boxed()).await
    }

    async fn state_before_refusal(
        &self,
        identity_id: Uuid,
        check: &str,
    ) -> Result<Option<bool>, Error> {
        with_retry(|| self.state_before(identity_id, check).boxed()).await
    }

    async fn record_deactivation(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        with_retry(|| self.deactivated_once(identity_id, check, at).boxed()).await
    }
}
