//! Background jobs and servers that fail.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::failing_store::FailingStore;
use crate::support::{FakeKratos, TestApp};

const RECONCILIATION: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
reconcile: {every: 1h}
"#;

#[tokio::test]
async fn the_admin_api_lists_every_job_with_its_last_run() {
    let app = TestApp::with("").start().await;
    let status = app.wait_for_job("dispatcher", "succeeded").await;
    assert_eq!(status["failures_in_a_row"], 0);
    assert_eq!(status["last_error"], json!(null));
    let jobs = app.admin_get("/jobs").await.json();
    let names: Vec<&String> = jobs["jobs"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "database",
            "decision_log",
            "dispatcher",
            "late_refusals",
            "retention",
            "sweeper"
        ]
    );
}

#[tokio::test]
async fn a_job_that_fails_is_counted_and_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let app = TestApp::with("")
        .store(Arc::clone(&store) as _)
        .start()
        .await;
    app.wait_for_job("sweeper", "succeeded").await;
    store.set_failing(true);
    app.clock.advance(Duration::from_secs(5));
    let status = app.wait_for_job("sweeper", "failed").await;
    let error = status["last_error"].as_str().unwrap();
    assert!(error.starts_with("database error: "), "{error}");
    assert!(error.contains(&store.name), "{error}");
    let failed = app
        .metric("vestibule_job_runs_total{job=\"sweeper\",outcome=\"failed\"}")
        .await;
    assert!(failed >= 1.0);
    store.set_failing(false);
    app.clock.advance(Duration::from_mins(1));
    app.wait_for_job("sweeper", "succeeded").await;
}

#[tokio::test]
async fn a_panic_in_reconciliation_does_not_end_it() {
    let kratos = FakeKratos::start();
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let app = TestApp::with(RECONCILIATION)
        .kratos("KRATOS", &kratos)
        .store(Arc::clone(&store) as _)
        .start()
        .await;
    app.wait_for_job("reconciliation", "succeeded").await;
    store.set_panicking(true);
    app.clock.advance(Duration::from_hours(1));
    let status = app.wait_for_job("reconciliation", "panicked").await;
    assert_eq!(status["last_error"], "the run panicked");
    store.set_panicking(false);
    app.clock.advance(Duration::from_mins(1));
    app.wait_for_job("reconciliation", "succeeded").await;
}

#[tokio::test]
async fn a_server_that_ends_ends_the_program_with_an_error() {
    for (index, name) in ["server of hooks", "server of the admin API"]
        .into_iter()
        .enumerate()
    {
        let app = TestApp::with("").start().await;
        app.app.servers()[index].stop(false).await;
        let ended = app.app.run_until(std::future::pending()).await;
        assert_eq!(
            ended.unwrap_err().to_string(),
            format!("the {name} has ended unexpectedly; the log says why")
        );
    }
}
