//! Deliveries of one subscription about one identity go one at a time, in the order of the changes. A receiver that failed
//! for a while ends with the newest data.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::store::{DeliverySummary, Filter};

use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

/// A subscription with these keys.
fn subscription(keys: &str) -> String {
    format!(
        "services: {{crm: {{url: \"${{env:CRM}}\"}}}}\n\
         subscriptions: {{mail: {{events: [identity.created, identity.updated, credentials.changed], {keys}}}}}\n"
    )
}

const ONLY_IDENTITY: &str =
    r#"send: {service: crm, put: "/m/{identity.id}", json: {email: "{identity.traits.email}"}}"#;
const CREATED: &str = "/hooks/registration/post?method=password";
const PROFILE: &str = "/hooks/settings/post?method=profile";
const PASSWORD: &str = "/hooks/settings/post?method=password";

/// A saved identity with this address, as Kratos reports it this many seconds later.
fn saved(id: Uuid, email: &str, seconds: u32) -> Payload {
    payload()
        .changed_from(&json!({"email": "canary@example.org"}))
        .saved_as(id)
        .with_trait("email", email)
        .with(
            "/identity/updated_at",
            format!("2026-11-23T14:32:{seconds:02}.000001Z"),
        )
}

async fn call(app: &TestApp, hook: &str, body: &Payload) {
    assert_eq!(app.call(hook, body.to_string()).await.status, 204);
    // Ids of the same millisecond have no order.
    app.clock.advance(Duration::from_millis(1));
}

/// Returns all deliveries, oldest first.
pub async fn all_deliveries(app: &TestApp) -> Vec<DeliverySummary> {
    let mut all = app
        .app
        .store
        .list(&Filter::default(), 1_000)
        .await
        .expect("a list");
    all.reverse();
    all
}

/// Waits until no attempt is running and none is due now. Returns the time of the next attempt.
pub async fn wait_until_idle(app: &TestApp) -> Option<vestibule::base::clock::Timestamp> {
    app.eventually("no attempt is running or due", async || {
        let before = all_deliveries(app).await;
        app.wait_for_attempts().await;
        let pending = before.iter().filter(|one| one.state == State::Pending);
        let next = pending.filter_map(|one| one.next_attempt_at).min();
        let is_due = next.is_some_and(|next| next <= app.clock.now());
        (!is_due && before == all_deliveries(app).await).then_some(next)
    })
    .await
}

/// Advances the clock from attempt to attempt until no delivery is pending.
pub async fn deliver_all(app: &TestApp) {
    for _ in 0..1_000 {
        let Some(next) = wait_until_idle(app).await else {
            return;
        };
        let wait = (next - app.clock.now()).to_std().unwrap_or_default();
        app.clock.advance(wait);
    }
    panic!("a delivery is still pending");
}

/// Returns the addresses that the receiver got, in order.
fn addresses(crm: &FakeService) -> Vec<String> {
    let received = crm.received();
    let address = |body: &Value| {
        let body = if body["data"].is_object() {
            &body["data"]["identity"]["traits"]
        } else {
            body
        };
        body["email"]
            .as_str()
            .expect("an address")
            .trim_start_matches("canary-")
            .to_owned()
    };
    received.iter().map(|one| address(&one.json())).collect()
}

async fn states(app: &TestApp) -> Vec<State> {
    all_deliveries(app)
        .await
        .into_iter()
        .map(|one| one.state)
        .collect()
}

#[tokio::test]
async fn a_receiver_that_failed_ends_with_the_newest_data() {
    use State::{Delivered, Superseded};
    for (keys, received, expected) in [
        // Only the newest data count.
        (ONLY_IDENTITY.to_owned(), vec!["b", "c"], [Superseded, Delivered]),
        (
            format!(r#"when: "identity.traits.email != ''", {ONLY_IDENTITY}"#),
            vec!["b", "c"],
            [Superseded, Delivered],
        ),
        // Each event counts.
        (format!("supersede: false, {ONLY_IDENTITY}"), vec!["b", "b", "c"], [Delivered, Delivered]),
        ("send: {service: crm, post: /m}".to_owned(), vec!["b", "b", "c"], [Delivered, Delivered]),
        (
            r#"send: {service: crm, post: /m, json: {email: "{identity.traits.email}", old: "{previous.traits.?email}"}}"#.to_owned(),
            vec!["b", "b", "c"],
            [Delivered, Delivered],
        ),
        (
            format!(r#"when: 'method != "x"', {ONLY_IDENTITY}"#),
            vec!["b", "b", "c"],
            [Delivered, Delivered],
        ),
        (
            r#"send: {service: crm, post: /m, json: {email: "{identity.traits.email}", at: "{now}"}}"#.to_owned(),
            vec!["b", "b", "c"],
            [Delivered, Delivered],
        ),
        // The operator knows better.
        ("supersede: true, send: {service: crm, post: /m}".to_owned(), vec!["b", "c"], [Superseded, Delivered]),
    ] {
        let crm = FakeService::start();
        crm.respond_with(503, &json!({}));
        let app = TestApp::with(&subscription(&keys)).service("CRM", &crm).start().await;
        let id = Uuid::new_v4();
        call(&app, PROFILE, &saved(id, "canary-b", 1)).await;
        crm.next_call().await;
        wait_until_idle(&app).await;
        crm.respond_with(200, &json!({}));
        call(&app, PROFILE, &saved(id, "canary-c", 2)).await;
        deliver_all(&app).await;
        assert_eq!(addresses(&crm), received, "{keys}");
        assert_eq!(states(&app).await, expected, "{keys}");
    }
}

#[tokio::test]
async fn a_change_while_an_attempt_is_running_waits_for_its_result() {
    let crm = FakeService::start();
    crm.set_behaviour(Behaviour::Hangs);
    let app = TestApp::with(&subscription(ONLY_IDENTITY))
        .service("CRM", &crm)
        .start()
        .await;
    let id = Uuid::new_v4();
    call(&app, PROFILE, &saved(id, "canary-b", 1)).await;
    crm.next_call().await;
    call(&app, PROFILE, &saved(id, "canary-c", 2)).await;
    // Another identity does not wait.
    call(&app, PROFILE, &saved(Uuid::new_v4(), "canary-other", 2)).await;
    assert_eq!(crm.next_call().await.json()["email"], "canary-other");
    assert_eq!(addresses(&crm), ["b", "other"]);
    crm.release_hanging_calls();
    deliver_all(&app).await;
    assert_eq!(addresses(&crm), ["b", "other", "c"]);
    assert_eq!(states(&app).await, [State::Delivered; 3]);
}

#[tokio::test]
async fn different_events_about_an_identity_go_in_the_order_of_the_changes() {
    let crm = FakeService::start();
    crm.respond_with(503, &json!({}));
    let app = TestApp::with(&subscription(ONLY_IDENTITY))
        .service("CRM", &crm)
        .start()
        .await;
    let id = Uuid::new_v4();
    call(&app, CREATED, &saved(id, "canary-a", 1)).await;
    crm.next_call().await;
    wait_until_idle(&app).await;
    crm.respond_with(200, &json!({}));
    call(&app, PROFILE, &saved(id, "canary-b", 2)).await;
    call(&app, PASSWORD, &saved(id, "canary-b2", 3)).await;
    call(&app, PROFILE, &saved(id, "canary-c", 4)).await;
    deliver_all(&app).await;
    // The creation and the new password are not superseded. The second address is.
    assert_eq!(addresses(&crm), ["a", "a", "b2", "c"]);
    assert_eq!(
        states(&app).await,
        [
            State::Delivered,
            State::Superseded,
            State::Delivered,
            State::Delivered
        ]
    );
    let superseded = app
        .metric("vestibule_deliveries_superseded_total{subscription=\"mail\"}")
        .await;
    assert!((superseded - 1.0).abs() < 0.1, "{superseded}");
    let listed = app.admin_get("/deliveries?state=superseded").await.json();
    assert_eq!(listed["deliveries"][0]["state"], "superseded");
}

#[tokio::test]
async fn a_change_that_is_reported_late_does_not_overwrite_a_newer_one() {
    for (keys, received, state) in [
        (ONLY_IDENTITY.to_owned(), vec!["c"], State::Superseded),
        // Each event counts, so nothing is lost.
        (
            format!("supersede: false, {ONLY_IDENTITY}"),
            vec!["c", "b"],
            State::Delivered,
        ),
    ] {
        let crm = FakeService::start();
        let app = TestApp::with(&subscription(&keys))
            .service("CRM", &crm)
            .start()
            .await;
        let id = Uuid::new_v4();
        call(&app, PROFILE, &saved(id, "canary-c", 2)).await;
        deliver_all(&app).await;
        app.clock.advance(Duration::from_secs(1));
        call(&app, PROFILE, &saved(id, "canary-b", 1)).await;
        deliver_all(&app).await;
        assert_eq!(addresses(&crm), received, "{keys}");
        assert_eq!(states(&app).await[1], state, "{keys}");
    }
}

#[tokio::test]
async fn an_abandoned_delivery_older_than_a_delivered_one_is_retried_only_on_demand() {
    let crm = FakeService::start();
    crm.respond_with(410, &json!({}));
    let keys = format!("supersede: false, {ONLY_IDENTITY}");
    let app = TestApp::with(&subscription(&keys))
        .service("CRM", &crm)
        .start()
        .await;
    let id = Uuid::new_v4();
    call(&app, PROFILE, &saved(id, "canary-b", 1)).await;
    deliver_all(&app).await;
    crm.respond_with(200, &json!({}));
    app.clock.advance(Duration::from_secs(1));
    call(&app, PROFILE, &saved(id, "canary-c", 2)).await;
    deliver_all(&app).await;
    let first = all_deliveries(&app).await.remove(0);
    assert_eq!(first.state, State::Abandoned);

    let by_id = json!({"ids": [first.id]}).to_string();
    let refused = app.admin_post("/deliveries/retry", by_id).await.json();
    assert_eq!(
        (&refused["changed"], &refused["out_of_order"]),
        (&json!(0), &json!(1))
    );
    let reason = refused["skipped"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("a newer delivery"), "{reason}");
    let all = json!({"all": true, "state": "abandoned"}).to_string();
    let refused = app.admin_post("/deliveries/retry", all).await.json();
    assert_eq!(
        refused,
        json!({"changed": 0, "skipped": [], "out_of_order": 1})
    );
    assert_eq!(addresses(&crm), ["b", "c"]);

    let on_demand = json!({"ids": [first.id], "out_of_order": true}).to_string();
    let retried = app
        .admin_post("/deliveries/retry", on_demand.clone())
        .await
        .json();
    assert_eq!(
        retried,
        json!({"changed": 1, "skipped": [], "out_of_order": 0})
    );
    deliver_all(&app).await;
    assert_eq!(addresses(&crm), ["b", "c", "b"]);
    // A discard has no order.
    let discard = app.admin_post("/deliveries/discard", on_demand).await;
    assert_eq!(discard.status, 400, "{}", discard.text);
}
