//! Connects to the database and applies migrations.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgConnection, PgPool, SqlSafeStr};

use crate::base::clock::Clock;
use crate::store::{AppliedMigration, Error, schema};

/// Number, name and statements of each migration, oldest first. A released migration never changes.
const MIGRATIONS: [(i64, &str, &str); 1] = [(
    1,
    "initial",
    include_str!("../../../migrations/postgres/0001_initial.sql"),
)];

const CONNECTIONS: u32 = 10;
/// How long to wait for a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of attempts to migrate. An instance that starts at the same time may be migrating.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    Ok(PgConnectOptions::from_str(url)?
        .application_name("vestibule")
        .log_statements(tracing::log::LevelFilter::Trace))
}

pub(super) async fn pool(url: &str, clock: &Clock) -> Result<PgPool, Error> {
    let clock = clock.clone();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .after_connect(|connection, _| Box::pin(without_idle_transactions(connection)))
        .after_release(move |connection, _| Box::pin(still_answers(connection, clock.clone())))
        .connect_with(options(url)?)
        .await?;
    Ok(pool)
}

/// Ends transactions that are idle for 20 s. A transaction whose connection broke would keep its rows locked until the
/// server notices, which may take hours.
async fn without_idle_transactions(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let set = sqlx::query("SET idle_in_transaction_session_timeout = '20s'")
        .execute(connection)
        .await;
    match set {
        // A server that does not know the setting is used without it.
        Err(sqlx::Error::Database(_)) => Ok(()),
        set => set.map(drop),
    }
}

/// Checks that a pooled connection still answers. After a timeout, a connection may never answer, and would occupy a
/// place in the pool until the system notices.
async fn still_answers(connection: &mut PgConnection, clock: Clock) -> Result<bool, sqlx::Error> {
    let answered = clock
        .timeout_at(clock.deadline(PATIENCE), connection.ping())
        .await;
    // An error closes the connection immediately, without a termination message.
    answered.unwrap_or_else(|| Err(std::io::Error::from(ErrorKind::TimedOut).into()))?;
    Ok(true)
}

/// Applies pending migrations without an advisory lock. If two instances migrate at the same time, the second one
/// fails, checks again and finds the migration applied.
pub(super) async fn migrate(pool: &PgPool, clock: &Clock) -> Result<Vec<AppliedMigration>, Error> {
    let migrations = MIGRATIONS.map(|(number, name, statements)| {
        Migration::new(
            number,
            Cow::Borrowed(name),
            MigrationType::Simple,
            statements.into_sql_str(),
            false,
        )
    });
    let mut migrator = Migrator::with_migrations(migrations.to_vec());
    migrator.set_locking(false);
    for _ in 1..TRIES {
        if let Ok(applied) = migrate_once(pool, &migrator).await {
            return Ok(applied);
        }
        clock.sleep(PAUSE).await;
    }
    migrate_once(pool, &migrator).await
}

async fn migrate_once(pool: &PgPool, migrator: &Migrator) -> Result<Vec<AppliedMigration>, Error> {
    let missing = schema::missing(&mut *pool.acquire().await?, &MIGRATIONS).await?;
    migrator.run(pool).await.map_err(schema::migration_error)?;
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_ordered_by_number() {
        let numbers = MIGRATIONS.map(|(number, _, _)| number);
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
