//! Retention deletes settled deliveries and old decisions, and keeps everything else.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::kratos::{Flow, Hook, Stage};
use vestibule::model::decision::Decision;
use vestibule::model::delivery::{DeliveryOrder, Event, NewDelivery, State, time_ordered_id};
use vestibule::store::{Filter, WriteSet};

use crate::support::failing_store::FailingStore;
use crate::support::{FakeService, TestApp, eventually, logs, payload};

const SETTINGS: &str = r#"
services: {crm: {url: "${env:CRM}"}}
retention: {deliveries: 2d, decisions: 1d}
subscriptions:
  contact: {events: [identity.created], retry: {max_elapsed: 30d}, send: {service: crm, post: /contacts}}
"#;
const HOUR: Duration = Duration::from_hours(1);

async fn states(app: &TestApp) -> Vec<State> {
    let all = app.app.store.list(&Filter::default(), 10).await;
    all.expect("a list")
        .into_iter()
        .map(|one| one.state)
        .collect()
}

async fn retention_horizon(app: &TestApp) -> Option<Timestamp> {
    let value = app.app.store.get_property("retention_horizon").await;
    value
        .expect("a database")
        .map(|value| value.parse().expect("a moment"))
}

/// Waits until the retention horizon has reached this time.
async fn wait_for_horizon(app: &TestApp, moment: Timestamp) {
    eventually("the retention horizon has reached the time", async || {
        (retention_horizon(app).await.is_some_and(|at| at >= moment)).then_some(())
    })
    .await;
}

/// Counts the remaining decisions by deleting them.
async fn count_decisions(app: &TestApp) -> u64 {
    let end = app.clock.now() + chrono::TimeDelta::days(1);
    let left = app.app.store.delete_decisions(end, 10_000).await;
    left.expect("a database")
}

fn decision(at: Timestamp) -> Decision {
    Decision {
        hook: Hook {
            flow: Flow::Registration,
            stage: Stage::Pre,
            method: "password".to_owned(),
        },
        flow_id: Uuid::new_v4(),
        at,
        duration_ms: 1,
        outcome: "admitted",
        checks: Vec::new(),
        identity_id: None,
    }
}

#[tokio::test]
async fn settled_deliveries_are_deleted_after_their_retention_and_pending_ones_are_kept() {
    let crm = FakeService::start();
    let app = TestApp::with(SETTINGS).service("CRM", &crm).start().await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next_call().await;
    eventually("the delivery is delivered", async || {
        (states(&app).await == [State::Delivered]).then_some(())
    })
    .await;
    crm.respond_with(503, &json!({}));
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next_call().await;

    let created_at = app.clock.now();
    let two_days = chrono::TimeDelta::days(2);
    app.clock.advance(Duration::from_mins(1));
    wait_for_horizon(&app, Timestamp::UNIX_EPOCH).await;
    assert_eq!(
        retention_horizon(&app).await,
        Some(app.clock.now() - two_days)
    );
    assert_eq!(
        states(&app).await,
        [State::Pending, State::Delivered],
        "too early"
    );
    app.clock.advance(48 * HOUR);
    wait_for_horizon(&app, created_at + chrono::TimeDelta::seconds(1)).await;
    eventually("the delivered delivery is deleted", async || {
        (states(&app).await == [State::Pending]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn decisions_are_deleted_in_small_steps_after_their_retention() {
    let crm = FakeService::start();
    let app = TestApp::with(SETTINGS).service("CRM", &crm).start().await;
    let old: Vec<Decision> = (0..1200).map(|_| decision(app.clock.now())).collect();
    app.app.store.record(&old).await.unwrap();
    app.clock.advance(24 * HOUR + Duration::from_secs(1));
    let young: Vec<Decision> = (0..3).map(|_| decision(app.clock.now())).collect();
    app.app.store.record(&young).await.unwrap();
    // Retention pauses between two steps.
    app.eventually("the old decisions are deleted", async || {
        app.clock.advance(Duration::from_secs(1));
        (!logs::lines_with("\"decisions\":1200").is_empty()).then_some(())
    })
    .await;
    assert_eq!(count_decisions(&app).await, 3);
}

#[tokio::test]
async fn a_failed_round_is_repeated_an_hour_later() {
    let crm = FakeService::start();
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let app = TestApp::with(SETTINGS)
        .service("CRM", &crm)
        .store(Arc::clone(&store) as _)
        .start()
        .await;
    app.app
        .store
        .record(&[decision(app.clock.now() - chrono::TimeDelta::days(2))])
        .await
        .unwrap();
    store.set_failing(true);
    app.clock.advance(2 * HOUR);
    app.wait_for_job("retention", "failed").await;
    store.set_failing(false);
    app.clock.advance(HOUR);
    wait_for_horizon(&app, Timestamp::UNIX_EPOCH).await;
    eventually("the decision is deleted", async || {
        (!logs::lines_with("\"decisions\":1,").is_empty()).then_some(())
    })
    .await;
    assert_eq!(count_decisions(&app).await, 0);
}

#[tokio::test]
async fn a_longer_retention_does_not_move_the_retention_horizon_back() {
    let crm = FakeService::start();
    let app = TestApp::with(SETTINGS).service("CRM", &crm).start().await;
    app.clock.advance(HOUR);
    wait_for_horizon(&app, Timestamp::UNIX_EPOCH).await;
    let before = retention_horizon(&app).await;
    let (folder, now) = app.stop().await;
    let longer = SETTINGS.replace("deliveries: 2d", "deliveries: 90d");
    let app = TestApp::with(&longer)
        .service("CRM", &crm)
        .in_folder(&folder, now)
        .start()
        .await;
    let long_ago = now - chrono::TimeDelta::days(100);
    let old = NewDelivery {
        id: time_ordered_id(long_ago),
        subscription: "contact".to_owned(),
        event: Event::IdentityCreated,
        unique_key: "1".to_owned(),
        identity_id: Uuid::from_u128(1),
        action: Err("a canary".to_owned()),
        order: DeliveryOrder::default(),
        context: None,
        created_at: long_ago,
        due_at: long_ago,
        keep_trying_until: long_ago,
    };
    let old = WriteSet::of(vec![old]);
    app.app.store.write(&old).await.unwrap();
    let all = Filter::default();
    assert_eq!(app.app.store.discard(&all, long_ago).await.unwrap(), 1);
    app.clock.advance(HOUR);
    eventually("every delivery is deleted", async || {
        (states(&app).await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(retention_horizon(&app).await, before);
}

#[tokio::test]
async fn a_panic_in_one_round_does_not_end_retention() {
    let crm = FakeService::start();
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let app = TestApp::with(SETTINGS)
        .service("CRM", &crm)
        .store(store.clone())
        .start()
        .await;
    store.set_panicking(true);
    app.clock.advance(Duration::from_secs(61));
    app.wait_for_job("retention", "panicked").await;
    store.set_panicking(false);
    app.clock.advance(HOUR + Duration::from_secs(1));
    wait_for_horizon(&app, app.clock.now() - chrono::TimeDelta::days(2)).await;
}
