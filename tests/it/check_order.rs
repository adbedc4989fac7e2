//! The order of checks, and checks that only observe.

use serde_json::json;

use crate::support::fake_service::Behaviour;
use crate::support::{FakeService, TestApp, payload};

/// `second` runs after `first`, which has the options of each case.
const AFTER: &str = r#"
checks:
  second: {field: traits.vat_number, after: [first], ask: {get: "${env:SECOND}/{value}"}}
  first: {field: traits.invite, ask: {get: "${env:FIRST}/{value}"}, refuse: [{when: 404, message: "No."}], FIRST}
"#;

#[tokio::test]
async fn a_check_with_after_runs_only_if_the_other_check_admits() {
    for (status, extra, asked) in [
        (200, "required: false", true),
        (404, "required: false", false),
        (503, "required: false", false),
        (503, "on_unavailable: accept", true),
        (404, "mode: observe", true),
        (503, "mode: observe", true),
        (404, "when: \"false\"", true),
    ] {
        let (first, second) = (FakeService::start(), FakeService::start());
        first.respond_with(status, &json!({}));
        let yaml = AFTER
            .replace("FIRST}\n", &format!("{extra}}}\n"))
            .replace("${env:FIRST}/{value}", "${env:ONE}/{value}");
        let app = TestApp::with(&yaml)
            .service("ONE", &first)
            .service("SECOND", &second)
            .start()
            .await;
        app.pre(&payload()).await;
        assert_eq!(!second.received().is_empty(), asked, "{status} {extra}");
    }
}

#[tokio::test]
async fn independent_checks_ask_in_parallel() {
    let (one, other) = (FakeService::start(), FakeService::start());
    one.set_behaviour(Behaviour::Hangs);
    other.set_behaviour(Behaviour::Hangs);
    let app = TestApp::with(
        "checks: {a: {ask: {get: \"${env:ONE}/a\"}}, b: {ask: {get: \"${env:OTHER}/b\"}}}",
    )
    .service("ONE", &one)
    .service("OTHER", &other)
    .start()
    .await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        // Both services are asked before one of them answers.
        one.next_call().await;
        other.next_call().await;
        one.release_hanging_calls();
        other.release_hanging_calls();
    });
    assert_eq!(reply.status, 204);
}

#[tokio::test]
async fn a_check_waits_for_the_response_of_a_check_that_it_reads() {
    let (register, score) = (FakeService::start(), FakeService::start());
    register.respond_with(200, &json!({"company": "Muster"}));
    score.respond_with(200, &json!({"points": 7}));
    let app = TestApp::with(
        r#"
checks:
  score:
    ask: {get: "${env:SCORE}/{checks.vat_number.response.body.company}"}
    refuse: [{when: "response.body.points < 10 && checks.vat_number.response.status == 200", message: "Too few."}]
  vat_number: {field: traits.vat_number, ask: {get: "${env:REGISTER}/{value}"}}
"#,
    )
    .service("REGISTER", &register)
    .service("SCORE", &score)
    .start()
    .await;
    assert_eq!(app.pre(&payload()).await.messages()[0].2, "Too few.");
    assert_eq!(score.next_call().await.target, "/Muster");
    // The other check is not applicable, so it has no response.
    let reply = app.pre(&payload().with_trait("vat_number", "")).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)]);
}

#[tokio::test]
async fn a_missing_response_of_another_check_does_not_blame_the_visitor() {
    let app = TestApp::with(
        r#"
checks:
  first: {when: "false", ask: {get: "http://127.0.0.1:9/a"}}
  second: {field: traits.invite, refuse: [{when: "checks.first.response.status == 200", message: "No."}]}
"#,
    )
    .start()
    .await;
    assert_eq!(
        app.pre(&payload()).await.refused(),
        [("#/traits/invite".to_owned(), 4_900_001)]
    );
}

#[tokio::test]
async fn an_observing_check_asks_its_service_and_never_refuses() {
    let (app, service) = TestApp::with_service("checks: {c: {field: traits.invite, mode: observe, ask: {get: \"${env:SERVICE}/{value}\"}, refuse: [{when: 404, message: \"No.\"}]}}", "SERVICE").await;
    service.respond_with(404, &json!({}));
    assert_eq!(app.pre(&payload()).await.status, 204);
    assert_eq!(service.received().len(), 1);
    app.assert_metric(
        "vestibule_check_observed_outcomes_total{check=\"c\",outcome=\"refused\"}",
        1,
    )
    .await;
    assert!(
        app.metric("vestibule_check_outcomes_total{check=\"c\",outcome=\"refused\"}")
            .await
            < 0.1
    );
}

#[tokio::test]
async fn checks_run_in_their_configured_flows() {
    let app = TestApp::with(
        r#"
checks:
  both: {field: traits.invite, refuse: [{when: "true", message: "Both."}]}
  sign_up: {refuse: [{when: "true", message: "Sign-up."}]}
  profile: {flows: [settings], refuse: [{when: "true", message: "Profile."}]}
"#,
    )
    .start()
    .await;
    let texts = |reply: &crate::support::app::Reply| {
        reply
            .messages()
            .into_iter()
            .map(|(_, _, text)| text)
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&app.pre(&payload()).await), ["Both.", "Sign-up."]);
    assert_eq!(
        texts(&app.settings(&payload().saved()).await),
        ["Both.", "Profile."]
    );
}
