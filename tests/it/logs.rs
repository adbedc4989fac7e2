//! No log line holds a trait value, a body, a key or a token.

use serde_json::json;

use crate::support::{FakeService, TestApp, logs, payload};

#[test]
fn the_log_check_finds_the_canary_in_any_case() {
    assert!(logs::holds_canary(
        "{\"message\":\"asked about DE-CANARY-1\"}"
    ));
    assert!(!logs::holds_canary(
        "{\"message\":\"asked about a VAT number\"}"
    ));
}

/// Sends everything that could be logged by mistake; `support::logs` reads every line and ends the run on a leak.
#[tokio::test]
async fn user_input_and_service_responses_are_not_logged() {
    let service = FakeService::start();
    let app = TestApp::with(
        r#"
services:
  register:
    url: "${env:REGISTER}"
    headers: {X-Extra: "${env:TOKEN}"}
    auth: {type: bearer, config: {token: "${env:TOKEN}"}}
checks:
  odd: {field: traits.vat_number, ask: {service: register, get: "/{value}"}, refuse: [{when: "response.body.size() > value", message: "{response.body.none}"}]}
  short: {field: traits.invite, refuse: [{when: "value.substring(100) == identity.traits.email", message: "No."}]}
  open: {when: "identity.traits.company + 1 == 2", refuse: [{when: "true", message: "No."}]}
subscriptions:
  crm: {events: [identity.created], send: {service: register, post: "/{identity.traits.email}", json: {a: "{identity.traits.none}"}}}
  good: {events: [identity.created], send: {service: register, post: "/{identity.traits.email}"}}
"#,
    )
    .service("REGISTER", &service)
    .env("TOKEN", "canary-token-0123456789")
    .start()
    .await;
    let before = logs::line_count();
    for body in [
        json!({"secret": "canary"}),
        json!("canary"),
        json!(["canary"]),
    ] {
        service.respond_with(200, &body);
        app.pre(&payload()).await.refused();
    }
    service.respond_with(500, &json!({"error": "canary"}));
    let last = payload();
    app.pre(&last).await.refused();
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    app.eventually("the delivery is sent", async || {
        let lines = service.request_lines();
        lines
            .iter()
            .any(|line| line.starts_with("POST"))
            .then_some(())
    })
    .await;
    app.call(
        "/hooks/registration/pre?method=password",
        "{\"version\": \"canary\"",
    )
    .await
    .refused();
    assert!(logs::line_count() > before, "something was logged");
    let flow_id = last.0["flow"]["id"].as_str().unwrap();
    assert!(
        logs::lines_with(flow_id)
            .iter()
            .any(|line| line.contains("has no usable answer"))
    );
}
