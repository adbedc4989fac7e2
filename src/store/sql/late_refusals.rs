//! Implements [`LateRefusalStore`]: refusals are stored with the answer that refused, and are in force until they are
//! lifted.

use std::collections::HashSet;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::{Database, coordination, outbox, row};
use crate::base::clock::Timestamp;
use crate::model::delivery::NewDelivery;
use crate::model::late_refusal::{LateRefusal, OnLateRefusal};
use crate::store::adapter::{Connection, Row, Sql, query};
use crate::store::late_refusals::{LateRefusalFilter, LateRefusalStore, VERSION};
use crate::store::{Error, RefusalLift};

#[async_trait]
impl LateRefusalStore for Database {
    async fn late_refusals(&self) -> Result<Vec<LateRefusal>, Error> {
        self.pool.read(|on| in_force(on).boxed()).await
    }

    async fn late_refusals_of(&self, identity_id: Uuid) -> Result<Vec<LateRefusal>, Error> {
        self.pool
            .read(|on| in_force_of(on, identity_id).boxed())
            .await
    }

    async fn late_refusals_page(
        &self,
        filter: &LateRefusalFilter,
        limit: u32,
    ) -> Result<Vec<LateRefusal>, Error> {
        self.pool.read(|on| page(on, filter, limit).boxed()).await
    }

    async fn late_refusal_was_lifted(&self, identity_id: Uuid, check: &str) -> Result<bool, Error> {
        self.pool
            .read(|on| was_lifted(on, identity_id, check).boxed())
            .await
    }

    async fn lift_late_refusals(
        &self,
        identity_id: Uuid,
        checks: &[String],
        now: Timestamp,
        deliveries: &[NewDelivery],
    ) -> Result<u64, Error> {
        let (lifted, stored) = self
            .pool
            .transaction(|on| lift(on, identity_id, checks, now, deliveries).boxed())
            .await?;
        self.counters.stored.inc_by(stored);
        Ok(lifted)
    }

    async fn record_state_before(
        &self,
        identity_id: Uuid,
        was_active: bool,
    ) -> Result<bool, Error> {
        self.pool
            .write(|on| record_state_before(on, identity_id, was_active).boxed())
            .await
    }

    async fn state_before_refusal(
        &self,
        identity_id: Uuid,
        check: &str,
    ) -> Result<Option<bool>, Error> {
        self.pool
            .read(|on| state_before_refusal(on, identity_id, check).boxed())
            .await
    }

    async fn record_deactivation(
        &self,
        identity_id: Uuid,
        check: Option<&str>,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.pool
            .transaction(|on| record_deactivation(on, identity_id, check, at).boxed())
            .await
    }
}

// A refusal in force is replaced only by one with a stronger effect.
static STORE: Sql = Sql::new(
    "
INSERT INTO late_refusals (identity_id, check_name, message, refused_at, effect) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (identity_id, check_name) DO UPDATE
SET message = excluded.message, refused_at = excluded.refused_at, effect = excluded.effect, deactivated_at = NULL, was_active = NULL, lifted_at = NULL
WHERE late_refusals.lifted_at IS NOT NULL
    OR (late_refusals.effect = 'mark' AND excluded.effect = 'deactivate')
    OR (late_refusals.effect = 'notify' AND excluded.effect <> 'notify')",
);

/// Stores refusals within a transaction.
pub(super) async fn store(
    connection: &mut Connection<'_>,
    refusals: &[&LateRefusal],
) -> Result<(), Error> {
    for refusal in refusals {
        let store = query(&STORE)
            .bind(refusal.identity_id)
            .bind(&refusal.check)
            .bind(refusal.message.as_ref().map(row::text))
            .bind(refusal.refused_at)
            .bind(refusal.effect.as_str());
        store.execute(connection).await?;
    }
    if !refusals.is_empty() {
        new_version(connection).await?;
    }
    Ok(())
}

/// Sets a new version within a transaction, so that every instance sees the change.
pub(super) async fn new_version(connection: &mut Connection<'_>) -> Result<(), Error> {
    let version = Uuid::new_v4().to_string();
    coordination::set_property(connection, VERSION, Some(&version)).await
}

static IN_FORCE: Sql = Sql::new(
    "
SELECT identity_id, check_name, effect, message, refused_at, deactivated_at, was_active FROM late_refusals
WHERE lifted_at IS NULL
ORDER BY identity_id, refused_at, check_name",
);

async fn in_force(connection: &mut Connection<'_>) -> Result<Vec<LateRefusal>, Error> {
    row::read_all(&query(&IN_FORCE).fetch_all(connection).await?, read)
}

static IN_FORCE_OF: Sql = Sql::new(
    "
SELECT identity_id, check_name, effect, message, refused_at, deactivated_at, was_active FROM late_refusals
WHERE lifted_at IS NULL AND identity_id = $1
ORDER BY refused_at, check_name",
);

async fn in_force_of(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
) -> Result<Vec<LateRefusal>, Error> {
    let in_force = query(&IN_FORCE_OF).bind(identity_id);
    row::read_all(&in_force.fetch_all(connection).await?, read)
}

static PAGE: Sql = Sql::new(
    "
SELECT identity_id, check_name, effect, message, refused_at, deactivated_at, was_active FROM late_refusals
WHERE lifted_at IS NULL
    AND (CAST($1 AS TEXT) IS NULL OR identity_id = $1) AND (CAST($2 AS TEXT) IS NULL OR check_name = $2)
    AND (CAST($3 AS TEXT) IS NULL OR identity_id > $3 OR (identity_id = $3 AND check_name > $4))
ORDER BY identity_id, check_name LIMIT $5",
);

async fn page(
    connection: &mut Connection<'_>,
    filter: &LateRefusalFilter,
    limit: u32,
) -> Result<Vec<LateRefusal>, Error> {
    let (identity, check) = filter.after.clone().unzip();
    let page = query(&PAGE)
        .bind(filter.identity)
        .bind(filter.check.as_ref())
        .bind(identity)
        .bind(check)
        .bind(limit);
    row::read_all(&page.fetch_all(connection).await?, read)
}

fn read(row: &Row) -> Result<LateRefusal, sqlx::Error> {
    Ok(LateRefusal {
        identity_id: row.uuid("identity_id")?,
        check: row.string("check_name")?,
        effect: row.named("effect", OnLateRefusal::named)?,
        message: row.optional_json("message")?,
        refused_at: row.timestamp("refused_at")?,
        deactivated_at: row.optional_timestamp("deactivated_at")?,
        was_active: was_active(row)?,
    })
}

fn was_active(row: &Row) -> Result<Option<bool>, sqlx::Error> {
    let was_active = row.optional_integer("was_active")?;
    Ok(was_active.map(|number| number == 1))
}

static LIFT: Sql = Sql::new(
    "
UPDATE late_refusals SET lifted_at = $3, message = NULL
WHERE identity_id = $1 AND lifted_at IS NULL AND check_name IN (SELECT value ->> 'id' FROM json_each($2))",
);

/// Lifts refusals, and stores deliveries, within a transaction. Returns how many refusals were lifted, and how many
/// deliveries were stored.
async fn lift(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    checks: &[String],
    now: Timestamp,
    deliveries: &[NewDelivery],
) -> Result<(u64, u64), Error> {
    let lift = query(&LIFT)
        .bind(identity_id)
        .bind(row::list(checks))
        .bind(now);
    let lifted = lift.execute(connection).await?;
    if lifted == 0 {
        return Ok((0, 0));
    }
    new_version(connection).await?;
    let stored = outbox::accept(connection, deliveries).await?;
    Ok((lifted, stored.new.len() as u64))
}

// A deactivated account cannot have a value accepted, so only an operator lifts its refusal.
static LIFT_ACCEPTED: Sql = Sql::new(
    "
UPDATE late_refusals SET lifted_at = $3, message = NULL
WHERE identity_id = $1 AND check_name = $2 AND lifted_at IS NULL AND effect <> 'deactivate'
RETURNING effect",
);

/// Lifts refusals within a transaction. Returns the ids of the writes that were stored.
pub(super) async fn lift_accepted(
    connection: &mut Connection<'_>,
    lifts: &[RefusalLift],
) -> Result<HashSet<Uuid>, Error> {
    let mut writes = Vec::new();
    for lift in lifts {
        let lifted = query(&LIFT_ACCEPTED)
            .bind(lift.identity_id)
            .bind(&lift.check)
            .bind(lift.at);
        let Some(lifted) = lifted.fetch_optional(connection).await? else {
            continue;
        };
        new_version(connection).await?;
        if lifted.text("effect")? == OnLateRefusal::Mark.as_str() {
            writes.push(lift.write.clone());
        }
    }
    Ok(outbox::accept(connection, &writes).await?.new)
}

static WAS_LIFTED: Sql = Sql::new(
    "
SELECT 1 FROM late_refusals WHERE identity_id = $1 AND check_name = $2 AND lifted_at IS NOT NULL",
);

async fn was_lifted(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    check: &str,
) -> Result<bool, Error> {
    let was_lifted = query(&WAS_LIFTED).bind(identity_id).bind(check);
    Ok(was_lifted.fetch_optional(connection).await?.is_some())
}

static RECORD_STATE_BEFORE: Sql = Sql::new(
    "
UPDATE late_refusals SET was_active = CASE WHEN was_active = 1 THEN 1 WHEN $2 = 1 THEN 1 ELSE 0 END
WHERE identity_id = $1 AND lifted_at IS NULL AND effect = 'deactivate'",
);

async fn record_state_before(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    was_active: bool,
) -> Result<bool, Error> {
    let record = query(&RECORD_STATE_BEFORE)
        .bind(identity_id)
        .bind(u32::from(was_active));
    Ok(record.execute(connection).await? > 0)
}

static STATE_BEFORE: Sql =
    Sql::new("SELECT was_active FROM late_refusals WHERE identity_id = $1 AND check_name = $2");

async fn state_before_refusal(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    check: &str,
) -> Result<Option<bool>, Error> {
    let state = query(&STATE_BEFORE).bind(identity_id).bind(check);
    let row = state.fetch_optional(connection).await?;
    Ok(row.as_ref().map(was_active).transpose()?.flatten())
}

static DEACTIVATED: Sql = Sql::new(
    "
UPDATE late_refusals SET deactivated_at = $2
WHERE identity_id = $1 AND lifted_at IS NULL AND effect = 'deactivate' AND (check_name = $3 OR deactivated_at IS NOT NULL)",
);

/// Records the deactivation within a transaction.
async fn record_deactivation(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    check: Option<&str>,
    at: Timestamp,
) -> Result<(), Error> {
    let deactivated = query(&DEACTIVATED).bind(identity_id).bind(at).bind(check);
    deactivated.execute(connection).await?;
    new_version(connection).await
}
