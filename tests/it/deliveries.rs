//! Deliveries, from `post` to the target.

use std::time::Duration;

use serde_json::json;
use vestibule::model::delivery::State;
use vestibule::store::{DeliverySummary, Filter, RetryOptions};

use crate::support::fake_service::Behaviour;
use crate::support::{FakeService, TestApp, bounded, eventually, payload};

const CRM: &str = r#"
services: {crm: {url: "${env:CRM}", auth: {type: bearer, config: {token: "${env:TOKEN}"}}}}
subscriptions:
  contact: {events: [identity.created], retry: {max_elapsed: 2d}, send: {service: crm, post: /contacts}}
"#;

#[tokio::test]
async fn a_new_account_is_delivered_with_the_default_body_and_a_stable_idempotency_key() {
    let crm = FakeService::start();
    crm.respond_with(503, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    let body = payload().saved();
    assert_eq!(app.post(&body).await.status, 204);
    let first = crm.next_call().await;
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

    crm.respond_with(201, &json!({}));
    let second = next_attempt_after(&app, &crm, 1).await;
    assert_eq!(
        second.header("Idempotency-Key"),
        first.header("Idempotency-Key")
    );
    assert!(first.header("Idempotency-Key").is_some());
    assert_eq!(second.body, first.body);
    let one = wait_until_settled(&app).await;
    assert_eq!((one.state, one.attempts), (State::Delivered, 2));
}

#[tokio::test]
async fn a_delivery_is_signed_with_each_secret_of_a_rotation_and_keeps_its_id() {
    let secrets = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    ];
    let crm = FakeService::start();
    crm.respond_with(503, &json!({}));
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
    let first = crm.next_call().await;
    crm.respond_with(204, &json!({}));
    let second = next_attempt_after(&app, &crm, 1).await;
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
    let request = crm.next_call().await;
    assert_eq!(request.target, "/free");
    assert_eq!(request.header("webhook-signature"), None);
}

#[tokio::test]
async fn retries_continue_after_a_restart() {
    let crm = FakeService::start();
    crm.respond_with(503, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let first = crm.next_call().await;
    wait_for_recorded_attempts(&app, 1).await;
    let (folder, time) = app.stop().await;

    crm.respond_with(200, &json!({}));
    let later = time + chrono::TimeDelta::seconds(60);
    let again = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .in_folder(&folder, later)
        .start()
        .await;
    let second = crm.next_call().await;
    assert_eq!(
        second.header("Idempotency-Key"),
        first.header("Idempotency-Key")
    );
    assert_eq!(wait_until_settled(&again).await.state, State::Delivered);
}

#[tokio::test]
async fn a_failing_delivery_is_abandoned_after_max_elapsed_and_can_be_retried() {
    let crm = FakeService::start();
    crm.respond_with(500, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let began = app.clock.now();
    crm.next_call().await;
    let mut attempts = 1;
    // The clock advances with each attempt, so `max_elapsed` bounds the loop.
    while wait_for_recorded_attempts(&app, attempts).await.state == State::Pending {
        next_attempt_after(&app, &crm, attempts).await;
        attempts += 1;
    }
    let one = wait_until_settled(&app).await;
    assert_eq!(one.state, State::Abandoned);
    assert_eq!(
        (app.clock.now() - began).num_hours(),
        48,
        "the last attempt is at the end of `max_elapsed`"
    );
    assert!(attempts > 48, "{attempts} attempts");
    assert_eq!(one.last_error.as_deref(), Some("status 500"));
    assert!((app.metric("vestibule_deliveries_abandoned").await - 1.0).abs() < 0.1);

    crm.respond_with(200, &json!({}));
    let two_days = Duration::from_hours(48);
    assert_eq!(
        app.app
            .store
            .retry(
                &Filter::default(),
                app.clock.now(),
                RetryOptions::of(two_days)
            )
            .await
            .unwrap(),
        1
    );
    app.clock.advance(Duration::from_mins(1));
    crm.next_call().await;
    assert_eq!(wait_until_settled(&app).await.state, State::Delivered);
}

#[tokio::test]
async fn a_delivery_is_abandoned_after_a_410() {
    let crm = FakeService::start();
    crm.respond_with(410, &json!({}));
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next_call().await;
    assert_eq!(wait_until_settled(&app).await.state, State::Abandoned);
}

#[tokio::test]
async fn retry_after_postpones_the_next_attempt() {
    let crm = FakeService::start();
    crm.set_behaviour(Behaviour::AnswersWith(
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
    let began = app.clock.now();
    crm.next_call().await;
    let due = wait_for_recorded_attempts(&app, 1)
        .await
        .next_attempt_at
        .unwrap();
    assert!((due - began).num_seconds() >= 1800, "{due}");
}

#[tokio::test]
async fn an_attempt_that_hangs_times_out_and_is_retried() {
    let crm = FakeService::start();
    crm.set_behaviour(Behaviour::Hangs);
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next_call().await;
    app.clock.advance(Duration::from_secs(15));
    let one = wait_for_recorded_attempts(&app, 1).await;
    assert_eq!(one.last_error.as_deref(), Some("timeout"));
    crm.release_hanging_calls();
    next_attempt_after(&app, &crm, 1).await;
    assert_eq!(wait_until_settled(&app).await.state, State::Delivered);
}

#[tokio::test]
async fn a_settings_change_is_delivered_with_the_previous_identity() {
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
    let sent = crm.next_call().await.json();
    assert_eq!(sent["type"], "identity.updated");
    assert_eq!(
        sent["data"]["previous"]["traits"]["email"],
        "canary-before@example.org"
    );
    assert_eq!(crm.received().len(), 1);
}

/// Waits until this number of attempts is recorded, advances the clock to the next one, and waits for it.
async fn next_attempt_after(
    app: &TestApp,
    crm: &FakeService,
    attempts: u32,
) -> crate::support::fake_service::Received {
    let due = wait_for_recorded_attempts(app, attempts)
        .await
        .next_attempt_at
        .expect("another attempt");
    app.clock
        .advance((due - app.clock.now()).to_std().unwrap_or_default());
    crm.next_call().await
}

/// Waits until this number of attempts is recorded, and returns the only delivery.
async fn wait_for_recorded_attempts(app: &TestApp, attempts: u32) -> DeliverySummary {
    app.eventually(&format!("{attempts} attempts are recorded"), async || {
        let mut done = 0.0;
        for outcome in ["delivered", "retried", "abandoned"] {
            let name = format!(
                "vestibule_delivery_attempts_total{{subscription=\"contact\",outcome=\"{outcome}\"}}"
            );
            done += app.metric(&name).await;
        }
        (done + 0.5 > f64::from(attempts)).then_some(())
    })
    .await;
    list_deliveries(app).await[0].clone()
}

async fn list_deliveries(app: &TestApp) -> Vec<DeliverySummary> {
    app.app
        .store
        .list(&Filter::default(), 10)
        .await
        .expect("a list")
}

/// Waits until the only delivery is settled.
async fn wait_until_settled(app: &TestApp) -> DeliverySummary {
    app.eventually("the delivery is settled", async || {
        let mut all = list_deliveries(app).await;
        assert_eq!(all.len(), 1);
        all.pop().filter(|one| one.state != State::Pending)
    })
    .await
}

#[tokio::test]
async fn a_stop_waits_for_running_attempts_on_connections_that_a_check_opened() {
    let crm = FakeService::start();
    let yaml = format!("{CRM}checks: {{known: {{ask: {{service: crm, get: /known}}}}}}\n");
    let app = TestApp::with(&yaml)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.pre(&payload()).await.status, 204);
    crm.next_call().await;
    crm.set_behaviour(Behaviour::Hangs);
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next_call().await;
    let (folder, now, url) = (app.folder.clone(), app.clock.now(), app.url(""));
    let stopping = tokio::spawn(app.app.stop());
    let address = url.trim_start_matches("http://").to_owned();
    eventually("no connection is accepted", async || {
        (tokio::net::TcpStream::connect(&address).await.is_err()).then_some(())
    })
    .await;
    crm.release_hanging_calls();
    bounded("Vestibule stops", stopping).await.unwrap();
    let again = TestApp::with(&yaml)
        .service("CRM", &crm)
        .env("TOKEN", "canary-token")
        .in_folder(&folder, now)
        .start()
        .await;
    let one = wait_until_settled(&again).await;
    assert_eq!((one.state, one.attempts), (State::Delivered, 1));
}

#[tokio::test]
async fn an_account_with_metadata_that_is_no_object_is_delivered() {
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
        crm.next_call().await.json()["data"]["identity"]["metadata_public"],
        json!(["canary"])
    );
    assert_eq!(app.settings(&body).await.status, 204);
}

#[tokio::test]
async fn each_kind_of_change_has_its_own_event() {
    let crm = FakeService::start();
    let app = TestApp::with(
        r#"
subscriptions:
  all:
    events: [identity.created, identity.updated, credentials.changed, identity.verified]
    send: {post: "${env:CRM}/events"}
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
        assert_eq!(crm.next_call().await.json()["type"], event, "{path}");
    }
    // A verification cannot be refused.
    let reply = app
        .call("/hooks/verification/pre", payload().0.to_string())
        .await;
    assert_eq!(reply.status, 404);
    assert!(!reply.messages().is_empty());
}
