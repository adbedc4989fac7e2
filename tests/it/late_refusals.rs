//! An account that a deferred check refuses after it was created is kept out until the refusal is lifted.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::checks::deferred::lift;
use vestibule::model::delivery::State;

use crate::support::failing::Failing;
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

/// Every hook that keeps a person out.
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

struct House {
    app: TestApp,
    kratos: FakeKratos,
    vies: FakeService,
}

async fn house_with(store: Option<std::sync::Arc<Failing>>, settings: &str) -> House {
    let (kratos, vies) = (FakeKratos::start(), FakeService::start());
    vies.answers(503, &json!({}));
    let mut builder = TestApp::with(settings)
        .kratos("KRATOS", &kratos)
        .service("VIES", &vies);
    if let Some(store) = store {
        builder = builder.store(store);
    }
    let app = builder.start().await;
    House { app, kratos, vies }
}

async fn house() -> House {
    house_with(None, SETTINGS).await
}

impl House {
    /// Signs up while the service is down. Returns the person as a settings form knows them.
    async fn sign_up(&self) -> (Uuid, Payload) {
        let person = payload();
        assert!(self.app.pre(&person).await.is_admitted());
        let id = self
            .kratos
            .has("canary@example.org", "2026-11-23T14:32:54Z");
        let saved = person.saved_as(id);
        assert_eq!(self.app.post(&saved).await.status, 204);
        self.app
            .delivery_in("write-back:vat_number", State::Delivered)
            .await;
        let traits = self.kratos.identity(id)["traits"].clone();
        (id, saved.changed_from(&traits).saved_as(id))
    }

    async fn is_refused_late(&self, answer: Value) {
        self.vies.answers(200, &answer);
        self.app.hand.advance(Duration::from_secs(5));
        self.app
            .delivery_in("deferred-check:vat_number", State::Delivered)
            .await;
    }

    async fn is_inactive(&self, id: Uuid) {
        self.app
            .delivery_in("late-refusal:vat_number", State::Delivered)
            .await;
        assert_eq!(self.kratos.identity(id)["state"], "inactive");
    }

    /// Waits until the set in memory is the one in the database.
    async fn is_let_in(&self, person: &Payload) {
        self.app.hand.advance(Duration::from_secs(1));
        self.app
            .eventually("the person is let in", async || {
                (self.call("/hooks/settings/pre", person).await.status == 204).then_some(())
            })
            .await;
    }

    async fn call(&self, hook: &str, person: &Payload) -> crate::support::app::Reply {
        self.app.call(hook, person.to_string()).await
    }
}

#[tokio::test]
async fn nobody_who_was_refused_late_gets_in_by_any_way() {
    let house = house().await;
    let (id, person) = house.sign_up().await;
    for hook in &HOOKS[..9] {
        assert_eq!(house.call(hook, &person).await.status, 204, "{hook}");
    }
    house.is_refused_late(json!({"valid": false})).await;
    house.is_inactive(id).await;
    assert_eq!(house.kratos.sessions_deleted(id), 2, "before and after");
    for hook in HOOKS {
        let reply = house.call(hook, &person).await;
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
    let german = person.in_language("de-AT, en;q=0.5");
    let reply = house.call("/hooks/login/pre?method=code", &german).await;
    assert_eq!(reply.messages()[0].2, "Diese Nummer ist nicht registriert.");
    let somebody_else = payload().saved();
    let reply = house
        .call("/hooks/login/pre?method=code", &somebody_else)
        .await;
    assert_eq!(reply.status, 204);
    assert!((house.app.metric("vestibule_late_refused_identities").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_refusal_without_a_message_has_a_built_in_one() {
    let house = house().await;
    let (id, person) = house.sign_up().await;
    house
        .is_refused_late(json!({"valid": true, "blocked": true}))
        .await;
    house.is_inactive(id).await;
    let reply = house.call("/hooks/recovery/pre", &person).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_007)]);
}

#[tokio::test]
async fn sign_in_hooks_are_answered_from_memory_while_the_database_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let house = house_with(Some(store.clone()), SETTINGS).await;
    let (id, person) = house.sign_up().await;
    house.is_refused_late(json!({"valid": false})).await;
    house.is_inactive(id).await;
    store.fails(true);
    let failures = "vestibule_late_refusals_load_failures_total";
    for number in 1..=3 {
        house.app.hand.advance(Duration::from_secs(1));
        house
            .app
            .eventually("it cannot be loaded", async || {
                let failures = house.app.metric(failures).await;
                (failures > f64::from(number) - 0.5).then_some(())
            })
            .await;
    }
    assert_eq!(house.call(HOOKS[1], &person).await.status, 400);
    assert_eq!(
        house.call(HOOKS[1], &payload().saved()).await.status,
        204,
        "a person who is not refused signs in without a database"
    );
    let alarm = "ALARM: the identities that were refused late cannot be loaded";
    assert_eq!(logs::lines_with(alarm).len(), 1, "once, not each second");
    store.fails(false);
}

#[tokio::test]
async fn another_instance_sees_a_refusal_and_its_end_within_a_second() {
    let house = house().await;
    let (id, person) = house.sign_up().await;
    house.is_refused_late(json!({"valid": false})).await;
    house.is_inactive(id).await;
    let other = TestApp::with(SETTINGS)
        .kratos("KRATOS", &house.kratos)
        .service("VIES", &house.vies)
        .after(&house.app.folder, house.app.hand.now())
        .start()
        .await;
    let hook = "/hooks/login/pre?method=password";
    assert_eq!(other.call(hook, person.to_string()).await.status, 400);
    let lifted = lift(&*house.app.app.store, id, None, house.app.hand.now()).await;
    assert_eq!(lifted.unwrap().checks, ["vat_number"]);
    other.hand.advance(Duration::from_secs(1));
    other
        .eventually("it is seen", async || {
            (other.call(hook, person.to_string()).await.status == 204).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_refusal_that_is_lifted_leaves_an_active_account_without_a_mark() {
    let house = house().await;
    let (id, person) = house.sign_up().await;
    house.is_refused_late(json!({"valid": false})).await;
    house.is_inactive(id).await;
    let store = &*house.app.app.store;
    let now = house.app.hand.now();
    assert_eq!(
        lift(store, id, Some("another"), now).await.unwrap().checks,
        [""; 0]
    );
    lift(store, id, Some("vat_number"), now).await.unwrap();
    house.app.hand.advance(Duration::from_mins(1));
    house
        .app
        .eventually("it is active", async || {
            (house.kratos.identity(id)["state"] == "active").then_some(())
        })
        .await;
    let admin = house.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
    assert_eq!(admin, json!({"deferred": {}, "refused": {}}));
    house.is_let_in(&person).await;
    for hook in HOOKS {
        assert_eq!(house.call(hook, &person).await.status, 204, "{hook}");
    }
    for _ in 0..8 {
        house.app.hand.advance(Duration::from_hours(1));
        house.app.verified().await;
    }
    assert_eq!(house.kratos.identity(id)["state"], "active");
}

#[tokio::test]
async fn an_operator_who_activates_an_account_is_left_alone() {
    let house = house().await;
    let (id, mut person) = house.sign_up().await;
    house.is_refused_late(json!({"valid": false})).await;
    house.is_inactive(id).await;
    for _ in 0..8 {
        house.app.hand.advance(Duration::from_hours(1));
        house.app.verified().await;
    }
    // Long after the last planned verification.
    house.kratos.operator_sets_state(id, "active");
    let patches = house.kratos.patches(id);
    let identity = house.kratos.identity(id);
    person = person.with("/identity/state", "active").with(
        "/identity/state_changed_at",
        identity["state_changed_at"].clone(),
    );
    assert_eq!(
        house
            .call("/hooks/login/pre?method=password", &person)
            .await
            .status,
        204
    );
    let refusals = house
        .app
        .eventually("the refusal is lifted", async || {
            let refusals = house.app.app.store.late_refusals_of(id).await.unwrap();
            refusals.is_empty().then_some(refusals)
        })
        .await;
    assert_eq!(refusals, []);
    house.is_let_in(&person).await;
    for hook in HOOKS {
        assert_eq!(house.call(hook, &person).await.status, 204, "{hook}");
    }
    for _ in 0..8 {
        house.app.hand.advance(Duration::from_hours(1));
        house.app.verified().await;
    }
    assert_eq!(house.kratos.identity(id)["state"], "active");
    assert_eq!(house.kratos.patches(id), patches);
}

#[tokio::test]
async fn a_save_that_activates_the_account_again_is_undone() {
    let house = house().await;
    let (id, person) = house.sign_up().await;
    let before = house.kratos.identity(id);
    house.is_refused_late(json!({"valid": false})).await;
    house.is_inactive(id).await;
    let deleted = house.kratos.sessions_deleted(id);
    house.kratos.writes_back(id, before);
    // A hook call shows that the identity may have changed.
    assert_eq!(
        house
            .call("/hooks/login/pre?method=password", &person)
            .await
            .status,
        400
    );
    house
        .app
        .eventually("it is inactive again", async || {
            let identity = house.kratos.identity(id);
            let mark = &identity["metadata_admin"]["vestibule"]["refused"]["vat_number"];
            (identity["state"] == "inactive" && mark.is_object()).then_some(())
        })
        .await;
    house
        .app
        .eventually("the sessions are deleted before and after", async || {
            (house.kratos.sessions_deleted(id) >= deleted + 2).then_some(())
        })
        .await;
    // And long after the last planned verification, without a hook call in between, by the next one.
    let before = {
        let mut identity = house.kratos.identity(id);
        identity["state"] = json!("active");
        identity
    };
    for _ in 0..8 {
        house.app.hand.advance(Duration::from_hours(1));
        house.app.verified().await;
    }
    house.kratos.writes_back(id, before);
    assert_eq!(house.call("/hooks/recovery/pre", &person).await.status, 400);
    house
        .app
        .eventually("it is inactive again", async || {
            (house.kratos.identity(id)["state"] == "inactive").then_some(())
        })
        .await;
}

#[tokio::test]
async fn whoever_kratos_does_not_deactivate_is_kept_out_all_the_same() {
    let house = house().await;
    let (id, person) = house.sign_up().await;
    house.kratos.refuses_patches(true);
    house.is_refused_late(json!({"valid": false})).await;
    let refused = "vestibule_identity_writes_total{outcome=\"refused_by_kratos\"}";
    house
        .app
        .eventually("there is an alarm", async || {
            (house.app.metric(refused).await > 0.5).then_some(())
        })
        .await;
    house
        .app
        .eventually(
            "the sessions are deleted after the write, too",
            async || (house.kratos.sessions_deleted(id) >= 2).then_some(()),
        )
        .await;
    assert_eq!(house.kratos.identity(id)["state"], "active");
    for hook in HOOKS {
        assert_eq!(house.call(hook, &person).await.status, 400, "{hook}");
    }
    house.kratos.refuses_patches(false);
    house.app.to_the_next_try("late-refusal:vat_number").await;
    house.is_inactive(id).await;
}

#[tokio::test]
async fn a_late_refusal_of_a_change_only_marks_the_account() {
    let house = house().await;
    let id = house
        .kratos
        .has("canary@example.org", "2026-11-01T00:00:00Z");
    let before = json!({"email": "canary@example.org", "vat_number": "old"});
    let change = payload().changed_from(&before).saved_as(id);
    assert_eq!(house.app.settings(&change).await.status, 204);
    let post = "/hooks/settings/post?method=profile";
    assert_eq!(house.call(post, &change).await.status, 204);
    house.is_refused_late(json!({"valid": false})).await;
    house
        .app
        .eventually("it is marked", async || {
            let admin = house.kratos.identity(id)["metadata_admin"]["vestibule"].clone();
            admin["refused"]["vat_number"].is_object().then_some(())
        })
        .await;
    assert_eq!(house.kratos.identity(id)["state"], "active");
    assert_eq!(house.kratos.sessions_deleted(id), 0);
    assert_eq!(house.call("/hooks/recovery/pre", &change).await.status, 204);
}

#[tokio::test]
async fn a_sign_in_that_cannot_be_read_is_refused_with_words() {
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
async fn late_refusals_are_listed_over_http_without_a_value() {
    let house = house_with(None, TWO).await;
    let empty = house.app.admin("/late-refusals").await;
    assert_eq!(
        empty.json(),
        json!({"late_refusals": [], "next_cursor": null})
    );
    let (id, _) = house.sign_up().await;
    house.is_refused_late(json!({"valid": false})).await;
    house
        .app
        .delivery_in("deferred-check:company", State::Delivered)
        .await;
    house.is_inactive(id).await;
    let list = async |query: &str| {
        let reply = house.app.admin(&format!("/late-refusals{query}")).await;
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
    let (second, end) = list(&format!("?limit=1&cursor={next}")).await;
    assert_eq!(([first, second].concat(), end), (all, Value::Null));
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
        let reply = house.app.admin(&format!("/late-refusals?{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn an_operator_lifts_late_refusals_over_http() {
    let house = house_with(None, TWO).await;
    let (id, person) = house.sign_up().await;
    house.is_refused_late(json!({"valid": false})).await;
    house
        .app
        .delivery_in("deferred-check:company", State::Delivered)
        .await;
    house.is_inactive(id).await;
    let lift = async |body: Value| {
        let path = "/late-refusals/lift";
        let reply = house.app.operate(path, body.to_string()).await;
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
        let of = house.app.app.store.late_refusals_of(id).await;
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
    // The clock stands still: the dispatcher was woken.
    let refused =
        async || house.kratos.identity(id)["metadata_admin"]["vestibule"]["refused"].clone();
    house
        .app
        .eventually("the mark of one check is removed", async || {
            refused().await.get("company").is_none().then_some(())
        })
        .await;
    assert!(refused().await["vat_number"].is_object());
    assert_eq!(house.kratos.identity(id)["state"], "inactive");
    assert_eq!(
        lift(json!({"identity": id})).await.1,
        json!({"checks": ["vat_number"], "others_in_force": [], "activates": true})
    );
    house
        .app
        .eventually("it is active", async || {
            (house.kratos.identity(id)["state"] == "active").then_some(())
        })
        .await;
    assert_eq!(refused().await, json!({}));
    house.is_let_in(&person).await;
    assert_eq!(lift(json!({"identity": id})).await.0, 404);
}

#[tokio::test]
async fn while_the_database_is_away_late_refusals_can_be_neither_listed_nor_lifted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let house = house_with(Some(store.clone()), SETTINGS).await;
    store.fails(true);
    assert_eq!(house.app.admin("/late-refusals").await.status, 503);
    let body = json!({"identity": Uuid::nil()}).to_string();
    let reply = house.app.operate("/late-refusals/lift", body.clone()).await;
    assert_eq!(reply.status, 503);
    store.fails(false);
    let url = format!("http://{}/late-refusals/lift", house.app.app.admin_address);
    let without_type = house.app.http.post(url).body(body).send().await;
    assert_eq!(without_type.expect("an answer").status(), 415);
}
