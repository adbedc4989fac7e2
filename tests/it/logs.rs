//! No log line holds a trait value, a body, a key or a token.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::fake_service::Behaviour;
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

/// A receiver that repeats what it was sent: in the errors of deliveries, and wherever the admin port shows them.
#[tokio::test]
async fn errors_of_receivers_admin_answers_and_decisions_hold_no_user_input() {
    let service = FakeService::start();
    let app = TestApp::with(
        r#"
services: {crm: {url: "${env:CRM}"}}
checks:
  odd: {field: traits.vat_number, ask: {service: crm, get: "/{value}"}}
  long: {field: traits.invite, refuse: [{when: "value.replace('', value.replace('', value)) == ''", message: "No."}]}
subscriptions:
  body: {events: [identity.created], send: {service: crm, post: "/body", json: {identity: "{identity}"}}}
  path: {events: [identity.created], send: {service: crm, post: "/{identity.traits.email}/{identity.traits.company}", query: {q: "{identity.traits.invite}"}}}
  header: {events: [identity.created], send: {service: crm, post: "/header", headers: {X-Tag: "{identity.traits.vat_number}"}, form: {a: "{identity.traits.company}"}}}
  odd: {events: [identity.created], send: {service: crm, post: "/body"}, success_when: "response.body.error.size() > 'a'"}
"#,
    )
    .service("CRM", &service)
    .start()
    .await;
    service.respond_with(200, &json!({}));
    app.pre(&payload()).await;
    for status in [422, 500] {
        service.set_behaviour(Behaviour::Handles(Arc::new(move |call| {
            let tag = call.header("X-Tag").unwrap_or_default();
            let loud = call.target.to_uppercase();
            let text = format!("{} with {tag} and {loud}", call.line());
            let sent =
                serde_json::from_str(&call.body).unwrap_or_else(|_| json!(call.body.to_string()));
            let body = match status {
                422 => json!({"error": sent, "text": text, tag: [loud]}).to_string(),
                _ => format!("{text} {}", call.body),
            };
            (status, body, None)
        })));
        app.pre(&payload()).await.refused();
        assert_eq!(app.post(&payload().saved()).await.status, 204);
    }
    app.eventually("all attempts are recorded", async || {
        let mut count = 0;
        for subscription in ["body", "path", "header", "odd"] {
            let all = app.deliveries(subscription).await;
            count += all.iter().filter(|one| one.last_error.is_some()).count();
        }
        (count == 8).then_some(())
    })
    .await;
    for path in [
        "/decisions",
        "/deliveries",
        "/late-refusals",
        "/jobs",
        "/metrics",
    ] {
        let reply = app.admin_get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(!logs::holds_canary(&reply.text), "{path}: {}", reply.text);
    }
    let listed = app.admin_get("/deliveries").await.json();
    let ids = listed["deliveries"].as_array().expect("a list");
    assert_eq!(ids.len(), 8);
    for id in ids.iter().map(|one| one["id"].as_str().expect("an id")) {
        let reply = app.admin_get(&format!("/deliveries/{id}")).await;
        assert!(!logs::holds_canary(&reply.text), "{}", reply.text);
    }
    let recorded = "SELECT checks || outcome || method || flow FROM decisions";
    let errors = "SELECT error FROM attempts UNION ALL SELECT last_error FROM deliveries";
    for (query, at_least) in [(recorded, 3), (errors, 16)] {
        let rows = app
            .advance_until("the rows are stored", Duration::from_secs(1), async || {
                let rows = app.texts(query).await;
                (rows.len() >= at_least).then_some(rows)
            })
            .await;
        for row in rows {
            assert!(!logs::holds_canary(&row), "{row}");
        }
    }
}
