//! Each yes is written down until it is known what became of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::kratos::fingerprint::guard_id;
use vestibule::model::delivery::State;
use vestibule::model::pending::PendingState;

use crate::support::app::{KEY, uuid};
use crate::support::failing::Failing;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:CRM}/made"}}
  sad: {events: [registration.failed], send: {post: "${env:CRM}/failed"}}
"#;
const EMPTY_POST: &str = "/hooks/registration/post?method=password";

async fn house() -> (TestApp, FakeKratos, FakeService) {
    house_with(SETTINGS).await
}

async fn house_with(yaml: &str) -> (TestApp, FakeKratos, FakeService) {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(yaml)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    (app, kratos, crm)
}

async fn house_on(store: Arc<Failing>) -> (TestApp, FakeKratos, FakeService) {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(SETTINGS)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .store(store)
        .start()
        .await;
    (app, kratos, crm)
}

fn person(email: &str) -> Payload {
    payload()
        .with_trait("email", email)
        .with("/identity/state_changed_at", "2026-11-23T14:32:53.1Z")
        .with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        )
}

#[tokio::test]
async fn an_account_of_which_no_post_told_is_delivered_once_all_the_same() {
    let (app, kratos, crm) = house().await;
    let person = person("lost@example.org");
    assert!(app.pre(&person).await.is_admitted());
    app.recorded(&person).await;
    let id = kratos.has("lost@example.org", "2026-11-23T14:32:53.2Z");
    app.hand.advance(Duration::from_secs(61));
    let told = crm.next().await.json();
    assert_eq!(told["type"], "identity.created");
    assert_eq!(told["data"]["identity"]["id"], json!(id));
    assert_eq!(told["data"]["identity"]["metadata_public"], json!({}));
    assert_eq!(told["data"]["identity"].get("metadata_admin"), None);
    app.delivery_in("crm", State::Delivered).await;
    assert!(
        (app.metric("vestibule_pending_ended_total{end=\"created\"}")
            .await
            - 1.0)
            .abs()
            < 0.1
    );
    // It comes after all: the account is still the same.
    assert_eq!(app.post(&person.saved_as(id)).await.status, 204);
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn a_change_that_was_looked_up_before_its_post_came_is_delivered_once() {
    let yaml = SETTINGS.replace("[identity.created]", "[identity.updated]");
    let (app, kratos, crm) = house_with(&yaml).await;
    let id = kratos.has("changed@example.org", "2026-11-23T14:32:54Z");
    let before = json!({"email": "before@example.org"});
    let change = person("changed@example.org")
        .changed_from(&before)
        .saved_as(id);
    assert!(app.settings(&change).await.is_admitted());
    app.recorded(&change).await;
    app.hand.advance(Duration::from_secs(61));
    crm.next().await;
    app.delivery_in("crm", State::Delivered).await;

    let post = "/hooks/settings/post?method=profile";
    for _ in 0..2 {
        assert_eq!(app.call(post, change.to_string()).await.status, 204);
    }
    assert_eq!(app.deliveries("crm").await.len(), 1);

    // The same values again, after other ones: a further change.
    let other = Payload(change.0.clone()).with_trait("company", "Canary AG");
    for one in [&other, &change] {
        assert!(app.settings(one).await.is_admitted());
        app.recorded(one).await;
        assert_eq!(app.call(post, one.to_string()).await.status, 204);
    }
    assert_eq!(app.deliveries("crm").await.len(), 3);
}

#[tokio::test]
async fn a_change_is_recorded_before_its_post_can_come() {
    let yaml = SETTINGS.replace("[identity.created]", "[identity.updated]");
    let (app, kratos, _crm) = house_with(&yaml).await;
    let id = kratos.has("changed@example.org", "2026-11-23T14:32:54Z");
    let before = json!({"email": "before@example.org"});
    let change = person("changed@example.org")
        .changed_from(&before)
        .saved_as(id);
    assert!(app.settings(&change).await.is_admitted());
    let pending = app.app.store.flow(change.flow_id()).await;
    assert_eq!(pending.expect("an answer").pending.len(), 1);
    let post = "/hooks/settings/post?method=profile";
    assert_eq!(app.call(post, change.to_string()).await.status, 204);
    app.hand.advance(Duration::from_secs(61));
    // The first look-up is of another change.
    let other = person("other@example.org").changed_from(&before);
    app.settings(&other).await;
    app.hand.advance(Duration::from_secs(61));
    kratos.next().await;
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn what_post_has_closed_is_looked_for_no_more() {
    let (app, kratos, crm) = house().await;
    let person = person("told@example.org");
    app.pre(&person).await;
    app.recorded(&person).await;
    assert_eq!(app.post(&person.saved()).await.status, 204);
    crm.next().await;
    // Another's look would be the first call.
    let other = self::person("other@example.org");
    app.pre(&other).await;
    app.recorded(&other).await;
    app.hand.advance(Duration::from_secs(61));
    let id = guard_id(other.flow_id()).replace(':', "%3A");
    assert!(kratos.next().await.contains(&id));
}

#[tokio::test]
async fn a_sign_up_of_which_no_account_came_is_told_at_the_end_of_its_flow() {
    let (app, kratos, crm) = house().await;
    // Somebody had this address before.
    kratos.has("taken@example.org", "2026-11-23T14:32:52.9Z");
    let person = person("taken@example.org");
    assert!(app.pre(&person).await.is_admitted());
    app.recorded(&person).await;
    app.hand.advance(Duration::from_secs(61));
    kratos.next().await;
    app.looked().await;
    assert_eq!(app.deliveries("crm").await, []);
    // The flow may still bring forth an account; its last look is after its end.
    app.hand.advance(Duration::from_mins(61));
    let told = crm.next().await;
    assert_eq!(told.target, "/failed");
    let told = told.json();
    assert_eq!(told["type"], "registration.failed");
    assert_eq!(
        told["data"]["identity"]["traits"]["email"],
        "taken@example.org"
    );
    app.delivery_in("sad", State::Delivered).await;
    assert_eq!(app.deliveries("crm").await, []);
    let state = app.app.store.flow(person.flow_id()).await.unwrap();
    assert!(
        state
            .pending
            .iter()
            .all(|one| one.state == PendingState::NeverCreated)
    );
}

#[tokio::test]
async fn an_empty_post_has_everybody_looked_for_at_once() {
    let (app, kratos, crm) = house().await;
    let person = person("silent@example.org");
    app.pre(&person).await;
    app.recorded(&person).await;
    let id = kratos.has("silent@example.org", "2026-11-23T14:32:53.2Z");
    assert_eq!(app.call(EMPTY_POST, "").await.status, 204);
    // No time has passed.
    assert_eq!(crm.next().await.json()["data"]["identity"]["id"], json!(id));
}

#[tokio::test]
async fn while_kratos_cannot_be_asked_nothing_is_concluded() {
    let (app, kratos, crm) = house().await;
    kratos.is_down(true);
    let person = person("later@example.org");
    app.pre(&person).await;
    app.recorded(&person).await;
    let id = kratos.has("later@example.org", "2026-11-23T14:32:53.2Z");
    app.hand.advance(Duration::from_hours(3));
    kratos.next().await;
    app.looked().await;
    kratos.is_down(false);
    app.hand.advance(Duration::from_mins(17));
    assert_eq!(crm.next().await.json()["data"]["identity"]["id"], json!(id));
    assert_eq!(app.deliveries("sad").await, []);
}

#[tokio::test]
async fn a_database_that_fails_after_the_yes_shows_nobody_an_error_page() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let (app, kratos, crm) = house_on(store.clone()).await;
    let (known, unknown) = (person("known@example.org"), person("unknown@example.org"));
    app.pre(&known).await;
    app.recorded(&known).await;
    store.fails(true);
    // Its yes could not be written down, and that held nobody up.
    assert!(app.pre(&unknown).await.is_admitted());
    let id = kratos.has("known@example.org", "2026-11-23T14:32:53.2Z");
    assert_eq!(app.post(&known.clone().saved_as(id)).await.status, 204);
    assert_eq!(app.post(&unknown.saved()).await.status, 503);
    app.eventually("the lost yes is counted", async || {
        let dropped = app.metric("vestibule_pending_dropped_total").await;
        ((dropped - 1.0).abs() < 0.1).then_some(())
    })
    .await;
    store.fails(false);
    let alarms = "vestibule_lost_posts_total{reason=\"not_stored\"}";
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
    app.hand.advance(Duration::from_mins(2));
    assert_eq!(crm.next().await.json()["data"]["identity"]["id"], json!(id));
}

#[tokio::test]
async fn social_sign_ups_are_found_by_the_external_id_that_pre_answers() {
    let (app, kratos, crm) = house().await;
    let person = person("social@example.org");
    let pre = "/hooks/registration/pre?method=oidc";
    let reply = app.call(pre, person.to_string()).await;
    assert_eq!(reply.status, 200);
    let external_id = guard_id(person.flow_id());
    assert_eq!(
        reply.json(),
        json!({"identity": {"external_id": external_id}})
    );
    app.recorded(&person).await;
    let id = kratos.has("other-identifier", "2026-11-23T14:32:53.2Z");
    kratos.change(id, "/external_id", json!(external_id));
    app.hand.advance(Duration::from_secs(61));
    assert_eq!(crm.next().await.json()["data"]["identity"]["id"], json!(id));
}

#[tokio::test]
async fn of_a_social_sign_up_that_is_not_found_nobody_says_that_it_failed() {
    let (app, kratos, crm) = house().await;
    let person = person("social@example.org");
    let headers = [
        ("X-Vestibule-Key", KEY),
        ("Ory-Webhook-Trigger-ID", &uuid()),
    ];
    let pre = "/hooks/registration/pre?method=oidc";
    assert!(
        app.call_with(pre, person.to_string(), &headers)
            .await
            .is_admitted()
    );
    app.recorded(&person).await;
    app.hand.advance(Duration::from_hours(2));
    kratos.next().await;
    let undecided = "vestibule_pending_ended_total{end=\"undecided\"}";
    app.eventually("it is undecided", async || {
        (app.metric(undecided).await > 0.5).then_some(())
    })
    .await;
    assert_eq!(app.deliveries("sad").await, []);
    assert_eq!(crm.received().len(), 0);
}

#[tokio::test]
async fn a_user_name_is_known_from_the_identity_schema() {
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
    let (app, kratos, crm) = house_with(&SETTINGS.replace("\"${env:KRATOS}\"", &setting)).await;
    let person = payload().with_trait("name", "ada l.");
    app.pre(&person).await;
    app.recorded(&person).await;
    let id = kratos.has("ada l.", "2026-11-23T14:33:00Z");
    kratos.change(id, "/traits", person.0["identity"]["traits"].clone());
    app.hand.advance(Duration::from_secs(61));
    // Kratos is not known yet to store our `external_id`.
    assert!(kratos.next().await.contains("/by/external/"));
    assert!(
        kratos
            .next()
            .await
            .contains("credentials_identifier=ada%20l%2E")
    );
    assert_eq!(crm.next().await.json()["data"]["identity"]["id"], json!(id));
    let _: Uuid = id;
}

#[tokio::test]
async fn of_two_sign_ups_of_one_person_the_account_came_of_one() {
    let (app, kratos, crm) = house().await;
    let (given_up, sent) = (person("twice@example.org"), person("twice@example.org"));
    app.pre(&given_up).await;
    app.recorded(&given_up).await;
    app.pre(&sent).await;
    let id = kratos.has("twice@example.org", "2026-11-23T14:32:53.9Z");
    assert_eq!(app.post(&sent.saved_as(id)).await.status, 204);
    crm.next().await;
    app.delivery_in("crm", State::Delivered).await;
    app.hand.advance(Duration::from_secs(61));
    kratos.next().await;
    app.looked().await;
    app.hand.advance(Duration::from_hours(2));
    // Of the first nothing came.
    assert_eq!(crm.next().await.target, "/failed");
    assert_eq!(app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn an_account_that_cannot_be_found_again_is_not_promised_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let (app, _, crm) = house_on(store.clone()).await;
    let person = person("social@example.org");
    let pre = "/hooks/registration/pre?method=oidc";
    assert!(app.call(pre, person.to_string()).await.is_admitted());
    app.recorded(&person).await;
    store.fails(true);
    let post = "/hooks/registration/post?method=oidc";
    let saved = person.saved().to_string();
    // Kratos is to call again.
    assert_eq!(app.call(post, saved.clone()).await.status, 503);
    store.fails(false);
    assert_eq!(app.call(post, saved).await.status, 204);
    assert_eq!(crm.next().await.target, "/made");
}

#[tokio::test]
async fn an_account_that_is_younger_than_the_yes_by_far_came_of_another_sign_up() {
    let (app, kratos, crm) = house().await;
    let person = person("twice@example.org");
    app.pre(&person).await;
    app.recorded(&person).await;
    kratos.has("twice@example.org", "2026-11-23T14:52:53.2Z");
    app.hand.advance(Duration::from_mins(63));
    assert_eq!(crm.next().await.target, "/failed");
    assert_eq!(app.deliveries("crm").await, []);
}

/// Where people sign in by an address and our `external_id` is not used, another sign-up of the same person may be meant.
#[tokio::test]
async fn an_account_with_other_traits_is_taken_for_the_sign_up_only_when_its_flow_is_over() {
    let (app, kratos, crm) = house().await;
    let person = person("changed@example.org");
    assert!(app.pre(&person).await.is_admitted());
    app.recorded(&person).await;
    let id = kratos.has("changed@example.org", "2026-11-23T14:32:53.2Z");
    kratos.change(id, "/traits/company", json!("as a later hook wrote it"));
    app.hand.advance(Duration::from_mins(11));
    kratos.next().await;
    app.looked().await;
    assert_eq!(app.deliveries("crm").await, []);
    app.hand.advance(Duration::from_mins(52));
    assert_eq!(crm.next().await.json()["data"]["identity"]["id"], json!(id));
    assert_eq!(app.deliveries("sad").await, []);
}
