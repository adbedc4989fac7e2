//! Writes into an identity last, and undo no change of a visitor or an operator.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::saturating_add;
use vestibule::model::identity_write::VERIFY_AFTER;

use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  company: {field: traits.company, refuse: [{when: value == "canary-refused"}]}
subscriptions:
  crm:
    events: [identity.created]
    send: {post: "${env:CRM}/contacts"}
    write_back: {metadata_admin.crm_id: "{response.body.id}"}
"#;

const PRE: &str = "/hooks/settings/pre?method=profile";
const POST: &str = "/hooks/settings/post?method=profile";

struct TestEnv {
    app: TestApp,
    kratos: FakeKratos,
    crm: FakeService,
}

async fn test_env() -> TestEnv {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    crm.respond_with(200, &json!({"id": 7}));
    let app = TestApp::with(SETTINGS)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    TestEnv { app, kratos, crm }
}

impl TestEnv {
    /// Signs up. Returns the id, and the identity before any write.
    async fn sign_up(&self) -> (Uuid, Value) {
        let id = self
            .kratos
            .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
        let before = self.kratos.identity(id);
        let saved = payload().saved_as(id);
        assert_eq!(self.app.post(&saved).await.status, 204);
        self.crm.next_call().await;
        (id, before)
    }

    async fn wait_for_crm_id(&self, id: Uuid, expected: Value) {
        let what = format!("crm_id is {expected}");
        self.app
            .eventually(&what, async || {
                let identity = self.kratos.identity(id);
                (identity["metadata_admin"]["crm_id"] == expected).then_some(())
            })
            .await;
        // The clock must not advance before the write is recorded.
        self.app.wait_until_delivered("write-back:crm").await;
        self.app.wait_for_verifications().await;
    }

    /// Advances the clock to each remaining verification.
    async fn run_all_verifications(&self) {
        for _ in VERIFY_AFTER {
            self.app.clock.advance(Duration::from_hours(1));
            self.app.wait_for_verifications().await;
        }
        let next = self.app.app.store.next_verification().await;
        assert_eq!(next.expect("the store answers"), None);
    }

    /// A change of the company in settings.
    fn change(&self, id: Uuid, from: &str, to: &str) -> Payload {
        let traits = |company: &str| {
            let mut traits = self.kratos.identity(id)["traits"].clone();
            traits["company"] = company.into();
            traits
        };
        payload()
            .changed_from(&traits(from))
            .saved_as(id)
            .with("/identity/traits", traits(to))
    }

    async fn call(&self, hook: &str, form: &Payload) -> u16 {
        self.app.call(hook, form.to_string()).await.status
    }

    async fn outcome_count(&self, reason: &str) -> f64 {
        let name = format!("vestibule_identity_writes_total{{outcome=\"{reason}\"}}");
        self.app.metric(&name).await
    }
}

/// An account with the id of the CRM in its `metadata_admin`. Returns also the identity before the write.
async fn env_with_crm_id() -> (TestEnv, Uuid, Value) {
    let env = test_env().await;
    let (id, before) = env.sign_up().await;
    env.wait_for_crm_id(id, json!(7)).await;
    (env, id, before)
}

#[tokio::test]
async fn a_value_that_a_save_overwrote_is_rewritten_at_each_planned_verification() {
    for moment in 0..VERIFY_AFTER.len() {
        let (env, id, before) = env_with_crm_id().await;
        for after in &VERIFY_AFTER[..moment] {
            env.advance_to(*after);
            env.app.wait_for_verifications().await;
        }
        env.kratos.overwrite_identity(id, before);
        env.advance_to(VERIFY_AFTER[moment]);
        env.wait_for_crm_id(id, json!(7)).await;
        assert!(env.outcome_count("repeated").await > 0.5);
        env.run_all_verifications().await;
    }
}

impl TestEnv {
    /// Advances the clock to this time after the start.
    fn advance_to(&self, after: Duration) {
        let start = "2026-11-23T14:32:53Z".parse().expect("a moment");
        let wait = saturating_add(start, after) - self.app.clock.now();
        self.app.clock.advance(wait.to_std().expect("a later time"));
    }
}

#[tokio::test]
async fn the_post_of_a_change_triggers_a_verification_immediately() {
    let (env, id, mut before) = env_with_crm_id().await;
    let form = env.change(id, "Canary GmbH", "Canary AG");
    assert_eq!(env.call(PRE, &form).await, 204);
    before["traits"]["company"] = json!("Canary AG");
    env.kratos.overwrite_identity(id, before);
    assert_eq!(env.call(POST, &form).await, 204);
    env.wait_for_crm_id(id, json!(7)).await;
    assert_eq!(env.kratos.identity(id)["traits"]["company"], "Canary AG");
    env.run_all_verifications().await;
    assert_eq!(env.kratos.identity(id)["traits"]["company"], "Canary AG");
}

#[tokio::test]
async fn a_value_that_an_operator_corrects_is_not_overwritten() {
    let (env, id, _) = env_with_crm_id().await;
    env.kratos
        .set_value(id, "/metadata_admin/crm_id", json!("corrected"));
    let patches = env.kratos.patch_count(id);
    env.run_all_verifications().await;
    assert_eq!(
        env.kratos.identity(id)["metadata_admin"]["crm_id"],
        "corrected"
    );
    assert_eq!(env.kratos.patch_count(id), patches);
}

#[tokio::test]
async fn nothing_is_written_while_a_settings_call_is_in_progress() {
    let env = test_env().await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let form = env.change(id, "Canary GmbH", "Canary AG");
    assert_eq!(env.call(PRE, &form).await, 204);
    assert_eq!(env.call(PRE, &form).await, 204, "sent twice");
    let saved = payload().saved_as(id);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.crm.next_call().await;
    for _ in 0..3 {
        env.wait_for_postponed_write(id).await;
    }
    assert_eq!(env.call(POST, &form).await, 204);
    env.wait_for_postponed_write(id).await;
    assert_eq!(env.kratos.patch_count(id), 0, "one of two has had its post");
    assert_eq!(env.call(POST, &form).await, 204);
    env.app.clock.advance(Duration::from_secs(1));
    env.wait_for_crm_id(id, json!(7)).await;
}

impl TestEnv {
    /// Waits until the write is postponed, and advances the clock by a second.
    async fn wait_for_postponed_write(&self, id: Uuid) {
        self.app
            .eventually("the write is postponed", async || {
                let write = self.app.deliveries("write-back:crm").await.pop()?;
                let due = write.next_attempt_at?;
                let is_postponed = write.attempts == 0 && due > self.app.clock.now();
                is_postponed.then_some(())
            })
            .await;
        assert_eq!(self.kratos.patch_count(id), 0);
        self.app.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn settings_calls_delay_a_write_for_a_minute_at_most() {
    let env = test_env().await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let form = env.change(id, "Canary GmbH", "Canary AG");
    assert_eq!(env.call(PRE, &form).await, 204);
    let saved = payload().saved_as(id);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.crm.next_call().await;
    for _ in 0..3 {
        env.wait_for_postponed_write(id).await;
        env.app.clock.advance(Duration::from_secs(18));
        assert_eq!(env.call(PRE, &form).await, 204, "again and again");
    }
    env.app.clock.advance(Duration::from_secs(5));
    env.wait_for_crm_id(id, json!(7)).await;
}

#[tokio::test]
async fn a_refused_settings_call_does_not_delay_a_write() {
    let env = test_env().await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let form = env.change(id, "Canary GmbH", "canary-refused");
    assert_eq!(env.call(PRE, &form).await, 400);
    let store = &env.app.app.store;
    env.app
        .eventually("the settings call is not pending", async || {
            let since = store
                .settings_pending_since(id)
                .await
                .expect("the store answers");
            since.is_none().then_some(())
        })
        .await;
    let saved = payload().saved_as(id);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.wait_for_crm_id(id, json!(7)).await;
}

#[tokio::test]
async fn settings_calls_are_not_recorded_if_nothing_is_written_into_identities() {
    let kratos = FakeKratos::start();
    let app = TestApp::with("kratos: {admin_url: \"${env:KRATOS}\"}")
        .kratos("KRATOS", &kratos)
        .start()
        .await;
    let id = Uuid::new_v4();
    let form = payload()
        .changed_from(&json!({"email": "canary@example.org"}))
        .saved_as(id);
    assert_eq!(app.settings(&form).await.status, 204);
    let since = app.app.store.settings_pending_since(id).await;
    assert_eq!(since.expect("the store answers"), None);
}

/// Kratos reads the identity for the PATCH, the visitor saves, and then Kratos writes the patched old row.
#[tokio::test]
async fn a_change_that_a_write_of_vestibule_undid_is_restored() {
    let env = test_env().await;
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    env.kratos.service.set_behaviour_for(
        &format!("PATCH /admin/identities/{id}"),
        Behaviour::Answers(503, json!({"error": {}}).to_string()),
    );
    let saved = payload().saved_as(id);
    assert_eq!(env.app.post(&saved).await.status, 204);
    env.crm.next_call().await;
    env.app
        .eventually("the write has begun", async || {
            let writes = env.app.app.store.identity_writes(id).await;
            writes.expect("the store answers")
        })
        .await;
    env.app.advance_to_next_attempt("write-back:crm").await;
    // The visitor saved in between: `post` reports it, and the row is as the PATCH left it.
    let form = env
        .change(id, "Canary GmbH", "Canary AG")
        .with("/identity/traits/canary_new", "canary-new")
        .without("/identity/traits/invite");
    assert_eq!(env.call(PRE, &form).await, 204);
    env.kratos.service.set_behaviour_for(
        &format!("PATCH /admin/identities/{id}"),
        env.kratos.normal_behaviour(),
    );
    assert_eq!(env.call(POST, &form).await, 204);
    env.app
        .eventually("the change is written back", async || {
            let traits = env.kratos.identity(id)["traits"].clone();
            (traits["company"] == "Canary AG").then_some(())
        })
        .await;
    let traits = env.kratos.identity(id)["traits"].clone();
    assert_eq!(
        traits,
        json!({
            "email": "canary@example.org", "company": "Canary AG", "vat_number": "DE-canary-1", "canary_new": "canary-new",
        })
    );
    assert!(env.outcome_count("change_restored").await > 0.5);
    env.app.clock.advance(Duration::from_mins(1));
    env.wait_for_crm_id(id, json!(7)).await;
    env.run_all_verifications().await;
    assert_eq!(env.kratos.identity(id)["traits"], traits);
}

#[tokio::test]
async fn a_trait_that_the_visitor_changed_again_is_not_overwritten() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let vies = FakeService::start();
    vies.respond_with(503, &json!({}));
    let settings = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  vat_number:
    field: traits.vat_number
    flows: [registration]
    ask: {get: "${env:VIES}/{value}"}
    on_unavailable: defer
    set: {traits.company: "{response.body.name}"}
"#;
    let app = TestApp::with(settings)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .start()
        .await;
    let env = TestEnv { app, kratos, crm };
    let visitor = payload();
    assert!(env.app.pre(&visitor).await.is_admitted());
    let id = env
        .kratos
        .add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    let saved = visitor.saved_as(id);
    assert_eq!(env.app.post(&saved).await.status, 204);
    vies.respond_with(200, &json!({"name": "Canary Registered GmbH"}));
    env.app.clock.advance(Duration::from_secs(5));
    env.app
        .wait_until_delivered("deferred-check:vat_number")
        .await;
    env.app
        .eventually("the name is set", async || {
            let company = env.kratos.identity(id)["traits"]["company"].clone();
            (company == "Canary Registered GmbH").then_some(())
        })
        .await;
    // The visitor has seen the name from the register and changes it back.
    let form = env.change(id, "Canary Registered GmbH", "Canary GmbH");
    assert_eq!(env.call(PRE, &form).await, 204);
    env.kratos
        .set_value(id, "/traits/company", json!("Canary GmbH"));
    assert_eq!(env.call(POST, &form).await, 204);
    env.app.wait_for_verifications().await;
    env.run_all_verifications().await;
    assert_eq!(env.kratos.identity(id)["traits"]["company"], "Canary GmbH");
}

#[tokio::test]
async fn a_trait_that_an_operator_resets_after_a_verified_save_is_not_overwritten() {
    let (env, id, _) = env_with_crm_id().await;
    let before = env.kratos.identity(id)["traits"].clone();
    env.app.clock.advance(Duration::from_secs(30));
    env.app.wait_for_verifications().await;
    // The visitor saves an offensive name within a minute after the write.
    let form = env.change(id, "Canary GmbH", "Canary Offensive");
    assert_eq!(env.call(PRE, &form).await, 204);
    let traits = form.0["identity"]["traits"].clone();
    env.kratos.set_value(id, "/traits", traits);
    assert_eq!(env.call(POST, &form).await, 204);
    env.app.wait_for_verifications().await;
    // An operator resets the name later.
    env.app.clock.advance(Duration::from_mins(20));
    env.app.wait_for_verifications().await;
    env.kratos.set_value(id, "/traits", before.clone());
    env.run_all_verifications().await;
    assert_eq!(env.kratos.identity(id)["traits"], before);
}

/// Writes the registered name into a trait, or an id into `metadata_admin`, after the sign-up.
async fn env_with_write_back(write_back: &str) -> (TestEnv, Uuid, Value) {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    crm.respond_with(200, &json!({"id": 7, "name": "Canary Registered GmbH"}));
    let yaml = SETTINGS.replace("metadata_admin.crm_id: \"{response.body.id}\"", write_back);
    let app = TestApp::with(&yaml)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    let env = TestEnv { app, kratos, crm };
    let (id, before) = env.sign_up().await;
    env.app.wait_until_delivered("write-back:crm").await;
    env.app.wait_for_verifications().await;
    (env, id, before)
}

#[tokio::test]
async fn a_change_that_a_write_into_another_trait_undid_is_restored() {
    let write_back = "traits.company: \"{response.body.name}\"";
    let (env, id, before) = env_with_write_back(write_back).await;
    // Kratos read the row for the write before the visitor's save, and saved the row after it.
    let form = payload()
        .changed_from(&before["traits"])
        .saved_as(id)
        .with("/identity/traits", before["traits"].clone())
        .with_trait("canary_name", "canary-ada");
    assert_eq!(env.call(POST, &form).await, 204);
    env.run_all_verifications().await;
    let traits = &env.kratos.identity(id)["traits"];
    assert_eq!(traits["canary_name"], "canary-ada");
    assert_eq!(
        traits["company"], "Canary Registered GmbH",
        "the write stays"
    );
}

#[tokio::test]
async fn metadata_public_that_a_write_undid_is_restored_with_the_traits() {
    let write_back = "metadata_admin.crm_id: \"{response.body.id}\"";
    let (env, id, before) = env_with_write_back(write_back).await;
    let public = json!({"company": "Canary New GmbH"});
    let form = payload()
        .changed_from(&before["traits"])
        .saved_as(id)
        .with("/identity/traits", before["traits"].clone())
        .with_trait("vat_number", "DE-canary-2")
        .with("/identity/metadata_public", public.clone());
    assert_eq!(env.call(POST, &form).await, 204);
    env.run_all_verifications().await;
    let identity = env.kratos.identity(id);
    assert_eq!(identity["traits"]["vat_number"], "DE-canary-2");
    assert_eq!(identity["metadata_public"], public);
    assert_eq!(identity["metadata_admin"]["crm_id"], 7);
}
