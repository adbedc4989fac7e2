//! The database that is measured.

use std::path::PathBuf;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tempfile::TempDir;
use vestibule::store::Store;
use vestibule::store::postgres::Postgres;
use vestibule::store::sqlite::Sqlite;

use crate::deliveries::due;

/// A store, and a way to it from behind.
pub struct Database {
    pub store: Arc<dyn Store>,
    place: Place,
}

enum Place {
    File(
        PathBuf,
        #[expect(dead_code, reason = "it goes with this")] TempDir,
    ),
    Address(String),
}

// Of one that is there, with ids, keys and times of their own. The columns are those of both databases.
const MULTIPLY: &str = "
INSERT INTO deliveries
    (id, subscription, event, unique_key, identity_id, action, state, leased, run_at, attempts, keep_trying_until, created_at)
SELECT NUMBERED, subscription, event, NUMBERED, identity_id, action, state, leased, run_at + number, attempts, keep_trying_until, created_at
FROM deliveries CROSS JOIN NUMBERS WHERE deliveries.id = 'TEMPLATE'";

impl Database {
    /// An empty one: of this name on the PostgreSQL in `BENCH_DSN`, else a file.
    pub async fn open(name: &str) -> Self {
        if let Ok(server) = std::env::var("BENCH_DSN") {
            return Self::on_server(&server, name).await;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bench.db");
        Self {
            store: Arc::new(Sqlite::open(&path).await.expect("a file")),
            place: Place::File(path, folder),
        }
    }

    async fn on_server(server: &str, name: &str) -> Self {
        let mut address = url::Url::parse(server).expect("BENCH_DSN is an address");
        let mut connection = PgConnection::connect(server).await.expect("a PostgreSQL");
        for statement in [
            format!("DROP DATABASE IF EXISTS bench_{name}"),
            format!("CREATE DATABASE bench_{name}"),
        ] {
            let done = sqlx::raw_sql(AssertSqlSafe(statement));
            done.execute(&mut connection).await.expect("a database");
        }
        address.set_path(&format!("bench_{name}"));
        let store = Postgres::open(address.as_str()).await;
        Self {
            store: Arc::new(store.expect("a PostgreSQL")),
            place: Place::Address(address.into()),
        }
    }

    pub fn name(&self) -> &'static str {
        match self.place {
            Place::File(..) => "SQLite",
            Place::Address(_) => "PostgreSQL",
        }
    }

    /// Stores so many deliveries, all due, without any of them passing through this process.
    pub async fn fill(&self, many: u32) {
        let template = due();
        let id = template.id;
        self.store.accept(vec![template]).await.expect("stored");
        let (numbered, numbers) = match self.place {
            Place::File(..) => (
                "substr(deliveries.id, 1, 24) || printf('%012x', number)",
                format!(
                    "(WITH RECURSIVE n (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < {many} - 1) \
                     SELECT number FROM n) AS numbers"
                ),
            ),
            Place::Address(_) => (
                "substr(deliveries.id, 1, 24) || lpad(to_hex(number), 12, '0')",
                format!("generate_series(1, {many} - 1) AS numbers (number)"),
            ),
        };
        let statement = MULTIPLY
            .replace("NUMBERED", numbered)
            .replace("NUMBERS", &numbers)
            .replace("TEMPLATE", &id.to_string());
        self.run(statement).await;
        self.tidy().await;
    }

    /// As the database does by itself sooner or later.
    async fn tidy(&self) {
        let statement = match self.place {
            Place::File(..) => "PRAGMA wal_checkpoint(TRUNCATE)",
            Place::Address(_) => "VACUUM ANALYZE",
        };
        self.run(statement.to_owned()).await;
    }

    async fn run(&self, statement: String) {
        let statement = AssertSqlSafe(statement);
        match &self.place {
            Place::File(path, _) => {
                let options = SqliteConnectOptions::new().filename(path);
                let mut connection = options.connect().await.expect("the file");
                let done = sqlx::raw_sql(statement).execute(&mut connection).await;
                done.expect("done");
                connection.close().await.expect("closed");
            }
            Place::Address(address) => {
                let mut connection = PgConnection::connect(address).await.expect("the address");
                let done = sqlx::raw_sql(statement).execute(&mut connection).await;
                done.expect("done");
                connection.close().await.expect("closed");
            }
        }
    }
}
