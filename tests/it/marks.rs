//! A late refusal that only marks or notifies ends when the check accepts a change in settings and the change is saved.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::model::delivery::State;
use vestibule::model::identity_write::VERIFY_AFTER;
use vestibule::store::WriteSet;

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

struct TestCase {
    app: TestApp,
    kratos: FakeKratos,
    vies: FakeService,
    id: Uuid,
}

/// An account that the check has refused late.
async fn test_case(late_refusal: &str, flows: &str) -> TestCase {
    let (kratos, vies, crm) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.respond_with(503, &json!({}));
    let yaml = SETTINGS.replace("LATE", late_refusal);
    let app = TestApp::with(&yaml.replace("FLOWS", flows))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &crm)
        .start()
        .await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    let id = kratos.add_identity("canary@example.org", "2026-11-23T14:32:54Z");
    assert_eq!(app.post(&visitor.saved_as(id)).await.status, 204);
    app.wait_until_delivered("write-back:vat_number").await;
    vies.respond_with(200, &json!({"valid": false}));
    app.clock.advance(Duration::from_secs(5));
    app.wait_until_delivered("support").await;
    let case = TestCase {
        app,
        kratos,
        vies,
        id,
    };
    case.wait_for_mark(late_refusal == "mark").await;
    // Vestibule loads the refusals every second.
    case.app.clock.advance(Duration::from_secs(1));
    case.wait_for_refusals_loaded().await;
    case
}

async fn marked_account() -> TestCase {
    test_case("mark", "[registration]").await
}

impl TestCase {
    async fn wait_for_mark(&self, expected: bool) {
        let what = format!("the mark is set: {expected}");
        self.app
            .eventually(&what, async || {
                let admin = self.kratos.identity(self.id)["metadata_admin"]["vestibule"].clone();
                let is_settled = admin["deferred"] == json!({});
                (is_settled && admin["refused"]["vat_number"].is_object() == expected).then_some(())
            })
            .await;
    }

    async fn wait_for_refusals_loaded(&self) {
        let now = self.app.clock.now().timestamp();
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

    async fn save(&self, change: &Payload) {
        let traits = change.0["identity"]["traits"].clone();
        self.kratos.set_value(self.id, "/traits", traits);
        let reply = self.app.settings_post(change).await;
        assert_eq!(reply.status, 204);
    }

    /// Waits until no write into the identity is pending.
    async fn wait_for_writes(&self) {
        self.app
            .eventually("everything is written", async || {
                let all = self.app.deliveries("write-back:vat_number").await;
                let is_written = all.iter().all(|one| one.state == State::Delivered);
                is_written.then_some(())
            })
            .await;
    }

    async fn refusals_in_force(&self) -> usize {
        let refusals = self.app.app.store.late_refusals_of(self.id).await;
        refusals.expect("an answer").len()
    }

    async fn wait_until_lifted(&self) {
        self.app
            .eventually("the refusal is lifted", async || {
                (self.refusals_in_force().await == 0).then_some(())
            })
            .await;
    }

    fn was_asked_about(&self, value: &str) -> bool {
        let received = self.vies.received();
        received.iter().any(|call| call.body.contains(value))
    }
}

#[tokio::test]
async fn a_marked_account_is_checked_again_in_settings_regardless_of_flows() {
    for flows in ["[registration]", "[registration, settings]"] {
        let case = test_case("mark", flows).await;
        let bad = case.change("vat_number", "canary-bad");
        assert_eq!(
            case.app.settings(&bad).await.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_101)]
        );
        // A trait that the check does not read can be changed without the check.
        let asked = case.vies.received().len();
        let company = case.change("company", "Canary AG");
        assert_eq!(case.app.settings(&company).await.status, 204);
        case.save(&company).await;
        let reply = case
            .app
            .call("/hooks/login/pre?method=password", company.to_string())
            .await;
        assert_eq!(reply.status, 204);
        assert_eq!(case.vies.received().len(), asked);
        assert_eq!(case.refusals_in_force().await, 1);
        case.wait_for_mark(true).await;
    }
}

#[tokio::test]
async fn a_saved_accepted_change_removes_the_mark() {
    let case = marked_account().await;
    case.vies.respond_with(200, &json!({"valid": true}));
    let good = case.change("vat_number", "canary-good");
    assert_eq!(case.app.settings(&good).await.status, 204);
    assert!(case.was_asked_about("canary-good"));
    assert_eq!(
        case.refusals_in_force().await,
        1,
        "the change is not saved yet"
    );
    case.wait_for_mark(true).await;
    let stale = case.kratos.identity(case.id);
    for _ in 0..2 {
        case.save(&good).await;
    }
    case.app.clock.advance(Duration::from_mins(1));
    case.wait_until_lifted().await;
    case.wait_for_mark(false).await;
    case.wait_for_writes().await;
    // A save that read the identity earlier writes the mark back.
    case.kratos.overwrite_identity(case.id, stale);
    case.app.clock.advance(VERIFY_AFTER[1]);
    case.wait_for_mark(false).await;
    // The check runs only at registration, so it does not run for the next change.
    case.wait_for_refusals_loaded().await;
    let other = case.change("vat_number", "canary-other");
    assert_eq!(case.app.settings(&other).await.status, 204);
    assert!(!case.was_asked_about("canary-other"));
}

#[tokio::test]
async fn an_accepted_change_removes_the_mark_although_its_post_is_lost() {
    let case = marked_account().await;
    case.vies.respond_with(200, &json!({"valid": true}));
    let good = case.change("vat_number", "canary-good");
    assert_eq!(case.app.settings(&good).await.status, 204);
    let traits = good.0["identity"]["traits"].clone();
    case.kratos.set_value(case.id, "/traits", traits);
    case.app.clock.advance(Duration::from_secs(61));
    case.app.wait_for_lookups().await;
    case.app.clock.advance(Duration::from_mins(1));
    case.wait_until_lifted().await;
    case.app.clock.advance(Duration::from_secs(5));
    case.wait_for_mark(false).await;
}

#[tokio::test]
async fn an_unsaved_change_keeps_the_mark() {
    let case = marked_account().await;
    case.vies.respond_with(200, &json!({"valid": true}));
    let good = case.change("vat_number", "canary-good");
    assert_eq!(case.app.settings(&good).await.status, 204);
    case.app.clock.advance(Duration::from_mins(20));
    case.app.wait_for_lookups().await;
    assert_eq!(case.refusals_in_force().await, 1);
    case.wait_for_mark(true).await;
}

#[tokio::test]
async fn a_refusal_that_only_notified_is_lifted_without_a_write() {
    let case = test_case("notify", "[registration]").await;
    assert_eq!(case.refusals_in_force().await, 1);
    let patches = case.kratos.patch_count(case.id);
    let bad = case.change("vat_number", "canary-bad");
    assert_eq!(case.app.settings(&bad).await.refused()[0].1, 4_900_101);
    case.vies.respond_with(200, &json!({"valid": true}));
    let good = case.change("vat_number", "canary-good");
    assert_eq!(case.app.settings(&good).await.status, 204);
    case.save(&good).await;
    case.app.clock.advance(Duration::from_mins(1));
    case.wait_until_lifted().await;
    for after in VERIFY_AFTER {
        case.app.clock.advance(after);
        case.app.wait_for_verifications().await;
    }
    assert_eq!(case.kratos.patch_count(case.id), patches);
}

#[tokio::test]
async fn a_change_accepted_late_removes_the_mark() {
    let case = test_case("mark", "[registration, settings]").await;
    case.vies.respond_with(503, &json!({}));
    let good = case.change("vat_number", "canary-good");
    assert_eq!(case.app.settings(&good).await.status, 204, "deferred");
    case.save(&good).await;
    assert_eq!(
        case.refusals_in_force().await,
        1,
        "the check has no answer yet"
    );
    case.vies.respond_with(200, &json!({"valid": true}));
    case.app.clock.advance(Duration::from_secs(5));
    case.wait_until_lifted().await;
    case.wait_for_mark(false).await;
}

#[tokio::test]
async fn a_late_mark_is_not_written_after_the_refusal_is_lifted() {
    let case = marked_account().await;
    let store = &*case.app.app.store;
    vestibule::checks::deferred::lift(store, case.id, None, case.app.clock.now())
        .await
        .expect("the refusal is lifted");
    case.app.clock.advance(Duration::from_mins(1));
    case.wait_for_mark(false).await;
    let before: Value = case.kratos.identity(case.id);
    // The delivery that marks is stored after the refusal is lifted.
    let mark = vestibule::model::delivery::FieldWrite {
        path: vestibule::checks::deferred::refusal_mark("vat_number"),
        value: Some(json!({"at": "2026-11-23T14:32:58Z"})),
    };
    let write = vestibule::checks::deferred::identity_write(
        "vat_number",
        case.id,
        vestibule::model::delivery::Event::IdentityCreated,
        "late".to_owned(),
        vec![mark],
        case.app.clock.now(),
    );
    let stored = store.write(&WriteSet::of(vec![write])).await;
    stored.expect("the delivery is stored");
    case.app.clock.advance(Duration::from_mins(1));
    case.wait_for_writes().await;
    assert_eq!(
        case.kratos.identity(case.id)["metadata_admin"],
        before["metadata_admin"]
    );
}

#[tokio::test]
async fn a_parallel_save_that_restores_the_refused_value_keeps_the_mark() {
    let case = marked_account().await;
    // Kratos reads the identity for both calls before it saves one of them.
    let company = case.change("company", "Canary AG");
    assert_eq!(case.app.settings(&company).await.status, 204);
    case.vies.respond_with(200, &json!({"valid": true}));
    let good = case.change("vat_number", "canary-good");
    assert_eq!(case.app.settings(&good).await.status, 204);
    case.save(&good).await;
    case.save(&company).await;
    case.app.clock.advance(Duration::from_mins(1));
    case.wait_for_writes().await;
    assert_eq!(case.refusals_in_force().await, 1);
    case.wait_for_mark(true).await;
}
