//! An account that a deferred check refuses is kept out until the refusal is lifted.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::checks::deferred::{enforcement, lift};
use vestibule::model::delivery::{Event, FieldWrite, State};
use vestibule::store::WriteSet;

use crate::support::failing_store::FailingStore;
use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, logs, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  vat_number:
    field: traits.vat_number
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    refuse:
      - when: "!response.body.valid"
        message: {id: 4900101, en: "This VAT number is not registered.", de: "Diese Nummer ist nicht registriert."}
      - {when: response.body.blocked}
"#;

/// Every hook that keeps a visitor out.
const HOOKS: [&str; 16] = [
    "/hooks/login/pre",
    "/hooks/login/pre?method=password",
    "/hooks/login/pre?method=oidc",
    "/hooks/login/pre?method=code",
    "/hooks/login/pre?method=passkey",
    "/hooks/login/pre?method=webauthn",
    "/hooks/login/pre?method=totp",
    "/hooks/login/pre?method=lookup_secret",
    "/hooks/recovery/pre",
    "/hooks/settings/pre?method=profile",
    "/hooks/settings/pre?method=password",
    "/hooks/settings/pre?method=oidc",
    "/hooks/settings/pre?method=totp",
    "/hooks/settings/pre?method=webauthn",
    "/hooks/settings/pre?method=passkey",
    "/hooks/settings/pre?method=lookup_secret",
];

struct TestEnv {
    app: TestApp,
    kratos: FakeKratos,
    vies: FakeService,
}

async fn test_env_with(store: Option<std::sync::Arc<FailingStore>>, settings: &str) -> TestEnv {
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.respond_with(503, &json!({}));
    let mut builder = TestApp::with(settings)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies);
    if let Some(store) = store {
        builder = builder.store(store);
    }
    let app = builder.start().await;
    TestEnv { app, kratos, vies }
}

async fn test_env() -> TestEnv {
    test_env_with(None, SETTINGS).await
}

impl TestEnv {
    /// Advances the clock beyond the last planned verification.
    async fn run_all_verifications(&self) {
        for _ in 0..8 {
            self.app.clock.advance(Duration::from_hours(1));
            self.app.wait_for_verifications().await;
        }
    }

    /// Asserts that every hook admits the visitor and that no verification deactivates the account.
    async fn assert_stays_active(&self, id: Uuid, visitor: &Payload) {
        self.wait_until_admitted(visitor).await;
        for hook in HOOKS {
            assert_eq!(self.call(hook, visitor).await.status, 204, "{hook}");
        }
        self.run_all_verifications().await;
        assert_eq!(self.kratos.identity(id)["state"], "active");
    }

    /// Signs up while the service fails. Returns the visitor as in a settings form.
    async fn sign_up(&self) -> (Uuid, Payload) {
        let visitor = payload();
        assert!(self.app.pre(&visitor).await.is_admitted());
        let id = self
            .kratos
            .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
        let saved = visitor.saved_as(id);
        assert_eq!(self.app.post(&saved).await.status, 204);
        self.app.wait_until_delivered("write-back:vat_number").await;
        let traits = self.kratos.identity(id)["traits"].clone();
        (id, saved.changed_from(&traits).saved_as(id))
    }

    async fn refuse_late(&self, answer: Value) {
        self.vies.respond_with(200, &answer);
        self.app.clock.advance(Duration::from_secs(5));
        self.app
            .wait_until_delivered("deferred-check:vat_number")
            .await;
    }

    async fn wait_until_inactive(&self, id: Uuid) {
        self.app
            .wait_until_delivered("late-refusal:vat_number")
            .await;
        assert_eq!(self.kratos.identity(id)["state"], "inactive");
    }

    /// Waits until the set in memory equals the one in the database.
    async fn wait_until_admitted(&self, visitor: &Payload) {
        self.app.clock.advance(Duration::from_secs(1));
        self.app
            .eventually("the visitor is let in", async || {
                (self.call("/hooks/settings/pre", visitor).await.status == 204).then_some(())
            })
            .await;
    }

    async fn call(&self, hook: &str, visitor: &Payload) -> crate::support::app::Reply {
        self.app.call(hook, visitor.to_string()).await
    }
}

#[tokio::test]
async fn a_late_refusal_keeps_the_visitor_out_of_login_recovery_and_settings() {
    let env = test_env().await;
    let (id, visitor) = env.sign_up().await;
    for hook in &HOOKS[..9] {
        assert_eq!(env.call(hook, &visitor).await.status, 204, "{hook}");
    }
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    assert_eq!(env.kratos.session_deletions(id), 2, "before and after");
    for hook in HOOKS {
        let reply = env.call(hook, &visitor).await;
        let place = if hook.contains("settings") {
            "#/traits/vat_number"
        } else {
            "#/"
        };
        let text = "This VAT number is not registered.".to_owned();
        assert_eq!(reply.status, 400, "{hook}");
        assert_eq!(
            reply.messages(),
            [(place.to_owned(), 4_900_101, text)],
            "{hook}"
        );
    }
    let german = visitor.in_language("de-AT, en;q=0.5");
    let reply = env.call("/hooks/login/pre?method=code", &german).await;
    assert_eq!(reply.messages()[0].2, "Diese Nummer ist nicht registriert.");
    let other = payload().saved();
    let reply = env.call("/hooks/login/pre?method=code", &other).await;
    assert_eq!(reply.status, 204);
    env.app
        .assert_metric("vestibule_late_refused_identities", 1)
        .await;
}

#[tokio::test]
async fn a_late_refusal_without_a_message_has_a_built_in_one() {
    let env = test_env().await;
    let (id, visitor) = env.sign_up().await;
    env.refuse_late(json!({"valid": true, "blocked": true}))
        .await;
    env.wait_until_inactive(id).await;
    let reply = env.call("/hooks/recovery/pre", &visitor).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_007)]);
}

#[tokio::test]
async fn sign_in_hooks_are_answered_from_memory_while_the_database_fails() {
    let store = FailingStore::create().await;
    let env = test_env_with(Some(store.clone()), SETTINGS).await;
    let (id, visitor) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    store.set_failing(true);
    let failures = "vestibule_late_refusals_load_failures_total";
    for number in 1..=3 {
        env.app.clock.advance(Duration::from_secs(1));
        env.app
            .eventually("the refusals cannot be loaded", async || {
                let failures = env.app.metric(failures).await;
                (failures > f64::from(number) - 0.5).then_some(())
            })
            .await;
    }
    assert_eq!(env.call(HOOKS[1], &visitor).await.status, 400);
    assert_eq!(
        env.call(HOOKS[1], &payload().saved()).await.status,
        204,
        "a visitor who is not refused signs in without a database"
    );
    let alarm = "ALARM: late refusals cannot be loaded; Vestibule answers logins";
    let alarms = logs::lines_with(alarm)
        .into_iter()
        .filter(|line| line.contains(&store.name));
    assert_eq!(alarms.count(), 1, "once, not each second");
    store.set_failing(false);
}

#[tokio::test]
async fn another_instance_sees_a_refusal_and_its_lift_within_a_second() {
    let env = test_env().await;
    let (id, visitor) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    let other = TestApp::with(SETTINGS)
        .kratos("KRATOS", &env.kratos)
        .service("VIES", &env.vies)
        .in_folder(&env.app.folder, env.app.clock.now())
        .start()
        .await;
    let hook = "/hooks/login/pre?method=password";
    assert_eq!(other.call(hook, visitor.to_string()).await.status, 400);
    let lifted = lift(&*env.app.app.store, id, None, env.app.clock.now()).await;
    assert_eq!(lifted.unwrap().checks, ["vat_number"]);
    other.clock.advance(Duration::from_secs(1));
    other
        .eventually("the lift is seen", async || {
            (other.call(hook, visitor.to_string()).await.status == 204).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_lifted_refusal_leaves_an_active_account_without_a_mark() {
    let env = test_env().await;
    let (id, visitor) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    let store = &*env.app.app.store;
    let now = env.app.clock.now();
    assert_eq!(
        lift(store, id, Some("another"), now).await.unwrap().checks,
        [""; 0]
    );
    lift(store, id, Some("vat_number"), now).await.unwrap();
    env.app.clock.advance(Duration::from_mins(1));
    env.app.wait_for_state(&env.kratos, id, "active").await;
    let admin = env.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
    assert_eq!(admin, json!({"deferred": {}, "refused": {}}));
    env.assert_stays_active(id, &visitor).await;
}

#[tokio::test]
async fn an_account_that_an_operator_activates_stays_active() {
    let env = test_env().await;
    let (id, mut visitor) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    env.run_all_verifications().await;
    // Long after the last planned verification.
    env.kratos.set_state_as_operator(id, "active");
    let patches = env.kratos.patch_count(id);
    let identity = env.kratos.identity(id);
    visitor = visitor.with("/identity/state", "active").with(
        "/identity/state_changed_at",
        identity["state_changed_at"].clone(),
    );
    assert_eq!(
        env.call("/hooks/login/pre?method=password", &visitor)
            .await
            .status,
        204
    );
    let refusals = env
        .app
        .eventually("the refusal is lifted", async || {
            let refusals = env.app.app.store.late_refusals_of(id).await.unwrap();
            refusals.is_empty().then_some(refusals)
        })
        .await;
    assert_eq!(refusals, []);
    env.assert_stays_active(id, &visitor).await;
    assert_eq!(env.kratos.patch_count(id), patches);
}

#[tokio::test]
async fn a_save_that_reactivates_the_account_is_undone() {
    let env = test_env().await;
    let (id, visitor) = env.sign_up().await;
    let before = env.kratos.identity(id);
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    let deleted = env.kratos.session_deletions(id);
    env.kratos.overwrite_identity(id, before);
    // A hook call shows that the identity may have changed.
    assert_eq!(
        env.call("/hooks/login/pre?method=password", &visitor)
            .await
            .status,
        400
    );
    env.app
        .eventually("the account is inactive again", async || {
            let identity = env.kratos.identity(id);
            let mark = &identity["metadata_admin"]["vestibule"]["refused"]["vat_number"];
            (identity["state"] == "inactive" && mark.is_object()).then_some(())
        })
        .await;
    env.app
        .eventually("the sessions are deleted before and after", async || {
            (env.kratos.session_deletions(id) >= deleted + 2).then_some(())
        })
        .await;
    // Also long after the last planned verification, without a hook call in between.
    let before = {
        let mut identity = env.kratos.identity(id);
        identity["state"] = json!("active");
        identity
    };
    env.run_all_verifications().await;
    env.kratos.overwrite_identity(id, before);
    assert_eq!(env.call("/hooks/recovery/pre", &visitor).await.status, 400);
    env.app
        .eventually("the account is inactive again", async || {
            (env.kratos.identity(id)["state"] == "inactive").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_visitor_is_kept_out_although_kratos_refuses_the_deactivation() {
    let env = test_env().await;
    let (id, visitor) = env.sign_up().await;
    env.kratos.set_refusing_patches(true);
    env.refuse_late(json!({"valid": false})).await;
    let refused = "vestibule_identity_writes_total{outcome=\"refused_by_kratos\"}";
    env.app
        .eventually("the alarm is raised", async || {
            (env.app.metric(refused).await > 0.5).then_some(())
        })
        .await;
    env.app
        .eventually(
            "the sessions are deleted after the write, too",
            async || (env.kratos.session_deletions(id) >= 2).then_some(()),
        )
        .await;
    assert_eq!(env.kratos.identity(id)["state"], "active");
    for hook in HOOKS {
        assert_eq!(env.call(hook, &visitor).await.status, 400, "{hook}");
    }
    env.kratos.set_refusing_patches(false);
    env.app
        .advance_to_next_attempt("late-refusal:vat_number")
        .await;
    env.wait_until_inactive(id).await;
}

#[tokio::test]
async fn a_late_refusal_of_a_change_only_marks_the_account() {
    let env = test_env().await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-01T00:00:00Z");
    let before = json!({"email": "canary@example.org", "vat_number": "old"});
    let change = payload().changed_from(&before).saved_as(id);
    assert_eq!(env.app.settings(&change).await.status, 204);
    assert_eq!(env.app.settings_post(&change).await.status, 204);
    env.refuse_late(json!({"valid": false})).await;
    env.app
        .eventually("the account is marked", async || {
            let admin = env.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
            admin["refused"]["vat_number"].is_object().then_some(())
        })
        .await;
    assert_eq!(env.kratos.identity(id)["state"], "active");
    assert_eq!(env.kratos.session_deletions(id), 0);
    assert_eq!(env.call("/hooks/recovery/pre", &change).await.status, 204);
}

#[tokio::test]
async fn an_unreadable_sign_in_is_refused_with_a_message() {
    let app = TestApp::with("").start().await;
    for path in ["/hooks/login/pre?method=password", "/hooks/recovery/pre"] {
        for body in ["", "{}", "not JSON", r#"{"version": 1}"#] {
            let reply = app.call(path, body).await;
            assert_eq!(reply.status, 400, "{path} {body}");
            assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)]);
        }
        let without = payload().without("/identity");
        let reply = app.call(path, without.to_string()).await;
        assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_004)], "{path}");
        let reply = app.call_with(path, payload().to_string(), &[]).await;
        assert_eq!(reply.status, 401);
        reply.refused();
    }
}

/// Two checks that refuse late.
const TWO: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  company:
    field: traits.company
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    on_late_refusal: mark
    refuse: [{when: "!response.body.valid", message: "The company {value} is not registered."}]
  vat_number:
    field: traits.vat_number
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    refuse: [{when: "!response.body.valid", message: "The VAT number {value} is not registered."}]
subscriptions:
  support: {events: [check.refused], send: {post: "${env:VIES}/refused"}}
"#;

#[tokio::test]
async fn the_api_lists_late_refusals_without_personal_data() {
    let env = test_env_with(None, TWO).await;
    let empty = env.app.admin_get("/late-refusals").await;
    assert_eq!(
        empty.json(),
        json!({"late_refusals": [], "next_cursor": null})
    );
    let (id, _) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.app.wait_until_delivered("deferred-check:company").await;
    env.wait_until_inactive(id).await;
    let list = async |query: &str| {
        let reply = env.app.admin_get(&format!("/late-refusals{query}")).await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        assert!(!reply.text.to_lowercase().contains("canary"), "{reply:?}");
        let page = reply.json();
        let all = page["late_refusals"].as_array().expect("a list").clone();
        (all, page["next_cursor"].clone())
    };
    let (all, next) = list("").await;
    assert_eq!((all.len(), next), (2, Value::Null));
    assert_eq!(
        all[0],
        json!({
            "identity_id": id, "check": "company", "effect": "mark", "refused_at": "2026-11-23T14:32:58Z",
            "deactivated_at": null,
        })
    );
    assert_eq!(all[1]["effect"], "deactivate");
    assert!(all[1]["deactivated_at"].is_string());
    let (first, next) = list("?limit=1").await;
    let next = next.as_str().expect("more").to_owned();
    let (second, last_cursor) = list(&format!("?limit=1&cursor={next}")).await;
    assert_eq!(([first, second].concat(), last_cursor), (all, Value::Null));
    for (query, number) in [
        (format!("?identity={id}"), 2),
        (format!("?identity={}", Uuid::nil()), 0),
        ("?check=vat_number".to_owned(), 1),
        (format!("?identity={id}&check=other"), 0),
    ] {
        assert_eq!(list(&query).await.0.len(), number, "{query}");
    }
    for wrong in [
        "limit=0",
        "identity=x",
        "cursor=x",
        "state=pending",
        "check=a&check=b",
    ] {
        let reply = env.app.admin_get(&format!("/late-refusals?{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn an_operator_lifts_late_refusals_over_http() {
    let env = test_env_with(None, TWO).await;
    let (id, visitor) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.app.wait_until_delivered("deferred-check:company").await;
    env.wait_until_inactive(id).await;
    let lift = async |body: Value| {
        let path = "/late-refusals/lift";
        let reply = env.app.admin_post(path, body.to_string()).await;
        (reply.status, reply.json())
    };
    for (wrong, status) in [
        (json!({}), 400),
        (json!({"identity": "x"}), 400),
        (json!({"identity": id, "all": true}), 400),
        (json!({"identity": id, "check": "other"}), 404),
        (json!({"identity": Uuid::nil()}), 404),
    ] {
        let (found, body) = lift(wrong.clone()).await;
        assert_eq!(found, status, "{wrong}");
        assert!(body["error"]["message"].is_string(), "{body}");
    }
    let refusals = async || {
        let of = env.app.app.store.late_refusals_of(id).await;
        of.expect("an answer").len()
    };
    assert_eq!(refusals().await, 2, "nothing was lifted");
    assert_eq!(
        lift(json!({"identity": id, "check": "company"})).await,
        (
            200,
            json!({"checks": ["company"], "others_in_force": ["vat_number"], "activates": false})
        )
    );
    // The clock does not advance, so the dispatcher was woken.
    let refused =
        async || env.kratos.identity(id)["metadata_admin"]["vestibule"]["refused"].clone();
    env.app
        .eventually("the mark of one check is removed", async || {
            refused().await.get("company").is_none().then_some(())
        })
        .await;
    assert!(refused().await["vat_number"].is_object());
    assert_eq!(env.kratos.identity(id)["state"], "inactive");
    assert_eq!(
        lift(json!({"identity": id})).await.1,
        json!({"checks": ["vat_number"], "others_in_force": [], "activates": true})
    );
    env.app.wait_for_state(&env.kratos, id, "active").await;
    assert_eq!(refused().await, json!({}));
    env.wait_until_admitted(&visitor).await;
    assert_eq!(lift(json!({"identity": id})).await.0, 404);
}

#[tokio::test]
async fn the_api_answers_503_for_late_refusals_while_the_database_fails() {
    let store = FailingStore::create().await;
    let env = test_env_with(Some(store.clone()), SETTINGS).await;
    store.set_failing(true);
    assert_eq!(env.app.admin_get("/late-refusals").await.status, 503);
    let body = json!({"identity": Uuid::nil()}).to_string();
    let reply = env
        .app
        .admin_post("/late-refusals/lift", body.clone())
        .await;
    assert_eq!(reply.status, 503);
    store.set_failing(false);
    let url = format!("http://{}/late-refusals/lift", env.app.app.admin_address);
    let without_type = env.app.http.post(url).body(body).send().await;
    assert_eq!(without_type.expect("an answer").status(), 415);
}

#[tokio::test]
async fn a_lift_leaves_an_account_inactive_that_an_operator_had_deactivated() {
    for is_enforced in [true, false] {
        let env = test_env().await;
        let (id, _) = env.sign_up().await;
        // The account is deactivated for another reason.
        env.kratos.set_state_as_operator(id, "inactive");
        if is_enforced {
            env.refuse_late(json!({"valid": false})).await;
            env.wait_until_inactive(id).await;
        } else {
            env.kratos.fail_on("/sessions", 503);
            env.refuse_late(json!({"valid": false})).await;
        }
        let store = &*env.app.app.store;
        let now = env.app.clock.now();
        lift(store, id, None, now).await.unwrap();
        env.kratos.answer_normally();
        env.app.clock.advance(Duration::from_mins(1));
        env.app
            .eventually("everything is written", async || {
                let filter = vestibule::store::Filter {
                    identity: Some(id),
                    state: Some(State::Pending),
                    ..vestibule::store::Filter::default()
                };
                let pending = store.list(&filter, 9).await.unwrap();
                env.app.clock.advance(Duration::from_secs(1));
                pending.is_empty().then_some(())
            })
            .await;
        let identity = env.kratos.identity(id);
        let mark = &identity["metadata_admin"]["vestibule"]["refused"]["vat_number"];
        assert_eq!(mark, &Value::Null, "{is_enforced}");
        assert_eq!(identity["state"], "inactive", "{is_enforced}");
    }
}

/// A second check of the account, whose service answers later.
const SECOND_CHECK: &str = r#"
  company:
    field: traits.company
    ask: {post: "${env:VIES}/company"}
    on_unavailable: defer
    refuse: [{when: 200}]
"#;

/// Signs up while both services fail. The first check refuses the account, and the service of the second one keeps
/// Vestibule waiting.
async fn refused_by_the_first_of_two_checks() -> (TestEnv, Uuid) {
    let env = test_env_with(None, &format!("{SETTINGS}{SECOND_CHECK}")).await;
    let (id, _) = env.sign_up().await;
    env.app.wait_until_delivered("write-back:company").await;
    env.vies
        .set_behaviour_for("POST /company", Behaviour::Hangs);
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    (env, id)
}

impl TestEnv {
    /// Lets the second check refuse the account.
    async fn refuse_by_the_second_check(&self) {
        self.vies.release_hanging_calls();
        self.app.wait_until_delivered("late-refusal:company").await;
    }

    async fn checks_in_force(&self, id: Uuid) -> Vec<String> {
        let refusals = self.app.app.store.late_refusals_of(id).await;
        let refusals = refusals.expect("an answer");
        refusals.into_iter().map(|one| one.check).collect()
    }

    async fn wait_until_active(&self, id: Uuid) {
        self.app
            .eventually("the account is active", async || {
                self.app.clock.advance(Duration::from_secs(1));
                (self.kratos.identity(id)["state"] == "active").then_some(())
            })
            .await;
    }
}

#[tokio::test]
async fn an_activation_by_an_operator_overrules_only_earlier_deactivations() {
    let (env, id) = refused_by_the_first_of_two_checks().await;
    env.kratos.set_state_as_operator(id, "active");
    env.refuse_by_the_second_check().await;
    assert_eq!(env.kratos.identity(id)["state"], "inactive");
    assert_eq!(env.checks_in_force(id).await, ["company"]);
}

#[tokio::test]
async fn the_lift_of_the_last_of_two_refusals_activates_the_account() {
    let (env, id) = refused_by_the_first_of_two_checks().await;
    let store = &*env.app.app.store;
    let now = env.app.clock.now();
    env.refuse_by_the_second_check().await;
    let lifted = lift(store, id, Some("vat_number"), now).await.unwrap();
    assert!(!lifted.activates);
    assert_eq!(env.kratos.identity(id)["state"], "inactive");
    let lifted = lift(store, id, Some("company"), now).await.unwrap();
    assert!(lifted.activates);
    env.wait_until_active(id).await;
}

#[tokio::test]
async fn a_repeated_enforcement_leaves_an_account_active_that_an_operator_activated() {
    let env = test_env().await;
    let (id, _) = env.sign_up().await;
    env.refuse_late(json!({"valid": false})).await;
    env.wait_until_inactive(id).await;
    env.kratos.set_state_as_operator(id, "active");
    let deleted = env.kratos.session_deletions(id);
    // An instance that stops before it stores the result of an enforcement leaves it to another instance.
    let state = FieldWrite {
        path: vec!["state".to_owned()],
        value: Some(json!("inactive")),
    };
    let again = enforcement(
        "vat_number",
        id,
        Event::IdentityCreated,
        "again".to_owned(),
        vec![state],
        env.app.clock.now(),
    );
    let again = WriteSet::of(vec![again]);
    env.app.app.store.write(&again).await.unwrap();
    let wake = json!({"all": true, "subscription": "late-refusal:vat_number"});
    let reply = env
        .app
        .admin_post("/deliveries/retry", wake.to_string())
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    env.app
        .eventually("the enforcement is repeated", async || {
            let all = env.app.deliveries("late-refusal:vat_number").await;
            let is_done = all.iter().all(|one| one.state == State::Delivered);
            (all.len() == 2 && is_done).then_some(())
        })
        .await;
    assert_eq!(env.kratos.identity(id)["state"], "active");
    assert_eq!(env.kratos.session_deletions(id), deleted);
    assert_eq!(env.checks_in_force(id).await, [""; 0]);
}

#[tokio::test]
async fn the_late_refusal_of_a_deleted_account_leaves_no_dead_letter() {
    let env = test_env().await;
    let (id, _) = env.sign_up().await;
    env.kratos.fail_on("/sessions", 503);
    env.refuse_late(json!({"valid": false})).await;
    env.app
        .advance_to_next_attempt("late-refusal:vat_number")
        .await;
    env.kratos.remove_identity(id);
    env.kratos.answer_normally();
    env.app
        .advance_to_next_attempt("late-refusal:vat_number")
        .await;
    env.app
        .wait_until_delivered("late-refusal:vat_number")
        .await;
}
