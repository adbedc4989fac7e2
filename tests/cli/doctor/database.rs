//! The database: SQLite and PostgreSQL.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use vestibule_testing::postgres::Server as Postgres;

use vestibule_testing::program;

use super::{Examination, PORTS, examine, examine_with, folder_with, without_override};
use crate::{KEY, run, text};

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

#[test]
fn a_path_at_which_no_database_can_be_created_is_a_problem() {
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    let folder = folder_with(&settings("sqlite://data/vestibule.db"));
    let data = folder.path().join("data");
    create_dir(&data).expect("a folder");
    symlink("nowhere.db", data.join("vestibule.db")).expect("a link");
    let found = examine(folder.path(), "database", &[]);
    found.assert("database", "reach", "problem", "symbolic link");
    std::fs::remove_file(data.join("vestibule.db")).expect("no link");
    for (mode, has_file, part) in [
        (0o666, true, "cannot be examined"),
        (0o555, false, "cannot create it"),
    ] {
        if has_file {
            write(data.join("vestibule.db"), "").expect("a file");
        } else {
            std::fs::remove_file(data.join("vestibule.db")).expect("no file");
        }
        set_permissions(&data, Permissions::from_mode(mode)).expect("permissions");
        let arguments = ["doctor", "--json", "--only", "database"];
        let mut command = without_override(folder.path(), &arguments);
        let found = Examination::of_output(&program::output(command.env("VESTIBULE_KEY", KEY)));
        set_permissions(&data, Permissions::from_mode(0o755)).expect("permissions");
        found.assert("database", "reach", "problem", part);
        assert_eq!(found.code, 1);
    }
}

#[test]
fn the_disk_of_a_linked_database_is_that_of_its_target() {
    let folder = folder_with(&settings("sqlite://link.db"));
    let other = tempfile::tempdir().expect("a folder");
    let target = other.path().canonicalize().expect("a path");
    std::fs::write(target.join("v.db"), "").expect("a file");
    std::os::unix::fs::symlink(target.join("v.db"), folder.path().join("link.db")).expect("a link");
    let found = examine_with(folder.path(), &["--only", "database,files"], &[]);
    let target = target.display().to_string();
    assert_eq!(found.the("database", "disk")["subject"], target);
    let files = found.of("files", "permissions");
    assert!(
        files.iter().any(|one| one["subject"] == target),
        "{:#}",
        found.report
    );
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
    for timeout in ["20s", "2s"] {
        let options = ["--only", "database", "--timeout", timeout];
        let found = examine_with(folder.path(), &options, &[]);
        found.assert("database", "write", "problem", "end what holds the lock");
    }
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

    found.assert("database", "privileges", "ok", "needs");
    assert_privileges(&server, &url).await;

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

/// Asserts that the report names the privileges that a user lacks, and that Vestibule needs them.
async fn assert_privileges(server: &Postgres, url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    for statement in [
        "CREATE ROLE limited LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "GRANT USAGE ON SCHEMA public TO limited",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO limited",
        "REVOKE DELETE ON attempts FROM limited",
    ] {
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    let name = url.rsplit('/').next().expect("a name");
    let limited = server.address(name).replace("vestibule@", "limited@");
    let folder = folder_with(&settings(&limited));
    let found = examine(folder.path(), "database", &[]);
    assert_eq!(found.code, 1);
    let part = "lacks CREATE on the schema, DELETE on `attempts`";
    found.assert("database", "privileges", "problem", part);
    let migrated = run(folder.path(), &["migrate"]);
    assert!(!migrated.status.success(), "CREATE is needed at each start");
}
