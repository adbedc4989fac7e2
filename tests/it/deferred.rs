//! A service that does not answer keeps no visitor out: Vestibule asks it again once the account exists.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::checks::reserve::dead_letter;
use vestibule::kratos::fingerprint::guard_id;
use vestibule::model::delivery::{Event, Queue, State};
use vestibule::store::WriteSet;

use crate::support::failing_store::FailingStore;
use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  vat_number:
    field: traits.vat_number
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    on_late_refusal: LATE
    refuse: [{when: "!response.body.valid", message: {id: 4900101, en: "This VAT number is not registered."}}]
    set: {metadata_public.company: "{response.body.name}"}
subscriptions:
  support: {events: [check.refused], send: {post: "${env:CRM}/refused"}}
"#;

struct TestEnv {
    app: TestApp,
    kratos: FakeKratos,
    vies: FakeService,
    crm: FakeService,
}

async fn test_env(late_refusal: &str) -> TestEnv {
    let (kratos, vies, crm) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.respond_with(503, &json!({}));
    let app = TestApp::with(&SETTINGS.replace("LATE", late_refusal))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &crm)
        .start()
        .await;
    TestEnv {
        app,
        kratos,
        vies,
        crm,
    }
}

impl TestEnv {
    /// Signs up while the register fails. The account is marked as deferred.
    async fn sign_up(&self) -> (Uuid, Payload) {
        let visitor = payload();
        assert!(self.app.pre(&visitor).await.is_admitted());
        self.vies.next_call().await;
        let id = self
            .kratos
            .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
        assert_eq!(
            self.app.post(&visitor.clone().saved_as(id)).await.status,
            204
        );
        let admin = self
            .app
            .eventually("the mark is set", async || {
                let admin = self.kratos.identity(id)["metadata_admin"].clone();
                admin.is_object().then_some(admin)
            })
            .await;
        assert_eq!(
            admin,
            json!({"vestibule": {"deferred": {"vat_number": {"since": "2026-11-23T14:32:53Z"}}}})
        );
        (id, visitor)
    }

    /// Advances the clock to the recheck and waits for its answer.
    async fn run_recheck(&self) {
        self.app.clock.advance(Duration::from_secs(5));
        self.app
            .wait_until_delivered("deferred-check:vat_number")
            .await;
    }

    /// Advances the clock to a recheck that accepts, and asserts what it leaves behind.
    async fn run_accepting_recheck(&self, id: Uuid) {
        self.run_recheck().await;
        self.wait_for_marks(id, json!({"deferred": {}})).await;
        let identity = self.kratos.identity(id);
        assert_eq!(identity["state"], "active");
        assert_eq!(
            identity["metadata_public"],
            json!({"company": "Canary GmbH"})
        );
        assert_eq!(self.crm.received().len(), 0);
    }

    async fn wait_for_marks(&self, id: Uuid, expected: Value) {
        let what = format!("metadata_admin is {expected}");
        self.app
            .eventually(&what, async || {
                (self.kratos.identity(id)["metadata_admin"]["vestibule"] == expected).then_some(())
            })
            .await;
    }
}

#[tokio::test]
async fn a_late_acceptance_writes_what_the_check_sets() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    env.vies
        .respond_with(200, &json!({"valid": true, "name": "Canary GmbH"}));
    env.run_accepting_recheck(id).await;
}

#[tokio::test]
async fn a_late_refusal_deactivates_the_account_and_notifies_subscriptions() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    env.vies.respond_with(200, &json!({"valid": false}));
    env.run_recheck().await;
    let event = env.crm.next_call().await.json();
    assert_eq!(
        (
            &event["type"],
            &event["data"]["check"],
            &event["data"]["identity"]["id"]
        ),
        (&json!("check.refused"), &json!("vat_number"), &json!(id))
    );
    let identity = env
        .app
        .eventually("the account is inactive", async || {
            let identity = env.kratos.identity(id);
            (identity["state"] == "inactive").then_some(identity)
        })
        .await;
    let refused = &identity["metadata_admin"]["vestibule"]["refused"]["vat_number"];
    assert_eq!(refused["message_id"], 4_900_101);
    assert_eq!(
        identity["metadata_admin"]["vestibule"]["deferred"],
        json!({})
    );
}

#[tokio::test]
async fn a_late_refusal_can_only_mark_or_only_notify() {
    for (late_refusal, marked) in [("mark", true), ("notify", false)] {
        let env = test_env(late_refusal).await;
        let (id, _) = env.sign_up().await;
        env.vies.respond_with(200, &json!({"valid": false}));
        env.run_recheck().await;
        env.crm.next_call().await;
        env.app
            .eventually("the mark is removed", async || {
                let admin = env.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
                (admin["deferred"] == json!({})).then_some(())
            })
            .await;
        let identity = env.kratos.identity(id);
        let admin = &identity["metadata_admin"]["vestibule"];
        assert_eq!(admin["refused"].is_object(), marked, "{late_refusal}");
        assert_eq!(identity["state"], "active", "{late_refusal}");
    }
}

#[tokio::test]
async fn a_deferred_check_is_repeated_at_growing_intervals_until_it_gets_an_answer() {
    let env = test_env("deactivate").await;
    env.sign_up().await;
    let before = env.vies.received().len();
    let mut asked_at = env.app.clock.now();
    env.app.clock.advance(Duration::from_secs(5));
    let mut pauses = Vec::new();
    for _ in 0..4 {
        env.vies.next_call().await;
        pauses.push((env.app.clock.now() - asked_at).num_seconds());
        asked_at = env.app.clock.now();
        env.app
            .advance_to_next_attempt("deferred-check:vat_number")
            .await;
    }
    assert_eq!(pauses, [5, 5, 10, 20]);
    assert!(env.vies.received().len() >= before + 4);
    let recheck = env
        .app
        .wait_for_delivery("deferred-check:vat_number", State::Pending)
        .await;
    assert!(recheck.attempts >= 3);
    let shown = env.app.app.store.show(recheck.id).await.unwrap().unwrap();
    assert_eq!(shown.tries[0].status, Some(503));
    assert!(
        env.app
            .metric("vestibule_deferred_total{check=\"vat_number\",kind=\"status_5xx\"}")
            .await
            > 0.5
    );
}

#[tokio::test]
async fn a_check_is_deferred_only_if_it_can_be_stored() {
    let store = FailingStore::create().await;
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.respond_with(503, &json!({}));
    let app = TestApp::with(&SETTINGS.replace("LATE", "mark"))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &vies)
        .store(store.clone())
        .start()
        .await;
    store.set_failing(true);
    assert_eq!(
        app.pre(&payload()).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
    store.set_failing(false);
    assert!(app.pre(&payload()).await.is_admitted());
}

#[tokio::test]
async fn a_deferred_check_is_asked_although_the_post_is_lost() {
    let env = test_env("deactivate").await;
    let email = json!([{"value": "canary@example.org", "via": "email"}]);
    let visitor = payload().with("/identity/verifiable_addresses", email);
    assert!(env.app.pre(&visitor).await.is_admitted());
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    env.vies.respond_with(200, &json!({"valid": false}));
    env.app.clock.advance(Duration::from_secs(61));
    env.app.wait_until_delivered("write-back:vat_number").await;
    env.app.clock.advance(Duration::from_secs(5));
    env.app.wait_for_state(&env.kratos, id, "inactive").await;
}

#[tokio::test]
async fn a_deferred_check_of_an_unsaved_value_is_not_asked() {
    let env = test_env("deactivate").await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-01T00:00:00Z");
    let before = json!({"email": "canary@example.org", "vat_number": "old"});
    let form = payload()
        .with("/flow/type", "browser")
        .changed_from(&before);
    let form = form.saved_as(id);
    // The register fails, so the first acceptance defers. The visitor then submits another value with the same form.
    let first = form.clone().with_trait("vat_number", "mistyped-1");
    assert_eq!(env.app.settings(&first).await.status, 204);
    env.vies
        .respond_with(200, &json!({"valid": true, "name": "Canary GmbH"}));
    let second = form.with_trait("vat_number", "right-1");
    assert_eq!(env.app.settings(&second).await.status, 200);
    assert_eq!(env.app.settings_post(&second).await.status, 204);
    assert_eq!(env.app.deliveries("deferred-check:vat_number").await, []);
}

/// Accepts this value and refuses all others.
fn accept_only(service: &FakeService, value: &'static str) {
    service.set_behaviour(Behaviour::Handles(Arc::new(move |received| {
        let valid = received.json()["number"] == value;
        (
            200,
            json!({"valid": valid, "name": "Canary GmbH"}).to_string(),
            None,
        )
    })));
}

#[tokio::test]
async fn an_account_whose_current_value_is_accepted_stays_active() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    env.kratos
        .set_value(id, "/traits/vat_number", json!("corrected-1"));
    accept_only(&env.vies, "corrected-1");
    env.run_accepting_recheck(id).await;
}

#[tokio::test]
async fn a_visitor_cannot_evade_a_deferred_check_by_emptying_or_changing_the_field() {
    for value in [json!(null), json!(" "), json!("another-bad-1")] {
        let env = test_env("deactivate").await;
        let (id, _) = env.sign_up().await;
        env.kratos
            .set_value(id, "/traits/vat_number", value.clone());
        accept_only(&env.vies, "corrected-1");
        env.run_recheck().await;
        env.app.wait_for_state(&env.kratos, id, "inactive").await;
        let event = env.crm.next_call().await.json();
        assert_eq!(event["type"], "check.refused", "{value}");
    }
}

#[tokio::test]
async fn a_deferred_check_is_repeated_after_a_4xx_that_refuse_does_not_name() {
    for status in [400, 401, 403, 404, 410, 422] {
        let env = test_env("deactivate").await;
        let (id, _) = env.sign_up().await;
        env.vies.respond_with(status, &json!({}));
        env.app.clock.advance(Duration::from_secs(5));
        env.app
            .advance_to_next_attempt("deferred-check:vat_number")
            .await;
        let recheck = env
            .app
            .wait_for_delivery("deferred-check:vat_number", State::Pending)
            .await;
        assert!(recheck.attempts >= 1, "{status}");
        assert_eq!(env.kratos.identity(id)["state"], "active", "{status}");
    }
}

/// Advances the clock past half of the time of the recheck, and then past all of it.
async fn let_question_expire(env: &TestEnv) {
    env.app.clock.advance(Duration::from_hours(24 * 4 + 1));
    env.app
        .advance_to_next_attempt("deferred-check:vat_number")
        .await;
    let half_time = "vestibule_deferred_unanswered_total{state=\"half_time\"}";
    env.app.assert_metric(half_time, 1).await;
    env.app.clock.advance(Duration::from_hours(24 * 4));
    let end = "vestibule_deferred_unanswered_total{state=\"end\"}";
    env.app
        .eventually("the recheck has expired", async || {
            (env.app.metric(end).await > 0.5).then_some(())
        })
        .await;
    env.app.assert_metric(half_time, 1).await;
}

#[tokio::test]
async fn an_expired_deferred_check_becomes_a_dead_letter_and_stays_marked() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    let_question_expire(&env).await;
    env.app
        .wait_for_delivery("deferred-check:vat_number", State::Abandoned)
        .await;
    let identity = env.kratos.identity(id);
    assert_eq!(identity["state"], "active");
    assert!(identity["metadata_admin"]["vestibule"]["deferred"]["vat_number"].is_object());
}

#[tokio::test]
async fn on_expiry_can_accept_or_refuse() {
    for (on_expiry, state) in [("accept", "active"), ("refuse", "inactive")] {
        let env = test_env(&format!("deactivate\n    on_expiry: {on_expiry}")).await;
        let (id, _) = env.sign_up().await;
        let_question_expire(&env).await;
        env.app
            .eventually("the mark is removed", async || {
                let identity = env.kratos.identity(id);
                let admin = &identity["metadata_admin"]["vestibule"];
                (admin["deferred"] == json!({}) && identity["state"] == state).then_some(())
            })
            .await;
        env.app
            .wait_until_delivered("deferred-check:vat_number")
            .await;
        let refused = env.app.deliveries("support").await.len();
        assert_eq!(refused == 1, on_expiry == "refuse", "{on_expiry}");
    }
}

#[tokio::test]
async fn a_deferred_check_is_asked_about_a_value_that_another_check_rewrote() {
    let (kratos, vies, names) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.respond_with(503, &json!({}));
    names.respond_with(200, &json!({"written": "DE1"}));
    let tidy = r#"
  tidy:
    field: traits.vat_number
    ask: {get: "${env:NAMES}/{value}"}
    set: {traits.vat_number: "{response.body.written}"}
subscriptions:"#;
    let settings = SETTINGS.replace("LATE", "mark").replace(
        "    set: {metadata_public.company: \"{response.body.name}\"}\n",
        "",
    );
    let app = TestApp::with(&settings.replace("\nsubscriptions:", tidy))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("NAMES", &names)
        .service("CRM", &names)
        .start()
        .await;
    let visitor = payload().with_trait("vat_number", "de 1");
    assert_eq!(app.pre(&visitor).await.status, 200);
    let saved = visitor.with_trait("vat_number", "DE1").saved();
    assert_eq!(app.post(&saved).await.status, 204);
    assert_eq!(app.deliveries("deferred-check:vat_number").await.len(), 1);
}

#[tokio::test]
async fn a_post_of_another_method_keeps_the_deferred_check_of_a_profile_change() {
    let env = test_env("deactivate").await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-01T00:00:00Z");
    let before = json!({"email": "canary@example.org", "vat_number": "old"});
    let change = payload()
        .with("/flow/type", "browser")
        .changed_from(&before)
        .saved_as(id)
        .with_trait("vat_number", "new-1");
    assert_eq!(env.app.settings(&change).await.status, 204);
    let traits = change.0["identity"]["traits"].clone();
    env.kratos.set_value(id, "/traits", traits);
    // The `post` is lost. The visitor changes the password in the same form.
    let post = "/hooks/settings/post?method=password";
    let password = change.to_string();
    assert_eq!(env.app.call(post, password).await.status, 204);
    assert_eq!(env.app.deliveries("deferred-check:vat_number").await, []);
    env.app.clock.advance(Duration::from_secs(61));
    env.app
        .eventually("the service is asked", async || {
            let asked = env.app.deliveries("deferred-check:vat_number").await;
            (asked.len() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_request_that_the_service_rejects_is_not_deferred() {
    for (status, deferred) in [
        (400, false),
        (403, false),
        (404, false),
        (401, true),
        (408, true),
        (425, true),
        (429, true),
        (503, true),
        (302, true),
    ] {
        let env = test_env("notify").await;
        env.vies.respond_with(status, &json!({"valid": true}));
        let reply = env.app.pre(&payload()).await;
        if deferred {
            assert!(reply.is_admitted(), "{status}");
        } else {
            assert_eq!(
                reply.refused(),
                [("#/traits/vat_number".to_owned(), 4_900_002)],
                "{status}"
            );
        }
    }
}

/// A change of one trait of this account.
fn change_of(id: Uuid, name: &str, value: impl Into<Value>) -> Payload {
    let before = payload().0["identity"]["traits"].clone();
    payload()
        .changed_from(&before)
        .with_trait(name, value)
        .saved_as(id)
}

#[tokio::test]
async fn a_change_of_a_deferred_field_must_be_accepted() {
    // Also if the check runs only at registration.
    for flows in ["", "    flows: [registration]\n"] {
        let (kratos, vies, crm) = (
            FakeKratos::start(),
            FakeService::start(),
            FakeService::start(),
        );
        vies.respond_with(503, &json!({}));
        let yaml = SETTINGS.replace("LATE", "deactivate").replace(
            "    field: traits.vat_number\n",
            &format!("    field: traits.vat_number\n{flows}"),
        );
        let app = TestApp::with(&yaml)
            .kratos("KRATOS", &kratos)
            .service("VIES", &vies)
            .service("CRM", &crm)
            .start()
            .await;
        let env = TestEnv {
            app,
            kratos,
            vies,
            crm,
        };
        let (id, _) = env.sign_up().await;
        let asked = |value: &str| {
            let received = env.vies.received();
            received.iter().any(|call| call.body.contains(value))
        };
        let refused = [("#/traits/vat_number".to_owned(), 4_900_001)];
        for value in ["", " \u{200b}", "canary-other"] {
            let reply = env.app.settings(&change_of(id, "vat_number", value)).await;
            assert_eq!(reply.refused(), refused, "{flows}{value:?}");
        }
        assert!(
            asked("canary-other"),
            "the service is asked and does not answer"
        );
        let removed = change_of(id, "vat_number", "x").without("/identity/traits/vat_number");
        assert_eq!(env.app.settings(&removed).await.refused(), refused);
        // A trait that the check does not read can be changed.
        let company = change_of(id, "company", "Canary AG");
        assert!(env.app.settings(&company).await.is_admitted());

        env.vies.respond_with(200, &json!({"valid": false}));
        let bad = change_of(id, "vat_number", "canary-bad");
        let reply = env.app.settings(&bad).await;
        assert_eq!(
            reply.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_101)]
        );
        let recheck = env.app.deliveries("deferred-check:vat_number").await;
        assert_eq!((recheck.len(), recheck[0].state), (1, State::Pending));
    }
}

#[tokio::test]
async fn a_saved_accepted_change_ends_the_deferral() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    env.vies
        .respond_with(200, &json!({"valid": true, "name": "Canary GmbH"}));
    let good = change_of(id, "vat_number", "canary-good");
    assert_eq!(env.app.settings(&good).await.status, 200);
    // The change is not saved yet, so the recheck stays.
    let recheck = env.app.deliveries("deferred-check:vat_number").await;
    assert_eq!(recheck[0].state, State::Pending);
    env.vies.respond_with(503, &json!({}));
    let saved = good.with(
        "/identity/metadata_public",
        json!({"company": "Canary GmbH"}),
    );
    let traits = saved.0["identity"]["traits"].clone();
    env.kratos.set_value(id, "/traits", traits);
    let status = env.app.settings_post(&saved).await.status;
    assert_eq!(status, 204);
    // Until a save that began earlier has ended, the deferral lasts.
    let other = change_of(id, "vat_number", "canary-other");
    assert_eq!(env.app.settings(&other).await.refused()[0].1, 4_900_001);
    env.app.clock.advance(Duration::from_mins(1));
    env.app
        .wait_for_delivery("deferred-check:vat_number", State::Discarded)
        .await;
    env.wait_for_marks(id, json!({"deferred": {}})).await;
    // The value of the sign-up would be refused now, but the service is not asked.
    env.vies.respond_with(200, &json!({"valid": false}));
    let asked = env.vies.received().len();
    env.app.clock.advance(Duration::from_hours(24 * 9));
    assert_eq!(env.vies.received().len(), asked);
    assert_eq!(env.kratos.identity(id)["state"], "active");
    // The check treats the next change like any other.
    let emptied = change_of(id, "vat_number", "");
    assert!(env.app.settings(&emptied).await.is_admitted());
}

#[tokio::test]
async fn an_abandoned_deferred_check_still_blocks_unchecked_changes() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    let_question_expire(&env).await;
    env.app
        .wait_for_delivery("deferred-check:vat_number", State::Abandoned)
        .await;
    let emptied = change_of(id, "vat_number", "");
    assert_eq!(
        env.app.settings(&emptied).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
}

#[tokio::test]
async fn deferrable_checks_must_accept_a_change_while_the_database_fails() {
    let store = FailingStore::create().await;
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(&SETTINGS.replace("LATE", "deactivate"))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &vies)
        .store(store.clone())
        .start()
        .await;
    let id = Uuid::new_v4();
    store.set_failing(true);
    vies.respond_with(503, &json!({}));
    for value in ["", "canary-other"] {
        let reply = app.settings(&change_of(id, "vat_number", value)).await;
        assert_eq!(reply.refused()[0].1, 4_900_001, "{value}");
    }
    let company = change_of(id, "company", "Canary AG");
    assert!(app.settings(&company).await.is_admitted());
    // An accepted change would end a deferral, and that cannot be recorded.
    vies.respond_with(200, &json!({"valid": true}));
    let good = change_of(id, "vat_number", "canary-good");
    assert_eq!(app.settings(&good).await.refused()[0].1, 4_900_001);
}

#[tokio::test]
async fn a_late_refusal_only_marks_an_account_of_uncertain_attribution() {
    let env = test_env("deactivate").await;
    env.app.prove_guard().await;
    let visitor = payload();
    assert!(env.app.pre(&visitor).await.is_admitted());
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    // A later hook has changed another trait.
    let changed = visitor.with_trait("company", "Canary AG").saved_as(id);
    let status = env.app.post(&changed.guarded()).await.status;
    assert_eq!(status, 204);
    env.vies.respond_with(200, &json!({"valid": false}));
    env.run_recheck().await;
    env.app
        .eventually("the account is marked", async || {
            let admin = env.kratos.identity(id)["metadata_admin"].clone();
            let mark = &admin["vestibule"]["refused"]["vat_number"];
            mark.is_object().then_some(())
        })
        .await;
    assert_eq!(env.kratos.identity(id)["state"], "active");
}

#[tokio::test]
async fn a_change_before_the_look_up_of_a_lost_post_does_not_evade_the_check() {
    let env = test_env("deactivate").await;
    let visitor = payload();
    assert!(env.app.pre(&visitor).await.is_admitted());
    // The client disconnected: the account exists, and its `post` is lost. The visitor changes it immediately.
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let external_id = guard_id(visitor.flow_id());
    env.kratos.set_value(id, "/external_id", json!(external_id));
    let emptied = change_of(id, "vat_number", "").with("/identity/external_id", external_id);
    assert_eq!(
        env.app.settings(&emptied).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
    let recheck = env.app.deliveries("deferred-check:vat_number").await;
    assert_eq!((recheck.len(), recheck[0].identity_id), (1, id));
    // The look-up and a late `post` find nothing left to do.
    env.app.clock.advance(Duration::from_secs(6));
    let late = visitor.saved_as(id).guarded();
    assert_eq!(env.app.post(&late).await.status, 204);
    assert_eq!(
        env.app.deliveries("deferred-check:vat_number").await.len(),
        1
    );
}

#[tokio::test]
async fn a_late_refusal_only_marks_an_account_found_with_other_traits() {
    let env = test_env("deactivate").await;
    let email = json!([{"value": "canary@example.org", "via": "email"}]);
    let visitor = payload().with("/identity/verifiable_addresses", email);
    assert!(env.app.pre(&visitor).await.is_admitted());
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    env.kratos
        .set_value(id, "/traits/company", json!("as a later hook wrote it"));
    env.vies.respond_with(200, &json!({"valid": false}));
    env.app.clock.advance(Duration::from_mins(62));
    env.app
        .eventually("the account is marked", async || {
            env.app.clock.advance(Duration::from_secs(1));
            let admin = env.kratos.identity(id)["metadata_admin"].clone();
            let mark = &admin["vestibule"]["refused"]["vat_number"];
            mark.is_object().then_some(())
        })
        .await;
    assert_eq!(env.kratos.identity(id)["state"], "active");
}

/// A check of the visitor's browser, and one of a token in the form. Both read nothing of the identity.
const WITHOUT_IDENTITY: [(&str, &str); 2] = [
    ("fraud", "{agent: \"{request.headers['User-Agent']}\"}"),
    ("captcha", "{token: \"{flow.transient_payload.token}\"}"),
];

/// Signs up while the service of a check that reads nothing of the identity fails.
async fn deferred_without_identity(name: &str, question: &str, flows: &str) -> (TestEnv, Uuid) {
    let yaml = format!(
        r#"
kratos: {{admin_url: "${{env:KRATOS}}"}}
checks:
  {name}:
    flows: {flows}
    ask: {{post: "${{env:VIES}}/check", json: {question}}}
    on_unavailable: defer
    on_late_refusal: mark
    refuse: [{{when: "!response.body.valid"}}]
"#
    );
    let (kratos, vies, crm) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.respond_with(503, &json!({}));
    let app = TestApp::with(&yaml)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .start()
        .await;
    let visitor = payload().with("/flow/transient_payload/token", "canary-token");
    assert!(app.pre(&visitor).await.is_admitted());
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    assert_eq!(app.post(&visitor.saved_as(id)).await.status, 204);
    let env = TestEnv {
        app,
        kratos,
        vies,
        crm,
    };
    (env, id)
}

#[tokio::test]
async fn a_change_does_not_end_the_deferral_of_a_check_that_reads_nothing_of_the_identity() {
    let (name, question) = WITHOUT_IDENTITY[0];
    for flows in ["[registration]", "[registration, settings]"] {
        let (env, id) = deferred_without_identity(name, question, flows).await;
        // The service answers again, and the visitor comes with another browser.
        env.vies.respond_with(200, &json!({"valid": true}));
        let company = change_of(id, "company", "Canary AG")
            .with("/request/headers/User-Agent", "canary-other-agent");
        assert!(env.app.settings(&company).await.is_admitted(), "{flows}");
        let reply = env.app.settings_post(&company).await;
        assert_eq!(reply.status, 204, "{flows}");
        env.app.clock.advance(Duration::from_secs(4));
        let question = env.app.deliveries("deferred-check:fraud").await;
        assert_eq!(question[0].state, State::Pending, "{flows}");
        // The answer about the sign-up counts, and no later call changes it.
        env.vies.respond_with(200, &json!({"valid": false}));
        env.app.clock.advance(Duration::from_secs(1));
        let marks = async || env.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
        env.app
            .eventually("the account is marked", async || {
                marks().await["refused"]["fraud"].is_object().then_some(())
            })
            .await;
        env.app.clock.advance(Duration::from_secs(1));
        env.vies.respond_with(200, &json!({"valid": true}));
        assert!(env.app.settings(&company).await.is_admitted(), "{flows}");
        let reply = env.app.settings_post(&company).await;
        assert_eq!(reply.status, 204, "{flows}");
        env.app.clock.advance(Duration::from_mins(2));
        let refused = env.app.app.store.late_refusals_of(id).await.unwrap();
        assert_eq!(refused.len(), 1, "{flows}");
    }
}

#[tokio::test]
async fn a_visitor_can_change_settings_while_a_check_that_reads_nothing_of_the_identity_is_deferred()
 {
    for (name, question) in WITHOUT_IDENTITY {
        let (env, id) = deferred_without_identity(name, question, "[registration]").await;
        let queue = format!("deferred-check:{name}");
        assert_eq!(env.app.deliveries(&queue).await[0].state, State::Pending);
        let change =
            change_of(id, "company", "Canary AG").with("/flow/transient_payload", json!({}));
        for method in ["profile", "password", "totp"] {
            let pre = format!("/hooks/settings/pre?method={method}");
            let reply = env.app.call(&pre, change.to_string()).await;
            assert!(reply.is_admitted(), "{name} {method}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_change_does_not_evade_a_deferred_check_while_a_lost_post_cannot_be_recovered() {
    let store = FailingStore::create().await;
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.respond_with(503, &json!({}));
    let yaml = SETTINGS.replace("LATE", "deactivate").replace(
        "    field: traits.vat_number\n",
        "    field: traits.vat_number\n    flows: [registration]\n",
    );
    let app = TestApp::with(&yaml)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &vies)
        .store(store.clone())
        .start()
        .await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    // The client disconnected: the account exists, and its `post` is lost.
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let external_id = guard_id(visitor.flow_id());
    let change = change_of(id, "vat_number", "canary-other")
        .with("/identity/external_id", external_id.clone());
    kratos.set_value(id, "/external_id", json!(external_id));
    store.set_unresponsive(true);
    let calls = store.open_flow_calls();
    let (reply, ()) = tokio::join!(app.settings(&change), async {
        app.eventually("the database is asked", async || {
            (store.open_flow_calls() > calls).then_some(())
        })
        .await;
        app.clock.advance(Duration::from_millis(250));
    });
    assert_eq!(
        reply.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
    // A trait that the check does not read can be changed all the same.
    let company = change_of(id, "company", "Canary AG");
    assert!(app.settings(&company).await.is_admitted());
}

#[tokio::test]
async fn a_change_can_be_deferred_however_many_deliveries_the_identity_has() {
    let env = test_env("mark").await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let now = env.app.clock.now();
    let about = (id, Event::IdentityUpdated);
    let old = |number: u32| {
        let reason = "an old one".to_owned();
        dead_letter(
            &Queue::Confirm("invite"),
            number.to_string(),
            about,
            reason,
            now,
        )
    };
    let store = &env.app.app.store;
    let old = WriteSet::of((0..1000).map(old).collect());
    store.write(&old).await.unwrap();
    let change = change_of(id, "vat_number", "canary-other");
    let reply = env.app.settings(&change).await;
    assert!(reply.is_admitted(), "{reply:?}");
    assert_eq!(env.app.settings_post(&change).await.status, 204);
    // The question about this change is found among the other deliveries.
    let another = change_of(id, "vat_number", "canary-another");
    assert_eq!(env.app.settings(&another).await.refused()[0].1, 4_900_001);
}

#[tokio::test]
async fn a_parallel_save_that_restores_the_deferred_value_does_not_evade_the_check() {
    let env = test_env("deactivate").await;
    let (id, _) = env.sign_up().await;
    // Kratos reads the identity for both calls before it saves one of them.
    let company = change_of(id, "company", "Canary AG");
    assert!(env.app.settings(&company).await.is_admitted());
    accept_only(&env.vies, "canary-good");
    let good = change_of(id, "vat_number", "canary-good");
    assert!(env.app.settings(&good).await.is_admitted());
    for saved in [&good, &company] {
        env.kratos
            .set_value(id, "/traits", saved.0["identity"]["traits"].clone());
        let reply = env.app.settings_post(saved).await;
        assert_eq!(reply.status, 204);
    }
    assert_eq!(
        env.kratos.identity(id)["traits"]["vat_number"],
        "DE-canary-1"
    );
    env.app.clock.advance(Duration::from_secs(61));
    env.app.wait_for_state(&env.kratos, id, "inactive").await;
}
