//! Vestibule records every accepted sign-up until its outcome is known.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::kratos::fingerprint::guard_id;
use vestibule::model::delivery::State;
use vestibule::model::pending::PendingState;
use vestibule::store::{Acceptance, WriteSet};

use crate::support::app::{KEY, uuid};
use crate::support::failing_store::FailingStore;
use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:CRM}/created"}}
  failures: {events: [registration.failed], send: {post: "${env:CRM}/failed"}}
"#;
const REGISTRATION_POST: &str = "/hooks/registration/post?method=password";

async fn test_env() -> (TestApp, FakeKratos, FakeService) {
    test_env_with(SETTINGS).await
}

async fn test_env_with(yaml: &str) -> (TestApp, FakeKratos, FakeService) {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(yaml)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    (app, kratos, crm)
}

async fn test_env_on(store: Arc<FailingStore>) -> (TestApp, FakeKratos, FakeService) {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(SETTINGS)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .store(store)
        .start()
        .await;
    (app, kratos, crm)
}

fn visitor_with(email: &str) -> Payload {
    payload()
        .with_trait("email", email)
        .with("/identity/state_changed_at", "2026-11-23T14:32:53.1Z")
        .with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        )
}

#[tokio::test]
async fn an_account_whose_post_is_lost_is_delivered_once() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("lost@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    let id = kratos.add_identity("lost@example.org", "2026-11-23T14:32:53.2Z");
    app.clock.advance(Duration::from_secs(61));
    let event = crm.next_call().await.json();
    assert_eq!(event["type"], "identity.created");
    assert_eq!(event["data"]["identity"]["id"], json!(id));
    assert_eq!(event["data"]["identity"]["metadata_public"], json!({}));
    assert_eq!(event["data"]["identity"].get("metadata_admin"), None);
    app.wait_for_delivery("crm", State::Delivered).await;
    assert!(
        (app.metric("vestibule_pending_ended_total{end=\"created\"}")
            .await
            - 1.0)
            .abs()
            < 0.1
    );
    // The `post` arrives late, for the same account.
    assert_eq!(app.post(&visitor.saved_as(id)).await.status, 204);
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn a_change_that_is_looked_up_before_its_post_is_delivered_once() {
    let yaml = SETTINGS.replace("[identity.created]", "[identity.updated]");
    let (app, kratos, crm) = test_env_with(&yaml).await;
    let id = kratos.add_identity("changed@example.org", "2026-11-23T14:32:54Z");
    let before = json!({"email": "before@example.org"});
    let change = visitor_with("changed@example.org")
        .changed_from(&before)
        .saved_as(id);
    assert!(app.settings(&change).await.is_admitted());
    app.wait_for_pending_sign_up(&change).await;
    app.clock.advance(Duration::from_secs(61));
    crm.next_call().await;
    app.wait_for_delivery("crm", State::Delivered).await;

    let post = "/hooks/settings/post?method=profile";
    for _ in 0..2 {
        assert_eq!(app.call(post, change.to_string()).await.status, 204);
    }
    assert_eq!(app.deliveries("crm").await.len(), 1);

    // The same values again after other ones are another change.
    let other = Payload(change.0.clone()).with_trait("company", "Canary AG");
    for one in [&other, &change] {
        assert!(app.settings(one).await.is_admitted());
        app.wait_for_pending_sign_up(one).await;
        assert_eq!(app.call(post, one.to_string()).await.status, 204);
    }
    assert_eq!(app.deliveries("crm").await.len(), 3);
}

#[tokio::test]
async fn a_change_is_recorded_before_its_post_can_arrive() {
    let yaml = SETTINGS.replace("[identity.created]", "[identity.updated]");
    let (app, kratos, _crm) = test_env_with(&yaml).await;
    let id = kratos.add_identity("changed@example.org", "2026-11-23T14:32:54Z");
    let before = json!({"email": "before@example.org"});
    let change = visitor_with("changed@example.org")
        .changed_from(&before)
        .saved_as(id);
    assert!(app.settings(&change).await.is_admitted());
    let pending = app.app.store.flow(change.flow_id()).await;
    assert_eq!(pending.expect("an answer").pending.len(), 1);
    let post = "/hooks/settings/post?method=profile";
    assert_eq!(app.call(post, change.to_string()).await.status, 204);
    app.clock.advance(Duration::from_secs(61));
    // The first look-up is for another change.
    let other = visitor_with("other@example.org").changed_from(&before);
    app.settings(&other).await;
    app.clock.advance(Duration::from_secs(61));
    kratos.next_call().await;
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn a_flow_that_a_post_closed_is_not_looked_up() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("saved@example.org");
    app.pre(&visitor).await;
    app.wait_for_pending_sign_up(&visitor).await;
    assert_eq!(app.post(&visitor.saved()).await.status, 204);
    crm.next_call().await;
    // The first call to Kratos is for the other sign-up.
    let other = visitor_with("other@example.org");
    app.pre(&other).await;
    app.wait_for_pending_sign_up(&other).await;
    app.clock.advance(Duration::from_secs(61));
    let id = guard_id(other.flow_id()).replace(':', "%3A");
    assert!(kratos.next_call().await.contains(&id));
}

#[tokio::test]
async fn a_sign_up_without_an_account_is_reported_as_failed_when_its_flow_expires() {
    let (app, kratos, crm) = test_env().await;
    // An earlier account has this address.
    kratos.add_identity("taken@example.org", "2026-11-23T14:32:52.9Z");
    let visitor = visitor_with("taken@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    app.clock.advance(Duration::from_secs(61));
    kratos.next_call().await;
    app.wait_for_lookups().await;
    assert_eq!(app.deliveries("crm").await, []);
    // The flow can still become an account. Its last look-up is after it expires.
    app.clock.advance(Duration::from_mins(61));
    let event = crm.next_call().await;
    assert_eq!(event.target, "/failed");
    let event = event.json();
    assert_eq!(event["type"], "registration.failed");
    assert_eq!(
        event["data"]["identity"]["traits"]["email"],
        "taken@example.org"
    );
    app.wait_for_delivery("failures", State::Delivered).await;
    assert_eq!(app.deliveries("crm").await, []);
    let state = app.app.store.flow(visitor.flow_id()).await.unwrap();
    assert!(
        state
            .pending
            .iter()
            .all(|one| one.state == PendingState::NeverCreated)
    );
}

#[tokio::test]
async fn an_empty_post_looks_up_all_recent_sign_ups_immediately() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("silent@example.org");
    app.pre(&visitor).await;
    app.wait_for_pending_sign_up(&visitor).await;
    let id = kratos.add_identity("silent@example.org", "2026-11-23T14:32:53.2Z");
    assert_eq!(app.call(REGISTRATION_POST, "").await.status, 204);
    // No time has passed.
    assert_eq!(
        crm.next_call().await.json()["data"]["identity"]["id"],
        json!(id)
    );
}

#[tokio::test]
async fn nothing_is_concluded_while_kratos_is_unavailable() {
    let (app, kratos, crm) = test_env().await;
    kratos.set_down(true);
    let visitor = visitor_with("later@example.org");
    app.pre(&visitor).await;
    app.wait_for_pending_sign_up(&visitor).await;
    let id = kratos.add_identity("later@example.org", "2026-11-23T14:32:53.2Z");
    app.clock.advance(Duration::from_hours(3));
    kratos.next_call().await;
    app.wait_for_lookups().await;
    kratos.set_down(false);
    app.clock.advance(Duration::from_mins(17));
    assert_eq!(
        crm.next_call().await.json()["data"]["identity"]["id"],
        json!(id)
    );
    assert_eq!(app.deliveries("failures").await, []);
}

#[tokio::test]
async fn a_database_that_fails_after_the_acceptance_shows_no_visitor_an_error_page() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let (app, kratos, crm) = test_env_on(store.clone()).await;
    let (known, unknown) = (
        visitor_with("known@example.org"),
        visitor_with("unknown@example.org"),
    );
    app.pre(&known).await;
    app.wait_for_pending_sign_up(&known).await;
    store.set_failing(true);
    // The acceptance could not be recorded, and that delayed no response.
    assert!(app.pre(&unknown).await.is_admitted());
    let id = kratos.add_identity("known@example.org", "2026-11-23T14:32:53.2Z");
    assert_eq!(app.post(&known.clone().saved_as(id)).await.status, 204);
    assert_eq!(app.post(&unknown.saved()).await.status, 503);
    app.eventually("the dropped acceptance is counted", async || {
        let dropped = app.metric("vestibule_pending_dropped_total").await;
        ((dropped - 1.0).abs() < 0.1).then_some(())
    })
    .await;
    store.set_failing(false);
    let alarms = "vestibule_lost_posts_total{reason=\"not_stored\"}";
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
    app.clock.advance(Duration::from_mins(2));
    assert_eq!(
        crm.next_call().await.json()["data"]["identity"]["id"],
        json!(id)
    );
}

#[tokio::test]
async fn social_sign_ups_are_found_by_the_external_id_that_pre_returns() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("social@example.org");
    let pre = "/hooks/registration/pre?method=oidc";
    let reply = app.call(pre, visitor.to_string()).await;
    assert_eq!(reply.status, 200);
    let external_id = guard_id(visitor.flow_id());
    assert_eq!(
        reply.json(),
        json!({"identity": {"external_id": external_id}})
    );
    app.wait_for_pending_sign_up(&visitor).await;
    let id = kratos.add_identity("other-identifier", "2026-11-23T14:32:53.2Z");
    kratos.set_value(id, "/external_id", json!(external_id));
    app.clock.advance(Duration::from_secs(61));
    assert_eq!(
        crm.next_call().await.json()["data"]["identity"]["id"],
        json!(id)
    );
}

#[tokio::test]
async fn a_social_sign_up_that_is_not_found_is_not_reported_as_failed() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("social@example.org");
    let headers = [
        ("X-Vestibule-Key", KEY),
        ("Ory-Webhook-Trigger-ID", &uuid()),
    ];
    let pre = "/hooks/registration/pre?method=oidc";
    assert!(
        app.call_with(pre, visitor.to_string(), &headers)
            .await
            .is_admitted()
    );
    app.wait_for_pending_sign_up(&visitor).await;
    app.clock.advance(Duration::from_hours(2));
    kratos.next_call().await;
    let undecided = "vestibule_pending_ended_total{end=\"undecided\"}";
    app.eventually("the sign-up is undecided", async || {
        (app.metric(undecided).await > 0.5).then_some(())
    })
    .await;
    assert_eq!(app.deliveries("failures").await, []);
    assert_eq!(crm.received().len(), 0);
}

#[tokio::test]
async fn the_identity_schema_names_the_identifier_for_a_look_up() {
    let folder = tempfile::tempdir().unwrap();
    let schema = json!({"properties": {"traits": {"properties": {
        "name": {"ory.sh/kratos": {"credentials": {"password": {"identifier": true}}}},
    }}}});
    let file = folder.path().join("schema.json");
    std::fs::write(&file, schema.to_string()).unwrap();
    let setting = format!(
        "\"${{env:KRATOS}}\", identity_schema: \"file://{}\"",
        file.display()
    );
    let (app, kratos, crm) = test_env_with(&SETTINGS.replace("\"${env:KRATOS}\"", &setting)).await;
    let visitor = payload().with_trait("name", "ada l.");
    app.pre(&visitor).await;
    app.wait_for_pending_sign_up(&visitor).await;
    let id = kratos.add_identity("ada l.", "2026-11-23T14:33:00Z");
    kratos.set_value(id, "/traits", visitor.0["identity"]["traits"].clone());
    app.clock.advance(Duration::from_secs(61));
    // Kratos has not proved yet that it stores the `external_id`.
    assert!(kratos.next_call().await.contains("/by/external/"));
    assert!(
        kratos
            .next_call()
            .await
            .contains("credentials_identifier=ada%20l%2E")
    );
    assert_eq!(
        crm.next_call().await.json()["data"]["identity"]["id"],
        json!(id)
    );
    let _: Uuid = id;
}

#[tokio::test]
async fn an_account_is_attributed_to_one_of_two_sign_ups_of_a_visitor() {
    let (app, kratos, crm) = test_env().await;
    let (abandoned, submitted) = (
        visitor_with("twice@example.org"),
        visitor_with("twice@example.org"),
    );
    app.pre(&abandoned).await;
    app.wait_for_pending_sign_up(&abandoned).await;
    app.pre(&submitted).await;
    let id = kratos.add_identity("twice@example.org", "2026-11-23T14:32:53.9Z");
    assert_eq!(app.post(&submitted.saved_as(id)).await.status, 204);
    crm.next_call().await;
    app.wait_for_delivery("crm", State::Delivered).await;
    app.clock.advance(Duration::from_secs(61));
    kratos.next_call().await;
    app.wait_for_lookups().await;
    app.clock.advance(Duration::from_hours(2));
    // The first sign-up has no account.
    assert_eq!(crm.next_call().await.target, "/failed");
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn post_answers_503_if_a_look_up_cannot_find_the_account() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let (app, _, crm) = test_env_on(store.clone()).await;
    let visitor = visitor_with("social@example.org");
    let pre = "/hooks/registration/pre?method=oidc";
    assert!(app.call(pre, visitor.to_string()).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    store.set_failing(true);
    let post = "/hooks/registration/post?method=oidc";
    let saved = visitor.saved().to_string();
    // Kratos has to repeat the call.
    assert_eq!(app.call(post, saved.clone()).await.status, 503);
    store.set_failing(false);
    assert_eq!(app.call(post, saved).await.status, 204);
    assert_eq!(crm.next_call().await.target, "/created");
}

#[tokio::test]
async fn an_account_created_long_after_the_acceptance_is_not_attributed() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("twice@example.org");
    app.pre(&visitor).await;
    app.wait_for_pending_sign_up(&visitor).await;
    kratos.add_identity("twice@example.org", "2026-11-23T14:52:53.2Z");
    app.clock.advance(Duration::from_mins(63));
    assert_eq!(crm.next_call().await.target, "/failed");
    assert_eq!(app.deliveries("crm").await, []);
}

/// Without an `external_id`, an account with the same address can be from another sign-up of the same visitor.
#[tokio::test]
async fn an_account_with_other_traits_is_attributed_only_after_the_flow_expires() {
    let (app, kratos, crm) = test_env().await;
    let visitor = visitor_with("changed@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    let id = kratos.add_identity("changed@example.org", "2026-11-23T14:32:53.2Z");
    kratos.set_value(id, "/traits/company", json!("as a later hook wrote it"));
    app.clock.advance(Duration::from_mins(11));
    kratos.next_call().await;
    app.wait_for_lookups().await;
    assert_eq!(app.deliveries("crm").await, []);
    app.clock.advance(Duration::from_mins(52));
    assert_eq!(
        crm.next_call().await.json()["data"]["identity"]["id"],
        json!(id)
    );
    assert_eq!(app.deliveries("failures").await, []);
}

#[tokio::test]
async fn a_lookup_that_a_stop_interrupts_is_repeated_immediately_after_the_restart() {
    let (app, kratos, crm) = test_env().await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    kratos.service.set_behaviour(Behaviour::Hangs);
    app.clock.advance(Duration::from_secs(6));
    kratos.service.next_call().await;
    let (folder, now) = app.stop().await;
    kratos.service.release_hanging_calls();
    kratos.answer_normally();
    let app = TestApp::with(SETTINGS)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .in_folder(&folder, now)
        .start()
        .await;
    app.wait_for_lookups().await;
}

/// Another instance is slow, and records a call whose retry was accepted and saved.
#[tokio::test]
async fn a_record_that_is_stored_after_the_attribution_does_not_reopen_the_sign_up() {
    let yaml = SETTINGS.replace("KRATOS}\"", "KRATOS}\", use_external_id: never");
    let (app, kratos, _crm) = test_env_with(&yaml).await;
    let visitor = visitor_with("saved@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    let state = app.app.store.flow(visitor.flow_id()).await.unwrap();
    let mut sign_up = state.pending[0].clone();
    let id = kratos.add_identity("saved@example.org", "2026-11-23T14:32:53.2Z");
    assert_eq!(app.post(&visitor.saved_as(id)).await.status, 204);
    sign_up.accepted_at = app.clock.now() + Duration::from_secs(1);
    let late = Acceptance {
        next_lookup_at: Some(sign_up.accepted_at + Duration::from_secs(5)),
        sign_up,
        must_hold: false,
    };
    let late = WriteSet {
        accepted: vec![late],
        ..WriteSet::default()
    };
    app.app.store.write(&late).await.unwrap();
    for step in [6, 25, 90, 500, 4000] {
        app.clock.advance(Duration::from_secs(step));
        app.wait_for_lookups().await;
    }
    assert_eq!(app.deliveries("failures").await, []);
    assert_eq!(app.deliveries("crm").await.len(), 1);
}
