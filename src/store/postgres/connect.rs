//! Connects to the database and applies migrations.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgConnection, PgPool, SqlSafeStr};
use url::{Host, Url};

use crate::base::clock::{Clock, Timestamp};
use crate::store::inspect::{self, Inspection, ServerTime};
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
    Ok(PgConnectOptions::from_str(&with_address(url))?
        .application_name("vestibule")
        .log_statements(tracing::log::LevelFilter::Trace))
}

/// Names an IPv6 address a second time, without brackets. sqlx would ask the name service for `[::1]`. The first parameter does
/// not replace a `host` of the operator's.
fn with_address(url: &str) -> Cow<'_, str> {
    let Ok(mut parsed) = Url::parse(url) else {
        return Cow::Borrowed(url);
    };
    let Some(Host::Ipv6(address)) = parsed.host() else {
        return Cow::Borrowed(url);
    };
    let others = parsed
        .query()
        .map_or_else(String::new, |query| format!("&{query}"));
    parsed.set_query(Some(&format!("hostaddr={address}{others}")));
    Cow::Owned(parsed.into())
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

fn migrations() -> Vec<Migration> {
    let migrations = MIGRATIONS.map(|(number, name, statements)| {
        Migration::new(
            number,
            Cow::Borrowed(name),
            MigrationType::Simple,
            statements.into_sql_str(),
            false,
        )
    });
    migrations.to_vec()
}

/// Inspects the database without a change.
pub(super) async fn inspect(url: &str, clock: &Clock) -> Result<Inspection, Error> {
    let mut connection = options(url)?.connect().await?;
    let found = inspect_with(&mut connection, clock).await;
    connection.close().await?;
    found
}

async fn inspect_with(connection: &mut PgConnection, clock: &Clock) -> Result<Inspection, Error> {
    let version = sqlx::query_scalar("SHOW server_version");
    let version: String = version.fetch_one(&mut *connection).await?;
    let asked = clock.now();
    let seconds = sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8");
    let seconds: f64 = seconds.fetch_one(&mut *connection).await?;
    let answered = clock.now();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "milliseconds of this millennium"
    )]
    let server = Timestamp::from_timestamp_millis((seconds * 1000.0) as i64);
    let has_table = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
    let has_table: bool = has_table.fetch_one(&mut *connection).await?;
    let migrations = migrations();
    let (missing, foreign) = if has_table {
        inspect::compare(connection, &migrations).await?
    } else {
        (migrations.iter().map(|one| one.version).collect(), vec![])
    };
    let write = write_and_roll_back(connection, has_table).await;
    let lacking = lacking_privileges(connection).await?;
    Ok(Inspection {
        missing: inspect::named(&MIGRATIONS, &missing),
        foreign,
        write: write.map_err(Error::from),
        lacking: Some(lacking),
        time: server.map(|server| ServerTime {
            asked,
            server,
            answered,
        }),
        version: format!("PostgreSQL {version}"),
    })
}

/// Returns the privileges that Vestibule needs and this user lacks. `CREATE` is needed at each start, because
/// PostgreSQL asks for it also if the table of migrations exists.
async fn lacking_privileges(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let may_create = sqlx::query_scalar("SELECT has_schema_privilege(current_schema(), 'CREATE')");
    let may_create: Option<bool> = may_create.fetch_one(&mut *connection).await?;
    let mut lacking = Vec::new();
    match may_create {
        Some(true) => {}
        Some(false) => lacking.push("CREATE on the schema".to_owned()),
        None => lacking.push("a schema: no schema of its `search_path` exists".to_owned()),
    }
    let of_tables = sqlx::query_scalar(
        "SELECT privilege || ' on `' || name || '`' \
         FROM unnest($1::text[]) name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege \
         WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name)::oid, privilege) \
         ORDER BY name, privilege",
    );
    let of_tables: Vec<String> = of_tables.bind(tables()).fetch_all(connection).await?;
    lacking.extend(of_tables);
    Ok(lacking)
}

/// Returns the names of the tables that the migrations create.
fn tables() -> Vec<&'static str> {
    let lines = MIGRATIONS
        .iter()
        .flat_map(|(_, _, statements)| statements.lines());
    lines
        .filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next())
        .collect()
}

async fn write_and_roll_back(
    connection: &mut PgConnection,
    is_migrated: bool,
) -> Result<(), sqlx::Error> {
    let statement = inspect::write_statement(is_migrated);
    let mut transaction = connection.begin().await?;
    let written = sqlx::query(statement).execute(&mut *transaction).await;
    transaction.rollback().await?;
    written.map(drop)
}

/// Applies pending migrations without an advisory lock. If two instances migrate at the same time, the second one
/// fails, checks again and finds the migration applied.
pub(super) async fn migrate(pool: &PgPool, clock: &Clock) -> Result<Vec<AppliedMigration>, Error> {
    let mut migrator = Migrator::with_migrations(migrations());
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
    fn the_tables_of_the_migrations_are_known() {
        let tables = tables();
        for name in ["deliveries", "attempts", "properties", "identities"] {
            assert!(tables.contains(&name), "{tables:?}");
        }
    }

    #[test]
    fn the_host_is_a_name_or_an_address() {
        for (url, host) in [
            ("postgres://user@[::1]:5432/vestibule", "::1"),
            ("postgres://user@[::1]/vestibule?sslmode=disable", "::1"),
            ("postgres://user@[::1]/vestibule?hostaddr=::2", "::2"),
            ("postgres://user@127.0.0.1/vestibule", "127.0.0.1"),
            ("postgres://user@db.example.org/vestibule", "db.example.org"),
        ] {
            assert_eq!(options(url).unwrap().get_host(), host, "{url}");
        }
    }

    #[test]
    fn migrations_are_ordered_by_number() {
        let numbers = MIGRATIONS.map(|(number, _, _)| number);
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
}
