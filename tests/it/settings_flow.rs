//! In settings a check with a field runs only when the field changed.

use serde_json::json;

use crate::support::{FakeService, TestApp, payload};

const ASKS: &str = r#"
checks:
  vat_number:
    field: traits.vat_number
    required: true
    ask: {get: "${env:REGISTER}/{value}"}
    refuse: [{when: 404, message: "Nobody has this number."}]
  everybody: {refuse: [{when: "true", message: "Only at registration."}]}
  always:
    flows: [settings]
    refuse: [{when: "previous.traits.email != identity.traits.email", message: "The address stays."}]
"#;

#[tokio::test]
async fn an_unchanged_field_is_not_asked_about() {
    let register = FakeService::start();
    register.answers(404, &json!({}));
    let app = TestApp::with(ASKS)
        .service("REGISTER", &register)
        .start()
        .await;
    let same = json!({"email": "canary@example.org", "vat_number": "DE-canary-1"});
    assert_eq!(
        app.settings(&payload().changed_from(&same)).await.status,
        204
    );
    assert!(register.received().is_empty());
}

#[tokio::test]
async fn a_changed_field_is_asked_about_and_refused_beside_the_field() {
    let register = FakeService::start();
    register.answers(404, &json!({}));
    let app = TestApp::with(ASKS)
        .service("REGISTER", &register)
        .start()
        .await;
    for before in [
        json!({"email": "canary@example.org", "vat_number": "DE-canary-0"}),
        json!({"email": "canary@example.org"}),
        json!({"email": "canary@example.org", "vat_number": null}),
    ] {
        let reply = app.settings(&payload().changed_from(&before)).await;
        assert_eq!(
            reply.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_000)]
        );
    }
    assert_eq!(register.received().len(), 3);
}

#[tokio::test]
async fn a_field_that_was_and_stays_absent_is_no_reason_to_refuse_but_one_that_is_emptied_is() {
    let register = FakeService::start();
    let app = TestApp::with(ASKS)
        .service("REGISTER", &register)
        .start()
        .await;
    let was_absent = json!({"email": "canary@example.org"});
    let stays = payload()
        .with_trait("vat_number", "")
        .changed_from(&was_absent);
    assert_eq!(app.settings(&stays).await.status, 204);
    let was_there = json!({"email": "canary@example.org", "vat_number": "DE-canary-1"});
    let emptied = payload()
        .with_trait("vat_number", "")
        .changed_from(&was_there);
    assert_eq!(
        app.settings(&emptied).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_003)]
    );
}

#[tokio::test]
async fn without_previous_everything_counts_as_changed() {
    let register = FakeService::start();
    register.answers(404, &json!({}));
    let yaml = ASKS.split("  always:").next().unwrap();
    let app = TestApp::with(yaml)
        .service("REGISTER", &register)
        .start()
        .await;
    let reply = app.settings(&payload().saved()).await;
    assert_eq!(
        reply.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_000)]
    );
}

#[tokio::test]
async fn an_expression_may_read_what_the_identity_was() {
    let register = FakeService::start();
    let app = TestApp::with(ASKS)
        .service("REGISTER", &register)
        .start()
        .await;
    let before = json!({"email": "canary-before@example.org", "vat_number": "DE-canary-1"});
    let messages = app
        .settings(&payload().changed_from(&before))
        .await
        .messages();
    assert_eq!(
        messages,
        [("#/".to_owned(), 4_900_000, "The address stays.".to_owned())]
    );
}
