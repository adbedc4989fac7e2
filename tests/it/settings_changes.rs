//! Each saved change in settings has its consequences once, whichever form it came from and whether its `post` arrives.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::store::PendingStore as _;

use crate::support::failing_store::FailingStore;
use crate::support::fake_invites::FakeInvites;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const LOST_POSTS: &str = "vestibule_lost_posts_total{reason=\"ambiguous\"}";
/// The seconds from one planned look-up of a form to the next one, until it has expired.
const LOOKUPS: [u64; 5] = [6, 25, 90, 500, 4000];

const UPDATES: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
subscriptions:
  crm: {events: [identity.updated], send: {post: "${env:CRM}/crm"}}
"#;

const DEFERS: &str = r#"
checks:
  vat_number:
    field: traits.vat_number
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    refuse: [{when: "!response.body.valid"}]
"#;

const RESERVES: &str = r#"
checks:
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      confirm: {post: "${env:INVITES}/holds/{taken.body.hold_id}/confirm", json: {account: "{identity.id}"}}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 404, message: "We do not know this invite."}, {when: 409, message: "This invite is used up."}]
"#;

struct TestEnv {
    app: TestApp,
    kratos: FakeKratos,
    invites: FakeInvites,
    /// The identity whose settings change.
    id: Uuid,
}

/// Starts an app with these checks and a subscription to changes, and a register that does not answer.
async fn test_env(checks: &str) -> TestEnv {
    let (kratos, vies, crm) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    let invites = FakeInvites::with_uses(1);
    vies.respond_with(503, &json!({}));
    let app = TestApp::with(&format!("{UPDATES}{checks}"))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &crm)
        .env("INVITES", &invites.url())
        .start()
        .await;
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:52Z");
    TestEnv {
        app,
        kratos,
        invites,
        id,
    }
}

impl TestEnv {
    /// Returns the submission of a new form that sets a trait of the stored identity.
    fn change(&self, name: &str, value: &str) -> Payload {
        self.change_in(&payload(), name, value)
    }

    /// Returns a further submission of a form.
    fn change_in(&self, form: &Payload, name: &str, value: &str) -> Payload {
        let identity = self.kratos.identity(self.id);
        payload()
            .with("/flow/id", form.flow_id().to_string())
            .changed_from(&identity["traits"])
            .saved_as(self.id)
            .with("/identity/traits", identity["traits"].clone())
            .with("/identity/updated_at", identity["updated_at"].clone())
            .with_trait(name, value)
    }

    async fn accept(&self, change: &Payload) {
        let reply = self.app.settings(change).await;
        assert!(reply.is_admitted(), "{reply:?}");
        // Kratos saves later than Vestibule accepts.
        self.app.clock.advance(Duration::from_millis(10));
    }

    /// Lets Kratos save a change, without a `post`.
    fn save(&self, change: &Payload) {
        let traits = change.0["identity"]["traits"].clone();
        self.kratos.set_value(self.id, "/traits", traits);
        let now = json!(self.app.clock.now());
        self.kratos.set_value(self.id, "/updated_at", now);
    }

    async fn post(&self, change: &Payload) {
        let updated_at = self.kratos.identity(self.id)["updated_at"].clone();
        let saved = change.clone().with("/identity/updated_at", updated_at);
        assert_eq!(self.app.settings_post(&saved).await.status, 204);
    }

    /// Waits for all planned look-ups of the forms so far.
    async fn look_up(&self) {
        for seconds in LOOKUPS {
            self.app.wait_for_attempts().await;
            self.app.clock.advance(Duration::from_secs(seconds));
            self.app.wait_for_lookups().await;
        }
    }

    async fn count(&self, subscription: &str) -> usize {
        self.app.deliveries(subscription).await.len()
    }
}

#[tokio::test]
async fn every_saved_submission_of_a_form_is_found_although_its_post_is_lost() {
    let env = test_env(DEFERS).await;
    let first = env.change("company", "Canary AG");
    env.accept(&first).await;
    env.save(&first);
    env.post(&first).await;
    // The visitor submits the same form again, with a number that cannot be checked now, and disconnects.
    let second = env.change_in(&first, "vat_number", "BAD");
    env.accept(&second).await;
    env.save(&second);
    env.look_up().await;
    assert_eq!(env.count("deferred-check:vat_number").await, 1);
    assert_eq!(env.count("crm").await, 2);
}

#[tokio::test]
async fn a_value_that_is_saved_again_after_another_one_is_found_although_its_post_is_lost() {
    let env = test_env("").await;
    let form = payload();
    for company in ["Canary AG", "Canary KG"] {
        let change = env.change_in(&form, "company", company);
        env.accept(&change).await;
        env.save(&change);
        env.post(&change).await;
    }
    let again = env.change_in(&form, "company", "Canary AG");
    env.accept(&again).await;
    env.save(&again);
    env.look_up().await;
    assert_eq!(env.count("crm").await, 3);
}

#[tokio::test]
async fn an_unsaved_change_reserves_nothing_again_after_another_form_saved_the_same_change() {
    let env = test_env(RESERVES).await;
    // Kratos asks for the password again, and the visitor gives up.
    let unsaved = env.change("invite", "gold");
    env.accept(&unsaved).await;
    for seconds in &LOOKUPS[..4] {
        env.app.clock.advance(Duration::from_secs(*seconds));
        env.app.wait_for_lookups().await;
    }
    env.app.wait_until_delivered("release:invite").await;
    let saved = env.change("invite", "gold");
    env.accept(&saved).await;
    env.save(&saved);
    env.post(&saved).await;
    env.app.wait_until_delivered("confirm:invite").await;
    // A later call has the values of both changes.
    env.accept(&env.change("company", "Canary KG")).await;
    env.look_up().await;
    env.app.wait_for_attempts().await;
    let refusals = env.app.app.store.late_refusals_of(env.id).await.unwrap();
    assert_eq!(refusals, []);
    assert_eq!(env.count("take:invite").await, 0);
    assert_eq!(env.count("crm").await, 1);
    assert_eq!(env.invites.held_and_confirmed(), (1, 1));
}

#[tokio::test]
async fn an_unsaved_change_confirms_nothing_after_another_form_saved_the_same_change() {
    for is_found_by_look_up in [true, false] {
        let env = test_env(RESERVES).await;
        env.invites.set_uses(2);
        let (unsaved, saved) = (env.change("invite", "gold"), env.change("invite", "gold"));
        env.accept(&unsaved).await;
        env.accept(&saved).await;
        assert_eq!(env.invites.held_and_confirmed(), (2, 0));
        env.save(&saved);
        env.post(&saved).await;
        env.app.wait_until_delivered("confirm:invite").await;
        if !is_found_by_look_up {
            env.accept(&env.change("company", "Canary KG")).await;
        }
        env.look_up().await;
        env.app.wait_until_delivered("release:invite").await;
        assert_eq!(env.invites.held_and_confirmed(), (1, 1));
        assert_eq!(env.count("crm").await, 1);
    }
}

#[tokio::test]
async fn a_change_that_two_forms_submit_and_one_saves_is_delivered_once() {
    for saved_is_second in [true, false] {
        let env = test_env("").await;
        let changes = [(); 2].map(|()| env.change("company", "Canary AG"));
        for one in &changes {
            env.accept(one).await;
        }
        let saved = &changes[usize::from(saved_is_second)];
        env.save(saved);
        env.post(saved).await;
        env.look_up().await;
        assert_eq!(env.count("crm").await, 1, "second: {saved_is_second}");
    }
}

#[tokio::test]
async fn a_deferred_check_is_asked_although_a_later_hook_changed_another_trait() {
    let env = test_env(DEFERS).await;
    let change = env.change("vat_number", "BAD");
    env.accept(&change).await;
    let saved = change.with_trait("company", "as a later hook wrote it");
    env.save(&saved);
    for _ in 0..2 {
        env.post(&saved).await;
    }
    env.look_up().await;
    assert_eq!(env.count("deferred-check:vat_number").await, 1);
}

#[tokio::test]
async fn a_deferred_check_of_an_unsaved_change_is_not_asked_after_another_submission_of_the_form() {
    let env = test_env(DEFERS).await;
    let unsaved = env.change("vat_number", "BAD");
    env.accept(&unsaved).await;
    // Kratos refused the change, and the visitor keeps the old number.
    let other = env.change_in(&unsaved, "company", "Canary AG");
    env.save(&other);
    env.post(&other).await;
    env.look_up().await;
    assert_eq!(env.count("deferred-check:vat_number").await, 0);
}

#[tokio::test]
async fn a_reservation_is_confirmed_although_a_later_hook_changed_another_trait() {
    let env = test_env(RESERVES).await;
    let change = env.change("invite", "gold");
    env.accept(&change).await;
    let saved = change.with_trait("company", "as a later hook wrote it");
    env.save(&saved);
    env.post(&saved).await;
    env.app.wait_until_delivered("confirm:invite").await;
    env.look_up().await;
    assert_eq!(env.invites.held_and_confirmed(), (1, 1));
    assert_eq!(env.count("crm").await, 1);
}

#[tokio::test]
async fn a_reservation_becomes_a_dead_letter_if_a_later_hook_changed_its_value() {
    let env = test_env(RESERVES).await;
    let change = env.change("invite", "gold");
    env.accept(&change).await;
    let saved = change.with_trait("invite", "as a later hook wrote it");
    env.save(&saved);
    env.post(&saved).await;
    env.look_up().await;
    env.app
        .wait_for_delivery("confirm:invite", State::Abandoned)
        .await;
    env.app.assert_metric(LOST_POSTS, 1).await;
    assert_eq!(env.count("release:invite").await, 0);
}

#[tokio::test]
async fn a_change_that_is_recorded_slowly_is_delivered_once() {
    let store = FailingStore::create().await;
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(UPDATES)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .store(store.clone())
        .start()
        .await;
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:52Z");
    let before: Value = kratos.identity(id)["traits"].clone();
    let change = payload()
        .changed_from(&before)
        .saved_as(id)
        .with("/identity/traits", before)
        .with_trait("company", "Canary AG");
    let writes = store.hold_writes();
    // `pre` does not wait for the record longer than 250 ms.
    let (reply, ()) = tokio::join!(app.settings(&change), async {
        app.eventually("the record is being written", async || {
            (store.held_writes() > 0).then_some(())
        })
        .await;
        app.clock.advance(Duration::from_millis(260));
    });
    assert!(reply.is_admitted(), "{reply:?}");
    let traits = change.0["identity"]["traits"].clone();
    kratos.set_value(id, "/traits", traits);
    kratos.set_value(id, "/updated_at", json!(app.clock.now()));
    let reads = store.flow_reads();
    let (post, ()) = tokio::join!(app.settings_post(&change), async {
        app.eventually("`post` has read the form", async || {
            (store.flow_reads() > reads).then_some(())
        })
        .await;
        drop(writes);
    });
    assert_eq!(post.status, 204);
    app.clock.advance(Duration::from_secs(6));
    app.eventually("the form was looked up", async || {
        let wait = store.next_lookup().await.unwrap()? - app.clock.now();
        // A running look-up holds a lease of five minutes.
        (wait > TimeDelta::zero() && wait < TimeDelta::minutes(1)).then_some(())
    })
    .await;
    assert_eq!(app.deliveries("crm").await.len(), 1);
}
