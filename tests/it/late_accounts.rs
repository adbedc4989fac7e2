//! An account that becomes known after its reservation was released, or whose `post` a later hook call makes up for.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;

use crate::support::app::uuid;
use crate::support::failing::Failing;
use crate::support::invites::Invites;
use crate::support::logs::lines_with;
use crate::support::payload::Payload;
use crate::support::service::Behaviour;
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
const LATE_POSTS: &str = "vestibule_posts_after_release_total";
const LOGIN: &str = "/hooks/login/pre?method=password";
const HOUR: Duration = Duration::from_hours(1);

struct House {
    app: TestApp,
    invites: Invites,
    kratos: FakeKratos,
}

impl House {
    async fn with(yaml: &str, uses: usize) -> Self {
        let (invites, kratos) = (Invites::with_uses(uses), FakeKratos::start());
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

    /// A visitor whose sign-up was accepted, and whose invite was released because no account was found.
    async fn with_a_released_invite(yaml: &str) -> (Self, Payload) {
        let house = Self::with(yaml, 1).await;
        house.app.prove_guard().await;
        let visitor = invited("late@example.org");
        assert!(house.app.pre(&visitor).await.is_admitted());
        for step in [5, 25, 90, 481] {
            house.app.hand.advance(Duration::from_secs(step));
            house.app.looked().await;
        }
        let app = &house.app;
        app.delivery_in("release:invite", State::Delivered).await;
        assert_eq!(house.invites.held_and_confirmed(), (0, 0));
        (house, visitor)
    }

    /// Kratos saves the visitor after all. Returns what `post` gets.
    fn saves(&self, visitor: &Payload) -> (Uuid, Payload) {
        let email = visitor.0["identity"]["traits"]["email"].as_str();
        let created_at = json!(self.app.hand.now());
        let created_at = created_at.as_str().expect("a moment");
        let id = self.kratos.has(email.expect("an address"), created_at);
        let traits = visitor.0["identity"]["traits"].clone();
        self.kratos.change(id, "/traits", traits);
        let saved = visitor.clone().saved_as(id);
        (id, saved.with("/identity/created_at", created_at))
    }

    /// The same by a Kratos that keeps our `external_id`.
    fn saves_guarded(&self, visitor: &Payload) -> (Uuid, Payload) {
        let (id, saved) = self.saves(visitor);
        let saved = saved.guarded();
        let external_id = saved.0["identity"]["external_id"].clone();
        self.kratos.change(id, "/external_id", external_id);
        (id, saved)
    }

    async fn is_reserved_again_and_confirmed(&self) {
        let taken = self.app.delivery_in("take:invite", State::Delivered).await;
        self.app
            .delivery_in("confirm:invite", State::Delivered)
            .await;
        assert_eq!(self.invites.held_and_confirmed(), (1, 1));
        assert_eq!(self.invites.keys(), [taken.id.to_string()]);
        assert!(self.app.metric(LATE_POSTS).await < 0.1);
    }
}

fn invited(email: &str) -> Payload {
    payload()
        .with_trait("invite", "gold")
        .with_trait("email", email)
        .with("/identity/state_changed_at", "2026-11-23T14:32:53.1Z")
        .with(
            "/identity/verifiable_addresses",
            json!([{"value": email, "via": "email"}]),
        )
}

fn traits_of(payload: &Payload) -> Value {
    payload.0["identity"]["traits"].clone()
}

/// A change in settings of a visitor who has these traits.
fn change_of(account: &Payload, company: &str) -> Payload {
    let mut change = account.clone().with("/flow/id", uuid());
    change.0["previous"] = json!({"traits": traits_of(account), "metadata_public": null});
    change.with_trait("company", company)
}

#[tokio::test]
async fn a_post_after_the_release_reserves_again_and_confirms() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let (_, saved) = house.saves_guarded(&visitor);
    for _ in 0..2 {
        assert_eq!(house.app.post(&saved).await.status, 204);
        house.is_reserved_again_and_confirmed().await;
    }
    assert_eq!(house.app.deliveries("release:invite").await.len(), 1);
}

#[tokio::test]
async fn a_post_after_the_release_is_refused_late_if_the_invite_is_used_up() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let next = invited("next@example.org");
    assert!(house.app.pre(&next).await.is_admitted());
    let (id, saved) = house.saves_guarded(&visitor);
    assert_eq!(house.app.post(&saved).await.status, 204);
    let app = &house.app;
    app.delivery_in("take:invite", State::Delivered).await;
    app.delivery_in("late-refusal:invite", State::Delivered)
        .await;
    app.delivery_in("refusals", State::Delivered).await;
    assert_eq!(house.kratos.identity(id)["state"], "inactive");
    app.hand.advance(Duration::from_secs(1));
    let reply = app
        .eventually("the person is kept out", async || {
            let reply = app.call(LOGIN, saved.to_string()).await;
            (reply.status == 400).then_some(reply)
        })
        .await;
    assert_eq!(reply.messages()[0].2, "This invite is used up.");
    assert_eq!(house.invites.held_and_confirmed(), (1, 0));
    assert_eq!(app.deliveries("confirm:invite").await, []);
    assert!(app.metric(LATE_POSTS).await < 0.1);
}

#[tokio::test]
async fn what_another_submission_of_the_form_has_reserved_is_confirmed_instead() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let corrected = visitor.clone().with_trait("email", "corrected@example.org");
    assert!(house.app.pre(&corrected).await.is_admitted());
    house.app.hand.advance(Duration::from_secs(6));
    let (_, saved) = house.saves_guarded(&visitor);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house
        .app
        .delivery_in("confirm:invite", State::Delivered)
        .await;
    assert_eq!(house.app.deliveries("take:invite").await, []);
    assert_eq!(house.invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn the_operator_chooses_what_a_late_refusal_of_a_reservation_does() {
    for (chosen, is_marked) in [("mark", true), ("notify", false)] {
        let yaml = INVITES.replace(
            "    refuse: [{when: 409",
            &format!("    on_late_refusal: {chosen}\n    refuse: [{{when: 409"),
        );
        let (house, visitor) = House::with_a_released_invite(&yaml).await;
        let next = invited("next@example.org");
        assert!(house.app.pre(&next).await.is_admitted());
        let (id, saved) = house.saves_guarded(&visitor);
        assert_eq!(house.app.post(&saved).await.status, 204);
        house.app.delivery_in("refusals", State::Delivered).await;
        if is_marked {
            house
                .app
                .delivery_in("write-back:invite", State::Delivered)
                .await;
        }
        let identity = house.kratos.identity(id);
        let mark = &identity["metadata_admin"]["vestibule"]["refused"]["invite"];
        assert_eq!(mark.is_object(), is_marked, "{chosen}");
        assert_eq!(identity["state"], "active", "{chosen}");
        assert_eq!(house.app.deliveries("late-refusal:invite").await, []);
    }
}

#[tokio::test]
async fn a_reservation_is_taken_again_until_the_service_answers() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    house.invites.is_down(true);
    let (_, saved) = house.saves_guarded(&visitor);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.app.to_the_next_try("take:invite").await;
    house
        .app
        .eventually("it is tried twice", async || {
            let one = house.app.deliveries("take:invite").await.pop()?;
            (one.attempts == 2).then_some(())
        })
        .await;
    house.invites.is_down(false);
    house.app.to_the_next_try("take:invite").await;
    house.is_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_reservation_that_cannot_be_taken_again_in_eight_days_is_a_dead_letter_and_an_alarm() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    house.invites.is_down(true);
    let (_, saved) = house.saves_guarded(&visitor);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.app.to_the_next_try("take:invite").await;
    house.app.hand.advance(Duration::from_hours(24 * 8));
    house.app.delivery_in("take:invite", State::Abandoned).await;
    let alarms = house.app.metric(LATE_POSTS).await;
    assert!((alarms - 1.0).abs() < 0.1);
    assert!(!lines_with("could not be taken again in time").is_empty());
}

#[tokio::test]
async fn the_last_look_up_a_day_after_the_flow_reserves_again() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    house.app.hand.advance(HOUR);
    house.app.looked().await;
    house.saves_guarded(&visitor);
    house.app.hand.advance(Duration::from_hours(23));
    house.app.looked().await;
    assert_eq!(house.app.deliveries("take:invite").await, []);
    house.app.hand.advance(HOUR);
    house.is_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_settings_call_after_the_release_reserves_again() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let (_, saved) = house.saves_guarded(&visitor);
    let change = change_of(&saved, "Another GmbH");
    assert!(house.app.settings(&change).await.is_admitted());
    house.is_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_login_after_the_release_reserves_again() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let (_, saved) = house.saves_guarded(&visitor);
    let login = saved.with("/flow/id", uuid());
    let reply = house.app.call(LOGIN, login.to_string()).await;
    assert_eq!(reply.status, 204);
    house.is_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_login_closes_the_open_flow_of_its_account() {
    for hook in [LOGIN, "/hooks/recovery/pre"] {
        let house = House::with(INVITES, 1).await;
        let visitor = invited("lost@example.org");
        assert!(house.app.pre(&visitor).await.is_admitted());
        // The `post` is lost, and no time passes for a look-up.
        let (_, saved) = house.saves_guarded(&visitor);
        let login = saved.with("/flow/id", uuid());
        assert_eq!(house.app.call(hook, login.to_string()).await.status, 204);
        house
            .app
            .delivery_in("confirm:invite", State::Delivered)
            .await;
        assert_eq!(house.invites.held_and_confirmed(), (1, 1));
        assert!(!house.app.pre(&visitor).await.is_admitted());
    }
}

#[tokio::test]
async fn a_login_does_not_wait_for_a_database_that_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let invites = Invites::with_uses(1);
    let kratos = FakeKratos::start();
    let app = TestApp::with(INVITES)
        .env("INVITES", &invites.url())
        .kratos("KRATOS", &kratos)
        .store(store.clone())
        .start()
        .await;
    store.is_silent(true);
    let login = invited("a@example.org")
        .saved()
        .guarded()
        .with("/identity/created_at", json!(app.hand.now()));
    // More than may wait at the same moment.
    for _ in 0..20 {
        assert_eq!(app.call(LOGIN, login.to_string()).await.status, 204);
    }
    let too_many = lines_with("too many logins wait for the database");
    assert!(!too_many.is_empty());
    app.hand.advance(Duration::from_secs(6));
    let id = login.0["identity"]["id"].as_str().unwrap().to_owned();
    app.eventually("the failure is logged", async || {
        let lines = lines_with("It is not known whether a `post` of this account was lost");
        lines.iter().any(|line| line.contains(&id)).then_some(())
    })
    .await;
    // An old account has no open flow.
    store.is_silent(false);
    let asked = store.flows_asked();
    let old = login.with("/identity/created_at", "2025-11-23T14:32:53Z");
    assert_eq!(app.call(LOGIN, old.to_string()).await.status, 204);
    assert_eq!(store.flows_asked(), asked);
}

#[tokio::test]
async fn a_second_reservation_waits_for_the_release_of_the_first() {
    let (invites, kratos) = (FakeService::start(), FakeKratos::start());
    let hold = |id: &str| Behaviour::Answers(201, json!({ "hold_id": id }).to_string());
    invites.on("POST /invites/", hold("h1"));
    invites.on("DELETE /holds/", Behaviour::Answers(503, String::new()));
    let app = TestApp::with(INVITES)
        .service("INVITES", &invites)
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    app.prove_guard().await;
    let visitor = invited("late@example.org");
    assert!(app.pre(&visitor).await.is_admitted());
    app.hand.advance(Duration::from_mins(11));
    app.looked().await;
    app.eventually("it is to be released", async || {
        let one = app.deliveries("release:invite").await.pop()?;
        (one.attempts > 0).then_some(())
    })
    .await;
    invites.on("POST /invites/", hold("h2"));
    let id = kratos.has("late@example.org", "2026-11-23T14:43:50Z");
    let saved = visitor.saved_as(id).guarded();
    assert_eq!(app.post(&saved).await.status, 204);
    let waits = app
        .eventually("it waits", async || {
            let one = app.deliveries("take:invite").await.pop()?;
            one.last_error.clone().map(|_| one)
        })
        .await;
    assert_eq!(waits.last_error.as_deref(), Some("not_released"));
    let takes = || {
        invites
            .targets()
            .iter()
            .filter(|one| one.starts_with("POST /invites/"))
            .count()
    };
    assert_eq!(takes(), 1);
    invites.on("DELETE /holds/", Behaviour::Answers(204, String::new()));
    app.to_the_next_try("release:invite").await;
    app.delivery_in("release:invite", State::Delivered).await;
    app.to_the_next_try("take:invite").await;
    app.delivery_in("confirm:invite", State::Delivered).await;
    assert_eq!(takes(), 2);
    let targets = invites.targets();
    assert!(
        targets.contains(&"POST /holds/h2/confirm".to_owned()),
        "{targets:?}"
    );
}

#[tokio::test]
async fn nothing_is_reserved_again_for_an_account_that_was_deleted() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let saved = visitor.saved().guarded();
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.app.delivery_in("take:invite", State::Delivered).await;
    assert_eq!(house.app.deliveries("confirm:invite").await, []);
    assert_eq!(house.invites.held_and_confirmed(), (0, 0));
}

#[tokio::test]
async fn erasure_ends_what_is_to_be_reserved_again() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    house.invites.is_down(true);
    let (id, saved) = house.saves_guarded(&visitor);
    assert_eq!(house.app.post(&saved).await.status, 204);
    let store = &house.app.app.store;
    store.forget(id, house.app.hand.now()).await.unwrap();
    let taking = house.app.delivery_in("take:invite", State::Discarded).await;
    let shown = store.show(taking.id).await.unwrap().unwrap();
    assert_eq!(shown.action, None);
    let state = store.flow(visitor.flow_id()).await.unwrap();
    assert!(state.reservations.iter().all(|one| one.details.is_none()));
}

#[tokio::test]
async fn no_more_of_a_visitor_is_kept_than_taking_again_reads() {
    let (house, visitor) = House::with_a_released_invite(INVITES).await;
    let state = house.app.app.store.flow(visitor.flow_id()).await.unwrap();
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

/// Two submissions of one form that Kratos saves both, of which the second has taken the invite over from the first.
async fn taken_over(uses: usize) -> (House, Payload, Payload) {
    let yaml = INVITES.replace("KRATOS}\"", "KRATOS}\", use_external_id: never");
    let house = House::with(&yaml, uses).await;
    let first = invited("first@example.org");
    assert!(house.app.pre(&first).await.is_admitted());
    let second = first
        .clone()
        .with_trait("email", "second@example.org")
        .with(
            "/identity/verifiable_addresses/0/value",
            "second@example.org",
        );
    house.app.hand.advance(Duration::from_secs(11));
    house.app.looked().await;
    (house, first, second)
}

#[tokio::test]
async fn an_account_whose_reservation_was_taken_over_reserves_again() {
    let (house, first, second) = taken_over(2).await;
    assert!(house.app.pre(&second).await.is_admitted());
    assert_eq!(house.invites.held_and_confirmed(), (1, 0));
    for one in [&second, &first] {
        let (_, saved) = house.saves(one);
        assert_eq!(house.app.post(&saved).await.status, 204);
    }
    house
        .app
        .eventually("both accounts have an invite", async || {
            (house.invites.held_and_confirmed() == (2, 2)).then_some(())
        })
        .await;
    assert_eq!(house.app.deliveries("take:invite").await.len(), 1);
    assert!(house.app.metric(LATE_POSTS).await < 0.1);
}

#[tokio::test]
async fn an_account_whose_reservation_was_taken_over_is_refused_late_if_there_is_no_other() {
    let (house, first, second) = taken_over(1).await;
    assert!(house.app.pre(&second).await.is_admitted());
    let (second, saved) = house.saves(&second);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house
        .app
        .delivery_in("confirm:invite", State::Delivered)
        .await;
    let (first, saved) = house.saves(&first);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house
        .app
        .delivery_in("late-refusal:invite", State::Delivered)
        .await;
    assert_eq!(house.kratos.identity(first)["state"], "inactive");
    assert_eq!(house.kratos.identity(second)["state"], "active");
    assert_eq!(house.invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn a_reservation_that_a_refused_submission_took_over_is_still_the_account_s() {
    let (house, first, second) = taken_over(1).await;
    let refused = second.with_trait("company", "refused");
    assert_eq!(house.app.pre(&refused).await.status, 400);
    house.app.hand.advance(Duration::from_secs(40));
    house.app.looked().await;
    let (_, saved) = house.saves(&first);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house
        .app
        .delivery_in("confirm:invite", State::Delivered)
        .await;
    assert_eq!(house.app.deliveries("take:invite").await, []);
    assert_eq!(house.invites.held_and_confirmed(), (1, 1));
}

/// A change of the invite in settings whose `post` is lost.
async fn changed_invite(house: &House) -> Payload {
    let change = payload()
        .changed_from(&json!({"email": "canary@example.org", "invite": "iron"}))
        .with_trait("invite", "gold");
    assert!(house.app.settings(&change).await.is_admitted());
    assert_eq!(house.invites.held_and_confirmed(), (1, 0));
    change
}

/// Without Kratos's admin API nothing but hook calls shows what was saved.
fn without_admin_api() -> String {
    INVITES.replace("kratos: {admin_url: \"${env:KRATOS}\"}\n", "")
}

#[tokio::test]
async fn a_later_settings_call_proves_that_a_change_was_saved() {
    let house = House::with(&without_admin_api(), 1).await;
    let change = changed_invite(&house).await;
    // Of another identity it proves nothing, and neither does a call in which the invite is as it was before.
    let other = change_of(&change.clone().saved(), "Another GmbH");
    assert!(house.app.settings(&other).await.is_admitted());
    let mut before = change_of(&change, "Another GmbH");
    before.0["previous"]["traits"]["invite"] = "iron".into();
    before.0["identity"]["traits"]["invite"] = "iron".into();
    assert!(house.app.settings(&before).await.is_admitted());
    assert_eq!(house.app.deliveries("confirm:invite").await, []);

    let next = change_of(&change, "Another GmbH");
    assert!(house.app.settings(&next).await.is_admitted());
    house
        .app
        .delivery_in("confirm:invite", State::Delivered)
        .await;
    assert_eq!(house.invites.held_and_confirmed(), (1, 1));
    // Its `post` comes after all.
    let post = "/hooks/settings/post?method=profile";
    assert_eq!(house.app.call(post, change.to_string()).await.status, 204);
    assert_eq!(house.app.deliveries("confirm:invite").await.len(), 1);
}

#[tokio::test]
async fn a_change_that_is_proved_after_the_release_reserves_again() {
    let house = House::with(&without_admin_api(), 1).await;
    let change = changed_invite(&house).await;
    house.app.hand.advance(HOUR + Duration::from_secs(121));
    house
        .app
        .delivery_in("release:invite", State::Delivered)
        .await;
    let next = change_of(&change, "Another GmbH");
    assert!(house.app.settings(&next).await.is_admitted());
    house.is_reserved_again_and_confirmed().await;
}

#[tokio::test]
async fn a_change_that_is_proved_by_a_later_call_is_delivered_once() {
    let yaml = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.updated], send: {post: "${env:INVITES}/crm"}}
"#;
    let house = House::with(yaml, 1).await;
    let before = json!({"email": "canary@example.org"});
    let change = payload().changed_from(&before);
    assert!(house.app.settings(&change).await.is_admitted());
    let next = change_of(&change, "Another GmbH");
    assert!(house.app.settings(&next).await.is_admitted());
    house.app.delivery_in("crm", State::Delivered).await;
    let post = "/hooks/settings/post?method=profile";
    assert_eq!(house.app.call(post, change.to_string()).await.status, 204);
    assert_eq!(house.app.deliveries("crm").await.len(), 1);
}

#[tokio::test]
async fn a_change_that_left_the_traits_as_they_were_is_not_proved() {
    let yaml = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.updated], send: {post: "${env:INVITES}/crm"}}
"#;
    let house = House::with(yaml, 1).await;
    let same = payload();
    let same = same.clone().changed_from(&traits_of(&same));
    assert!(house.app.settings(&same).await.is_admitted());
    let next = change_of(&same, "Another GmbH");
    assert!(house.app.settings(&next).await.is_admitted());
    assert_eq!(house.app.deliveries("crm").await, []);
}
