//! The statements for settings calls whose `pre` has had no `post` yet.

use uuid::Uuid;

use crate::base::clock::{Timestamp, earlier};
use crate::model::identity_write::SETTINGS_CALL_TIMEOUT;
use crate::store::Error;
use crate::store::adapter::{Connection, Sql, query};

static BEGIN: Sql = Sql::new(
    "
INSERT INTO pending_settings (identity_id, first_at, open_calls) VALUES ($1, $2, 1)
ON CONFLICT (identity_id) DO UPDATE
SET first_at = CASE WHEN pending_settings.first_at <= $3 THEN excluded.first_at ELSE pending_settings.first_at END,
    open_calls = CASE WHEN pending_settings.first_at <= $3 THEN 1 ELSE pending_settings.open_calls + 1 END",
);

pub(super) async fn begin(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
    now: Timestamp,
) -> Result<(), Error> {
    let begin = query(&BEGIN)
        .bind(identity_id)
        .bind(now)
        .bind(earlier(now, SETTINGS_CALL_TIMEOUT));
    begin.execute(connection).await?;
    Ok(())
}

static END: Sql =
    Sql::new("UPDATE pending_settings SET open_calls = open_calls - 1 WHERE identity_id = $1");
static DELETE_ENDED: Sql =
    Sql::new("DELETE FROM pending_settings WHERE identity_id = $1 AND open_calls <= 0");

pub(super) async fn end(connection: &mut Connection<'_>, identity_id: Uuid) -> Result<(), Error> {
    for statement in [&END, &DELETE_ENDED] {
        let end = query(statement).bind(identity_id);
        end.execute(connection).await?;
    }
    Ok(())
}

static PENDING_SINCE: Sql =
    Sql::new("SELECT first_at FROM pending_settings WHERE identity_id = $1");

pub(super) async fn pending_since(
    connection: &mut Connection<'_>,
    identity_id: Uuid,
) -> Result<Option<Timestamp>, Error> {
    let pending = query(&PENDING_SINCE).bind(identity_id);
    let row = pending.fetch_optional(connection).await?;
    Ok(row.map(|row| row.timestamp("first_at")).transpose()?)
}
