//! Which check waits for which, and what an observing one may do.

use serde_json::json;

use crate::support::service::Behaviour;
use crate::support::{FakeService, TestApp, payload};

/// `first` comes to something; does `second`, which stands after it, ask?
const AFTER: &str = r#"
checks:
  second: {field: traits.vat_number, after: [first], ask: {get: "${env:SECOND}/{value}"}}
  first: {field: traits.invite, ask: {get: "${env:FIRST}/{value}"}, refuse: [{when: 404, message: "No."}], FIRST}
"#;

#[tokio::test]
async fn a_check_runs_after_another_only_if_that_let_pass() {
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
        first.answers(status, &json!({}));
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
async fn checks_that_do_not_wait_ask_side_by_side() {
    let (one, other) = (FakeService::start(), FakeService::start());
    one.does(Behaviour::Hangs);
    other.does(Behaviour::Hangs);
    let app = TestApp::with(
        "checks: {a: {ask: {get: \"${env:ONE}/a\"}}, b: {ask: {get: \"${env:OTHER}/b\"}}}",
    )
    .service("ONE", &one)
    .service("OTHER", &other)
    .start()
    .await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        // Both are asked before either has answered.
        one.next().await;
        other.next().await;
        one.end_hangs();
        other.end_hangs();
    });
    assert_eq!(reply.status, 204);
}

#[tokio::test]
async fn a_check_that_reads_another_waits_for_its_answer() {
    let (register, score) = (FakeService::start(), FakeService::start());
    register.answers(200, &json!({"company": "Muster"}));
    score.answers(200, &json!({"points": 7}));
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
    assert_eq!(score.next().await.target, "/Muster");
    // The other has nothing to do, so there is no answer to read.
    let reply = app.pre(&payload().with_trait("vat_number", "")).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)]);
}

#[tokio::test]
async fn a_missing_answer_of_another_check_is_not_blamed_on_the_person() {
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
async fn an_observing_check_asks_for_real_and_decides_nothing() {
    let service = FakeService::start();
    service.answers(404, &json!({}));
    let app = TestApp::with(
        "checks: {c: {field: traits.invite, mode: observe, ask: {get: \"${env:SERVICE}/{value}\"}, refuse: [{when: 404, message: \"No.\"}]}}",
    )
    .service("SERVICE", &service)
    .start()
    .await;
    assert_eq!(app.pre(&payload()).await.status, 204);
    assert_eq!(service.received().len(), 1);
    let observed = app
        .metric("vestibule_check_observed_outcomes_total{check=\"c\",outcome=\"refused\"}")
        .await;
    assert!((observed - 1.0).abs() < 0.1);
    assert!(
        app.metric("vestibule_check_outcomes_total{check=\"c\",outcome=\"refused\"}")
            .await
            < 0.1
    );
}

#[tokio::test]
async fn checks_run_in_the_flows_they_are_for() {
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
