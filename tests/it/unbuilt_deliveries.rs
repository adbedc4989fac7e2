//! A delivery whose request cannot be built is kept with its event, and is built with corrected settings.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::model::delivery::{AbandonReason, State};

use super::delivery_order::{all_deliveries, deliver_all, wait_until_idle};
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, logs, payload};

const CREATED: &str = "/hooks/registration/post?method=password";
const UPDATED: &str = "/hooks/settings/post?method=profile";
const VERIFIED: &str = "/hooks/verification/post";

fn settings(subscription: &str) -> String {
    format!(
        "services: {{crm: {{url: \"${{env:CRM}}\"}}}}\n\
         subscriptions: {{crm: {{events: [identity.created, identity.updated, identity.verified], {subscription}}}}}\n"
    )
}

/// Restarts Vestibule with other settings, a minute later.
async fn restart_with(app: TestApp, yaml: &str, crm: &FakeService) -> TestApp {
    let (folder, time) = (app.folder.clone(), app.clock.now());
    app.app.stop().await;
    let later = time + chrono::TimeDelta::seconds(60);
    TestApp::with(yaml)
        .service("CRM", crm)
        .in_folder(&folder, later)
        .start()
        .await
}

async fn retry_all(app: &TestApp) -> u64 {
    let answer = app
        .admin_post("/deliveries/retry", r#"{"all": true}"#)
        .await;
    answer.json()["changed"].as_u64().expect("a number")
}

#[tokio::test]
async fn corrected_settings_build_what_could_not_be_built() {
    let changed = payload().changed_from(&json!({"email": "canary-before@example.org"}));
    let of_flow = payload()
        .saved()
        .with("/flow/transient_payload", json!({"invite": "canary-7"}));
    for (broken, corrected, hook, body, expected) in [
        (
            r#"send: {service: crm, post: "/u/{identity.traits.nick}", json: {a: 1}}"#,
            r#"send: {service: crm, post: "/u/{identity.traits.email}", json: {a: 1}}"#,
            CREATED,
            payload().saved(),
            r#"POST /u/canary%40example.org {"a":1}"#,
        ),
        (
            r#"send: {service: crm, post: /u, json: {n: "{identity.traits.address.city}"}}"#,
            r#"send: {service: crm, put: /v, json: {n: "{identity.traits.?address.city}"}}"#,
            VERIFIED,
            payload().saved(),
            r#"PUT /v {"n":null}"#,
        ),
        (
            r#"send: {service: crm, get: /u, query: {old: "{identity.traits.phone}"}}"#,
            r#"send: {service: crm, get: /u, query: {old: "{identity.traits.email}"}}"#,
            UPDATED,
            changed,
            "GET /u?old=canary%40example.org",
        ),
        (
            r#"when: "identity.traits.nick != ''", send: {service: crm, delete: "/u"}"#,
            r#"when: "identity.traits.company != ''", send: {service: crm, delete: "/u"}"#,
            CREATED,
            payload().saved(),
            "DELETE /u",
        ),
        (
            r#"send: {service: crm, get: /u, headers: {X-Note: "{flow.transient_payload.none}"}}"#,
            r#"send: {service: crm, get: "/u/{flow.transient_payload.invite}"}"#,
            CREATED,
            of_flow,
            "GET /u/canary-7",
        ),
        (
            r#"send: {service: crm, post: /u, form: {tags: "{identity.traits.tags}"}}"#,
            r#"send: {service: crm, post: /u, form: {tags: "{identity.traits.tags[0]}"}}"#,
            VERIFIED,
            payload().saved().with_trait("tags", json!(["canary-a"])),
            "POST /u tags=canary-a",
        ),
    ] {
        let crm = FakeService::start();
        let app = TestApp::with(&settings(broken))
            .service("CRM", &crm)
            .start()
            .await;
        call(&app, hook, &body).await;
        let kept = all_deliveries(&app).await.remove(0);
        assert_eq!(kept.state, State::Abandoned, "{broken}");
        assert_eq!(kept.reason, Some(AbandonReason::NotBuilt), "{broken}");
        assert_eq!(kept.attempts, 0, "{broken}");
        let count = app
            .metric("vestibule_deliveries_not_built_total{subscription=\"crm\"}")
            .await;
        assert!((count - 1.0).abs() < 0.1, "{broken}: {count}");
        let id = kept.id.to_string();
        let lines = logs::lines_with(&id);
        assert!(
            lines
                .iter()
                .any(|line| line.contains("could not be built") && line.contains("ERROR")),
            "{broken}"
        );

        // Nothing changes while the settings are wrong.
        assert_eq!(retry_all(&app).await, 1, "{broken}");
        wait_until_idle(&app).await;
        let again = all_deliveries(&app).await.remove(0);
        assert_eq!(
            (again.state, again.attempts),
            (State::Abandoned, 0),
            "{broken}"
        );
        assert!(crm.received().is_empty(), "{broken}");

        let app = restart_with(app, &settings(corrected), &crm).await;
        assert_eq!(retry_all(&app).await, 1, "{broken}");
        let call = crm.next_call().await;
        let sent = format!("{} {} {}", call.method, call.target, call.body);
        assert_eq!(sent.trim(), expected, "{broken}");
        assert_eq!(
            call.header("Idempotency-Key"),
            Some(id.as_str()),
            "{broken}"
        );
        deliver_all(&app).await;
        let done = all_deliveries(&app).await.remove(0);
        assert_eq!(
            (done.state, done.reason, done.attempts),
            (State::Delivered, None, 1),
            "{broken}"
        );
    }
}

async fn call(app: &TestApp, hook: &str, body: &Payload) {
    assert_eq!(app.call(hook, body.to_string()).await.status, 204);
}

#[tokio::test]
async fn what_was_built_once_is_sent_again_unchanged() {
    let crm = FakeService::start();
    let broken = settings(r#"send: {service: crm, post: "/{identity.traits.nick}"}"#);
    let app = TestApp::with(&broken).service("CRM", &crm).start().await;
    call(&app, CREATED, &payload().saved()).await;
    let corrected =
        settings(r#"send: {service: crm, post: "/first/{identity.traits.company}", json: {a: 1}}"#);
    crm.respond_with(503, &json!({}));
    let app = restart_with(app, &corrected, &crm).await;
    retry_all(&app).await;
    let first = crm.next_call().await;
    wait_until_idle(&app).await;
    // Other settings do not change a request that was built.
    let other = settings(r#"send: {service: crm, post: "/second", json: {a: 2}}"#);
    crm.respond_with(200, &json!({}));
    let app = restart_with(app, &other, &crm).await;
    deliver_all(&app).await;
    let second = crm.next_call().await;
    assert_eq!(first.target, "/first/Canary%20GmbH");
    assert_eq!((second.target, second.body), (first.target, first.body));
}

#[tokio::test]
async fn a_condition_that_is_false_now_sends_nothing_and_loses_nothing() {
    let crm = FakeService::start();
    let broken = settings("when: identity.traits.nick == 'x', send: {service: crm, post: /u}");
    let app = TestApp::with(&broken).service("CRM", &crm).start().await;
    call(&app, CREATED, &payload().saved()).await;
    let corrected =
        settings("when: \"identity.traits.company == 'x'\", send: {service: crm, post: /u}");
    let app = restart_with(app, &corrected, &crm).await;
    assert_eq!(retry_all(&app).await, 1);
    wait_until_idle(&app).await;
    let kept = all_deliveries(&app).await.remove(0);
    assert_eq!(
        (kept.state, kept.reason),
        (State::Abandoned, Some(AbandonReason::NotBuilt))
    );
    let error = kept.last_error.expect("a reason");
    assert!(error.contains("`when` is false"), "{error}");
    assert!(crm.received().is_empty());
}

#[tokio::test]
async fn a_confirmation_that_could_not_be_built_is_built_by_a_retry() {
    let invites = FakeService::start();
    invites.respond_with(200, &json!({"hold": 7}));
    let yaml = |confirm: &str| {
        format!(
            r#"
checks:
  invite:
    field: traits.invite
    reserve:
      take: {{post: "${{env:CRM}}/take/{{value}}"}}
      confirm: {{post: "${{env:CRM}}/confirm/{confirm}"}}
      release: {{delete: "${{env:CRM}}/release/{{value}}"}}
"#
        )
    };
    let app = TestApp::with(&yaml("{taken.body.hold_id}"))
        .service("CRM", &invites)
        .start()
        .await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    assert_eq!(app.post(&visitor.saved().guarded()).await.status, 204);
    let kept = app
        .wait_for_delivery("confirm:invite", State::Abandoned)
        .await;
    assert_eq!(kept.reason, Some(AbandonReason::NotBuilt));
    let app = restart_with(app, &yaml("{taken.body.hold}"), &invites).await;
    assert_eq!(retry_all(&app).await, 1);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    assert_eq!(
        invites.request_lines().last().map(String::as_str),
        Some("POST /confirm/7")
    );
}

#[tokio::test]
async fn erasure_deletes_the_kept_event() {
    let crm = FakeService::start();
    let broken = settings(r#"send: {service: crm, post: "/{identity.traits.nick}"}"#);
    let app = TestApp::with(&broken).service("CRM", &crm).start().await;
    let id = Uuid::new_v4();
    call(&app, CREATED, &payload().saved_as(id)).await;
    app.app
        .store
        .forget(id, app.clock.now())
        .await
        .expect("the store answers");
    let kept = all_deliveries(&app).await.remove(0);
    assert_eq!(kept.state, State::Discarded);
    let shown = app
        .app
        .store
        .show(kept.id)
        .await
        .expect("the store answers")
        .expect("a delivery");
    assert_eq!(shown.action, None);
    assert_eq!(retry_all(&app).await, 0);
}

#[tokio::test]
async fn reconciliation_counts_what_could_not_be_built_as_missing() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let yaml = |path: &str| {
        format!(
            "kratos: {{admin_url: \"${{env:KRATOS}}\"}}\nreconcile: {{every: 1h}}\n{}",
            settings(&format!("send: {{service: crm, post: \"/u/{{{path}}}\"}}"))
        )
    };
    let app = TestApp::with(&yaml("identity.traits.nick"))
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    app.wait_for_job("reconciliation", "succeeded").await;
    let id = Uuid::new_v4();
    kratos.add_identity_with_id(id, app.clock.now());
    let traits = kratos.identity(id)["traits"].clone();
    let saved = payload().saved_as(id).with("/identity/traits", traits);
    call(&app, CREATED, &saved).await;
    let unbuilt = all_deliveries(&app).await.remove(0);
    assert_eq!(unbuilt.reason, Some(AbandonReason::NotBuilt));
    let (folder, time) = (app.folder.clone(), app.clock.now());
    app.app.stop().await;

    let app = TestApp::with(&yaml("identity.id"))
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .in_folder(&folder, time + chrono::TimeDelta::hours(2))
        .start()
        .await;
    let delivered = app
        .eventually("the identity is delivered", async || {
            // The round pauses after each page.
            app.clock.advance(Duration::from_millis(2));
            let all = all_deliveries(&app).await;
            all.into_iter().find(|one| one.state == State::Delivered)
        })
        .await;
    assert_eq!(delivered.identity_id, id);
    assert_eq!(crm.request_lines(), [format!("POST /u/{id}")]);
    assert_eq!(all_deliveries(&app).await.len(), 1);
    let missing = app
        .metric("vestibule_reconciled_total{outcome=\"stored\"}")
        .await;
    assert!((missing - 1.0).abs() < 0.1, "{missing}");
}
