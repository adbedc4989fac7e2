//! What is written into an identity lasts, and undoes nothing that a person or an operator wrote.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::saturating_add;
use vestibule::model::delivery::State;
use vestibule::model::identity_write::VERIFY_AFTER;

use crate::support::payload::Payload;
use crate::support::service::Behaviour;
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

struct House {
    app: TestApp,
    kratos: FakeKratos,
    crm: FakeService,
}

async fn house() -> House {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    crm.answers(200, &json!({"id": 7}));
    let app = TestApp::with(SETTINGS)
        .kratos("KRATOS", &kratos)
        .service("CRM", &crm)
        .start()
        .await;
    House { app, kratos, crm }
}

impl House {
    /// Signs up, with the identity as it was before anything was written to it.
    async fn sign_up(&self) -> (Uuid, Value) {
        let id = self
            .kratos
            .has("canary@example.org", "2026-11-23T14:32:54Z");
        let before = self.kratos.identity(id);
        let saved = payload().saved_as(id);
        assert_eq!(self.app.post(&saved).await.status, 204);
        self.crm.next().await;
        (id, before)
    }

    async fn crm_id_is(&self, id: Uuid, expected: Value) {
        let what = format!("crm_id is {expected}");
        self.app
            .eventually(&what, async || {
                let identity = self.kratos.identity(id);
                (identity["metadata_admin"]["crm_id"] == expected).then_some(())
            })
            .await;
        // Time must not move while it is being written down.
        self.app
            .delivery_in("write-back:crm", State::Delivered)
            .await;
        self.app.verified().await;
    }

    /// Moves the time to each planned verification that is left.
    async fn all_verified(&self) {
        for _ in VERIFY_AFTER {
            self.app.hand.advance(Duration::from_hours(1));
            self.app.verified().await;
        }
        let next = self.app.app.store.next_verification().await;
        assert_eq!(next.expect("told"), None);
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

    async fn counted(&self, reason: &str) -> f64 {
        let name = format!("vestibule_identity_writes_total{{outcome=\"{reason}\"}}");
        self.app.metric(&name).await
    }
}

#[tokio::test]
async fn a_value_that_a_save_wrote_over_is_written_again_at_each_planned_time() {
    for moment in 0..VERIFY_AFTER.len() {
        let house = house().await;
        let (id, before) = house.sign_up().await;
        house.crm_id_is(id, json!(7)).await;
        for after in &VERIFY_AFTER[..moment] {
            house.moves_to(*after);
            house.app.verified().await;
        }
        house.kratos.writes_back(id, before);
        house.moves_to(VERIFY_AFTER[moment]);
        house.crm_id_is(id, json!(7)).await;
        assert!(house.counted("repeated").await > 0.5);
        house.all_verified().await;
    }
}

impl House {
    /// Moves the time to so long after the start.
    fn moves_to(&self, after: Duration) {
        let start = "2026-11-23T14:32:53Z".parse().expect("a moment");
        let wait = saturating_add(start, after) - self.app.hand.now();
        self.app.hand.advance(wait.to_std().expect("time moves on"));
    }
}

#[tokio::test]
async fn the_post_of_a_change_shows_at_once_that_a_value_was_written_over() {
    let house = house().await;
    let (id, mut before) = house.sign_up().await;
    house.crm_id_is(id, json!(7)).await;
    let form = house.change(id, "Canary GmbH", "Canary AG");
    assert_eq!(house.call(PRE, &form).await, 204);
    before["traits"]["company"] = json!("Canary AG");
    house.kratos.writes_back(id, before);
    assert_eq!(house.call(POST, &form).await, 204);
    house.crm_id_is(id, json!(7)).await;
    assert_eq!(house.kratos.identity(id)["traits"]["company"], "Canary AG");
    house.all_verified().await;
    assert_eq!(house.kratos.identity(id)["traits"]["company"], "Canary AG");
}

#[tokio::test]
async fn a_value_that_an_operator_corrects_is_left_alone() {
    let house = house().await;
    let (id, _) = house.sign_up().await;
    house.crm_id_is(id, json!(7)).await;
    house
        .kratos
        .change(id, "/metadata_admin/crm_id", json!("corrected"));
    let patches = house.kratos.patches(id);
    house.all_verified().await;
    assert_eq!(
        house.kratos.identity(id)["metadata_admin"]["crm_id"],
        "corrected"
    );
    assert_eq!(house.kratos.patches(id), patches);
}

#[tokio::test]
async fn nothing_is_written_while_a_settings_call_is_under_way() {
    let house = house().await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    let form = house.change(id, "Canary GmbH", "Canary AG");
    assert_eq!(house.call(PRE, &form).await, 204);
    assert_eq!(house.call(PRE, &form).await, 204, "sent twice");
    let saved = payload().saved_as(id);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.crm.next().await;
    for _ in 0..3 {
        house.waits_for_the_lock(id).await;
    }
    assert_eq!(house.call(POST, &form).await, 204);
    house.waits_for_the_lock(id).await;
    assert_eq!(house.kratos.patches(id), 0, "one of two has had its post");
    assert_eq!(house.call(POST, &form).await, 204);
    house.app.hand.advance(Duration::from_secs(1));
    house.crm_id_is(id, json!(7)).await;
}

impl House {
    /// Waits until the write has been put off, and lets a second pass.
    async fn waits_for_the_lock(&self, id: Uuid) {
        self.app
            .eventually("it is put off", async || {
                let write = self.app.deliveries("write-back:crm").await.pop()?;
                let due = write.next_attempt_at?;
                let rests = write.attempts == 0 && due > self.app.hand.now();
                rests.then_some(())
            })
            .await;
        assert_eq!(self.kratos.patches(id), 0);
        self.app.hand.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_write_waits_a_minute_at_most_whatever_a_person_sends() {
    let house = house().await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    let form = house.change(id, "Canary GmbH", "Canary AG");
    assert_eq!(house.call(PRE, &form).await, 204);
    let saved = payload().saved_as(id);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.crm.next().await;
    for _ in 0..3 {
        house.waits_for_the_lock(id).await;
        house.app.hand.advance(Duration::from_secs(18));
        assert_eq!(house.call(PRE, &form).await, 204, "again and again");
    }
    house.app.hand.advance(Duration::from_secs(5));
    house.crm_id_is(id, json!(7)).await;
}

#[tokio::test]
async fn a_settings_call_that_was_refused_holds_nothing_up() {
    let house = house().await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    let form = house.change(id, "Canary GmbH", "canary-refused");
    assert_eq!(house.call(PRE, &form).await, 400);
    let store = &house.app.app.store;
    house
        .app
        .eventually("it is not pending any more", async || {
            let since = store.settings_pending_since(id).await.expect("told");
            since.is_none().then_some(())
        })
        .await;
    let saved = payload().saved_as(id);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.crm_id_is(id, json!(7)).await;
}

#[tokio::test]
async fn settings_calls_are_not_noted_where_nothing_is_written_into_identities() {
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
    assert_eq!(since.expect("told"), None);
}

/// Kratos reads the identity for the PATCH, the person saves, and then Kratos writes what it had read, patched.
#[tokio::test]
async fn a_change_that_our_write_undid_is_written_back() {
    let house = house().await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    house.kratos.service.on(
        &format!("PATCH /admin/identities/{id}"),
        Behaviour::Answers(503, json!({"error": {}}).to_string()),
    );
    let saved = payload().saved_as(id);
    assert_eq!(house.app.post(&saved).await.status, 204);
    house.crm.next().await;
    house
        .app
        .eventually("the write has begun", async || {
            let writes = house.app.app.store.identity_writes(id).await;
            writes.expect("told")
        })
        .await;
    house.app.to_the_next_try("write-back:crm").await;
    // The person's save came in between: `post` tells of it, and the row is as the PATCH left it.
    let form = house
        .change(id, "Canary GmbH", "Canary AG")
        .with("/identity/traits/canary_new", "canary-new")
        .without("/identity/traits/invite");
    assert_eq!(house.call(PRE, &form).await, 204);
    house.kratos.service.on(
        &format!("PATCH /admin/identities/{id}"),
        house.kratos.behaviour(),
    );
    assert_eq!(house.call(POST, &form).await, 204);
    house
        .app
        .eventually("the change is written back", async || {
            let traits = house.kratos.identity(id)["traits"].clone();
            (traits["company"] == "Canary AG").then_some(())
        })
        .await;
    let traits = house.kratos.identity(id)["traits"].clone();
    assert_eq!(
        traits,
        json!({
            "email": "canary@example.org", "company": "Canary AG", "vat_number": "DE-canary-1", "canary_new": "canary-new",
        })
    );
    assert!(house.counted("change_restored").await > 0.5);
    house.app.hand.advance(Duration::from_mins(1));
    house.crm_id_is(id, json!(7)).await;
    house.all_verified().await;
    assert_eq!(house.kratos.identity(id)["traits"], traits);
}

#[tokio::test]
async fn a_trait_that_the_person_changed_again_is_left_alone() {
    let (kratos, crm) = (FakeKratos::start(), FakeService::start());
    let vies = FakeService::start();
    vies.answers(503, &json!({}));
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
    let house = House { app, kratos, crm };
    let person = payload();
    assert!(house.app.pre(&person).await.is_admitted());
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    let saved = person.saved_as(id);
    assert_eq!(house.app.post(&saved).await.status, 204);
    vies.answers(200, &json!({"name": "Canary Registered GmbH"}));
    house.app.hand.advance(Duration::from_secs(5));
    house
        .app
        .delivery_in("deferred-check:vat_number", State::Delivered)
        .await;
    house
        .app
        .eventually("the name is set", async || {
            let company = house.kratos.identity(id)["traits"]["company"].clone();
            (company == "Canary Registered GmbH").then_some(())
        })
        .await;
    // The person has seen the name of the register and goes back to the old one.
    let form = house.change(id, "Canary Registered GmbH", "Canary GmbH");
    assert_eq!(house.call(PRE, &form).await, 204);
    house
        .kratos
        .change(id, "/traits/company", json!("Canary GmbH"));
    assert_eq!(house.call(POST, &form).await, 204);
    house.app.verified().await;
    house.all_verified().await;
    assert_eq!(
        house.kratos.identity(id)["traits"]["company"],
        "Canary GmbH"
    );
}
