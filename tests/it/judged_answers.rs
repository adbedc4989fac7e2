//! What the settings make of a receiver's answer: arrived, given up, written back; and how many it gets.

use std::time::Duration;

use serde_json::json;
use vestibule::model::delivery::State;

use crate::support::{FakeKratos, FakeService, TestApp, payload};

async fn judging(plan: &str) -> (TestApp, FakeService) {
    let crm = FakeService::start();
    let yaml = format!(
        "subscriptions: {{crm: {{events: [identity.created], send: {{post: \"${{env:CRM}}/c\"}}, {plan}}}}}"
    );
    let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
    (app, crm)
}

#[tokio::test]
async fn delivered_tells_what_an_arrival_is() {
    let (app, crm) =
        judging("success_when: response.status == 409 || response.body.?ok.orValue(false)").await;
    crm.answers(200, &json!({"ok": false}));
    app.post(&payload().saved()).await;
    crm.next().await;
    let waiting = app
        .eventually("it waits", async || {
            let one = app.deliveries("crm").await.remove(0);
            one.last_error.is_some().then_some(one)
        })
        .await;
    assert_eq!(waiting.state, State::Pending);
    assert_eq!(
        waiting.last_error.as_deref(),
        Some(r#"status 200, not delivered: {"ok":false}"#)
    );
    crm.answers(409, &json!({}));
    app.hand.advance(Duration::from_secs(10));
    app.delivery_in("crm", State::Delivered).await;
}

#[tokio::test]
async fn give_up_tells_when_it_makes_no_sense_to_try_again() {
    let (app, crm) = judging("abandon_when: response.status == 422").await;
    crm.answers(
        422,
        &json!({"error": "canary@example.org is no address of Canary GmbH"}),
    );
    app.post(&payload().saved()).await;
    let dead = app.delivery_in("crm", State::Abandoned).await;
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
    assert!(shown.action.is_some(), "it can still be retried");
}

#[tokio::test]
async fn an_expression_that_fails_on_the_answer_is_told_and_tried_again() {
    let (app, crm) = judging("success_when: response.body.ok").await;
    crm.answers(200, &json!({}));
    app.post(&payload().saved()).await;
    let waiting = app
        .eventually("it waits", async || {
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
async fn the_pauses_are_those_of_the_settings() {
    let (app, crm) = judging("retry: {initial_interval: 1m, max_interval: 2m}").await;
    crm.answers(503, &json!({}));
    app.post(&payload().saved()).await;
    for pause in [60, 120, 120] {
        crm.next().await;
        let before = app.hand.now();
        app.to_the_next_try("crm").await;
        assert_eq!((app.hand.now() - before).num_seconds(), pause);
    }
}

const SAVING: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm:
    events: [identity.created]
    send: {post: "${env:CRM}/contacts"}
    write_back: {metadata_admin.crm.id: "{response.body.id}", metadata_public.note: "{response.body.?note}"}
"#;

#[tokio::test]
async fn the_answer_is_written_into_the_identity_however_long_that_takes() {
    let (crm, kratos) = (FakeService::start(), FakeKratos::start());
    crm.answers(201, &json!({"id": 4711}));
    let app = TestApp::with(SAVING)
        .service("CRM", &crm)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let id = kratos.has("canary@example.org", "2026-11-23T14:32:54Z");
    kratos.is_down(true);
    app.post(&payload().saved_as(id)).await;
    app.delivery_in("crm", State::Delivered).await;
    kratos.next().await;
    kratos.is_down(false);
    app.to_the_next_try("write-back:crm").await;
    app.eventually("it is written", async || {
        let admin = kratos.identity(id)["metadata_admin"].clone();
        (admin == json!({"crm": {"id": 4711}})).then_some(())
    })
    .await;
    app.delivery_in("write-back:crm", State::Delivered).await;
    // What is null is not written.
    assert_eq!(kratos.identity(id)["metadata_public"], json!(null));
    assert_eq!(crm.received().len(), 1);
}

#[tokio::test]
async fn an_identity_that_is_gone_is_not_written_to() {
    let (crm, kratos) = (FakeService::start(), FakeKratos::start());
    crm.answers(201, &json!({"id": 1}));
    let app = TestApp::with(SAVING)
        .service("CRM", &crm)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    app.post(&payload().saved()).await;
    app.delivery_in("write-back:crm", State::Abandoned).await;
}

#[tokio::test]
async fn a_destination_gets_no_more_than_it_takes() {
    let crm = FakeService::start();
    let app = TestApp::with(
        r#"
services: {crm: {url: "${env:CRM}", limit: {per_second: 2}}}
subscriptions: {crm: {events: [identity.created], send: {service: crm, post: /c}}}
"#,
    )
    .service("CRM", &crm)
    .start()
    .await;
    for _ in 0..5 {
        app.post(&payload().saved()).await;
    }
    let arrived = async |number: usize| {
        app.eventually("they arrive", async || {
            (crm.received().len() == number).then_some(())
        })
        .await;
    };
    arrived(2).await;
    app.hand.advance(Duration::from_millis(500));
    arrived(3).await;
    app.hand.advance(Duration::from_secs(1));
    arrived(5).await;
}
