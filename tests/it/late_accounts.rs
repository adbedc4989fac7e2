//! Accounts that are found after their reservation was released, and lost `post` calls that a later hook call recovers.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;

use crate::support::app::uuid;
use crate::support::failing_store::FailingStore;
use crate::support::fake_invites::FakeInvites;
use crate::support::fake_service::Behaviour;
use crate::support::logs::lines_with;
use crate::support::payload::{Payload, invited_visitor};
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const INVITES: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  company:
    field: traits.company
    refuse: [{when: "value == 'refused'"}]
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      confirm: {post: "${env:INVITES}/holds/{taken.body.hold_id}/confirm", json: {account: "{identity.id}"}}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 409, message: "This invite is used up."}]
subscriptions:
  refusals: {events: [check.refused], send: {post: "${env:INVITES}/refusals"}}
"#;
const POSTS_AFTER_RELEASE: &str = "vestibule_posts_after_release_total";
const LOGIN: &str = "/hooks/login/pre?method=password";
const HOUR: Duration = Duration::from_hours(1);

struct TestEnv {
    app: TestApp,
    invites: FakeInvites,
    kratos: FakeKratos,
}

impl TestEnv {
    async fn start(yaml: &str, uses: usize) -> Self {
        let (invites, kratos) = (FakeInvites::with_uses(uses), FakeKratos::start());
        let app = TestApp::with(yaml)
            .env("INVITES", &invites.url())
            .kratos("KRATOS", &kratos)
            .start()
            .await;
        Self {
            app,
            invites,
            kratos,
        }
    }

    /// Signs up, and waits until the invite is released because no account was found.
    async fn with_a_released_invite(yaml: &str) -> (Self, Payload) {
        let env = Self::start(yaml, 1).await;
        env.app.prove_guard().await;
        let visitor = invited_visitor("late@example.org");
        assert!(env.app.pre(&visitor).await.is_admitted());
        env.app.run_lookups_after([5, 25, 90, 481]).await;
        let app = &env.app;
        app.wait_until_delivered("release:invite").await;
        assert_eq!(env.invites.held_and_confirmed(), (0, 0));
        (env, visitor)
    }

    /// Saves the visitor in Kratos. Returns the body of `post`.
    fn save(&self, visitor: &Payload) -> (Uuid, Payload) {
        let email = visitor.0["identity"]["traits"]["email"].as_str();
        let created_at = json!(self.app.clock.now());
        let created_at = created_at.as_str().expect("a moment");
        let id = self
            .kratos
            .add_identity(email.expect("an address"), created_at);
        let traits = visitor.0["identity"]["traits"].clone();
        self.kratos.set_value(id, "/traits", traits);
        let saved = visitor.clone().saved_as(id);
        (id, saved.with("/identity/created_at", created_at))
    }

    /// Saves the visitor in a Kratos that stores the `external_id`.
    fn save_guarded(&self, visitor: &Payload) -> (Uuid, Payload) {
        let (id, saved) = self.save(visitor);
        let saved = saved.guarded();
        let external_id = saved.0["identity"]["external_id"].clone();
        self.kratos.set_value(id, "/external_id", external_id);
        (id, saved)
    }

    /// Saves the visitor in a Kratos that stores the `external_id`, and calls `post`.
    async fn save_guarded_and_post(&self, visitor: &Payload) -> (Uuid, Payload) {
        let (id, saved) = self.save_guarded(visitor);
        assert_eq!(self.app.post(&saved).await.status, 204);
        (id, saved)
    }

    async fn assert_reserved_again_and_confirmed(&self) {
        let taken = self.app.wait_until_delivered("take:invite").await;
        self.app.wait_until_delivered("confirm:invite").await;
        assert_eq!(self.invites.held_and_confirmed(), (1, 1));
        assert_eq!(self.invites.idempotency_keys(), [taken.id.to_string()]);
        assert!(self.app.metric(POSTS_AFTER_RELEASE).await < 0.1);
    }
}

fn traits_of(payload: &Payload) -> Value {
    payload.0["identity"]["traits"].clone()
}

/// A change in settings of a visitor with these traits.
fn change_of(account: &Payload, company: &str) -> Payload {
    let mut change = account.clone().with("/flow/id", uuid());
    change.0["previous"] = json!({"traits": traits_of(account), "metadata_public": null});
    change.with_trait("company", company)
}

#[tokio::test]
async fn a_post_after_the_release_reserves_again_and_confirms() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let (_, saved) = env.save_guarded(&visitor);
    for _ in 0..2 {
        assert_eq!(env.app.post(&saved).await.status, 204);
        env.assert_reserved_again_and_confirmed().await;
    }
    assert_eq!(env.app.deliveries("release:invite").await.len(), 1);
}

#[tokio::test]
async fn a_post_after_the_release_is_refused_late_if_the_invite_is_used_up() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let next = invited_visitor("next@example.org");
    assert!(env.app.pre(&next).await.is_admitted());
    let (id, saved) = env.save_guarded_and_post(&visitor).await;
    let app = &env.app;
    app.wait_until_delivered("take:invite").await;
    app.wait_until_delivered("late-refusal:invite").await;
    app.wait_until_delivered("refusals").await;
    assert_eq!(env.kratos.identity(id)["state"], "inactive");
    app.clock.advance(Duration::from_secs(1));
    let reply = app
        .eventually("the visitor is kept out", async || {
            let reply = app.call(LOGIN, saved.to_string()).await;
            (reply.status == 400).then_some(reply)
        })
        .await;
    assert_eq!(reply.messages()[0].2, "This invite is used up.");
    assert_eq!(env.invites.held_and_confirmed(), (1, 0));
    assert_eq!(app.deliveries("confirm:invite").await, []);
    app.assert_metric(POSTS_AFTER_RELEASE, 0).await;
}

#[tokio::test]
async fn a_reservation_of_another_submission_of_the_form_is_confirmed_instead() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let corrected = visitor.clone().with_trait("email", "corrected@example.org");
    assert!(env.app.pre(&corrected).await.is_admitted());
    env.app.clock.advance(Duration::from_secs(6));
    env.save_guarded_and_post(&visitor).await;
    env.app.wait_until_delivered("confirm:invite").await;
    assert_eq!(env.app.deliveries("take:invite").await, []);
    assert_eq!(env.invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn on_late_refusal_controls_the_late_refusal_of_a_reservation() {
    for (chosen, is_marked) in [("mark", true), ("notify", false)] {
        let yaml = INVITES.replace(
            "    refuse: [{when: 409",
            &format!("    on_late_refusal: {chosen}\n    refuse: [{{when: 409"),
        );
        let (env, visitor) = TestEnv::with_a_released_invite(&yaml).await;
        let next = invited_visitor("next@example.org");
        assert!(env.app.pre(&next).await.is_admitted());
        let (id, _) = env.save_guarded_and_post(&visitor).await;
        env.app.wait_until_delivered("refusals").await;
        if is_marked {
            env.app.wait_until_delivered("write-back:invite").await;
        }
        let identity = env.kratos.identity(id);
        let mark = &identity["metadata_admin"]["vestibule"]["refused"]["invite"];
        assert_eq!(mark.is_object(), is_marked, "{chosen}");
        assert_eq!(identity["state"], "active", "{chosen}");
        assert_eq!(env.app.deliveries("late-refusal:invite").await, []);
    }
}

#[tokio::test]
async fn a_second_reservation_is_retried_until_the_service_answers() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    env.invites.set_down(true);
    env.save_guarded_and_post(&visitor).await;
    env.app.advance_to_next_attempt("take:invite").await;
    env.app
        .eventually("two attempts were made", async || {
            let one = env.app.deliveries("take:invite").await.pop()?;
            (one.attempts == 2).then_some(())
        })
        .await;
    env.invites.set_down(false);
    env.app.advance_to_next_attempt("take:invite").await;
    env.assert_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_second_reservation_that_fails_for_eight_days_becomes_a_dead_letter_and_raises_an_alarm()
{
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    env.invites.set_down(true);
    env.save_guarded_and_post(&visitor).await;
    env.app.advance_to_next_attempt("take:invite").await;
    env.app.clock.advance(Duration::from_hours(24 * 8));
    env.app
        .wait_for_delivery("take:invite", State::Abandoned)
        .await;
    env.app.assert_metric(POSTS_AFTER_RELEASE, 1).await;
    assert!(!lines_with("could not be taken again in time").is_empty());
}

#[tokio::test]
async fn the_last_look_up_a_day_after_the_flow_reserves_again() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    env.app.clock.advance(HOUR);
    env.app.wait_for_lookups().await;
    env.save_guarded(&visitor);
    env.app.clock.advance(Duration::from_hours(23));
    env.app.wait_for_lookups().await;
    assert_eq!(env.app.deliveries("take:invite").await, []);
    env.app.clock.advance(HOUR);
    env.assert_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_settings_call_after_the_release_reserves_again() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let (_, saved) = env.save_guarded(&visitor);
    let change = change_of(&saved, "Another GmbH");
    assert!(env.app.settings(&change).await.is_admitted());
    env.assert_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_login_after_the_release_reserves_again() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let (_, saved) = env.save_guarded(&visitor);
    let login = saved.with("/flow/id", uuid());
    let reply = env.app.call(LOGIN, login.to_string()).await;
    assert_eq!(reply.status, 204);
    env.assert_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_login_closes_the_open_flow_of_its_account() {
    for hook in [LOGIN, "/hooks/recovery/pre"] {
        let env = TestEnv::start(INVITES, 1).await;
        let visitor = invited_visitor("lost@example.org");
        assert!(env.app.pre(&visitor).await.is_admitted());
        // The `post` is lost, and no time passes for a look-up.
        let (_, saved) = env.save_guarded(&visitor);
        let login = saved.with("/flow/id", uuid());
        assert_eq!(env.app.call(hook, login.to_string()).await.status, 204);
        env.app.wait_until_delivered("confirm:invite").await;
        assert_eq!(env.invites.held_and_confirmed(), (1, 1));
        assert!(!env.app.pre(&visitor).await.is_admitted());
    }
}

#[tokio::test]
async fn a_login_does_not_wait_for_an_unresponsive_database() {
    let store = FailingStore::create().await;
    let invites = FakeInvites::with_uses(1);
    let kratos = FakeKratos::start();
    let app = TestApp::with(INVITES)
        .env("INVITES", &invites.url())
        .kratos("KRATOS", &kratos)
        .store(store.clone())
        .start()
        .await;
    store.set_unresponsive(true);
    let login = invited_visitor("a@example.org")
        .saved()
        .guarded()
        .with("/identity/created_at", json!(app.clock.now()));
    // More calls than may wait at the same time.
    for _ in 0..20 {
        assert_eq!(app.call(LOGIN, login.to_string()).await.status, 204);
    }
    let too_many = lines_with("too many logins wait for the database");
    assert!(!too_many.is_empty());
    app.clock.advance(Duration::from_secs(6));
    let id = login.0["identity"]["id"].as_str().unwrap().to_owned();
    app.eventually("the failure is logged", async || {
        let lines = lines_with("Could not find out whether a `post` of this account was lost");
        lines.iter().any(|line| line.contains(&id)).then_some(())
    })
    .await;
    // An old account has no open flow.
    store.set_unresponsive(false);
    let calls = store.open_flow_calls();
    let old = login.with("/identity/created_at", "2025-11-23T14:32:53Z");
    assert_eq!(app.call(LOGIN, old.to_string()).await.status, 204);
    assert_eq!(store.open_flow_calls(), calls);
}

#[tokio::test]
async fn a_second_reservation_waits_for_the_release_of_the_first() {
    let (invites, kratos) = (FakeService::start(), FakeKratos::start());
    let hold = |id: &str| Behaviour::Answers(201, json!({ "hold_id": id }).to_string());
    invites.set_behaviour_for("POST /invites/", hold("h1"));
    invites.set_behaviour_for("DELETE /holds/", Behaviour::Answers(503, String::new()));
    let app = TestApp::with(INVITES)
        .service("INVITES", &invites)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    app.prove_guard().await;
    let visitor = invited_visitor("late@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    app.clock.advance(Duration::from_mins(11));
    app.wait_for_lookups().await;
    app.eventually("a release was attempted", async || {
        let one = app.deliveries("release:invite").await.pop()?;
        (one.attempts > 0).then_some(())
    })
    .await;
    invites.set_behaviour_for("POST /invites/", hold("h2"));
    let id = kratos.add_identity("late@example.org", "2026-11-23T14:43:50Z");
    let saved = visitor.saved_as(id).guarded();
    assert_eq!(app.post(&saved).await.status, 204);
    let waiting = app
        .eventually("the reservation waits", async || {
            let one = app.deliveries("take:invite").await.pop()?;
            one.last_error.clone().map(|_| one)
        })
        .await;
    assert_eq!(waiting.last_error.as_deref(), Some("not_released"));
    let takes = || {
        invites
            .request_lines()
            .iter()
            .filter(|one| one.starts_with("POST /invites/"))
            .count()
    };
    assert_eq!(takes(), 1);
    invites.set_behaviour_for("DELETE /holds/", Behaviour::Answers(204, String::new()));
    app.advance_to_next_attempt("release:invite").await;
    app.wait_until_delivered("release:invite").await;
    app.advance_to_next_attempt("take:invite").await;
    app.wait_until_delivered("confirm:invite").await;
    assert_eq!(takes(), 2);
    let targets = invites.request_lines();
    assert!(
        targets.contains(&"POST /holds/h2/confirm".to_owned()),
        "{targets:?}"
    );
}

#[tokio::test]
async fn nothing_is_reserved_again_for_a_deleted_account() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let saved = visitor.saved().guarded();
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.app.wait_until_delivered("take:invite").await;
    assert_eq!(env.app.deliveries("confirm:invite").await, []);
    assert_eq!(env.invites.held_and_confirmed(), (0, 0));
}

#[tokio::test]
async fn erasure_discards_a_pending_second_reservation() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    env.invites.set_down(true);
    let (id, _) = env.save_guarded_and_post(&visitor).await;
    let store = &env.app.app.store;
    store.forget(id, env.app.clock.now()).await.unwrap();
    let second = env
        .app
        .wait_for_delivery("take:invite", State::Discarded)
        .await;
    let shown = store.show(second.id).await.unwrap().unwrap();
    assert_eq!(shown.action, None);
    let state = store.flow(visitor.flow_id()).await.unwrap();
    assert!(state.reservations.iter().all(|one| one.details.is_none()));
}

#[tokio::test]
async fn a_released_reservation_keeps_only_the_data_for_taking_it_again() {
    let (env, visitor) = TestEnv::with_a_released_invite(INVITES).await;
    let state = env.app.app.store.flow(visitor.flow_id()).await.unwrap();
    let kept = json!(state.reservations[0].details);
    assert_eq!(kept["context"]["value"], "gold");
    let kept = kept.to_string();
    for canary in [
        "canary-agent",
        "canary-transient",
        "late@example.org",
        "192.0.2.7",
    ] {
        assert!(!kept.contains(canary), "{canary} in {kept}");
    }
}

/// Submits one form twice. Kratos saves both, and the second one has taken over the invite of the first one.
async fn two_submissions_of_one_invite(uses: usize) -> (TestEnv, Payload, Payload) {
    let yaml = INVITES.replace("KRATOS}\"", "KRATOS}\", use_external_id: never");
    let env = TestEnv::start(&yaml, uses).await;
    let first = invited_visitor("first@example.org");
    assert!(env.app.pre(&first).await.is_admitted());
    let second = first
        .clone()
        .with_trait("email", "second@example.org")
        .with(
            "/identity/verifiable_addresses/0/value",
            "second@example.org",
        );
    env.app.clock.advance(Duration::from_secs(11));
    env.app.wait_for_lookups().await;
    (env, first, second)
}

#[tokio::test]
async fn an_account_whose_reservation_was_taken_over_reserves_again() {
    let (env, first, second) = two_submissions_of_one_invite(2).await;
    assert!(env.app.pre(&second).await.is_admitted());
    assert_eq!(env.invites.held_and_confirmed(), (1, 0));
    for one in [&second, &first] {
        let (_, saved) = env.save(one);
        assert_eq!(env.app.post(&saved).await.status, 204);
    }
    env.app
        .eventually("both accounts have an invite", async || {
            (env.invites.held_and_confirmed() == (2, 2)).then_some(())
        })
        .await;
    assert_eq!(env.app.deliveries("take:invite").await.len(), 1);
    env.app.assert_metric(POSTS_AFTER_RELEASE, 0).await;
}

#[tokio::test]
async fn an_account_whose_reservation_was_taken_over_is_refused_late_if_no_invite_is_left() {
    let (env, first, second) = two_submissions_of_one_invite(1).await;
    assert!(env.app.pre(&second).await.is_admitted());
    let (second, saved) = env.save(&second);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.app.wait_until_delivered("confirm:invite").await;
    let (first, saved) = env.save(&first);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.app.wait_until_delivered("late-refusal:invite").await;
    assert_eq!(env.kratos.identity(first)["state"], "inactive");
    assert_eq!(env.kratos.identity(second)["state"], "active");
    assert_eq!(env.invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn a_reservation_that_a_refused_submission_took_over_still_belongs_to_the_account() {
    let (env, first, second) = two_submissions_of_one_invite(1).await;
    let refused = second.with_trait("company", "refused");
    assert_eq!(env.app.pre(&refused).await.status, 400);
    env.app.clock.advance(Duration::from_secs(40));
    env.app.wait_for_lookups().await;
    let (_, saved) = env.save(&first);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.app.wait_until_delivered("confirm:invite").await;
    assert_eq!(env.app.deliveries("take:invite").await, []);
    assert_eq!(env.invites.held_and_confirmed(), (1, 1));
}

/// A change of the invite in settings whose `post` is lost.
async fn changed_invite(env: &TestEnv) -> Payload {
    let change = payload()
        .changed_from(&json!({"email": "canary@example.org", "invite": "iron"}))
        .with_trait("invite", "gold");
    assert!(env.app.settings(&change).await.is_admitted());
    assert_eq!(env.invites.held_and_confirmed(), (1, 0));
    change
}

/// Settings without the admin API of Kratos: only hook calls show what was saved.
fn without_admin_api() -> String {
    INVITES.replace("kratos: {admin_url: \"${env:KRATOS}\"}\n", "")
}

#[tokio::test]
async fn a_later_settings_call_proves_that_a_change_was_saved() {
    let env = TestEnv::start(&without_admin_api(), 1).await;
    let change = changed_invite(&env).await;
    // A call of another identity proves nothing, and neither does a call with the old invite.
    let other = change_of(&change.clone().saved(), "Another GmbH");
    assert!(env.app.settings(&other).await.is_admitted());
    let mut before = change_of(&change, "Another GmbH");
    before.0["previous"]["traits"]["invite"] = "iron".into();
    before.0["identity"]["traits"]["invite"] = "iron".into();
    assert!(env.app.settings(&before).await.is_admitted());
    assert_eq!(env.app.deliveries("confirm:invite").await, []);

    let next = change_of(&change, "Another GmbH");
    assert!(env.app.settings(&next).await.is_admitted());
    env.app.wait_until_delivered("confirm:invite").await;
    assert_eq!(env.invites.held_and_confirmed(), (1, 1));
    // The `post` arrives late.
    assert_eq!(env.app.settings_post(&change).await.status, 204);
    assert_eq!(env.app.deliveries("confirm:invite").await.len(), 1);
}

#[tokio::test]
async fn a_change_that_is_proved_after_the_release_reserves_again() {
    let env = TestEnv::start(&without_admin_api(), 1).await;
    let change = changed_invite(&env).await;
    env.app.clock.advance(HOUR + Duration::from_secs(121));
    env.app.wait_until_delivered("release:invite").await;
    let next = change_of(&change, "Another GmbH");
    assert!(env.app.settings(&next).await.is_admitted());
    env.assert_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_change_that_is_proved_by_a_later_call_is_delivered_once() {
    let yaml = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.updated], send: {post: "${env:INVITES}/crm"}}
"#;
    let env = TestEnv::start(yaml, 1).await;
    let before = json!({"email": "canary@example.org"});
    let change = payload().changed_from(&before);
    assert!(env.app.settings(&change).await.is_admitted());
    let next = change_of(&change, "Another GmbH");
    assert!(env.app.settings(&next).await.is_admitted());
    env.app.wait_until_delivered("crm").await;
    assert_eq!(env.app.settings_post(&change).await.status, 204);
    assert_eq!(env.app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn a_change_without_an_effect_on_the_traits_is_not_proved() {
    let yaml = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.updated], send: {post: "${env:INVITES}/crm"}}
"#;
    let env = TestEnv::start(yaml, 1).await;
    let same = payload();
    let same = same.clone().changed_from(&traits_of(&same));
    assert!(env.app.settings(&same).await.is_admitted());
    let next = change_of(&same, "Another GmbH");
    assert!(env.app.settings(&next).await.is_admitted());
    assert_eq!(env.app.deliveries("crm").await, []);
}

#[tokio::test]
async fn a_login_closes_a_form_whose_first_submission_had_another_external_id() {
    let env = TestEnv::start(INVITES, 1).await;
    let first = invited_visitor("first@example.org");
    let other_id = first.clone().with("/identity/external_id", "crm-7");
    assert!(env.app.pre(&other_id).await.is_admitted());
    let second = first
        .with_trait("email", "second@example.org")
        .with_trait("invite", "silver");
    assert!(env.app.pre(&second).await.is_admitted());
    let (_, saved) = env.save_guarded(&second);
    let login = saved.with("/flow/id", uuid());
    assert_eq!(env.app.call(LOGIN, login.to_string()).await.status, 204);
    env.app.wait_until_delivered("confirm:invite").await;
    assert_eq!(env.invites.held_and_confirmed_of("silver"), (1, 1));
}
