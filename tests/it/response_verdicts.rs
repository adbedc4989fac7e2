//! The verdict about the response of a target: delivered, retry or abandon; and the limit of a target.

use std::time::Duration;

use serde_json::json;
use vestibule::model::delivery::State;

use crate::support::{FakeKratos, FakeService, TestApp, payload};

async fn app_with_subscription(options: &str) -> (TestApp, FakeService) {
    let crm = FakeService::start();
    let yaml = format!(
        "subscriptions: {{crm: {{events: [identity.created], send: {{post: \"${{env:CRM}}/c\"}}, {options}}}}}"
    );
    let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
    (app, crm)
}

#[tokio::test]
async fn success_when_decides_whether_a_delivery_succeeds() {
    let (app, crm) = app_with_subscription(
        "success_when: response.status == 409 || response.body.?ok.orValue(false)",
    )
    .await;
    crm.respond_with(200, &json!({"ok": false}));
    app.post(&payload().saved()).await;
    crm.next_call().await;
    let waiting = app
        .eventually("the delivery waits", async || {
            let one = app.deliveries("crm").await.remove(0);
            one.last_error.is_some().then_some(one)
        })
        .await;
    assert_eq!(waiting.state, State::Pending);
    assert_eq!(
        waiting.last_error.as_deref(),
        Some(r#"status 200, not delivered: {"ok":false}"#)
    );
    crm.respond_with(409, &json!({}));
    app.clock.advance(Duration::from_secs(10));
    app.wait_until_delivered("crm").await;
}

#[tokio::test]
async fn abandon_when_ends_the_retries() {
    let (app, crm) = app_with_subscription("abandon_when: response.status == 422").await;
    crm.respond_with(
        422,
        &json!({"error": "canary@example.org is no address of Canary GmbH"}),
    );
    app.post(&payload().saved()).await;
    let dead = app.wait_for_delivery("crm", State::Abandoned).await;
    assert_eq!(
        dead.last_error.as_deref(),
        Some(r#"status 422, abandoned: {"error":"… is no address of …"}"#)
    );
    let shown = app.app.store.show(dead.id).await.unwrap().unwrap();
    assert_eq!(shown.tries.len(), 1);
    assert_eq!(
        (shown.tries[0].attempt, shown.tries[0].status),
        (1, Some(422))
    );
    assert!(shown.action.is_some(), "the delivery can still be retried");
}

#[tokio::test]
async fn an_expression_that_fails_on_a_response_is_reported_and_retried() {
    let (app, crm) = app_with_subscription("success_when: response.body.ok").await;
    crm.respond_with(200, &json!({}));
    app.post(&payload().saved()).await;
    let waiting = app
        .eventually("the delivery waits", async || {
            let one = app.deliveries("crm").await.remove(0);
            one.last_error.is_some().then_some(one)
        })
        .await;
    let error = waiting.last_error.unwrap();
    assert!(
        error.contains("`success_when` failed: no such key"),
        "{error}"
    );
}

#[tokio::test]
async fn retries_follow_the_configured_intervals() {
    let (app, crm) = app_with_subscription("retry: {initial_interval: 1m, max_interval: 2m}").await;
    crm.respond_with(503, &json!({}));
    app.post(&payload().saved()).await;
    for interval in [60, 120, 120] {
        crm.next_call().await;
        let before = app.clock.now();
        app.advance_to_next_attempt("crm").await;
        assert_eq!((app.clock.now() - before).num_seconds(), interval);
    }
}

const WRITE_BACK: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm:
    events: [identity.created]
    send: {post: "${env:CRM}/contacts"}
    write_back: {metadata_admin.crm.id: "{response.body.id}", metadata_public.note: "{response.body.?note}"}
"#;

#[tokio::test]
async fn write_back_is_repeated_until_kratos_answers() {
    let (crm, kratos) = (FakeService::start(), FakeKratos::start());
    crm.respond_with(201, &json!({"id": 4711}));
    let app = TestApp::with(WRITE_BACK)
        .service("CRM", &crm)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    kratos.set_down(true);
    app.post(&payload().saved_as(id)).await;
    app.wait_until_delivered("crm").await;
    kratos.next_call().await;
    kratos.set_down(false);
    app.advance_to_next_attempt("write-back:crm").await;
    app.eventually("the value is written", async || {
        let admin = kratos.identity(id)["metadata_admin"].clone();
        (admin == json!({"crm": {"id": 4711}})).then_some(())
    })
    .await;
    app.wait_until_delivered("write-back:crm").await;
    // A null value is not written.
    assert_eq!(kratos.identity(id)["metadata_public"], json!(null));
    assert_eq!(crm.received().len(), 1);
}

#[tokio::test]
async fn a_write_back_to_a_deleted_identity_leaves_no_dead_letter() {
    let (crm, kratos) = (FakeService::start(), FakeKratos::start());
    crm.respond_with(201, &json!({"id": 1}));
    let app = TestApp::with(WRITE_BACK)
        .service("CRM", &crm)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    app.post(&payload().saved()).await;
    let written = app.wait_until_delivered("write-back:crm").await;
    assert_eq!(written.attempts, 1);
}

#[tokio::test]
async fn a_target_gets_no_more_deliveries_per_second_than_its_limit() {
    let (app, crm) = TestApp::with_service(
        r#"
services: {crm: {url: "${env:CRM}", limit: {per_second: 2}}}
subscriptions: {crm: {events: [identity.created], send: {service: crm, post: /c}}}
"#,
        "CRM",
    )
    .await;
    for _ in 0..5 {
        app.post(&payload().saved()).await;
    }
    let wait_for_calls = async |number: usize| {
        app.eventually("the deliveries arrive", async || {
            (crm.received().len() == number).then_some(())
        })
        .await;
    };
    wait_for_calls(2).await;
    app.clock.advance(Duration::from_millis(500));
    wait_for_calls(3).await;
    app.clock.advance(Duration::from_secs(1));
    wait_for_calls(5).await;
}
