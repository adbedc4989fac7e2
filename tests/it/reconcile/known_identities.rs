//! Changes and deletions that no hook reports become events, each once. What a hook has reported and what Vestibule wrote
//! itself is not reported again.

use serde_json::Value;
use vestibule::base::clock::Clock;
use vestibule::jobs::reconcile::{Error, Report};
use vestibule::model::delivery::Event;

use super::command::{RecordedProgress, reconciler_with};
use super::*;

const TRACKING: &str = r#"
services: {crm: {url: "${env:CRM}"}, erp: {url: "${env:ERP}"}}
kratos: {admin_url: "${env:KRATOS}"}
reconcile: {every: 1h}
subscriptions:
  contact: {events: [identity.created, identity.updated], send: {service: crm, post: /contacts}}
  erasure: {events: [identity.deleted], send: {service: erp, post: "/accounts/{identity.id}/erasure"}}
"#;
const LONG_AGO: &str = "2026-11-01T00:00:00Z";
const SAVED: &str = "/hooks/settings/post?method=profile";

impl TestEnv {
    /// Starts with these identities of Kratos, and waits for the first round.
    async fn start_knowing(&self, yaml: &str, identities: u128) -> TestApp {
        let long_ago = LONG_AGO.parse().expect("a moment");
        self.kratos.add_identities(identities, long_ago);
        let app = self.start_with(yaml).await;
        assert_eq!(list_deliveries(&app).await, [], "the first round is silent");
        app
    }

    /// Changes an identity now, as an operator does through the admin API.
    fn change(&self, app: &TestApp, id: u128, pointer: &str, value: impl Into<Value>) {
        self.change_at(app.clock.now(), id, pointer, value);
    }

    fn change_at(&self, at: Timestamp, id: u128, pointer: &str, value: impl Into<Value>) {
        let id = Uuid::from_u128(id);
        self.kratos.set_value(id, pointer, value.into());
        self.kratos.set_value(id, "/updated_at", json!(at));
    }

    /// Saves a change of the address, and returns the `post` that reports it.
    fn save_in_settings(&self, app: &TestApp, id: u128, email: &str) -> String {
        let previous = self.kratos.identity(Uuid::from_u128(id));
        self.change(app, id, "/traits/email", email);
        self.report_of(id, &previous)
    }

    /// The `post` that reports the current state of the identity.
    fn report_of(&self, id: u128, previous: &Value) -> String {
        let identity = self.kratos.identity(Uuid::from_u128(id));
        payload()
            .changed_from(&previous["traits"])
            .saved_as(Uuid::from_u128(id))
            .with("/identity/traits", identity["traits"].clone())
            .with("/identity/updated_at", identity["updated_at"].clone())
            .to_string()
    }
}

/// The event, the identity and its address in each call to the service, in order.
fn received(service: &FakeService) -> Vec<(String, u128, String)> {
    let received = service.received();
    let events = received.iter().map(|one| {
        let body = one.json();
        let identity = &body["data"]["identity"];
        let id: Uuid = identity["id"].as_str().expect("an id").parse().expect("a UUID");
        let email = identity["traits"]["email"].as_str().unwrap_or_default();
        let event = body["type"].as_str().expect("an event");
        (event.to_owned(), id.as_u128(), email.to_owned())
    });
    events.collect()
}

fn updated(id: u128, email: &str) -> (String, u128, String) {
    ("identity.updated".to_owned(), id, email.to_owned())
}

async fn known_count(app: &TestApp) -> usize {
    let known = app.app.store.sample_identities(Uuid::nil(), 1000).await;
    known.expect("a database").len()
}

#[tokio::test]
async fn a_change_and_a_deletion_through_the_admin_api_become_one_event_each() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 3).await;
    env.change(&app, 1, "/traits/email", "canary-new@example.org");
    env.kratos.remove_identity(Uuid::from_u128(2));
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.crm), [updated(1, "canary-new@example.org")]);
    let body = env.crm.received()[0].json();
    assert_eq!(body["data"]["previous"], Value::Null);
    assert_eq!(body["data"]["identity"]["metadata_admin"], Value::Null);

    let id = Uuid::from_u128(2);
    let erasure = &env.erp.received()[0];
    assert_eq!(erasure.target, format!("/accounts/{id}/erasure"));
    let erasure = erasure.json();
    assert_eq!(erasure["type"], "identity.deleted");
    assert_eq!(
        erasure["data"],
        json!({"identity": {"id": id}, "previous": null})
    );
    assert_eq!(outcome_count(&app, "changes_reported").await, 1);
    assert_eq!(outcome_count(&app, "deletions_reported").await, 1);
    assert_eq!(outcome_count(&app, "deleted").await, 1);

    for _ in 0..2 {
        run_next_round(&env, &app).await;
    }
    assert_eq!(list_deliveries(&app).await.len(), 2);
    assert_eq!(known_count(&app).await, 2);
}

#[tokio::test]
async fn a_change_of_state_or_schema_is_reported_and_one_of_metadata_is_not() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 4).await;
    env.change(&app, 1, "/state", "inactive");
    env.change(&app, 2, "/schema_id", "another");
    env.change(&app, 3, "/metadata_public", json!({"note": "canary"}));
    env.change(&app, 4, "/traits/age", json!(30.0));
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    let mut changed: Vec<u128> = received(&env.crm).into_iter().map(|one| one.1).collect();
    changed.sort_unstable();
    assert_eq!(changed, [1, 2, 4]);
    // The same number in another notation.
    env.change(&app, 4, "/traits/age", json!(30));
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await.len(), 3);
}

#[tokio::test]
async fn a_change_that_a_hook_reported_is_not_reported_again() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 1).await;
    let post = env.save_in_settings(&app, 1, "canary-one@example.org");
    assert_eq!(app.call(SAVED, post).await.status, 204);
    // The `post` of a later change arrives before that of an earlier one.
    app.clock.advance(MINUTE);
    let earlier = env.save_in_settings(&app, 1, "canary-two@example.org");
    app.clock.advance(MINUTE);
    let later = env.save_in_settings(&app, 1, "canary-three@example.org");
    assert_eq!(app.call(SAVED, later).await.status, 204);
    assert_eq!(app.call(SAVED, earlier).await.status, 204);
    wait_until_settled(&app).await;
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await.len(), 3);
    assert_eq!(outcome_count(&app, "changes_reported").await, 0);
}

#[tokio::test]
async fn a_new_account_that_a_hook_reported_is_known_before_the_first_round_sees_it() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 0).await;
    let (id, now) = (Uuid::from_u128(1), app.clock.now());
    env.kratos.add_identity_with_id(id, now);
    let identity = env.kratos.identity(id);
    let post = payload()
        .saved_as(id)
        .with("/identity/traits", identity["traits"].clone())
        .with("/identity/created_at", json!(now))
        .with("/identity/updated_at", json!(now));
    assert_eq!(app.post(&post).await.status, 204);
    env.change_at(now + TimeDelta::minutes(1), 1, "/traits/email", "canary-new@example.org");
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    let events: Vec<String> = received(&env.crm).into_iter().map(|one| one.0).collect();
    assert_eq!(events, ["identity.created", "identity.updated"]);

    // An account that exists only between two rounds is deleted, because its creation was delivered.
    let id = Uuid::from_u128(2);
    assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.erp)[0].1, 2);
}

#[tokio::test]
async fn a_password_change_does_not_hide_a_change_through_the_admin_api() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 1).await;
    let previous = env.kratos.identity(Uuid::from_u128(1));
    env.change(&app, 1, "/traits/email", "canary-new@example.org");
    for method in ["password", "totp"] {
        let path = format!("/hooks/settings/post?method={method}");
        let post = env.report_of(1, &previous);
        assert_eq!(app.call(&path, post).await.status, 204);
    }
    let path = "/hooks/verification/post";
    assert_eq!(app.call(path, env.report_of(1, &previous)).await.status, 204);
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.crm), [updated(1, "canary-new@example.org")]);
}

#[tokio::test]
async fn a_change_of_the_last_seconds_is_left_to_its_hook() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 1).await;
    let recently = app.clock.now() + TimeDelta::hours(1) - TimeDelta::seconds(5);
    env.change_at(recently, 1, "/traits/email", "canary-new@example.org");
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await, []);
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.crm), [updated(1, "canary-new@example.org")]);
}

#[tokio::test]
async fn a_saved_change_whose_post_is_lost_is_delivered_once() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 1).await;
    let previous = env.kratos.identity(Uuid::from_u128(1));
    let change = payload()
        .changed_from(&previous["traits"])
        .saved_as(Uuid::from_u128(1))
        .with("/identity/traits/email", "canary-new@example.org")
        .without("/identity/traits/company")
        .without("/identity/traits/vat_number")
        .without("/identity/traits/invite")
        .with("/identity/updated_at", previous["updated_at"].clone());
    assert_eq!(app.settings(&change).await.status, 204);
    env.change(&app, 1, "/traits/email", "canary-new@example.org");

    // While the outcome of the change is open, a round leaves it alone.
    let (clock, manual) = Clock::manual(app.clock.now());
    manual.advance(HOUR);
    let round = reconciler_with(TRACKING, clock, &env, &app, true);
    let report = round.round(&()).await.expect("a round");
    assert_eq!((report.checked, report.changes_reported), (1, 0));

    app.clock.advance(Duration::from_secs(5));
    wait_until_delivered(&env, &app, 1).await;
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.crm), [updated(1, "canary-new@example.org")]);
    assert_eq!(outcome_count(&app, "changes_reported").await, 0);
}

/// Waits until the CRM has got this number of calls.
async fn wait_until_delivered(env: &TestEnv, app: &TestApp, calls: usize) {
    app.eventually("the CRM is notified", async || {
        (env.crm.received().len() == calls).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_own_write_is_not_reported_and_does_not_hide_a_change() {
    let env = TestEnv::new();
    env.crm.respond_with(200, &json!({"id": "canary-7"}));
    let yaml = TRACKING.replace(
        "post: /contacts}",
        "post: /contacts}, write_back: {traits.crm_id: '{response.body.id}'}",
    );
    let app = env.start_knowing(&yaml, 2).await;
    let post = env.save_in_settings(&app, 1, "canary-new@example.org");
    assert_eq!(app.call(SAVED, post).await.status, 204);
    // An operator changes another identity, and a write of Vestibule follows before the next round.
    let previous = env.kratos.identity(Uuid::from_u128(2));
    let post = env.report_of(2, &previous);
    env.change(&app, 2, "/traits/email", "canary-of-operator@example.org");
    assert_eq!(app.call(SAVED, post).await.status, 204);
    let written = async |id: u128| {
        app.advance_until("the identity has the id of the CRM", MINUTE, async || {
            let identity = env.kratos.identity(Uuid::from_u128(id));
            (identity["traits"]["crm_id"] == "canary-7").then_some(())
        })
        .await;
    };
    written(1).await;
    written(2).await;
    wait_until_settled(&app).await;
    let before = env.crm.received().len();
    assert_eq!(before, 2);

    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    let reported = received(&env.crm).split_off(before);
    assert_eq!(reported, [updated(2, "canary-of-operator@example.org")]);
    for _ in 0..4 {
        run_next_round(&env, &app).await;
        wait_until_settled(&app).await;
    }
    assert_eq!(received(&env.crm).len(), 3);
}

#[tokio::test]
async fn erasure_discards_what_is_pending_and_keeps_the_deletion() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 1).await;
    env.crm.respond_with(503, &json!({}));
    env.erp.respond_with(503, &json!({}));
    let id = Uuid::from_u128(2);
    assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
    env.crm.next_call().await;
    run_next_round(&env, &app).await;
    let state = async |event: Event| {
        let all = list_deliveries(&app).await;
        let one = all.into_iter().find(|one| one.event == event);
        one.expect("a delivery").state
    };
    assert_eq!(state(Event::IdentityCreated).await, State::Discarded);
    assert_eq!(state(Event::IdentityDeleted).await, State::Pending);
    assert_eq!(outcome_count(&app, "erased").await, 1);
    // An operator erases the identity too, and the next round finds nothing to erase.
    let erased = app.app.store.forget(id, app.clock.now()).await;
    assert_eq!(erased.expect("a database"), 0);
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "deleted").await, 1);
    assert_eq!(state(Event::IdentityDeleted).await, State::Pending);
    env.erp.respond_with(200, &json!({}));
    app.clock.advance(24 * HOUR);
    wait_until_settled(&app).await;
    assert_eq!(state(Event::IdentityDeleted).await, State::Delivered);
}

#[tokio::test]
async fn no_deletion_is_concluded_from_a_failed_answer_or_an_incomplete_round() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 150).await;
    env.kratos.remove_identity(Uuid::from_u128(77));
    let last = last_round(&app).await;
    // The second page cannot be read, then the deleted identity cannot be confirmed.
    let second = Uuid::from_u128(102).to_string().replace('-', "%2D");
    let deleted = format!("/admin/identities/{}", Uuid::from_u128(77));
    let mut calls = env.kratos_calls();
    // Each round first asks for a known identity, and continues where the round before stopped.
    for (target, status, more) in [
        (second.as_str(), 503, 3),
        (&deleted, 500, 3),
        (&deleted, 200, 2),
    ] {
        env.kratos.fail_on(target, status);
        app.clock.advance(HOUR);
        calls += more;
        env.wait_until_stopped_after(&app, calls).await;
        assert_eq!(list_deliveries(&app).await, []);
    }
    assert_eq!(last_round(&app).await, last);
    env.kratos.answer_normally();
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.erp).len(), 1);
}

#[tokio::test]
async fn another_kratos_deletes_nobody_and_becomes_no_known_one() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 12).await;
    let (folder, now) = (Arc::clone(&app.folder), app.clock.now());
    app.app.stop().await;
    let other = TestEnv::new();
    let a_day_ago = now - TimeDelta::days(1);
    for number in 501..=540 {
        other.kratos.add_identity_with_id(Uuid::from_u128(number), a_day_ago);
    }
    let app = other.builder(TRACKING).in_folder(&folder, now).start().await;
    for _ in 0..3 {
        let calls = other.kratos_calls();
        app.clock.advance(HOUR);
        other.wait_until_stopped_after(&app, calls + 12).await;
    }
    assert_eq!(other.kratos.requested_pages(), [] as [u128; 0]);
    assert_eq!(list_deliveries(&app).await, []);
    assert_eq!(known_count(&app).await, 12);
    let (clock, _) = Clock::manual(app.clock.now());
    let stopped = reconciler_with(TRACKING, clock, &other, &app, true);
    let stopped = stopped.round(&()).await;
    assert!(
        matches!(stopped, Err(Error::UnknownKratos { unconfirmed: 12 })),
        "{stopped:?}"
    );

    // One known identity is enough to trust this Kratos.
    other.kratos.add_identity_with_id(Uuid::from_u128(5), a_day_ago);
    run_next_round(&other, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(other.erp.received().len(), 11);
}

#[tokio::test]
async fn a_few_deleted_identities_are_no_other_kratos() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 2).await;
    for id in [1, 2] {
        env.kratos.remove_identity(Uuid::from_u128(id));
    }
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(env.erp.received().len(), 2);
}

#[tokio::test]
async fn nothing_is_known_without_a_subscription_and_what_was_known_is_deleted() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 3).await;
    assert_eq!(known_count(&app).await, 3);
    let (folder, now) = (Arc::clone(&app.folder), app.clock.now());
    app.app.stop().await;
    // Neither of the two events: and one of the two, with no schedule that could find changes.
    for yaml in [
        TRACKING
            .replace("[identity.created, identity.updated]", "[identity.created]")
            .replace("[identity.deleted]", "[check.refused]"),
        TRACKING
            .replace("reconcile: {every: 1h}", "")
            .replace("[identity.deleted]", "[check.refused]"),
    ] {
        let app = env.builder(&yaml).in_folder(&folder, now).start().await;
        let post = env.save_in_settings(&app, 1, "canary-new@example.org");
        assert_eq!(app.call(SAVED, post).await.status, 204);
        app.clock.advance(2 * MINUTE);
        app.eventually("retention deletes what was known", async || {
            (known_count(&app).await == 0).then_some(())
        })
        .await;
        app.app.stop().await;
    }

    // What changed meanwhile is not delivered.
    let app = env.builder(TRACKING).in_folder(&folder, now).start().await;
    env.change(&app, 2, "/traits/email", "canary-other@example.org");
    env.kratos.remove_identity(Uuid::from_u128(3));
    let before = list_deliveries(&app).await.len();
    run_next_round(&env, &app).await;
    assert_eq!(known_count(&app).await, 2);
    assert_eq!(list_deliveries(&app).await.len(), before);
}

#[tokio::test]
async fn a_condition_that_needs_data_of_a_hook_is_left_out() {
    let env = TestEnv::new();
    let yaml = TRACKING.replace(
        "post: /contacts}",
        "post: /contacts}, when: '!has(previous.traits.email) || previous.traits.email != identity.traits.email'",
    );
    let app = env.start_knowing(&yaml, 1).await;
    env.change(&app, 1, "/traits/email", "canary-new@example.org");
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await, []);
}

#[tokio::test]
async fn a_false_condition_delivers_nothing_also_later() {
    let env = TestEnv::new();
    let yaml = TRACKING.replace(
        "post: /contacts}",
        "post: /contacts}, when: 'identity.traits.email != \"canary-new@example.org\"'",
    );
    let app = env.start_knowing(&yaml, 1).await;
    env.change(&app, 1, "/traits/email", "canary-new@example.org");
    for _ in 0..2 {
        run_next_round(&env, &app).await;
    }
    assert_eq!(list_deliveries(&app).await, []);
    env.change(&app, 1, "/traits/email", "canary-newer@example.org");
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.crm), [updated(1, "canary-newer@example.org")]);
}

#[tokio::test]
async fn an_erased_identity_that_still_exists_is_known_again_without_a_report() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 1).await;
    let forgotten = app.app.store.forget(Uuid::from_u128(1), app.clock.now());
    forgotten.await.expect("a database");
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await, []);
    env.change(&app, 1, "/traits/email", "canary-new@example.org");
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(received(&env.crm), [updated(1, "canary-new@example.org")]);
}

#[tokio::test]
async fn a_dry_run_lists_changes_and_deletions_and_stores_nothing() {
    let env = TestEnv::new();
    let app = env.start_knowing(TRACKING, 3).await;
    env.crm.respond_with(503, &json!({}));
    let id = Uuid::from_u128(9);
    assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
    env.crm.next_call().await;
    env.change(&app, 1, "/traits/email", "canary-new@example.org");
    env.kratos.remove_identity(Uuid::from_u128(2));
    app.clock.advance(MINUTE);
    for _ in 0..2 {
        let (clock, _) = Clock::manual(app.clock.now());
        let progress = RecordedProgress::default();
        let round = reconciler_with(TRACKING, clock, &env, &app, true);
        let report = round.round(&progress).await.expect("a round");
        assert_eq!(
            report,
            Report {
                checked: 2,
                changes_reported: 1,
                deletions_reported: 2,
                deleted: 2,
                ..Report::default()
            }
        );
        assert_eq!(
            progress.0.into_inner().expect("a lock"),
            [
                "changed 1 contact",
                "deleted 2",
                "deletion 2 erasure",
                "deleted 9",
                "deletion 9 erasure"
            ]
        );
    }
    assert_eq!(list_deliveries(&app).await.len(), 1);
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "changes_reported").await, 1);
    assert_eq!(outcome_count(&app, "deletions_reported").await, 2);
}
