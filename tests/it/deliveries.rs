//! From `post` to the other system, however long that takes.

use std::time::Duration;

use serde_json::json;
use vestibule::model::delivery::State;
use vestibule::store::{DeliverySummary, Filter};

use crate::support::service::Behaviour;
use crate::support::{FakeService, TestApp, payload};

const CRM: &str = r#"
services: {crm: {url: "${env:CRM}", auth: {type: bearer, config: {token: "${env:TOKEN}"}}}}
subscriptions:
  contact: {events: [identity.created], retry: {max_elapsed: 2d}, send: {service: crm, post: /contacts}}
"#;

#[tokio::test]
async fn a_new_account_is_delivered_with_the_default_body_and_a_stable_key() {
    let crm = FakeService::start();
    crm.answers(503, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    let body = payload().saved();
    assert_eq!(app.post(&body).await.status, 204);
    let first = crm.next().await;
    assert_eq!(
        (first.method.as_str(), first.target.as_str()),
        ("POST", "/contacts")
    );
    assert_eq!(first.header("Authorization"), Some("Bearer canary-token"));
    let sent = first.json();
    assert_eq!(sent["type"], "identity.created");
    assert_eq!(sent["data"]["identity"], body.0["identity"]);
    assert!(
        sent["timestamp"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-23T14:32:53")
    );

    crm.answers(201, &json!({}));
    let second = try_after(&app, &crm, 1).await;
    assert_eq!(
        second.header("Idempotency-Key"),
        first.header("Idempotency-Key")
    );
    assert!(first.header("Idempotency-Key").is_some());
    assert_eq!(second.body, first.body);
    let one = settled(&app).await;
    assert_eq!((one.state, one.attempts), (State::Delivered, 2));
}

#[tokio::test]
async fn a_delivery_is_signed_with_every_key_of_a_rotation_and_keeps_its_id() {
    let secrets = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    ];
    let crm = FakeService::start();
    crm.answers(503, &json!({}));
    let app = TestApp::with(
        r#"
services: {crm: {url: "${env:CRM}", sign: {secrets: ["${env:NEW}", "${env:OLD}"]}}}
checks: {free: {field: traits.email, ask: {service: crm, get: "/free"}}}
subscriptions:
  contact: {events: [identity.created], send: {service: crm, post: /contacts}}
"#,
    )
    .service("CRM", &crm)
    .env("NEW", secrets[0])
    .env("OLD", secrets[1])
    .start()
    .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let first = crm.next().await;
    crm.answers(204, &json!({}));
    let second = try_after(&app, &crm, 1).await;
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.header("webhook-id"), first.header("Idempotency-Key"));
    for delivery in [&first, &second] {
        let signature = delivery.header("webhook-signature").unwrap();
        assert_eq!(signature.split(' ').count(), 2, "{signature}");
        let [id, at] =
            ["webhook-id", "webhook-timestamp"].map(|name| delivery.header(name).unwrap());
        for (secret, theirs) in secrets.into_iter().zip(signature.split(' ')) {
            let receiver = standardwebhooks::Webhook::new(secret).unwrap();
            let at = at.parse().unwrap();
            assert_eq!(
                receiver.sign(id, at, delivery.body.as_bytes()).unwrap(),
                theirs
            );
        }
    }
    assert_ne!(
        first.header("webhook-timestamp"),
        second.header("webhook-timestamp")
    );

    app.pre(&payload()).await;
    let asked = crm.next().await;
    assert_eq!(asked.target, "/free");
    assert_eq!(asked.header("webhook-signature"), None);
}

#[tokio::test]
async fn retries_go_on_after_a_restart() {
    let crm = FakeService::start();
    crm.answers(503, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let first = crm.next().await;
    written_down(&app, 1).await;
    let (folder, time) = (app.folder.clone(), app.hand.now());
    app.app.stop().await;

    crm.answers(200, &json!({}));
    let saturating_add = time + chrono::TimeDelta::seconds(60);
    let again = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .after(&folder, saturating_add)
        .start()
        .await;
    let second = crm.next().await;
    assert_eq!(
        second.header("Idempotency-Key"),
        first.header("Idempotency-Key")
    );
    assert_eq!(settled(&again).await.state, State::Delivered);
}

#[tokio::test]
async fn what_does_not_arrive_is_abandoned_in_the_end_and_can_be_tried_again_by_hand() {
    let crm = FakeService::start();
    crm.answers(500, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let began = app.hand.now();
    crm.next().await;
    let mut tries = 1;
    while written_down(&app, tries).await.state == State::Pending {
        try_after(&app, &crm, tries).await;
        tries += 1;
    }
    let one = settled(&app).await;
    assert_eq!(one.state, State::Abandoned);
    assert_eq!(
        (app.hand.now() - began).num_hours(),
        48,
        "the last try is at the end of `keep_trying_for`"
    );
    assert!(tries > 48, "{tries} tries");
    assert_eq!(one.last_error.as_deref(), Some("status 500"));
    assert!((app.metric("vestibule_deliveries_abandoned").await - 1.0).abs() < 0.1);

    crm.answers(200, &json!({}));
    let two_days = Duration::from_hours(48);
    assert_eq!(
        app.app
            .store
            .retry(&Filter::default(), app.hand.now(), two_days)
            .await
            .unwrap(),
        1
    );
    app.hand.advance(Duration::from_mins(1));
    crm.next().await;
    assert_eq!(settled(&app).await.state, State::Delivered);
}

#[tokio::test]
async fn a_receiver_that_says_410_is_not_asked_again() {
    let crm = FakeService::start();
    crm.answers(410, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next().await;
    assert_eq!(settled(&app).await.state, State::Abandoned);
}

#[tokio::test]
async fn a_receiver_that_asks_for_patience_gets_it() {
    let crm = FakeService::start();
    crm.does(Behaviour::AnswersWith(
        503,
        String::new(),
        ("Retry-After", "1800".to_owned()),
    ));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let began = app.hand.now();
    crm.next().await;
    let due = written_down(&app, 1).await.next_attempt_at.unwrap();
    assert!((due - began).num_seconds() >= 1800, "{due}");
}

#[tokio::test]
async fn a_receiver_that_hangs_is_given_up_after_its_timeout_and_tried_again() {
    let crm = FakeService::start();
    crm.does(Behaviour::Hangs);
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next().await;
    app.hand.advance(Duration::from_secs(3));
    let one = written_down(&app, 1).await;
    assert_eq!(one.last_error.as_deref(), Some("timeout"));
    crm.end_hangs();
    try_after(&app, &crm, 1).await;
    assert_eq!(settled(&app).await.state, State::Delivered);
}

#[tokio::test]
async fn settings_changes_are_delivered_with_what_was_before() {
    let crm = FakeService::start();
    let app = TestApp::with(
        "subscriptions: {crm: {events: [identity.updated], when: identity.traits.email != previous.traits.email, send: {post: \"${env:CRM}/x\"}}}",
    )
    .service("CRM", &crm)
    .start()
    .await;
    let path = "/hooks/settings/post?method=profile";
    let same = payload().changed_from(&json!({"email": "canary@example.org"}));
    assert_eq!(app.call(path, same.to_string()).await.status, 204);
    let changed = payload().changed_from(&json!({"email": "canary-before@example.org"}));
    assert_eq!(app.call(path, changed.to_string()).await.status, 204);
    let sent = crm.next().await.json();
    assert_eq!(sent["type"], "identity.updated");
    assert_eq!(
        sent["data"]["previous"]["traits"]["email"],
        "canary-before@example.org"
    );
    assert_eq!(crm.received().len(), 1);
}

/// Waits until so many tries are written down, lets time pass until the next is due, and waits for it.
async fn try_after(
    app: &TestApp,
    crm: &FakeService,
    tries: u32,
) -> crate::support::service::Received {
    let due = written_down(app, tries)
        .await
        .next_attempt_at
        .expect("another try");
    app.hand
        .advance((due - app.hand.now()).to_std().unwrap_or_default());
    crm.next().await
}

/// The one delivery, once so many tries of it are written down.
async fn written_down(app: &TestApp, tries: u32) -> DeliverySummary {
    loop {
        let mut done = 0.0;
        for outcome in ["delivered", "retried", "abandoned"] {
            let plan = format!(
                "vestibule_delivery_attempts_total{{subscription=\"contact\",outcome=\"{outcome}\"}}"
            );
            done += app.metric(&plan).await;
        }
        if done + 0.5 > f64::from(tries) {
            return listed(app).await[0].clone();
        }
    }
}

async fn listed(app: &TestApp) -> Vec<DeliverySummary> {
    app.app
        .store
        .list(&Filter::default(), 10)
        .await
        .expect("a list")
}

/// Waits until the one delivery is delivered or abandoned.
async fn settled(app: &TestApp) -> DeliverySummary {
    loop {
        let all = listed(app).await;
        assert_eq!(all.len(), 1);
        if all[0].state != State::Pending {
            return all[0].clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn stopping_finishes_the_deliveries_under_way_over_a_connection_that_a_check_opened() {
    let crm = FakeService::start();
    let yaml = format!("{CRM}checks: {{known: {{ask: {{service: crm, get: /known}}}}}}\n");
    let app = TestApp::with(&yaml)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.pre(&payload()).await.status, 204);
    crm.next().await;
    crm.does(Behaviour::Hangs);
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next().await;
    let (folder, now, url) = (app.folder.clone(), app.hand.now(), app.url(""));
    let stopping = tokio::spawn(app.app.stop());
    let address = url.trim_start_matches("http://").to_owned();
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    crm.end_hangs();
    stopping.await.unwrap();
    let again = TestApp::with(&yaml)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .after(&folder, now)
        .start()
        .await;
    let one = settled(&again).await;
    assert_eq!((one.state, one.attempts), (State::Delivered, 1));
}

#[tokio::test]
async fn an_account_whose_metadata_is_no_object_is_delivered_too() {
    let crm = FakeService::start();
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    let body = payload()
        .saved()
        .with("/identity/metadata_public", json!(["canary"]));
    assert_eq!(app.post(&body).await.status, 204);
    assert_eq!(
        crm.next().await.json()["data"]["identity"]["metadata_public"],
        json!(["canary"])
    );
    assert_eq!(app.settings(&body).await.status, 204);
}

#[tokio::test]
async fn each_kind_of_change_is_an_event_of_its_own() {
    let crm = FakeService::start();
    let app = TestApp::with(
        r#"
subscriptions:
  all:
    events: [identity.created, identity.updated, credentials.changed, identity.verified]
    send: {post: "${env:CRM}/told"}
"#,
    )
    .service("CRM", &crm)
    .start()
    .await;
    let changed = payload().changed_from(&json!({"email": "before@example.org"}));
    for (path, body, event) in [
        (
            "/hooks/registration/post?method=password",
            payload().saved(),
            "identity.created",
        ),
        (
            "/hooks/settings/post?method=profile",
            changed.clone(),
            "identity.updated",
        ),
        (
            "/hooks/settings/post?method=password",
            changed.clone(),
            "credentials.changed",
        ),
        (
            "/hooks/settings/post?method=totp",
            changed,
            "credentials.changed",
        ),
        (
            "/hooks/verification/post",
            payload().saved(),
            "identity.verified",
        ),
    ] {
        let reply = app.call(path, body.0.to_string()).await;
        assert_eq!(reply.status, 204, "{path}");
        assert_eq!(crm.next().await.json()["type"], event, "{path}");
    }
    // There is nothing to refuse in a verification.
    let reply = app
        .call("/hooks/verification/pre", payload().0.to_string())
        .await;
    assert_eq!(reply.status, 404);
    assert!(!reply.messages().is_empty());
}
