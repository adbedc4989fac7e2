//! A `post` that cannot be read has recent sign-ups looked up, and a flood of them does not multiply the calls.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use vestibule::base::clock::Timestamp;
use vestibule::jobs::sweeper::URGENT_CALLS_PER_SECOND;

use crate::support::app::uuid;
use crate::support::payload::Payload;
use crate::support::service::Behaviour;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:CRM}/made"}}
"#;
const POST: &str = "/hooks/registration/post?method=password";

fn person(email: &str) -> Payload {
    payload().with_trait("email", email).with(
        "/identity/verifiable_addresses",
        json!([{"value": email, "via": "email"}]),
    )
}

/// When each call has arrived.
type Arrivals = Arc<Mutex<Vec<Timestamp>>>;

async fn instance(kratos: &FakeKratos, crm: &FakeService) -> TestApp {
    TestApp::with(SETTINGS)
        .kratos("KRATOS", kratos)
        .service("CRM", crm)
        .start()
        .await
}

fn note_arrivals(app: &TestApp, kratos: &FakeKratos) -> Arrivals {
    let arrivals = Arrivals::default();
    let (noted, hand) = (Arc::clone(&arrivals), app.hand.clone());
    let Behaviour::Works(work) = kratos.behaviour() else {
        unreachable!("it works")
    };
    kratos.service.does(Behaviour::Works(Arc::new(move |call| {
        noted.lock().expect("a lock").push(hand.now());
        work(call)
    })));
    arrivals
}

async fn arrived(app: &TestApp, arrivals: &Arrivals, at_least: usize) {
    app.eventually(&format!("{at_least} calls have arrived"), async || {
        (arrivals.lock().expect("a lock").len() >= at_least).then_some(())
    })
    .await;
}

/// Accepts so many sign-ups of which no account came. A look-up of one has two calls: by `external_id` and, because the guard
/// is not proven, by the address.
async fn sign_ups(app: &TestApp, number: usize) {
    for number in 0..number {
        let person = person(&format!("lost-{number}@example.org")).with("/flow/id", uuid());
        assert!(app.pre(&person).await.is_admitted());
        app.recorded(&person).await;
    }
}

#[tokio::test]
async fn a_flood_of_unreadable_posts_makes_ten_calls_a_second() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = instance(&kratos, &crm).await;
    let arrivals = note_arrivals(&app, &kratos);
    sign_ups(&app, 20).await;
    let (begin, all) = (app.hand.now(), 40);
    for second in 1..=all / URGENT_CALLS_PER_SECOND {
        for _ in 0..5 {
            assert_eq!(app.call(POST, "").await.status, 204);
        }
        arrived(&app, &arrivals, second * URGENT_CALLS_PER_SECOND).await;
        app.hand.advance(Duration::from_secs(1));
    }
    app.looked().await;
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
    let app = instance(&kratos, &crm).await;
    let arrivals = note_arrivals(&app, &kratos);
    sign_ups(&app, 30).await;
    assert_eq!(app.call(POST, "").await.status, 204);
    arrived(&app, &arrivals, 10).await;
    // No unreadable `post` can be about this one, so its first look-up is the planned one.
    let saturating_add = person("later@example.org");
    assert!(app.pre(&saturating_add).await.is_admitted());
    app.recorded(&saturating_add).await;
    let id = kratos.has("later@example.org", "2026-11-23T14:32:53.2Z");
    for second in 1..=4 {
        app.hand.advance(Duration::from_secs(1));
        arrived(&app, &arrivals, 10 * (second + 1)).await;
    }
    app.hand.advance(Duration::from_secs(1));
    let told = crm.next().await.json();
    assert_eq!(told["data"]["identity"]["id"], json!(id));
}
