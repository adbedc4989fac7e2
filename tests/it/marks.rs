//! A late refusal that only marks or notifies ends when the check accepts a change in settings, once that is saved.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::model::identity_write::VERIFY_AFTER;

use crate::support::payload::Payload;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}"}
checks:
  vat_number:
    field: traits.vat_number
    flows: FLOWS
    ask: {post: "${env:VIES}/check", json: {number: "{value}"}}
    on_unavailable: defer
    on_late_refusal: LATE
    refuse: [{when: "!response.body.valid", message: {id: 4900101, en: "This VAT number is not registered."}}]
subscriptions:
  support: {events: [check.refused], send: {post: "${env:CRM}/refused"}}
"#;
const POST: &str = "/hooks/settings/post?method=profile";

struct EvaluationContext {
    app: TestApp,
    kratos: FakeKratos,
    vies: FakeService,
    id: Uuid,
}

/// An account that the check has refused late.
async fn scene(late_refusal: &str, flows: &str) -> EvaluationContext {
    let (kratos, vies, crm) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.answers(503, &json!({}));
    let yaml = SETTINGS.replace("LATE", late_refusal);
    let app = TestApp::with(&yaml.replace("FLOWS", flows))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &crm)
        .start()
        .await;
    let person = payload();
    assert!(app.pre(&person).await.is_admitted());
    let id = kratos.has("canary@example.org", "2026-11-23T14:32:54Z");
    assert_eq!(app.post(&person.saved_as(id)).await.status, 204);
    app.delivery_in("write-back:vat_number", State::Delivered)
        .await;
    vies.answers(200, &json!({"valid": false}));
    app.hand.advance(Duration::from_secs(5));
    app.delivery_in("support", State::Delivered).await;
    let scene = EvaluationContext {
        app,
        kratos,
        vies,
        id,
    };
    scene.mark_is(late_refusal == "mark").await;
    // The set in memory is loaded every second.
    scene.app.hand.advance(Duration::from_secs(1));
    scene.loaded().await;
    scene
}

async fn marked() -> EvaluationContext {
    scene("mark", "[registration]").await
}

impl EvaluationContext {
    async fn mark_is(&self, expected: bool) {
        let what = format!("the mark is there: {expected}");
        self.app
            .eventually(&what, async || {
                let admin = self.kratos.identity(self.id)["metadata_admin"]["vestibule"].clone();
                let is_settled = admin["deferred"] == json!({});
                (is_settled && admin["refused"]["vat_number"].is_object() == expected).then_some(())
            })
            .await;
    }

    async fn loaded(&self) {
        let now = self.app.hand.now().timestamp();
        let metric = "vestibule_late_refusals_last_load_timestamp_seconds";
        self.app
            .eventually("the refusals are loaded", async || {
                let loaded = self.app.metric(metric).await;
                #[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
                (loaded as i64 >= now).then_some(())
            })
            .await;
    }

    fn change(&self, name: &str, value: &str) -> Payload {
        let before = payload().0["identity"]["traits"].clone();
        payload()
            .changed_from(&before)
            .with_trait(name, value)
            .saved_as(self.id)
    }

    async fn saved(&self, change: &Payload) {
        let traits = change.0["identity"]["traits"].clone();
        self.kratos.change(self.id, "/traits", traits);
        let reply = self.app.call(POST, change.to_string()).await;
        assert_eq!(reply.status, 204);
    }

    /// Waits until nothing is to be written into the identity.
    async fn written(&self) {
        self.app
            .eventually("everything is written", async || {
                let all = self.app.deliveries("write-back:vat_number").await;
                let is_written = all.iter().all(|one| one.state == State::Delivered);
                is_written.then_some(())
            })
            .await;
    }

    async fn in_force(&self) -> usize {
        let refusals = self.app.app.store.late_refusals_of(self.id).await;
        refusals.expect("an answer").len()
    }

    async fn is_lifted(&self) {
        self.app
            .eventually("the refusal is lifted", async || {
                (self.in_force().await == 0).then_some(())
            })
            .await;
    }

    fn asked(&self, value: &str) -> bool {
        let received = self.vies.received();
        received.iter().any(|call| call.body.contains(value))
    }
}

#[tokio::test]
async fn a_marked_account_is_checked_again_in_settings_whatever_flows_says() {
    for flows in ["[registration]", "[registration, settings]"] {
        let scene = scene("mark", flows).await;
        let bad = scene.change("vat_number", "canary-bad");
        assert_eq!(
            scene.app.settings(&bad).await.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_101)]
        );
        // What the check does not read can be changed without it.
        let asked = scene.vies.received().len();
        let company = scene.change("company", "Canary AG");
        assert_eq!(scene.app.settings(&company).await.status, 204);
        scene.saved(&company).await;
        let reply = scene
            .app
            .call("/hooks/login/pre?method=password", company.to_string())
            .await;
        assert_eq!(reply.status, 204);
        assert_eq!(scene.vies.received().len(), asked);
        assert_eq!(scene.in_force().await, 1);
        scene.mark_is(true).await;
    }
}

#[tokio::test]
async fn acceptance_removes_the_mark_once_the_change_is_saved() {
    let scene = marked().await;
    scene.vies.answers(200, &json!({"valid": true}));
    let good = scene.change("vat_number", "canary-good");
    assert_eq!(scene.app.settings(&good).await.status, 204);
    assert!(scene.asked("canary-good"));
    assert_eq!(scene.in_force().await, 1, "it is not saved yet");
    scene.mark_is(true).await;
    let stale = scene.kratos.identity(scene.id);
    for _ in 0..2 {
        scene.saved(&good).await;
    }
    scene.is_lifted().await;
    scene.mark_is(false).await;
    scene.written().await;
    // A save that had read the identity before writes the mark back.
    scene.kratos.writes_back(scene.id, stale);
    scene.app.hand.advance(VERIFY_AFTER[1]);
    scene.mark_is(false).await;
    // A further change is an ordinary one: the check runs at registration only.
    scene.loaded().await;
    let other = scene.change("vat_number", "canary-other");
    assert_eq!(scene.app.settings(&other).await.status, 204);
    assert!(!scene.asked("canary-other"));
}

#[tokio::test]
async fn acceptance_removes_the_mark_although_the_post_never_came() {
    let scene = marked().await;
    scene.vies.answers(200, &json!({"valid": true}));
    let good = scene.change("vat_number", "canary-good");
    assert_eq!(scene.app.settings(&good).await.status, 204);
    let traits = good.0["identity"]["traits"].clone();
    scene.kratos.change(scene.id, "/traits", traits);
    scene.app.hand.advance(Duration::from_secs(61));
    scene.is_lifted().await;
    scene.app.hand.advance(Duration::from_secs(5));
    scene.mark_is(false).await;
}

#[tokio::test]
async fn a_change_that_is_not_saved_leaves_the_mark() {
    let scene = marked().await;
    scene.vies.answers(200, &json!({"valid": true}));
    let good = scene.change("vat_number", "canary-good");
    assert_eq!(scene.app.settings(&good).await.status, 204);
    scene.app.hand.advance(Duration::from_mins(20));
    scene.app.looked().await;
    assert_eq!(scene.in_force().await, 1);
    scene.mark_is(true).await;
}

#[tokio::test]
async fn a_refusal_that_only_notified_ends_without_a_write() {
    let scene = scene("notify", "[registration]").await;
    assert_eq!(scene.in_force().await, 1);
    let patches = scene.kratos.patches(scene.id);
    let bad = scene.change("vat_number", "canary-bad");
    assert_eq!(scene.app.settings(&bad).await.refused()[0].1, 4_900_101);
    scene.vies.answers(200, &json!({"valid": true}));
    let good = scene.change("vat_number", "canary-good");
    assert_eq!(scene.app.settings(&good).await.status, 204);
    scene.saved(&good).await;
    scene.is_lifted().await;
    for after in VERIFY_AFTER {
        scene.app.hand.advance(after);
        scene.app.verified().await;
    }
    assert_eq!(scene.kratos.patches(scene.id), patches);
}

#[tokio::test]
async fn a_change_that_is_accepted_late_removes_the_mark() {
    let scene = scene("mark", "[registration, settings]").await;
    scene.vies.answers(503, &json!({}));
    let good = scene.change("vat_number", "canary-good");
    assert_eq!(scene.app.settings(&good).await.status, 204, "deferred");
    scene.saved(&good).await;
    assert_eq!(scene.in_force().await, 1, "it has no answer yet");
    scene.vies.answers(200, &json!({"valid": true}));
    scene.app.hand.advance(Duration::from_secs(5));
    scene.is_lifted().await;
    scene.mark_is(false).await;
}

#[tokio::test]
async fn a_mark_that_is_written_late_is_not_written_after_the_acceptance() {
    let scene = marked().await;
    let store = &*scene.app.app.store;
    vestibule::checks::deferred::lift(store, scene.id, None, scene.app.hand.now())
        .await
        .expect("it is lifted");
    scene.app.hand.advance(Duration::from_mins(1));
    scene.mark_is(false).await;
    let before: Value = scene.kratos.identity(scene.id);
    // The delivery that marks is still to come when the refusal is lifted.
    let mark = vestibule::model::delivery::FieldWrite {
        path: vestibule::checks::deferred::refusal_mark("vat_number"),
        value: Some(json!({"at": "2026-11-23T14:32:58Z"})),
    };
    let write = vestibule::checks::deferred::identity_write(
        "vat_number",
        scene.id,
        vestibule::model::delivery::Event::IdentityCreated,
        "late".to_owned(),
        vec![mark],
        scene.app.hand.now(),
    );
    store.accept(vec![write]).await.expect("it is stored");
    scene.app.hand.advance(Duration::from_mins(1));
    scene.written().await;
    assert_eq!(
        scene.kratos.identity(scene.id)["metadata_admin"],
        before["metadata_admin"]
    );
}
