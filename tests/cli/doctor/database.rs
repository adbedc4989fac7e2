//! The database: SQLite and PostgreSQL.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use vestibule_testing::postgres::Server as Postgres;

use super::{PORTS, examine, examine_with, folder_with};
use crate::{run, text};

fn settings(dsn: &str) -> String {
    format!("{PORTS}dsn: \"{dsn}\"\n")
}

#[test]
fn a_database_that_does_not_exist_yet_needs_its_folder() {
    let folder = folder_with(&settings("sqlite://vestibule.db"));
    let found = examine_with(folder.path(), &["--only", "database,files"], &[]);
    found.assert("database", "reach", "ok", "`vestibule serve` creates it");
    assert_eq!(found.of("database", "disk").len(), 1);
    assert!(!folder.path().join("vestibule.db").exists());

    let folder = folder_with(&settings("sqlite://data/vestibule.db"));
    let found = examine_with(folder.path(), &["--only", "database,files"], &[]);
    assert_eq!(found.code, 1);
    found.assert("database", "reach", "problem", "mkdir -p data");
    assert_eq!(found.the("database", "reach")["path"], "dsn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_of_a_sqlite_database_are_compared_and_not_applied() {
    let folder = folder_with(&settings("sqlite://vestibule.db"));
    let path = folder.path().join("vestibule.db");
    let url = format!("sqlite://{}?mode=rwc", path.display());
    let mut empty = SqliteConnection::connect(&url).await.expect("a database");
    sqlx::query("CREATE TABLE other (a INTEGER)")
        .execute(&mut empty)
        .await
        .expect("a table");
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "migrations", "warning", "vestibule migrate");
    found.assert("database", "write", "ok", "rolled back");
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
        .fetch_one(&mut empty)
        .await
        .expect("a count");
    assert_eq!(tables, 1, "nothing was created");

    let migrated = run(folder.path(), &["migrate"]);
    assert!(migrated.status.success(), "{}", text(&migrated.stderr));
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "migrations", "ok", "all");
    found.assert("database", "write", "ok", "rolled back");

    let newer = "INSERT INTO _sqlx_migrations VALUES (99, 'newer', '2026-01-01', 1, x'00', 1)";
    sqlx::query(newer).execute(&mut empty).await.expect("a row");
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "migrations", "problem", "migration 99");
    assert_eq!(found.code, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_or_damaged_sqlite_file_is_a_problem() {
    let folder = folder_with(&settings("sqlite://vestibule.db"));
    assert!(run(folder.path(), &["migrate"]).status.success());
    let path = folder.path().join("vestibule.db");
    let url = format!("sqlite://{}", path.display());
    let mut other = SqliteConnection::connect(&url).await.expect("a database");
    let lock = other.begin_with("BEGIN IMMEDIATE").await.expect("a lock");
    let found = examine_with(
        folder.path(),
        &["--only", "database", "--timeout", "20s"],
        &[],
    );
    found.assert("database", "write", "problem", "end what holds the lock");
    lock.rollback().await.expect("the end of the lock");
    other.close().await.expect("a closed database");

    std::fs::write(&path, "no database, and longer than a header ".repeat(50)).expect("a file");
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "reach", "problem", "restore it from a backup");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_database_is_examined_without_a_change() {
    let started = tokio::task::spawn_blocking(Postgres::start).await;
    let Some(server) = started.expect("a server") else {
        return;
    };
    let url = server.database().await;
    let folder = folder_with(&settings(&url));
    let found = examine(folder.path(), "database", &[]);
    assert_eq!(found.code, 0, "{:#}", found.report);
    found.assert("database", "reach", "ok", "PostgreSQL");
    found.assert("database", "migrations", "warning", "vestibule migrate");
    found.assert("database", "write", "ok", "rolled back");
    found.assert("database", "clock", "ok", "agrees");
    found.assert("database", "disk", "not_checked", "cannot be seen");
    let mut connection = PgConnection::connect(&url).await.expect("a connection");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    let tables: i64 = sqlx::query_scalar(tables)
        .fetch_one(&mut connection)
        .await
        .expect("a count");
    assert_eq!(tables, 0, "nothing was created");

    assert!(run(folder.path(), &["migrate"]).status.success());
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "migrations", "ok", "all");
    found.assert("database", "write", "ok", "rolled back");

    let name = url.rsplit('/').next().expect("a name").to_owned();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    sqlx::query(AssertSqlSafe(read_only))
        .execute(&mut connection)
        .await
        .expect("a setting");
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "write", "problem", "primary server");

    let folder = folder_with(&settings(&server.address("missing")));
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "reach", "problem", "create the database");
    server.stop();
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "reach", "problem", "check that the server runs");
}
