//! `immutable: true`: in settings, a value that was present can be neither changed nor removed.

use serde_json::{Value, json};

use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

const IMMUTABLE: u64 = 4_900_005;

fn change(before: &Value, after: &Value) -> Payload {
    let form = json!([{"name": "traits.invite", "hidden": false}]);
    let changed = payload().with("/identity/traits", after.clone());
    changed.with("/nodes", form).changed_from(before)
}

/// Starts Vestibule with one check.
async fn with(check: &str) -> TestApp {
    TestApp::with(&format!("checks: {{c: {{{check}}}}}"))
        .start()
        .await
}

#[tokio::test]
async fn an_immutable_value_can_be_neither_changed_nor_removed() {
    let name = "field: traits.user_name, immutable: true";
    let nested = "field: traits.company.vat, immutable: true";
    let listed = "field: traits.emails.0, immutable: true";
    #[rustfmt::skip]
    let table = [
        // Changed, emptied, null, left out.
        (name, json!({"user_name": "ada"}), json!({"user_name": "eve"}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": "Ada"}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": "ada "}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": ""}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": " \u{200b}"}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": null}), true),
        (name, json!({"user_name": "ada"}), json!({}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": ["ada"]}), true),
        (name, json!({"user_name": "ada"}), json!({"user_name": {"a": "ada"}}), true),
        // The value stays, or there was none.
        (name, json!({"user_name": "ada"}), json!({"user_name": "ada", "email": "new@example.org"}), false),
        (name, json!({}), json!({"user_name": "ada"}), false),
        (name, json!({"user_name": null}), json!({"user_name": "ada"}), false),
        (name, json!({"user_name": " "}), json!({"user_name": "ada"}), false),
        (name, json!({"user_name": []}), json!({"user_name": ""}), false),
        // Other types.
        (name, json!({"user_name": 7}), json!({"user_name": 8}), true),
        (name, json!({"user_name": 7}), json!({"user_name": 7.0}), false),
        (name, json!({"user_name": 7}), json!({"user_name": "7"}), true),
        (name, json!({"user_name": false}), json!({"user_name": true}), true),
        (name, json!({"user_name": false}), json!({}), true),
        (name, json!({"user_name": {"a": 1, "b": 2}}), json!({"user_name": {"b": 2, "a": 1}}), false),
        (name, json!({"user_name": {"a": 1, "b": 2}}), json!({"user_name": {"a": 1}}), true),
        (name, json!({"user_name": ["a", "b"]}), json!({"user_name": ["b", "a"]}), true),
        // Nested, and an entry of a list.
        (nested, json!({"company": {"vat": "1", "name": "A"}}), json!({"company": {"vat": "1", "name": "B"}}), false),
        (nested, json!({"company": {"vat": "1", "name": "A"}}), json!({"company": {"name": "A"}}), true),
        (nested, json!({"company": {"vat": "1", "name": "A"}}), json!({"company": "none"}), true),
        (nested, json!({"company": {"vat": "1", "name": "A"}}), json!({}), true),
        (listed, json!({"emails": ["a", "b"]}), json!({"emails": ["a", "c"]}), false),
        (listed, json!({"emails": ["a", "b"]}), json!({"emails": ["b"]}), true),
        (listed, json!({"emails": ["a", "b"]}), json!({"emails": []}), true),
        (listed, json!({"emails": ["a", "b"]}), json!({"emails": "a"}), true),
        (listed, json!({"emails": []}), json!({"emails": ["a"]}), false),
    ];
    for (check, before, after, is_refused) in table {
        let app = with(check).await;
        let reply = app.settings(&change(&before, &after)).await;
        let case = format!("{check} {before} → {after}");
        if is_refused {
            assert_eq!(reply.refused(), [("#/".to_owned(), IMMUTABLE)], "{case}");
            assert_eq!(reply.messages()[0].2, "This value cannot be changed.");
        } else {
            assert_eq!(reply.status, 204, "{case}: {reply:?}");
        }
        // A sign-up is free to choose the value.
        let sign_up = payload().with("/identity/traits", after);
        assert_eq!(app.pre(&sign_up).await.status, 204, "{case}");
    }
}

/// Whatever else the check has, an immutable value that changes is refused as that, before a service is asked.
#[tokio::test]
async fn a_changed_immutable_value_is_refused_before_a_service_is_asked() {
    let before = json!({"invite": "ada"});
    for rest in [
        "ask: {get: \"${env:SERVICE}/{value}\"}",
        "required: true",
        "absent: check, refuse: [{when: value == null}]",
        "absent: refuse, ask: {get: \"${env:SERVICE}/{value}\"}",
        "when: value.startsWith('a') || value.startsWith('e')",
        "when: value.startsWith('a') || value.startsWith('e'), on_unavailable: {expression: accept}",
        "required: identity.traits.none",
        "reserve: {take: {post: \"${env:SERVICE}/{value}\"}, release: {delete: \"${env:SERVICE}/{value}\"}}",
        "set: {metadata_public.name: \"{value}\"}",
        "flows: [settings]",
        "ask: {get: \"${env:SERVICE}/{value}\"}, on_unavailable: accept",
    ] {
        let service = FakeService::start();
        let yaml = format!("checks: {{c: {{field: traits.invite, immutable: true, {rest}}}}}");
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .start()
            .await;
        for after in [
            json!({"invite": "eve"}),
            json!({"invite": ""}),
            json!({"invite": null}),
            json!({}),
        ] {
            let reply = app.settings(&change(&before, &after)).await;
            assert_eq!(
                reply.refused(),
                [("#/traits/invite".to_owned(), IMMUTABLE)],
                "{rest} {after}"
            );
        }
        assert!(service.received().is_empty(), "{rest}");
        let unchanged = json!({"invite": "ada", "company": "new"});
        assert_eq!(
            app.settings(&change(&before, &unchanged)).await.status,
            204,
            "{rest}"
        );
    }
}

#[tokio::test]
async fn the_first_value_is_checked_as_at_registration() {
    let service = FakeService::start();
    service.respond_with(409, &json!({}));
    let yaml = r#"
checks:
  user_name:
    field: traits.invite
    immutable: true
    ask: {get: "${env:SERVICE}/{value}"}
    refuse: [{when: 409, message: "This name is taken."}]
"#;
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    let chosen = change(&json!({}), &json!({"invite": "ada"}));
    assert_eq!(
        app.settings(&chosen).await.messages()[0].2,
        "This name is taken."
    );
    service.respond_with(200, &json!({}));
    assert_eq!(app.settings(&chosen).await.status, 204);
}

#[tokio::test]
async fn immutable_applies_only_while_when_is_true() {
    let app =
        with("field: traits.invite, immutable: true, when: identity.schema_id == 'member'").await;
    let member = |payload: Payload| payload.with("/identity/schema_id", "member");
    let changed = change(&json!({"invite": "a"}), &json!({"invite": "b"}));
    let removed = change(&json!({"invite": "a"}), &json!({}));
    for body in [&changed, &removed] {
        assert_eq!(app.settings(body).await.status, 204);
        assert_eq!(
            app.settings(&member(body.clone())).await.refused()[0].1,
            IMMUTABLE
        );
    }
}

/// `when` is evaluated with the stored value of the field, so no change of the value ends its protection.
#[tokio::test]
async fn when_reads_the_stored_value_of_an_immutable_field() {
    let german = "field: traits.company.vat, immutable: true, when: value.startsWith('DE')";
    let same_path = "field: traits.company.vat, immutable: true, when: identity.traits.company.vat.startsWith('DE')";
    let of_kind =
        "field: traits.company.vat, immutable: true, when: identity.traits.kind == 'firm'";
    let listed = "field: traits.emails.0, immutable: true, when: \"identity.traits.emails.exists(e, e == 'a')\"";
    let firm = |kind: &str, vat: Value| json!({"kind": kind, "company": {"vat": vat}});
    #[rustfmt::skip]
    let table = [
        (german, firm("firm", json!("DE1")), firm("firm", json!("FR1")), true),
        (german, firm("firm", json!("DE1")), firm("firm", json!("")), true),
        (german, firm("firm", json!("DE1")), json!({"company": {}}), true),
        (german, firm("firm", json!("DE1")), json!({"company": "none"}), true),
        (german, firm("firm", json!("DE1")), json!({}), true),
        (german, firm("firm", json!("FR1")), firm("firm", json!("FR2")), false),
        (german, firm("firm", json!("FR1")), firm("firm", json!("DE1")), false),
        (same_path, firm("firm", json!("DE1")), firm("firm", json!("FR1")), true),
        (same_path, firm("firm", json!("DE1")), json!({}), true),
        (same_path, firm("firm", json!("FR1")), json!({}), false),
        // What `when` reads besides the field is that of the new identity.
        (of_kind, firm("firm", json!("1")), firm("firm", json!("2")), true),
        (of_kind, firm("club", json!("1")), firm("firm", json!("2")), true),
        (of_kind, firm("firm", json!("1")), firm("club", json!("2")), false),
        (of_kind, firm("firm", json!("1")), json!({"company": {"vat": "2"}}), true),
        (listed, json!({"emails": ["a"]}), json!({"emails": []}), true),
        (listed, json!({"emails": ["a", "b"]}), json!({"emails": ["b"]}), true),
        (listed, json!({"emails": ["c", "b"]}), json!({"emails": ["d"]}), false),
    ];
    for (check, before, after, is_refused) in table {
        let app = with(check).await;
        let reply = app.settings(&change(&before, &after)).await;
        let expected = if is_refused { 400 } else { 204 };
        assert_eq!(
            reply.status, expected,
            "{check} {before} → {after}: {reply:?}"
        );
        if is_refused {
            assert_eq!(
                reply.refused()[0].1,
                IMMUTABLE,
                "{check} {before} → {after}"
            );
        }
    }
}

#[tokio::test]
async fn an_observed_check_refuses_no_change() {
    let app = with("field: traits.invite, immutable: true, mode: observe").await;
    let changed = change(&json!({"invite": "a"}), &json!({"invite": "b"}));
    assert_eq!(app.settings(&changed).await.status, 204);
    let observed = "vestibule_check_observed_outcomes_total{check=\"c\",outcome=\"refused\"}";
    assert!((app.metric(observed).await - 1.0).abs() < 0.1);
}

/// Another check normalises the name, so Kratos stores another value than the visitor types.
#[tokio::test]
async fn the_value_that_would_be_stored_is_compared_with_the_stored_one() {
    let yaml = r#"
checks:
  user_name: {field: traits.invite, immutable: true}
  lower_case: {field: traits.invite, set: {traits.invite: "{value.lowerAscii()}"}}
"#;
    let own = r#"
checks:
  user_name: {field: traits.invite, immutable: true, set: {traits.invite: "{value.lowerAscii()}"}}
"#;
    let nested = r#"
checks:
  user_name: {field: traits.invite, immutable: true}
  all: {field: traits.invite, set: {traits.invite: "{value.lowerAscii().trim()}"}}
"#;
    for yaml in [yaml, own, nested] {
        let app = TestApp::with(yaml).start().await;
        let reply = app.pre(&payload().with_trait("invite", "Ada")).await;
        let stored = reply.json()["identity"]["traits"].clone();
        assert_eq!(stored["invite"], "ada");
        let typed = |name: Value| payload().with_trait("invite", name).changed_from(&stored);
        let reply = app.settings(&typed(json!("ADA"))).await;
        assert_eq!(
            reply.json()["identity"]["traits"]["invite"],
            "ada",
            "{yaml}"
        );
        assert_eq!(app.settings(&typed(json!("ada"))).await.status, 204);
        for other in [json!("Eve"), json!(""), json!(null), json!(7)] {
            let refused = app.settings(&typed(other.clone())).await.refused();
            assert_eq!(
                refused[0],
                ("#/traits/invite".to_owned(), IMMUTABLE),
                "{yaml} {other}"
            );
        }
        let removed = payload()
            .without("/identity/traits/invite")
            .changed_from(&stored);
        assert_eq!(app.settings(&removed).await.refused()[0].1, IMMUTABLE);
    }
}

#[tokio::test]
async fn no_set_of_a_check_changes_an_immutable_value() {
    let yaml = r#"
checks:
  user_name: {field: traits.invite, immutable: true}
  derived: {field: traits.company, set: {traits.invite: "{value.lowerAscii()}"}}
"#;
    let app = TestApp::with(yaml).start().await;
    let reply = app.pre(&payload().with_trait("company", "Muster")).await;
    let stored = reply.json()["identity"]["traits"].clone();
    assert_eq!(stored["invite"], "muster");
    let renamed = |company: &str| {
        let typed = payload().with("/identity/traits", stored.clone());
        typed.with_trait("company", company).changed_from(&stored)
    };
    assert_eq!(app.settings(&renamed("MUSTER")).await.status, 204);
    assert_eq!(
        app.settings(&renamed("Other")).await.refused(),
        [("#/traits/invite".to_owned(), IMMUTABLE)]
    );
}

#[tokio::test]
async fn without_the_previous_identity_every_value_counts_as_changed() {
    let app = with("field: traits.invite, immutable: true").await;
    assert_eq!(
        app.settings(&payload().saved()).await.refused(),
        [("#/traits/invite".to_owned(), IMMUTABLE)]
    );
}
