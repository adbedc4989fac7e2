//! A subscription with `once: true` sends once per identity, over all its events.

use serde_json::json;
use uuid::Uuid;

use super::delivery_order::{all_deliveries, deliver_all};
use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

const CREATED: &str = "/hooks/registration/post?method=password";
const UPDATED: &str = "/hooks/settings/post?method=profile";
const VERIFIED: &str = "/hooks/verification/post";

/// The settings of a welcome mail with these keys.
fn settings(keys: &str) -> String {
    format!(
        "subscriptions: {{mail: {{once: true, send: {{post: \"${{env:CRM}}/mail\"}}, {keys}}}}}"
    )
}

/// Kratos's report about an identity.
fn saved(id: Uuid, company: &str) -> Payload {
    payload()
        .changed_from(&json!({"email": "canary@example.org"}))
        .saved_as(id)
        .with_trait("company", company)
}

#[tokio::test]
async fn an_identity_is_sent_once_over_all_events() {
    let a = "a";
    for (keys, hooks, expected) in [
        (
            "events: [identity.verified]",
            vec![(VERIFIED, a), (VERIFIED, a), (VERIFIED, a)],
            vec!["identity.verified"],
        ),
        (
            "events: [identity.created, identity.verified]",
            vec![(CREATED, a), (VERIFIED, a)],
            vec!["identity.created"],
        ),
        (
            "events: [identity.updated, identity.created]",
            vec![(UPDATED, a), (CREATED, a), (UPDATED, a)],
            vec!["identity.updated"],
        ),
        // An event for which `when` is false does not count.
        (
            "events: [identity.created, identity.updated, identity.verified], when: \"identity.traits.company == 'b'\"",
            vec![
                (CREATED, a),
                (VERIFIED, a),
                (UPDATED, "b"),
                (VERIFIED, "b"),
                (UPDATED, "b"),
            ],
            vec!["identity.updated"],
        ),
        // An event that is not of the subscription does not count.
        (
            "events: [identity.verified]",
            vec![(CREATED, a), (UPDATED, a), (VERIFIED, a)],
            vec!["identity.verified"],
        ),
    ] {
        let crm = FakeService::start();
        let app = TestApp::with(&settings(keys))
            .service("CRM", &crm)
            .start()
            .await;
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        for id in [one, other] {
            for (hook, company) in &hooks {
                let body = saved(id, company).to_string();
                assert_eq!(app.call(hook, body).await.status, 204, "{keys}");
            }
        }
        deliver_all(&app).await;
        for id in [one, other] {
            let received = crm.received();
            let of_identity = received.iter().map(|call| call.json());
            let events: Vec<String> = of_identity
                .filter(|body| body["data"]["identity"]["id"] == json!(id))
                .map(|body| body["type"].as_str().expect("a type").to_owned())
                .collect();
            assert_eq!(events, expected, "{keys}");
        }
    }
}

#[tokio::test]
async fn without_once_each_verification_is_sent() {
    let crm = FakeService::start();
    let yaml = settings("events: [identity.verified]").replace("once: true, ", "");
    let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
    let id = Uuid::new_v4();
    for _ in 0..3 {
        assert_eq!(
            app.call(VERIFIED, saved(id, "a").to_string()).await.status,
            204
        );
    }
    deliver_all(&app).await;
    assert_eq!(crm.received().len(), 3);
}

#[tokio::test]
async fn once_holds_across_restarts_retries_and_retention() {
    let crm = FakeService::start();
    let yaml = format!(
        "retention: {{deliveries: 1d}}\n{}",
        settings("events: [identity.verified]")
    );
    let id = Uuid::new_v4();
    crm.respond_with(503, &json!({}));
    let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
    assert_eq!(
        app.call(VERIFIED, saved(id, "a").to_string()).await.status,
        204
    );
    crm.next_call().await;
    app.wait_for_attempts().await;
    assert_eq!(
        app.call(VERIFIED, saved(id, "a").to_string()).await.status,
        204
    );
    crm.respond_with(200, &json!({}));
    deliver_all(&app).await;
    assert_eq!(
        (crm.received().len(), all_deliveries(&app).await.len()),
        (2, 1)
    );
    let (folder, time) = (app.folder.clone(), app.clock.now());
    app.app.stop().await;

    let later = time + chrono::TimeDelta::days(3);
    let app = TestApp::with(&yaml)
        .service("CRM", &crm)
        .in_folder(&folder, later)
        .start()
        .await;
    let before = later - chrono::TimeDelta::days(1);
    app.app
        .store
        .delete_settled(before, 10)
        .await
        .expect("the store answers");
    assert_eq!(
        all_deliveries(&app).await.len(),
        0,
        "the delivery is deleted"
    );
    assert_eq!(
        app.call(VERIFIED, saved(id, "a").to_string()).await.status,
        204
    );
    assert_eq!(all_deliveries(&app).await.len(), 0);
    app.app
        .store
        .forget(id, later)
        .await
        .expect("the store answers");
    assert_eq!(
        app.call(VERIFIED, saved(id, "a").to_string()).await.status,
        204
    );
    assert_eq!(all_deliveries(&app).await.len(), 1);
}
