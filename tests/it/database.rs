//! A database that loses its file, or that can be reached and not written to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use crate::support::{FakeKratos, TestApp, logs, payload};

const SETTINGS: &str =
    "subscriptions: {crm: {events: [identity.created], send: {post: \"http://127.0.0.1:9/\"}}}";

fn file(app: &TestApp) -> PathBuf {
    app.folder.path().join("vestibule.db")
}

async fn post(app: &TestApp) -> u16 {
    let visitor = payload()
        .with("/flow/id", crate::support::app::uuid())
        .with("/identity/id", crate::support::app::uuid());
    app.post(&visitor.saved()).await.status
}

/// Waits until readiness reports the database as this, and the metric agrees.
async fn wait_for_health(app: &TestApp, expected: &str) {
    app.eventually(&format!("the database is {expected}"), async || {
        app.clock.advance(Duration::from_secs(1));
        let ready = app.admin_get("/health/ready").await;
        assert_eq!(ready.status, 200, "checks still run");
        (ready.json()["database"] == expected).then_some(())
    })
    .await;
    let up = app.metric("vestibule_database_up").await;
    assert_eq!(up > 0.5, expected == "ok");
}

async fn wait_for_alarm(app: &TestApp, count: f64) {
    app.eventually("the alarm is counted", async || {
        app.clock.advance(Duration::from_secs(1));
        let failures = app.metric("vestibule_database_failures_total").await;
        (failures >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_post_gets_503_while_the_database_file_is_removed() {
    let app = TestApp::with(SETTINGS).start().await;
    assert_eq!(post(&app).await, 204);
    let moved = app.folder.path().join("moved.db");
    std::fs::rename(file(&app), &moved).unwrap();
    assert_eq!(post(&app).await, 503);
    assert!(app.pre(&payload()).await.is_admitted());
    wait_for_health(&app, "down").await;
    wait_for_alarm(&app, 1.0).await;
    let name = file(&app).display().to_string();
    let alarms = logs::lines_with(&name);
    let is_alarm = |line: &String| line.contains("ALARM") && line.contains("removed or replaced");
    assert_eq!(alarms.iter().filter(|line| is_alarm(line)).count(), 1);

    std::fs::rename(&moved, file(&app)).unwrap();
    assert_eq!(post(&app).await, 204);
    wait_for_health(&app, "ok").await;
}

#[tokio::test]
async fn a_post_gets_503_while_another_file_has_the_name_of_the_database() {
    let app = TestApp::with(SETTINGS).start().await;
    let (moved, copy) = (app.folder.path().join("moved.db"), file(&app));
    std::fs::rename(&copy, &moved).unwrap();
    std::fs::copy(&moved, &copy).unwrap();
    assert_eq!(post(&app).await, 503);
    wait_for_health(&app, "down").await;
}

#[tokio::test]
async fn a_post_gets_503_while_a_file_beside_the_database_is_removed_or_replaced() {
    for suffix in ["-wal", "-shm"] {
        for is_replaced in [false, true] {
            let app = TestApp::with(SETTINGS).start().await;
            assert_eq!(post(&app).await, 204);
            let beside = app.folder.path().join(format!("vestibule.db{suffix}"));
            let content = std::fs::read(&beside).unwrap();
            std::fs::remove_file(&beside).unwrap();
            if is_replaced {
                // The inode of a file that is still open is not used again.
                std::fs::write(&beside, content).unwrap();
            }
            let what = format!("{suffix}, replaced: {is_replaced}");
            assert_eq!(post(&app).await, 503, "{what}");
            wait_for_health(&app, "down").await;
        }
    }
}

/// A look-up cannot replace the `post`, because the record of the sign-up is in the file that is gone.
#[tokio::test]
async fn a_post_gets_503_although_the_sign_up_was_recorded_in_the_removed_file() {
    let kratos = FakeKratos::start();
    let settings = format!("kratos: {{admin_url: \"${{env:KRATOS}}\"}}\n{SETTINGS}");
    let app = TestApp::with(&settings)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    std::fs::remove_file(file(&app)).unwrap();
    assert_eq!(app.post(&visitor.saved().guarded()).await.status, 503);
}

/// Makes every insert fail, while a transaction can still begin, as on a full disk.
async fn refuse_inserts(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    let mut other = options.connect().await.expect("a connection");
    for table in ["deliveries", "properties"] {
        let trigger = format!(
            "CREATE TRIGGER full_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        );
        sqlx::query(sqlx::AssertSqlSafe(trigger))
            .execute(&mut other)
            .await
            .expect("a trigger");
    }
    other
}

#[tokio::test]
async fn health_reports_a_database_whose_writes_fail() {
    let app = TestApp::with(SETTINGS).start().await;
    let mut other = refuse_inserts(&file(&app)).await;
    wait_for_health(&app, "ok").await;
    assert_eq!(post(&app).await, 503);
    wait_for_health(&app, "down").await;
    wait_for_alarm(&app, 1.0).await;

    for table in ["deliveries", "properties"] {
        let drop = sqlx::AssertSqlSafe(format!("DROP TRIGGER full_{table}"));
        sqlx::query(drop).execute(&mut other).await.unwrap();
    }
    other.close().await.unwrap();
    // A write shows that writes succeed, although no visitor comes.
    wait_for_health(&app, "ok").await;
    assert_eq!(post(&app).await, 204);
}
