//! An unreadable `post` makes Vestibule look up recent sign-ups, and a flood of them does not multiply the calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use vestibule::base::clock::Timestamp;
use vestibule::jobs::sweeper::URGENT_CALLS_PER_SECOND;

use crate::support::app::uuid;
use crate::support::fake_service::Behaviour;
use crate::support::payload::visitor_with;
use crate::support::{FakeKratos, FakeService, TestApp};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:CRM}/created"}}
"#;
const POST: &str = "/hooks/registration/post?method=password";

/// The time of each call.
type Arrivals = Arc<Mutex<Vec<Timestamp>>>;

async fn start(kratos: &FakeKratos, crm: &FakeService) -> TestApp {
    TestApp::with(SETTINGS)
        .kratos("KRATOS", kratos)
        .service("CRM", crm)
        .start()
        .await
}

fn record_arrivals(app: &TestApp, kratos: &FakeKratos) -> Arrivals {
    let arrivals = Arrivals::default();
    let (recorded, clock) = (Arc::clone(&arrivals), app.clock.clone());
    let Behaviour::Handles(handler) = kratos.normal_behaviour() else {
        unreachable!("it works")
    };
    kratos
        .service
        .set_behaviour(Behaviour::Handles(Arc::new(move |call| {
            recorded.lock().expect("a lock").push(clock.now());
            handler(call)
        })));
    arrivals
}

async fn wait_for_arrivals(app: &TestApp, arrivals: &Arrivals, at_least: usize) {
    app.eventually(&format!("{at_least} calls have arrived"), async || {
        (arrivals.lock().expect("a lock").len() >= at_least).then_some(())
    })
    .await;
}

/// Accepts this number of sign-ups without an account. A look-up of one needs two calls: by `external_id` and, because the
/// guard is not proven, by the address.
async fn accept_sign_ups(app: &TestApp, number: usize) {
    for number in 0..number {
        let visitor = visitor_with(&format!("lost-{number}@example.org")).with("/flow/id", uuid());
        assert!(app.pre(&visitor).await.is_admitted());
        app.wait_for_pending_sign_up(&visitor).await;
    }
}

#[tokio::test]
async fn a_flood_of_unreadable_posts_causes_ten_look_up_calls_a_second() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = start(&kratos, &crm).await;
    let arrivals = record_arrivals(&app, &kratos);
    accept_sign_ups(&app, 20).await;
    let (begin, all) = (app.clock.now(), 40);
    for second in 1..=all / URGENT_CALLS_PER_SECOND {
        for _ in 0..5 {
            assert_eq!(app.call(POST, "").await.status, 204);
        }
        wait_for_arrivals(&app, &arrivals, second * URGENT_CALLS_PER_SECOND).await;
        app.clock.advance(Duration::from_secs(1));
    }
    app.wait_for_lookups().await;
    let arrivals = arrivals.lock().expect("a lock");
    assert_eq!(arrivals.len(), all, "each sign-up is looked up once");
    for (number, arrival) in arrivals.iter().enumerate() {
        let second = i64::try_from(number / URGENT_CALLS_PER_SECOND).unwrap();
        assert_eq!((*arrival - begin).num_seconds(), second, "call {number}");
    }
}

#[tokio::test]
async fn a_planned_look_up_does_not_wait_for_the_end_of_a_flood() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = start(&kratos, &crm).await;
    let arrivals = record_arrivals(&app, &kratos);
    accept_sign_ups(&app, 30).await;
    assert_eq!(app.call(POST, "").await.status, 204);
    wait_for_arrivals(&app, &arrivals, 10).await;
    // This sign-up is later than every unreadable `post`, so its first look-up is the planned one.
    let later = visitor_with("later@example.org");
    assert!(app.pre(&later).await.is_admitted());
    app.wait_for_pending_sign_up(&later).await;
    let id = kratos.add_identity("later@example.org", "2026-11-23T14:32:53.2Z");
    for second in 1..=4 {
        app.clock.advance(Duration::from_secs(1));
        wait_for_arrivals(&app, &arrivals, 10 * (second + 1)).await;
    }
    app.clock.advance(Duration::from_secs(1));
    let event = crm.next_call().await.json();
    assert_eq!(event["data"]["identity"]["id"], json!(id));
}
