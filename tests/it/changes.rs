//! Values that checks write into the identity: merged into what Kratos sent, and returned whole.

use serde_json::json;

use crate::support::{FakeService, TestApp, payload};

const SETS: &str = r#"
checks:
  vat_number:
    field: traits.vat_number
    ask: {get: "${env:REGISTER}/{value}"}
    set:
      metadata_public.company: {name: "{response.body.name}", checked: true}
      traits.company: "{response.body.name}"
"#;

#[tokio::test]
async fn pre_returns_each_changed_field_whole() {
    let (app, register) = TestApp::with_service(SETS, "REGISTER").await;
    register.respond_with(200, &json!({"name": "Muster AG"}));
    let reply = app
        .pre(&payload().with(
            "/identity/metadata_public",
            json!({"plan": "free", "company": {"vat": 1}}),
        ))
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.json(),
        json!({"identity": {
            "traits": {"email": "canary@example.org", "company": "Muster AG", "vat_number": "DE-canary-1", "invite": "canary-invite"},
            "metadata_public": {"plan": "free", "company": {"vat": 1, "name": "Muster AG", "checked": true}},
        }})
    );
}

#[tokio::test]
async fn a_set_without_effect_is_answered_with_204() {
    let (app, register) = TestApp::with_service(SETS, "REGISTER").await;
    register.respond_with(200, &json!({"name": "Canary GmbH"}));
    let metadata = json!({"company": {"name": "Canary GmbH", "checked": true}});
    let reply = app
        .pre(&payload().with("/identity/metadata_public", metadata))
        .await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
}

#[tokio::test]
async fn a_value_that_cannot_be_evaluated_is_not_set_and_is_counted() {
    let (app, register) = TestApp::with_service(SETS, "REGISTER").await;
    register.respond_with(200, &json!({"no_name": true}));
    assert_eq!(app.pre(&payload()).await.status, 204);
    app.assert_metric("vestibule_set_failures_total{check=\"vat_number\"}", 2)
        .await;
}

#[tokio::test]
async fn a_refused_sign_up_changes_nothing() {
    let register = FakeService::start();
    register.respond_with(200, &json!({"name": "Muster AG"}));
    let yaml = format!(
        "{SETS}  invite: {{field: traits.invite, refuse: [{{when: \"true\", message: \"No.\"}}]}}\n"
    );
    let app = TestApp::with(&yaml)
        .service("REGISTER", &register)
        .start()
        .await;
    let reply = app.pre(&payload()).await;
    assert_eq!(reply.refused(), [("#/traits/invite".to_owned(), 4_900_000)]);
    assert!(reply.json().get("identity").is_none());
}

#[tokio::test]
async fn checks_read_what_kratos_sent_and_not_the_changes_of_other_checks() {
    let app = TestApp::with(
        r#"
checks:
  one: {field: traits.company, set: {metadata_public.one: "{identity.traits.company}", traits.company: "changed"}}
  two: {field: traits.invite, after: [one], set: {metadata_public.two: "{identity.traits.company}"}}
"#,
    )
    .start()
    .await;
    let body = app.pre(&payload()).await.json();
    assert_eq!(
        body["identity"]["metadata_public"],
        json!({"one": "Canary GmbH", "two": "Canary GmbH"})
    );
    assert_eq!(body["identity"]["traits"]["company"], "changed");
}
