//! A reservation is taken for a sign-up, confirmed when the account exists, and released if none is created.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::store::Filter;

use crate::support::failing_store::FailingStore;
use crate::support::fake_invites::FakeInvites;
use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
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

fn hold_response(hold_id: &str) -> Behaviour {
    Behaviour::Answers(201, json!({"hold_id": hold_id}).to_string())
}

async fn test_env() -> (TestApp, FakeService) {
    let invites = FakeService::start();
    invites.set_behaviour_for("POST /invites/", hold_response("h1"));
    let app = TestApp::with(INVITES).service("INVITES", &invites).start();
    let app = app.await;
    // `gate` tests the behaviour without the guard.
    app.prove_guard().await;
    (app, invites)
}

#[tokio::test]
async fn a_reservation_is_kept_when_the_form_is_submitted_again_and_confirmed_with_the_account() {
    let (app, invites) = test_env().await;
    let visitor = payload().with_trait("invite", "gold");
    assert!(app.pre(&visitor).await.is_admitted());
    let take = invites.next_call().await;
    assert_eq!(take.target, "/invites/gold/hold");
    assert!(take.header("Idempotency-Key").is_some());
    // Kratos failed for another reason, and the visitor submits the form again.
    assert!(app.pre(&visitor).await.is_admitted());

    let id = Uuid::new_v4();
    let saved = visitor.saved_as(id).guarded();
    assert_eq!(app.post(&saved).await.status, 204);
    let confirm = invites.next_call().await;
    assert_eq!(confirm.target, "/holds/h1/confirm");
    assert_eq!(confirm.json(), json!({"account": id}));
    assert!(confirm.header("Idempotency-Key").is_some());
    assert_eq!(app.post(&saved).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    app.clock.advance(3 * HOUR);
    assert_eq!(app.deliveries("release:invite").await, []);
    assert_eq!(invites.received().len(), 2);
}

#[tokio::test]
async fn another_value_reserves_anew_and_the_first_reservation_is_released() {
    let (app, invites) = test_env().await;
    let visitor = payload().with_trait("invite", "gold");
    app.pre(&visitor).await;
    invites.next_call().await;
    invites.set_behaviour_for("POST /invites/", hold_response("h2"));
    let visitor = visitor.with_trait("invite", "silver");
    app.pre(&visitor).await;
    assert_eq!(invites.next_call().await.target, "/invites/silver/hold");
    // The first submission can still become the account.
    app.clock.advance(Duration::from_secs(6));
    assert_eq!(app.deliveries("release:invite").await, []);
    app.post(&visitor.saved().guarded()).await;
    let mut both = [invites.next_call().await, invites.next_call().await];
    both.sort_by(|one, other| one.target.cmp(&other.target));
    assert_eq!(both[0].target, "/holds/h1");
    assert_eq!(both[0].method, "DELETE");
    assert_eq!(both[1].target, "/holds/h2/confirm");
}

#[tokio::test]
async fn a_refused_take_leaves_nothing_to_release() {
    let (app, invites) = test_env().await;
    invites.set_behaviour_for("POST /invites/", Behaviour::Answers(409, String::new()));
    let visitor = payload();
    let reply = app.pre(&visitor).await;
    assert_eq!(reply.messages()[0].2, "This invite is used up.");
    app.clock.advance(3 * HOUR);
    let state = app.app.store.flow(visitor.flow_id()).await.unwrap();
    assert_eq!(state.reservations, []);
    assert_eq!(app.deliveries("release:invite").await, []);
}

#[tokio::test]
async fn an_expired_flow_releases_and_a_later_post_reserves_again() {
    let (app, invites) = test_env().await;
    let visitor = payload();
    app.pre(&visitor).await;
    invites.next_call().await;
    app.clock.advance(HOUR + Duration::from_secs(121));
    let release = invites.next_call().await;
    assert_eq!(
        (release.method.as_str(), release.target.as_str()),
        ("DELETE", "/holds/h1")
    );
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;

    invites.set_behaviour_for("POST /invites/", hold_response("h2"));
    assert_eq!(app.post(&visitor.saved()).await.status, 204);
    let again = invites.next_call().await;
    assert_eq!(again.target, "/invites/canary-invite/hold");
    let taken = app.wait_for_delivery("take:invite", State::Delivered).await;
    let key = again.header("Idempotency-Key").map(ToOwned::to_owned);
    assert_eq!(key, Some(taken.id.to_string()));
    assert_eq!(invites.next_call().await.target, "/holds/h2/confirm");
    assert!(app.metric("vestibule_posts_after_release_total").await < 0.1);
}

#[tokio::test]
async fn an_unclear_take_is_repeated_with_its_idempotency_key_and_released() {
    let (app, invites) = test_env().await;
    invites.set_behaviour_for("POST /invites/", Behaviour::Breaks);
    let visitor = payload();
    assert!(!app.pre(&visitor).await.refused().is_empty());
    let take = invites.next_call().await;
    // The dispatcher repeats the request with the same key, and releases what the response names.
    invites.set_behaviour_for("POST /invites/", hold_response("h9"));
    app.eventually("the invite is released", async || {
        let waiting = app.deliveries("release:invite").await;
        if waiting
            .iter()
            .any(|one| one.attempts > 0 && one.state == State::Pending)
        {
            app.advance_to_next_attempt("release:invite").await;
        }
        let targets = invites.request_lines();
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
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
}

#[tokio::test]
async fn nothing_is_reserved_while_the_database_fails() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let invites = FakeService::start();
    let app = TestApp::with(INVITES)
        .service("INVITES", &invites)
        .store(store.clone())
        .start()
        .await;
    store.set_failing(true);
    assert!(!app.pre(&payload()).await.refused().is_empty());
    assert_eq!(invites.received().len(), 0);
    store.set_failing(false);
    invites.set_behaviour_for("POST /invites/", hold_response("h1"));
    assert!(app.pre(&payload()).await.is_admitted());
}

#[tokio::test]
async fn with_the_admin_api_a_look_up_decides_about_the_release_and_not_the_time() {
    let (invites, kratos) = (FakeService::start(), FakeKratos::start());
    invites.set_behaviour_for("POST /invites/", hold_response("h1"));
    let yaml = format!("kratos: {{admin_url: \"${{env:KRATOS}}\"}}\n{INVITES}");
    let app = TestApp::with(&yaml)
        .service("INVITES", &invites)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let (created, failed) = (
        payload().with_trait("email", "created@example.org"),
        payload().with_trait("email", "failed@example.org"),
    );
    for visitor in [&created, &failed] {
        let email = visitor.0["identity"]["traits"]["email"].clone();
        let visitor = visitor.clone().with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        );
        assert!(app.pre(&visitor).await.is_admitted());
        invites.next_call().await;
        app.wait_for_pending_sign_up(&visitor).await;
    }
    // The account exists, and its `post` is lost.
    kratos.add_identity("created@example.org", "2026-11-23T14:32:54Z");
    app.clock.advance(Duration::from_secs(61));
    assert_eq!(invites.next_call().await.target, "/holds/h1/confirm");
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    app.wait_for_lookups().await;
    // Kratos is unavailable when the flow expires, so the outcome is unknown.
    kratos.set_down(true);
    for _ in 0..5 {
        let next = app.app.store.next_lookup().await.unwrap().unwrap();
        if next >= app.clock.now() + 2 * HOUR {
            break;
        }
        app.clock.advance(HOUR);
        app.wait_for_lookups().await;
    }
    let all = Filter::default();
    assert_eq!(app.app.store.list(&all, 100).await.unwrap().len(), 1);
    kratos.set_down(false);
    app.clock.advance(HOUR);
    assert_eq!(invites.next_call().await.method, "DELETE");
}

#[tokio::test]
async fn the_example_admits_no_more_visitors_than_an_invite_has_uses() {
    let invites = FakeInvites::with_uses(2);
    let yaml = include_str!("../../examples/settings/invites.yaml");
    let kratos = FakeKratos::start();
    let app = TestApp::with(yaml)
        .env("INVITES", &invites.url())
        .kratos("KRATOS_ADMIN", &kratos)
        .start()
        .await;
    let visitors: Vec<_> = (0..3)
        .map(|_| payload().with_trait("invite", "gold"))
        .collect();
    assert!(app.pre(&visitors[0]).await.is_admitted());
    assert!(app.pre(&visitors[1]).await.is_admitted());
    let refused = app.pre(&visitors[2]).await.messages();
    assert_eq!(refused[0].2, "This invite code is used up.");
    let unknown = app.pre(&payload().with_trait("invite", "brass")).await;
    assert_eq!(unknown.messages()[0].2, "We do not know this invite code.");

    // The first sign-up becomes an account, the second one does not.
    assert_eq!(app.post(&visitors[0].clone().saved()).await.status, 204);
    app.wait_for_delivery("confirm:invite", State::Delivered)
        .await;
    app.clock.advance(HOUR + Duration::from_secs(121));
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    assert_eq!(invites.held_and_confirmed(), (1, 1));
    let late = payload()
        .with_trait("invite", "gold")
        .with("/flow/expires_at", "2026-11-24T00:00:00Z");
    assert!(app.pre(&late).await.is_admitted());
    assert_eq!(invites.held_and_confirmed(), (2, 1));
}

#[tokio::test]
async fn a_gateway_error_is_an_unclear_take() {
    let (app, invites) = test_env().await;
    let gateway = Behaviour::Answers(502, "<html>bad gateway</html>".to_owned());
    invites.set_behaviour_for("POST /invites/", gateway);
    assert!(!app.pre(&payload()).await.refused().is_empty());
    invites.set_behaviour_for("POST /invites/", hold_response("h7"));
    app.eventually("the invite is released", async || {
        let waiting = app.deliveries("release:invite").await;
        if waiting.iter().any(|one| one.attempts > 0) {
            app.advance_to_next_attempt("release:invite").await;
        }
        let targets = invites.request_lines();
        targets
            .contains(&"DELETE /holds/h7".to_owned())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn parallel_submissions_of_a_form_share_one_reservation() {
    let (app, invites) = test_env().await;
    let visitor = payload();
    let other = visitor
        .clone()
        .with("/request/headers/User-Agent", "another");
    invites.set_behaviour_for("POST /invites/", Behaviour::Hangs);
    let (one, two) = tokio::join!(app.pre(&visitor), async {
        invites.next_call().await;
        let second = app.pre(&other);
        let release = async {
            invites.next_call().await;
            invites.set_behaviour_for("POST /invites/", hold_response("h1"));
            invites.set_behaviour_for(
                "POST /invites/canary",
                Behaviour::Answers(200, "{}".to_owned()),
            );
            invites.release_hanging_calls();
        };
        tokio::join!(second, release).0
    });
    assert!(one.is_admitted() && two.is_admitted());
    let keys: Vec<_> = invites
        .received()
        .iter()
        .map(|call| call.header("Idempotency-Key").map(str::to_owned))
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    let state = app.app.store.flow(visitor.flow_id()).await.unwrap();
    assert_eq!(state.reservations.len(), 1);
}

#[tokio::test]
async fn a_reservation_of_a_removed_check_becomes_a_dead_letter() {
    let (app, invites) = test_env().await;
    let visitor = payload();
    app.pre(&visitor).await;
    invites.next_call().await;
    let (folder, now) = app.stop().await;
    let app = TestApp::with("").in_folder(&folder, now).start().await;
    assert_eq!(app.post(&visitor.clone().saved()).await.status, 204);
    assert_eq!(app.deliveries("confirm:invite").await, []);
    app.clock.advance(2 * HOUR);
    let dead = app
        .wait_for_delivery("release:invite", State::Abandoned)
        .await;
    assert!(
        dead.last_error
            .unwrap()
            .contains("is no longer in the settings")
    );
}

#[tokio::test]
async fn a_reservation_of_an_unsaved_change_is_released() {
    let (app, invites) = test_env().await;
    let change = payload()
        .with("/flow/type", "browser")
        .changed_from(&json!({"email": "canary@example.org", "invite": "iron"}))
        .with_trait("invite", "gold");
    assert_eq!(app.settings(&change).await.status, 204);
    assert_eq!(invites.next_call().await.target, "/invites/gold/hold");
    app.clock.advance(HOUR + Duration::from_secs(121));
    let release = invites.next_call().await;
    assert_eq!(
        (release.method.as_str(), release.target.as_str()),
        ("DELETE", "/holds/h1")
    );
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    assert_eq!(app.deliveries("confirm:invite").await, []);
}

#[tokio::test]
async fn a_reservation_is_confirmed_although_the_visitor_continues_with_another_method() {
    let (app, invites) = test_env().await;
    let visitor = payload().with_trait("invite", "gold");
    assert!(app.pre(&visitor).await.is_admitted());
    assert_eq!(invites.next_call().await.target, "/invites/gold/hold");
    // Kratos refused the password, and the visitor signs up with a provider in the same flow.
    let by = |stage: &str| format!("/hooks/registration/{stage}?method=oidc");
    assert!(
        app.call(&by("pre"), visitor.to_string())
            .await
            .is_admitted()
    );
    let saved = visitor.saved().guarded().to_string();
    assert_eq!(app.call(&by("post"), saved).await.status, 204);
    assert_eq!(invites.next_call().await.target, "/holds/h1/confirm");
}

/// The visitor types `gold`, and the check sets what the service returns.
async fn reserve_with_rewritten_value(code: &str) -> (TestApp, FakeService, Payload) {
    let invites = FakeService::start();
    let answer = json!({"hold_id": "h1", "code": code}).to_string();
    invites.set_behaviour_for("POST /invites/", Behaviour::Answers(201, answer));
    let yaml = format!("{INVITES}    set: {{traits.invite: \"{{response.body.code}}\"}}\n");
    let app = TestApp::with(&yaml)
        .service("INVITES", &invites)
        .start()
        .await;
    let visitor = payload().with_trait("invite", "gold");
    assert_eq!(app.pre(&visitor).await.status, 200);
    invites.next_call().await;
    (app, invites, visitor)
}

#[tokio::test]
async fn a_reservation_is_confirmed_although_the_check_rewrote_the_value() {
    let (app, invites, visitor) = reserve_with_rewritten_value("GOLD").await;
    let saved = visitor.with_trait("invite", "GOLD").saved();
    assert_eq!(app.post(&saved).await.status, 204);
    assert_eq!(invites.next_call().await.target, "/holds/h1/confirm");
}

#[tokio::test]
async fn a_reservation_is_released_if_the_visitor_removes_the_value() {
    let (app, invites, visitor) = reserve_with_rewritten_value("GOLD").await;
    // Kratos failed for another reason, and the visitor removes the invite.
    let visitor = visitor.with_trait("invite", "");
    assert!(app.pre(&visitor).await.is_admitted());
    assert_eq!(app.post(&visitor.saved()).await.status, 204);
    assert_eq!(app.deliveries("confirm:invite").await, []);
    app.clock.advance(HOUR + Duration::from_secs(121));
    assert_eq!(invites.next_call().await.target, "/holds/h1");
}

/// Two entries of `refuse` that read an answer with a status 2xx.
fn refuses_plans() -> String {
    let entry =
        "{when: \"response.body.?plan.orValue('') == 'basic'\", message: \"Another plan.\"}";
    INVITES.replace("refuse: [", &format!("refuse: [{entry}, {{when: 202}}, "))
}

#[tokio::test]
async fn a_reservation_whose_answer_the_check_refuses_is_released() {
    let invites = FakeService::start();
    let hold = json!({"hold_id": "h1", "plan": "basic"}).to_string();
    invites.set_behaviour_for("POST /invites/", Behaviour::Answers(201, hold));
    let app = TestApp::with(&refuses_plans())
        .service("INVITES", &invites)
        .start()
        .await;
    let reply = app.pre(&payload()).await;
    assert_eq!(reply.messages()[0].2, "Another plan.");
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    let calls = invites.request_lines();
    assert_eq!(
        calls,
        ["POST /invites/canary-invite/hold", "DELETE /holds/h1"]
    );
    // The same visitor reserves again.
    invites.set_behaviour_for("POST /invites/", hold_response("h2"));
    assert!(app.pre(&payload()).await.is_admitted());
}

#[tokio::test]
async fn a_refused_answer_without_a_reservation_leaves_nothing_to_release() {
    for (status, answer) in [
        (200, json!({"plan": "basic"})),
        (202, json!({"hold_id": "h1"})),
    ] {
        let invites = FakeService::start();
        let behaviour = Behaviour::Answers(status, answer.to_string());
        invites.set_behaviour_for("POST /invites/", behaviour);
        let app = TestApp::with(&refuses_plans())
            .service("INVITES", &invites)
            .start()
            .await;
        let visitor = payload();
        assert!(!app.pre(&visitor).await.refused().is_empty(), "{status}");
        app.clock.advance(3 * HOUR);
        let state = app.app.store.flow(visitor.flow_id()).await.unwrap();
        assert_eq!(state.reservations, [], "{status}");
        assert_eq!(app.deliveries("release:invite").await, [], "{status}");
    }
}

#[tokio::test]
async fn a_reservation_that_is_taken_again_and_refused_is_released() {
    let invites = FakeService::start();
    invites.set_behaviour_for("POST /invites/", hold_response("h1"));
    let app = TestApp::with(&refuses_plans())
        .service("INVITES", &invites)
        .start()
        .await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    app.clock.advance(HOUR + Duration::from_secs(121));
    app.wait_for_delivery("release:invite", State::Delivered)
        .await;
    let hold = json!({"hold_id": "h2", "plan": "basic"}).to_string();
    invites.set_behaviour_for("POST /invites/", Behaviour::Answers(201, hold));
    assert_eq!(app.post(&visitor.saved()).await.status, 204);
    app.wait_for_delivery("take:invite", State::Delivered).await;
    app.eventually("the second hold is released", async || {
        let calls = invites.request_lines();
        calls.contains(&"DELETE /holds/h2".to_owned()).then_some(())
    })
    .await;
}
