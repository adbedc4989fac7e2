//! The measured database.

use std::path::PathBuf;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tempfile::TempDir;
use vestibule::base::clock::Clock;
use vestibule::store::{Store, WriteSet, postgres, sqlite};

use crate::deliveries::due;

/// A store, and direct access to its database.
pub struct Database {
    pub store: Arc<dyn Store>,
    location: Location,
}

enum Location {
    File(
        PathBuf,
        #[expect(dead_code, reason = "dropping it deletes the folder")] TempDir,
    ),
    Address(String),
}

// Copies one delivery, with new ids, keys and times. Both databases have these columns.
const MULTIPLY: &str = "
INSERT INTO deliveries
    (id, subscription, event, unique_key, identity_id, action, state, leased, run_at, attempts, keep_trying_until, created_at)
SELECT NUMBERED, subscription, event, NUMBERED, identity_id, action, state, leased, run_at + number, attempts, keep_trying_until, created_at
FROM deliveries CROSS JOIN NUMBERS WHERE deliveries.id = 'TEMPLATE'";

impl Database {
    /// Opens an empty database: with this name on the PostgreSQL server in `BENCH_DSN`, else a SQLite file.
    pub async fn open(name: &str) -> Self {
        if let Ok(server) = std::env::var("BENCH_DSN") {
            return Self::on_server(&server, name).await;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("bench.db");
        Self {
            store: Arc::new(sqlite::open(&path).await.expect("the file opens")),
            location: Location::File(path, folder),
        }
    }

    async fn on_server(server: &str, name: &str) -> Self {
        let mut address = url::Url::parse(server).expect("BENCH_DSN is an address");
        let mut connection = PgConnection::connect(server)
            .await
            .expect("PostgreSQL answers");
        for statement in [
            format!("DROP DATABASE IF EXISTS bench_{name}"),
            format!("CREATE DATABASE bench_{name}"),
        ] {
            let result = sqlx::raw_sql(AssertSqlSafe(statement));
            result
                .execute(&mut connection)
                .await
                .expect("the database is created");
        }
        address.set_path(&format!("bench_{name}"));
        let store = postgres::open(address.as_str(), Clock::system()).await;
        Self {
            store: Arc::new(store.expect("PostgreSQL answers")),
            location: Location::Address(address.into()),
        }
    }

    pub fn name(&self) -> &'static str {
        match self.location {
            Location::File(..) => "SQLite",
            Location::Address(_) => "PostgreSQL",
        }
    }

    /// Stores this number of due deliveries with one statement.
    pub async fn fill(&self, number: u32) {
        let template = due();
        let id = template.id;
        let stored = self.store.write(&WriteSet::of(vec![template])).await;
        stored.expect("the delivery is stored");
        let (numbered, numbers) = match self.location {
            Location::File(..) => (
                "substr(deliveries.id, 1, 24) || printf('%012x', number)",
                format!(
                    "(WITH RECURSIVE n (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < {number} - 1) \
                     SELECT number FROM n) AS numbers"
                ),
            ),
            Location::Address(_) => (
                "substr(deliveries.id, 1, 24) || lpad(to_hex(number), 12, '0')",
                format!("generate_series(1, {number} - 1) AS numbers (number)"),
            ),
        };
        let statement = MULTIPLY
            .replace("NUMBERED", numbered)
            .replace("NUMBERS", &numbers)
            .replace("TEMPLATE", &id.to_string());
        self.run(statement).await;
        self.vacuum().await;
    }

    /// Does the maintenance that the database does by itself sooner or later.
    async fn vacuum(&self) {
        let statement = match self.location {
            Location::File(..) => "PRAGMA wal_checkpoint(TRUNCATE)",
            Location::Address(_) => "VACUUM ANALYZE",
        };
        self.run(statement.to_owned()).await;
    }

    async fn run(&self, statement: String) {
        let statement = AssertSqlSafe(statement);
        match &self.location {
            Location::File(path, _) => {
                let options = SqliteConnectOptions::new().filename(path);
                let mut connection = options.connect().await.expect("the file opens");
                let result = sqlx::raw_sql(statement).execute(&mut connection).await;
                result.expect("the statement succeeds");
                connection.close().await.expect("the connection closes");
            }
            Location::Address(address) => {
                let mut connection = PgConnection::connect(address)
                    .await
                    .expect("PostgreSQL answers");
                let result = sqlx::raw_sql(statement).execute(&mut connection).await;
                result.expect("the statement succeeds");
                connection.close().await.expect("the connection closes");
            }
        }
    }
}
