//! Something is taken for a sign-up; it is confirmed when the account exists, and released when none came of it.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::store::Filter;

use crate::support::failing::Failing;
use crate::support::invites::Invites;
use crate::support::payload::Payload;
use crate::support::service::Behaviour;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const INVITES: &str = r#"
checks:
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      confirm: {post: "${env:INVITES}/holds/{taken.body.hold_id}/confirm", json: {account: "{identity.id}"}}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 409, message: "This invite is used up."}]
"#;
const HOUR: Duration = Duration::from_hours(1);

fn holds(hold_id: &str) -> Behaviour {
    Behaviour::Answers(201, json!({"hold_id": hold_id}).to_string())
}

async fn house() -> (TestApp, FakeService) {
    let invites = FakeService::start();
    invites.on("POST /invites/", holds("h1"));
    let app = TestApp::with(INVITES).service("INVITES", &invites).start();
    let app = app.await;
    // What follows without it is in `gate`.
    app.prove_guard().await;
    (app, invites)
}

#[tokio::test]
async fn what_was_taken_is_kept_when_the_form_is_sent_again_and_confirmed_with_the_account() {
    let (app, invites) = house().await;
    let person = payload().with_trait("invite", "gold");
    assert!(app.pre(&person).await.is_admitted());
    let take = invites.next().await;
    assert_eq!(take.target, "/invites/gold/hold");
    assert!(take.header("Idempotency-Key").is_some());
    // Kratos failed for another reason, and the person sends the form again.
    assert!(app.pre(&person).await.is_admitted());

    let id = Uuid::new_v4();
    let saved = person.saved_as(id).guarded();
    assert_eq!(app.post(&saved).await.status, 204);
    let confirm = invites.next().await;
    assert_eq!(confirm.target, "/holds/h1/confirm");
    assert_eq!(confirm.json(), json!({"account": id}));
    assert!(confirm.header("Idempotency-Key").is_some());
    assert_eq!(app.post(&saved).await.status, 204);
    app.delivery_in("confirm:invite", State::Delivered).await;
    app.hand.advance(3 * HOUR);
    assert_eq!(app.deliveries("release:invite").await, []);
    assert_eq!(invites.received().len(), 2);
}

#[tokio::test]
async fn another_value_is_taken_anew_and_the_first_released() {
    let (app, invites) = house().await;
    let person = payload().with_trait("invite", "gold");
    app.pre(&person).await;
    invites.next().await;
    invites.on("POST /invites/", holds("h2"));
    let person = person.with_trait("invite", "silver");
    app.pre(&person).await;
    assert_eq!(invites.next().await.target, "/invites/silver/hold");
    // The first submission may still become the account.
    app.hand.advance(Duration::from_secs(6));
    assert_eq!(app.deliveries("release:invite").await, []);
    app.post(&person.saved().guarded()).await;
    let mut both = [invites.next().await, invites.next().await];
    both.sort_by(|one, other| one.target.cmp(&other.target));
    assert_eq!(both[0].target, "/holds/h1");
    assert_eq!(both[0].method, "DELETE");
    assert_eq!(both[1].target, "/holds/h2/confirm");
}

#[tokio::test]
async fn a_refused_taking_leaves_nothing_to_release() {
    let (app, invites) = house().await;
    invites.on("POST /invites/", Behaviour::Answers(409, String::new()));
    let person = payload();
    let reply = app.pre(&person).await;
    assert_eq!(reply.messages()[0].2, "This invite is used up.");
    app.hand.advance(3 * HOUR);
    let state = app.app.store.flow(person.flow_id()).await.unwrap();
    assert_eq!(state.reservations, []);
    assert_eq!(app.deliveries("release:invite").await, []);
}

#[tokio::test]
async fn the_end_of_the_flow_releases_and_a_post_after_that_reserves_again() {
    let (app, invites) = house().await;
    let person = payload();
    app.pre(&person).await;
    invites.next().await;
    app.hand.advance(HOUR + Duration::from_secs(121));
    let release = invites.next().await;
    assert_eq!(
        (release.method.as_str(), release.target.as_str()),
        ("DELETE", "/holds/h1")
    );
    app.delivery_in("release:invite", State::Delivered).await;

    invites.on("POST /invites/", holds("h2"));
    assert_eq!(app.post(&person.saved()).await.status, 204);
    let again = invites.next().await;
    assert_eq!(again.target, "/invites/canary-invite/hold");
    let taken = app.delivery_in("take:invite", State::Delivered).await;
    let key = again.header("Idempotency-Key").map(ToOwned::to_owned);
    assert_eq!(key, Some(taken.id.to_string()));
    assert_eq!(invites.next().await.target, "/holds/h2/confirm");
    assert!(app.metric("vestibule_posts_after_release_total").await < 0.1);
}

#[tokio::test]
async fn an_unclear_taking_is_asked_for_once_more_with_its_key_and_released() {
    let (app, invites) = house().await;
    invites.on("POST /invites/", Behaviour::Breaks);
    let person = payload();
    assert!(!app.pre(&person).await.refused().is_empty());
    let take = invites.next().await;
    // The worker asks again, with the same key, and gives back what it is told.
    invites.on("POST /invites/", holds("h9"));
    app.eventually("it is given back", async || {
        let waiting = app.deliveries("release:invite").await;
        if waiting
            .iter()
            .any(|one| one.attempts > 0 && one.state == State::Pending)
        {
            app.to_the_next_try("release:invite").await;
        }
        let targets = invites.targets();
        targets
            .contains(&"DELETE /holds/h9".to_owned())
            .then_some(())
    })
    .await;
    let again = invites.received();
    let keys: Vec<_> = again
        .iter()
        .filter(|call| call.method == "POST")
        .map(|call| call.header("Idempotency-Key").map(str::to_owned))
        .collect();
    assert!(keys.len() >= 2);
    assert!(
        keys.iter()
            .all(|key| key.as_deref() == take.header("Idempotency-Key"))
    );
    app.delivery_in("release:invite", State::Delivered).await;
}

#[tokio::test]
async fn nothing_is_taken_that_could_not_be_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let invites = FakeService::start();
    let app = TestApp::with(INVITES)
        .service("INVITES", &invites)
        .store(store.clone())
        .start()
        .await;
    store.fails(true);
    assert!(!app.pre(&payload()).await.refused().is_empty());
    assert_eq!(invites.received().len(), 0);
    store.fails(false);
    invites.on("POST /invites/", holds("h1"));
    assert!(app.pre(&payload()).await.is_admitted());
}

#[tokio::test]
async fn while_it_can_be_looked_up_the_journal_decides_and_not_the_clock() {
    let (invites, kratos) = (FakeService::start(), FakeKratos::start());
    invites.on("POST /invites/", holds("h1"));
    let yaml = format!("kratos: {{admin_url: \"${{env:KRATOS}}\"}}\n{INVITES}");
    let app = TestApp::with(&yaml)
        .service("INVITES", &invites)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let (made, failed) = (
        payload().with_trait("email", "made@example.org"),
        payload().with_trait("email", "failed@example.org"),
    );
    for person in [&made, &failed] {
        let email = person.0["identity"]["traits"]["email"].clone();
        let person = person.clone().with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        );
        assert!(app.pre(&person).await.is_admitted());
        invites.next().await;
        app.recorded(&person).await;
    }
    // The account was made, and no `post` came.
    kratos.has("made@example.org", "2026-11-23T14:32:54Z");
    app.hand.advance(Duration::from_secs(61));
    assert_eq!(invites.next().await.target, "/holds/h1/confirm");
    app.delivery_in("confirm:invite", State::Delivered).await;
    app.looked().await;
    // Kratos is away when the flow ends: nobody knows yet.
    kratos.is_down(true);
    let start = app.hand.now();
    while app.app.store.next_lookup().await.unwrap().unwrap() < app.hand.now() + 2 * HOUR {
        app.hand.advance(HOUR);
        app.looked().await;
        if app.hand.now() > start + 4 * HOUR {
            break;
        }
    }
    let all = Filter::default();
    assert_eq!(app.app.store.list(&all, 100).await.unwrap().len(), 1);
    kratos.is_down(false);
    app.hand.advance(HOUR);
    assert_eq!(invites.next().await.method, "DELETE");
}

#[tokio::test]
async fn the_example_lets_no_more_people_in_than_there_are_uses() {
    let invites = Invites::with_uses(2);
    let yaml = include_str!("../../examples/settings/invites.yaml");
    let kratos = FakeKratos::start();
    let app = TestApp::with(yaml)
        .env("INVITES", &invites.url())
        .kratos("KRATOS_ADMIN", &kratos)
        .start()
        .await;
    let people: Vec<_> = (0..3)
        .map(|_| payload().with_trait("invite", "gold"))
        .collect();
    assert!(app.pre(&people[0]).await.is_admitted());
    assert!(app.pre(&people[1]).await.is_admitted());
    let refused = app.pre(&people[2]).await.messages();
    assert_eq!(refused[0].2, "This invite code is used up.");
    let unknown = app.pre(&payload().with_trait("invite", "brass")).await;
    assert_eq!(unknown.messages()[0].2, "We do not know this invite code.");

    // The first becomes an account, of the second none comes.
    assert_eq!(app.post(&people[0].clone().saved()).await.status, 204);
    app.delivery_in("confirm:invite", State::Delivered).await;
    app.hand.advance(HOUR + Duration::from_secs(121));
    app.delivery_in("release:invite", State::Delivered).await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    let late = payload()
        .with_trait("invite", "gold")
        .with("/flow/expires_at", "2026-11-24T00:00:00Z");
    assert!(app.pre(&late).await.is_admitted());
    assert_eq!(invites.held_and_confirmed(), (2, 1));
}

#[tokio::test]
async fn an_answer_of_a_gateway_says_nothing_of_what_is_held() {
    let (app, invites) = house().await;
    let gateway = Behaviour::Answers(502, "<html>bad gateway</html>".to_owned());
    invites.on("POST /invites/", gateway);
    assert!(!app.pre(&payload()).await.refused().is_empty());
    invites.on("POST /invites/", holds("h7"));
    app.eventually("it is given back", async || {
        let waiting = app.deliveries("release:invite").await;
        if waiting.iter().any(|one| one.attempts > 0) {
            app.to_the_next_try("release:invite").await;
        }
        let targets = invites.targets();
        targets
            .contains(&"DELETE /holds/h7".to_owned())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_sends_the_form_twice_at_once_has_one_reservation() {
    let (app, invites) = house().await;
    let person = payload();
    let other = person
        .clone()
        .with("/request/headers/User-Agent", "another");
    invites.on("POST /invites/", Behaviour::Hangs);
    let (one, two) = tokio::join!(app.pre(&person), async {
        invites.next().await;
        let second = app.pre(&other);
        let end_hangs = async {
            invites.next().await;
            invites.on("POST /invites/", holds("h1"));
            invites.on(
                "POST /invites/canary",
                Behaviour::Answers(200, "{}".to_owned()),
            );
            invites.end_hangs();
        };
        tokio::join!(second, end_hangs).0
    });
    assert!(one.is_admitted() && two.is_admitted());
    let keys: Vec<_> = invites
        .received()
        .iter()
        .map(|call| call.header("Idempotency-Key").map(str::to_owned))
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    let state = app.app.store.flow(person.flow_id()).await.unwrap();
    assert_eq!(state.reservations.len(), 1);
}

#[tokio::test]
async fn what_is_held_for_a_check_that_has_gone_is_kept_where_it_can_be_seen() {
    let (app, invites) = house().await;
    let person = payload();
    app.pre(&person).await;
    invites.next().await;
    let (folder, now) = (app.folder.clone(), app.hand.now());
    app.app.stop().await;
    let app = TestApp::with("").after(&folder, now).start().await;
    assert_eq!(app.post(&person.clone().saved()).await.status, 204);
    assert_eq!(app.deliveries("confirm:invite").await, []);
    app.hand.advance(2 * HOUR);
    let dead = app.delivery_in("release:invite", State::Abandoned).await;
    assert!(
        dead.last_error
            .unwrap()
            .contains("has gone from the settings")
    );
}

#[tokio::test]
async fn what_was_taken_for_a_change_that_was_never_saved_is_released() {
    let (app, invites) = house().await;
    let change = payload()
        .with("/flow/type", "browser")
        .changed_from(&json!({"email": "canary@example.org", "invite": "iron"}))
        .with_trait("invite", "gold");
    assert_eq!(app.settings(&change).await.status, 204);
    assert_eq!(invites.next().await.target, "/invites/gold/hold");
    app.hand.advance(HOUR + Duration::from_secs(121));
    let release = invites.next().await;
    assert_eq!(
        (release.method.as_str(), release.target.as_str()),
        ("DELETE", "/holds/h1")
    );
    app.delivery_in("release:invite", State::Delivered).await;
    assert_eq!(app.deliveries("confirm:invite").await, []);
}

#[tokio::test]
async fn whoever_goes_on_by_another_method_has_what_was_taken_confirmed() {
    let (app, invites) = house().await;
    let person = payload().with_trait("invite", "gold");
    assert!(app.pre(&person).await.is_admitted());
    assert_eq!(invites.next().await.target, "/invites/gold/hold");
    // Kratos refused the password, and the person signs up by a provider in the same flow.
    let by = |stage: &str| format!("/hooks/registration/{stage}?method=oidc");
    assert!(app.call(&by("pre"), person.to_string()).await.is_admitted());
    let saved = person.saved().guarded().to_string();
    assert_eq!(app.call(&by("post"), saved).await.status, 204);
    assert_eq!(invites.next().await.target, "/holds/h1/confirm");
}

/// Somebody has typed `gold`, and the check sets what the service makes of it.
async fn taken_for_a_value_that_is_saved_as(code: &str) -> (TestApp, FakeService, Payload) {
    let invites = FakeService::start();
    let answer = json!({"hold_id": "h1", "code": code}).to_string();
    invites.on("POST /invites/", Behaviour::Answers(201, answer));
    let yaml = format!("{INVITES}    set: {{traits.invite: \"{{response.body.code}}\"}}\n");
    let app = TestApp::with(&yaml)
        .service("INVITES", &invites)
        .start()
        .await;
    let person = payload().with_trait("invite", "gold");
    assert_eq!(app.pre(&person).await.status, 200);
    invites.next().await;
    (app, invites, person)
}

#[tokio::test]
async fn what_was_taken_for_a_value_that_is_saved_otherwise_is_confirmed() {
    let (app, invites, person) = taken_for_a_value_that_is_saved_as("GOLD").await;
    let saved = person.with_trait("invite", "GOLD").saved();
    assert_eq!(app.post(&saved).await.status, 204);
    assert_eq!(invites.next().await.target, "/holds/h1/confirm");
}

#[tokio::test]
async fn what_was_taken_for_a_value_that_was_left_out_in_the_end_is_released() {
    let (app, invites, person) = taken_for_a_value_that_is_saved_as("GOLD").await;
    // Kratos failed for another reason, and the person leaves the invite out.
    let person = person.with_trait("invite", "");
    assert!(app.pre(&person).await.is_admitted());
    assert_eq!(app.post(&person.saved()).await.status, 204);
    assert_eq!(app.deliveries("confirm:invite").await, []);
    app.hand.advance(HOUR + Duration::from_secs(121));
    assert_eq!(invites.next().await.target, "/holds/h1");
}
