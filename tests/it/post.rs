//! `post` answers 204 only after everything is stored.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::store::{DeliverySummary, Filter};

use crate::support::app::uuid;
use crate::support::failing_store::FailingStore;
use crate::support::{FakeService, TestApp, payload};

const PATH: &str = "/hooks/registration/post?method=password";
const TRIGGER: &str = "8474962b-9285-4104-9ac4-1b5ec4ac6aa3";
const CRM: &str = r#"
subscriptions:
  crm: {events: [identity.created, identity.updated], send: {post: "${env:CRM}/contacts"}}
  rich: {events: [identity.created], when: "has(identity.traits.company)", send: {put: "${env:CRM}/rich/{identity.id}", json: {mail: "{identity.traits.email}"}}}
  broken: {events: [identity.created], send: {post: "${env:CRM}/{identity.traits.none}"}}
"#;

async fn stored_deliveries(app: &TestApp) -> Vec<DeliverySummary> {
    app.app
        .store
        .list(&Filter::default(), 100)
        .await
        .expect("a list")
}

#[tokio::test]
async fn post_stores_each_delivery_of_an_account_once_before_the_204() {
    let (app, _crm) = TestApp::with_service(CRM, "CRM").await;
    let body = payload().saved();
    assert_eq!(app.post(&body).await.status, 204);
    let mut all = stored_deliveries(&app).await;
    all.sort_by(|one, other| one.subscription.cmp(&other.subscription));
    let subscriptions: Vec<_> = all.iter().map(|one| one.subscription.as_str()).collect();
    assert_eq!(subscriptions, ["broken", "crm", "rich"]);
    assert_eq!(
        all[0].state,
        State::Abandoned,
        "a delivery that cannot be built is kept"
    );
    // Kratos can call again with another trigger id for the same account.
    assert_eq!(app.post(&body).await.status, 204);
    assert_eq!(stored_deliveries(&app).await.len(), 3);
    // Another account has its own deliveries.
    assert_eq!(
        app.post(&payload().saved().without("/identity/traits/company"))
            .await
            .status,
        204
    );
    assert_eq!(stored_deliveries(&app).await.len(), 5);
}

#[tokio::test]
async fn two_changes_of_an_account_are_two_deliveries_and_a_repeated_call_is_none() {
    let (app, _crm) = TestApp::with_service(CRM, "CRM").await;
    let id = Uuid::new_v4();
    let path = "/hooks/settings/post?method=profile";
    let body = payload().saved_as(id).to_string();
    let (first, second) = (uuid(), uuid());
    for trigger in [&first, &second, &first] {
        let reply = app.call_again(path, body.clone(), trigger).await;
        assert_eq!(reply.status, 204);
        app.clock.advance(Duration::from_mins(5));
    }
    assert_eq!(stored_deliveries(&app).await.len(), 2);
    // A change of the password changes no trait.
    assert_eq!(
        app.call("/hooks/settings/post?method=password", body)
            .await
            .status,
        204
    );
    assert_eq!(stored_deliveries(&app).await.len(), 2);
}

#[tokio::test]
async fn an_unreadable_post_gets_204_and_raises_an_alarm() {
    let app = TestApp::with("").start().await;
    let good = payload().saved().to_string();
    let bodies = [
        String::new(),
        "canary".to_owned(),
        good[..100].to_owned(),
        "x".repeat(256 * 1024 + 1),
        "{}".to_owned(),
    ];
    let count = bodies.len();
    for body in bodies {
        let reply = app.call(PATH, body).await;
        assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    }
    let alarms = app
        .metric("vestibule_lost_posts_total{reason=\"unreadable\"}")
        .await;
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let expected = count as f64;
    assert!((alarms - expected).abs() < 0.1, "{alarms}");
}

#[tokio::test]
async fn while_the_database_fails_post_answers_503_and_pre_still_works() {
    let store = FailingStore::create().await;
    store.set_failing(true);
    let crm = FakeService::start();
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .store(store.clone())
        .start()
        .await;
    let body = payload().saved().to_string();
    let reply = app.call_again(PATH, body.clone(), TRIGGER).await;
    assert_eq!(reply.status, 503);
    assert!(reply.headers.get("retry-after").is_none());
    assert_eq!(app.pre(&payload()).await.status, 204);
    let ready = app.http.get(app.url("/health/ready")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    assert_eq!(
        ready.json::<serde_json::Value>().await.unwrap(),
        json!({"status": "ok", "database": "down"})
    );

    // The repeated call with the same trigger id is processed again.
    store.set_failing(false);
    assert_eq!(app.call_again(PATH, body, TRIGGER).await.status, 204);
    assert_eq!(stored_deliveries(&app).await.len(), 3);
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(
        app.admin_get("/health/ready").await.json()["database"],
        "ok"
    );
}

#[tokio::test]
async fn a_panic_in_post_is_answered_with_503() {
    let store = FailingStore::create().await;
    let crm = FakeService::start();
    let app = TestApp::with(CRM)
        .service("CRM", &crm)
        .store(store.clone())
        .start()
        .await;
    store.set_panicking(true);
    let body = payload().saved().to_string();
    assert_eq!(
        app.call_again(PATH, body.clone(), TRIGGER).await.status,
        503
    );
    store.set_panicking(false);
    assert_eq!(app.call_again(PATH, body, TRIGGER).await.status, 204);
}
