//! A service that gives no answer does not keep anybody out: it is asked again once the account exists.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::kratos::fingerprint::guard_id;
use vestibule::model::delivery::State;

use crate::support::failing::Failing;
use crate::support::payload::Payload;
use crate::support::service::Behaviour;
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

struct House {
    app: TestApp,
    kratos: FakeKratos,
    vies: FakeService,
    crm: FakeService,
}

async fn house(late_refusal: &str) -> House {
    let (kratos, vies, crm) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.answers(503, &json!({}));
    let app = TestApp::with(&SETTINGS.replace("LATE", late_refusal))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &crm)
        .start()
        .await;
    House {
        app,
        kratos,
        vies,
        crm,
    }
}

impl House {
    /// Signs up while the register is away; the account is noted as not checked yet.
    async fn sign_up(&self) -> (Uuid, Payload) {
        let person = payload();
        assert!(self.app.pre(&person).await.is_admitted());
        self.vies.next().await;
        let id = self
            .kratos
            .has("canary@example.org", "2026-11-23T14:32:54Z");
        assert_eq!(
            self.app.post(&person.clone().saved_as(id)).await.status,
            204
        );
        let admin = self
            .app
            .eventually("the note is there", async || {
                let admin = self.kratos.identity(id)["metadata_admin"].clone();
                admin.is_object().then_some(admin)
            })
            .await;
        assert_eq!(
            admin,
            json!({"vestibule": {"deferred": {"vat_number": {"since": "2026-11-23T14:32:53Z"}}}})
        );
        (id, person)
    }

    /// Lets the register be asked again until it has answered.
    async fn asked_again(&self) {
        self.app.hand.advance(Duration::from_secs(5));
        self.app
            .delivery_in("deferred-check:vat_number", State::Delivered)
            .await;
    }

    async fn admin_is(&self, id: Uuid, expected: Value) {
        let what = format!("metadata_admin is {expected}");
        self.app
            .eventually(&what, async || {
                (self.kratos.identity(id)["metadata_admin"]["vestibule"] == expected).then_some(())
            })
            .await;
    }
}

#[tokio::test]
async fn an_account_that_is_accepted_late_gets_what_the_check_sets() {
    let house = house("deactivate").await;
    let (id, _) = house.sign_up().await;
    house
        .vies
        .answers(200, &json!({"valid": true, "name": "Canary GmbH"}));
    house.asked_again().await;
    house.admin_is(id, json!({"deferred": {}})).await;
    let identity = house.kratos.identity(id);
    assert_eq!(identity["state"], "active");
    assert_eq!(
        identity["metadata_public"],
        json!({"company": "Canary GmbH"})
    );
    assert_eq!(house.crm.received().len(), 0);
}

#[tokio::test]
async fn an_account_that_is_refused_late_is_made_inactive_and_somebody_is_told() {
    let house = house("deactivate").await;
    let (id, _) = house.sign_up().await;
    house.vies.answers(200, &json!({"valid": false}));
    house.asked_again().await;
    let told = house.crm.next().await.json();
    assert_eq!(
        (
            &told["type"],
            &told["data"]["check"],
            &told["data"]["identity"]["id"]
        ),
        (&json!("check.refused"), &json!("vat_number"), &json!(id))
    );
    let identity = house
        .app
        .eventually("it is inactive", async || {
            let identity = house.kratos.identity(id);
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
async fn a_late_refusal_may_only_mark_or_only_notify() {
    for (late_refusal, marked) in [("mark", true), ("notify", false)] {
        let house = house(late_refusal).await;
        let (id, _) = house.sign_up().await;
        house.vies.answers(200, &json!({"valid": false}));
        house.asked_again().await;
        house.crm.next().await;
        house
            .app
            .eventually("the note is gone", async || {
                let admin = house.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
                (admin["deferred"] == json!({})).then_some(())
            })
            .await;
        let identity = house.kratos.identity(id);
        let admin = &identity["metadata_admin"]["vestibule"];
        assert_eq!(admin["refused"].is_object(), marked, "{late_refusal}");
        assert_eq!(identity["state"], "active", "{late_refusal}");
    }
}

#[tokio::test]
async fn it_is_asked_with_longer_and_longer_pauses_as_long_as_there_is_no_answer() {
    let house = house("deactivate").await;
    house.sign_up().await;
    let before = house.vies.received().len();
    let mut last_known_absent_at = house.app.hand.now();
    house.app.hand.advance(Duration::from_secs(5));
    let mut pauses = Vec::new();
    for _ in 0..4 {
        house.vies.next().await;
        pauses.push((house.app.hand.now() - last_known_absent_at).num_seconds());
        last_known_absent_at = house.app.hand.now();
        house.app.to_the_next_try("deferred-check:vat_number").await;
    }
    assert_eq!(pauses, [5, 5, 10, 20]);
    assert!(house.vies.received().len() >= before + 4);
    let question = house
        .app
        .delivery_in("deferred-check:vat_number", State::Pending)
        .await;
    assert!(question.attempts >= 3);
    let shown = house
        .app
        .app
        .store
        .show(question.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(shown.tries[0].status, Some(503));
    assert!(
        house
            .app
            .metric("vestibule_deferred_total{check=\"vat_number\",kind=\"status_5xx\"}")
            .await
            > 0.5
    );
}

#[tokio::test]
async fn nothing_is_deferred_that_is_not_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.answers(503, &json!({}));
    let app = TestApp::with(&SETTINGS.replace("LATE", "mark"))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &vies)
        .store(store.clone())
        .start()
        .await;
    store.fails(true);
    assert_eq!(
        app.pre(&payload()).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
    store.fails(false);
    assert!(app.pre(&payload()).await.is_admitted());
}

#[tokio::test]
async fn what_was_deferred_is_asked_although_post_never_came() {
    let house = house("deactivate").await;
    let email = json!([{"value": "canary@example.org", "via": "email"}]);
    let person = payload().with("/identity/verifiable_addresses", email);
    assert!(house.app.pre(&person).await.is_admitted());
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    house.vies.answers(200, &json!({"valid": false}));
    house.app.hand.advance(Duration::from_secs(61));
    house
        .app
        .delivery_in("write-back:vat_number", State::Delivered)
        .await;
    house.app.hand.advance(Duration::from_secs(5));
    house
        .app
        .eventually("it is inactive", async || {
            (house.kratos.identity(id)["state"] == "inactive").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_question_about_a_value_that_was_not_saved_is_not_put() {
    let house = house("deactivate").await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-01T00:00:00Z");
    let before = json!({"email": "canary@example.org", "vat_number": "old"});
    let form = payload()
        .with("/flow/type", "browser")
        .changed_from(&before);
    let form = form.saved_as(id);
    // The register is away, the yes comes to nothing, and another value is sent in the same form.
    let first = form.clone().with_trait("vat_number", "mistyped-1");
    assert_eq!(house.app.settings(&first).await.status, 204);
    house
        .vies
        .answers(200, &json!({"valid": true, "name": "Canary GmbH"}));
    let second = form.with_trait("vat_number", "right-1");
    assert_eq!(house.app.settings(&second).await.status, 200);
    let post = "/hooks/settings/post?method=profile";
    assert_eq!(house.app.call(post, second.to_string()).await.status, 204);
    assert_eq!(house.app.deliveries("deferred-check:vat_number").await, []);
}

/// Accepts this value and refuses all others.
fn accepts_only(service: &FakeService, value: &'static str) {
    service.does(Behaviour::Works(Arc::new(move |received| {
        let valid = received.json()["number"] == value;
        (
            200,
            json!({"valid": valid, "name": "Canary GmbH"}).to_string(),
            None,
        )
    })));
}

#[tokio::test]
async fn an_account_that_has_a_value_by_now_that_is_accepted_is_left_alone() {
    let house = house("deactivate").await;
    let (id, _) = house.sign_up().await;
    house
        .kratos
        .change(id, "/traits/vat_number", json!("corrected-1"));
    accepts_only(&house.vies, "corrected-1");
    house.asked_again().await;
    house.admin_is(id, json!({"deferred": {}})).await;
    let identity = house.kratos.identity(id);
    assert_eq!(identity["state"], "active");
    assert_eq!(
        identity["metadata_public"],
        json!({"company": "Canary GmbH"})
    );
    assert_eq!(house.crm.received().len(), 0);
}

#[tokio::test]
async fn a_deferred_check_is_not_evaded_by_emptying_or_changing_the_field() {
    for value in [json!(null), json!(" "), json!("another-bad-1")] {
        let house = house("deactivate").await;
        let (id, _) = house.sign_up().await;
        house.kratos.change(id, "/traits/vat_number", value.clone());
        accepts_only(&house.vies, "corrected-1");
        house.asked_again().await;
        house
            .app
            .eventually("it is inactive", async || {
                (house.kratos.identity(id)["state"] == "inactive").then_some(())
            })
            .await;
        let told = house.crm.next().await.json();
        assert_eq!(told["type"], "check.refused", "{value}");
    }
}

#[tokio::test]
async fn a_4xx_that_no_entry_of_refuse_names_is_asked_again() {
    for status in [400, 401, 403, 404, 410, 422] {
        let house = house("deactivate").await;
        let (id, _) = house.sign_up().await;
        house.vies.answers(status, &json!({}));
        house.app.hand.advance(Duration::from_secs(5));
        house.app.to_the_next_try("deferred-check:vat_number").await;
        let question = house
            .app
            .delivery_in("deferred-check:vat_number", State::Pending)
            .await;
        assert!(question.attempts >= 1, "{status}");
        assert_eq!(house.kratos.identity(id)["state"], "active", "{status}");
    }
}

/// Lets half of the question's time pass without an answer, and then all of it.
async fn expires(house: &House) {
    house.app.hand.advance(Duration::from_hours(24 * 4 + 1));
    house.app.to_the_next_try("deferred-check:vat_number").await;
    let half_time = "vestibule_deferred_unanswered_total{state=\"half_time\"}";
    assert!((house.app.metric(half_time).await - 1.0).abs() < 0.1);
    house.app.hand.advance(Duration::from_hours(24 * 4));
    let end = "vestibule_deferred_unanswered_total{state=\"end\"}";
    house
        .app
        .eventually("it has expired", async || {
            (house.app.metric(end).await > 0.5).then_some(())
        })
        .await;
    assert!(
        (house.app.metric(half_time).await - 1.0).abs() < 0.1,
        "once"
    );
}

#[tokio::test]
async fn a_question_that_expires_is_kept_and_stays_marked() {
    let house = house("deactivate").await;
    let (id, _) = house.sign_up().await;
    expires(&house).await;
    house
        .app
        .delivery_in("deferred-check:vat_number", State::Abandoned)
        .await;
    let identity = house.kratos.identity(id);
    assert_eq!(identity["state"], "active");
    assert!(identity["metadata_admin"]["vestibule"]["deferred"]["vat_number"].is_object());
}

#[tokio::test]
async fn a_question_that_expires_may_accept_or_refuse() {
    for (on_expiry, state) in [("accept", "active"), ("refuse", "inactive")] {
        let house = house(&format!("deactivate\n    on_expiry: {on_expiry}")).await;
        let (id, _) = house.sign_up().await;
        expires(&house).await;
        house
            .app
            .eventually("the note is gone", async || {
                let identity = house.kratos.identity(id);
                let admin = &identity["metadata_admin"]["vestibule"];
                (admin["deferred"] == json!({}) && identity["state"] == state).then_some(())
            })
            .await;
        house
            .app
            .delivery_in("deferred-check:vat_number", State::Delivered)
            .await;
        let refused = house.app.deliveries("support").await.len();
        assert_eq!(refused == 1, on_expiry == "refuse", "{on_expiry}");
    }
}

#[tokio::test]
async fn a_question_about_a_value_that_is_saved_otherwise_is_put() {
    let (kratos, vies, names) = (
        FakeKratos::start(),
        FakeService::start(),
        FakeService::start(),
    );
    vies.answers(503, &json!({}));
    names.answers(200, &json!({"written": "DE1"}));
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
    let person = payload().with_trait("vat_number", "de 1");
    assert_eq!(app.pre(&person).await.status, 200);
    let saved = person.with_trait("vat_number", "DE1").saved();
    assert_eq!(app.post(&saved).await.status, 204);
    assert_eq!(app.deliveries("deferred-check:vat_number").await.len(), 1);
}

#[tokio::test]
async fn a_post_of_another_method_leaves_what_was_deferred_for_the_profile() {
    let house = house("deactivate").await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-01T00:00:00Z");
    let before = json!({"email": "canary@example.org", "vat_number": "old"});
    let change = payload()
        .with("/flow/type", "browser")
        .changed_from(&before)
        .saved_as(id)
        .with_trait("vat_number", "new-1");
    assert_eq!(house.app.settings(&change).await.status, 204);
    let traits = change.0["identity"]["traits"].clone();
    house.kratos.change(id, "/traits", traits);
    // Its `post` is lost; in the same form the password is changed.
    let post = "/hooks/settings/post?method=password";
    let password = change.to_string();
    assert_eq!(house.app.call(post, password).await.status, 204);
    assert_eq!(house.app.deliveries("deferred-check:vat_number").await, []);
    house.app.hand.advance(Duration::from_secs(61));
    house
        .app
        .eventually("it is asked", async || {
            let asked = house.app.deliveries("deferred-check:vat_number").await;
            (asked.len() == 1).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_question_that_the_service_rejects_is_not_deferred() {
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
        let house = house("notify").await;
        house.vies.answers(status, &json!({"valid": true}));
        let reply = house.app.pre(&payload()).await;
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

const SETTINGS_POST: &str = "/hooks/settings/post?method=profile";

/// A change of this account's trait to another value.
fn change_of(id: Uuid, name: &str, value: impl Into<Value>) -> Payload {
    let before = payload().0["identity"]["traits"].clone();
    payload()
        .changed_from(&before)
        .with_trait(name, value)
        .saved_as(id)
}

#[tokio::test]
async fn while_a_check_is_deferred_a_change_is_asked_or_refused() {
    // Also where the check runs at sign-up alone.
    for flows in ["", "    flows: [registration]\n"] {
        let (kratos, vies, crm) = (
            FakeKratos::start(),
            FakeService::start(),
            FakeService::start(),
        );
        vies.answers(503, &json!({}));
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
        let house = House {
            app,
            kratos,
            vies,
            crm,
        };
        let (id, _) = house.sign_up().await;
        let asked = |value: &str| {
            let received = house.vies.received();
            received.iter().any(|call| call.body.contains(value))
        };
        let refused = [("#/traits/vat_number".to_owned(), 4_900_001)];
        for value in ["", " \u{200b}", "canary-other"] {
            let reply = house
                .app
                .settings(&change_of(id, "vat_number", value))
                .await;
            assert_eq!(reply.refused(), refused, "{flows}{value:?}");
        }
        assert!(asked("canary-other"), "it is asked, and has no answer");
        let gone = change_of(id, "vat_number", "x").without("/identity/traits/vat_number");
        assert_eq!(house.app.settings(&gone).await.refused(), refused);
        // Whatever the check does not read can be changed.
        let company = change_of(id, "company", "Canary AG");
        assert!(house.app.settings(&company).await.is_admitted());

        house.vies.answers(200, &json!({"valid": false}));
        let bad = change_of(id, "vat_number", "canary-bad");
        let reply = house.app.settings(&bad).await;
        assert_eq!(
            reply.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_101)]
        );
        let question = house.app.deliveries("deferred-check:vat_number").await;
        assert_eq!((question.len(), question[0].state), (1, State::Pending));
    }
}

#[tokio::test]
async fn an_accepted_change_ends_the_deferral_when_it_is_saved() {
    let house = house("deactivate").await;
    let (id, _) = house.sign_up().await;
    house
        .vies
        .answers(200, &json!({"valid": true, "name": "Canary GmbH"}));
    let good = change_of(id, "vat_number", "canary-good");
    assert_eq!(house.app.settings(&good).await.status, 200);
    // It is not saved yet: the question stays.
    let question = house.app.deliveries("deferred-check:vat_number").await;
    assert_eq!(question[0].state, State::Pending);
    let saved = good.with(
        "/identity/metadata_public",
        json!({"company": "Canary GmbH"}),
    );
    let status = house
        .app
        .call(SETTINGS_POST, saved.to_string())
        .await
        .status;
    assert_eq!(status, 204);
    house
        .app
        .delivery_in("deferred-check:vat_number", State::Discarded)
        .await;
    house.admin_is(id, json!({"deferred": {}})).await;
    // The value of the sign-up would be refused now, and nobody asks.
    house.vies.answers(200, &json!({"valid": false}));
    let asked = house.vies.received().len();
    house.app.hand.advance(Duration::from_hours(24 * 9));
    assert_eq!(house.vies.received().len(), asked);
    assert_eq!(house.kratos.identity(id)["state"], "active");
    // A further change is an ordinary one.
    let emptied = change_of(id, "vat_number", "");
    assert!(house.app.settings(&emptied).await.is_admitted());
}

#[tokio::test]
async fn a_question_that_was_given_up_still_keeps_changes_from_passing() {
    let house = house("deactivate").await;
    let (id, _) = house.sign_up().await;
    expires(&house).await;
    house
        .app
        .delivery_in("deferred-check:vat_number", State::Abandoned)
        .await;
    let emptied = change_of(id, "vat_number", "");
    assert_eq!(
        house.app.settings(&emptied).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
}

#[tokio::test]
async fn while_it_is_not_known_what_is_deferred_every_check_that_can_be_must_accept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    let app = TestApp::with(&SETTINGS.replace("LATE", "deactivate"))
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies)
        .service("CRM", &vies)
        .store(store.clone())
        .start()
        .await;
    let id = Uuid::new_v4();
    store.fails(true);
    vies.answers(503, &json!({}));
    for value in ["", "canary-other"] {
        let reply = app.settings(&change_of(id, "vat_number", value)).await;
        assert_eq!(reply.refused()[0].1, 4_900_001, "{value}");
    }
    let company = change_of(id, "company", "Canary AG");
    assert!(app.settings(&company).await.is_admitted());
    // What was deferred, and would end with this, cannot be recorded.
    vies.answers(200, &json!({"valid": true}));
    let good = change_of(id, "vat_number", "canary-good");
    assert_eq!(app.settings(&good).await.refused()[0].1, 4_900_001);
}

#[tokio::test]
async fn no_account_is_deactivated_for_a_sign_up_that_it_may_not_have_come_of() {
    let house = house("deactivate").await;
    house.app.prove_guard().await;
    let person = payload();
    assert!(house.app.pre(&person).await.is_admitted());
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    // A hook behind ours has changed another trait.
    let changed = person.with_trait("company", "Canary AG").saved_as(id);
    let status = house.app.post(&changed.guarded()).await.status;
    assert_eq!(status, 204);
    house.vies.answers(200, &json!({"valid": false}));
    house.asked_again().await;
    house
        .app
        .eventually("the account is marked", async || {
            let admin = house.kratos.identity(id)["metadata_admin"].clone();
            let mark = &admin["vestibule"]["refused"]["vat_number"];
            mark.is_object().then_some(())
        })
        .await;
    assert_eq!(house.kratos.identity(id)["state"], "active");
}

#[tokio::test]
async fn a_change_before_the_lost_post_is_looked_up_does_not_evade_the_check() {
    let house = house("deactivate").await;
    let person = payload();
    assert!(house.app.pre(&person).await.is_admitted());
    // The client hung up: the account exists, and no `post` came. The person changes it at the same moment.
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    let external_id = guard_id(person.flow_id());
    house.kratos.change(id, "/external_id", json!(external_id));
    let emptied = change_of(id, "vat_number", "").with("/identity/external_id", external_id);
    assert_eq!(
        house.app.settings(&emptied).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_001)]
    );
    let question = house.app.deliveries("deferred-check:vat_number").await;
    assert_eq!((question.len(), question[0].identity_id), (1, id));
    // The look-up and a late `post` find nothing more to do.
    house.app.hand.advance(Duration::from_secs(6));
    let late = person.saved_as(id).guarded();
    assert_eq!(house.app.post(&late).await.status, 204);
    assert_eq!(
        house
            .app
            .deliveries("deferred-check:vat_number")
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn no_account_is_deactivated_that_a_look_up_found_with_other_traits() {
    let house = house("deactivate").await;
    let email = json!([{"value": "canary@example.org", "via": "email"}]);
    let person = payload().with("/identity/verifiable_addresses", email);
    assert!(house.app.pre(&person).await.is_admitted());
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-23T14:32:54Z");
    house
        .kratos
        .change(id, "/traits/company", json!("as a later hook wrote it"));
    house.vies.answers(200, &json!({"valid": false}));
    house.app.hand.advance(Duration::from_mins(62));
    house
        .app
        .eventually("the account is marked", async || {
            house.app.hand.advance(Duration::from_secs(1));
            let admin = house.kratos.identity(id)["metadata_admin"].clone();
            let mark = &admin["vestibule"]["refused"]["vat_number"];
            mark.is_object().then_some(())
        })
        .await;
    assert_eq!(house.kratos.identity(id)["state"], "active");
}
