//! What one visitor sends or one service answers delays no other visitor.

use serde_json::{Value, json};
use vestibule::model::delivery::State;

use crate::support::{FakeService, TestApp, bounded, logs, payload};

const NOT_VALID: u64 = 4_900_002;

const EXPENSIVE: &str = r#"
checks:
  words:
    field: traits.company
    refuse: [{when: "value.split(' ').exists(w, w.size() > 3 && w.split('').all(c, w.replace(c, '') == ''))", message: "No."}]
  doubled:
    field: traits.invite
    refuse: [{when: "value.replace('a', value) == ''", message: "No."}]
"#;

#[tokio::test]
async fn an_expression_over_its_budget_is_a_value_that_is_not_valid() {
    let app = TestApp::with(EXPENSIVE).start().await;
    let long = format!("{} canary", "a".repeat(30_000));
    let over_budget = "vestibule_expressions_over_budget_total";
    let before = app.metric(over_budget).await;
    for (name, check, error) in [
        ("company", "words", "took too many steps"),
        ("invite", "doubled", "a result is larger than 1 MiB"),
    ] {
        let hostile = payload().with_trait(name, long.as_str());
        let reply = bounded("a hostile value is answered", app.pre(&hostile)).await;
        assert_eq!(
            reply.refused(),
            [(format!("#/traits/{name}"), NOT_VALID)],
            "{check}"
        );
        let flow_id = hostile.flow_id().to_string();
        let lines = logs::lines_with(&flow_id);
        let line = lines.iter().find(|line| line.contains(error));
        let line = line.unwrap_or_else(|| panic!("a line about {check}: {lines:?}"));
        assert!(
            line.contains(check) && line.contains("refuse[0].when"),
            "{line}"
        );
        let refused =
            format!("vestibule_check_outcomes_total{{check=\"{check}\",outcome=\"refused\"}}");
        assert!((app.metric(&refused).await - 1.0).abs() < 0.1, "{check}");
    }
    // Other tests of this process can count as well.
    assert!(app.metric(over_budget).await > before + 1.9);
    let honest = payload().with_trait("company", "Canary GmbH");
    assert!(app.pre(&honest).await.is_admitted());
}

const CRM: &str = r#"
services: {crm: {url: "${env:CRM}"}}
checks: {known: {field: traits.vat_number, ask: {service: crm, get: "/known"}}}
subscriptions:
  contact: {events: [identity.created], send: {service: crm, post: /contacts, json: {identity: "{identity}"}}}
"#;

/// The answer has 800 KB and 30,000 values, which repeat what was sent.
fn many_errors() -> Value {
    let error = json!({"field": "e-mail", "error": "canary@example.org"});
    json!({"message": "not valid", "errors": vec![error; 15_000]})
}

#[tokio::test]
async fn a_receiver_with_many_errors_delays_no_sign_up() {
    let crm = FakeService::start();
    crm.respond_with(200, &json!({}));
    let app = TestApp::with(CRM).service("CRM", &crm).start().await;
    crm.respond_with(422, &many_errors());
    // Kratos passes at most 64 KiB to a hook, and each value is one to hide.
    let tags: Vec<String> = (0..5_000).map(|tag| format!("tag-{tag}")).collect();
    let body = payload().with("/identity/traits/tags", json!(tags));
    assert_eq!(app.post(&body.saved()).await.status, 204);
    let one = app
        .eventually("the attempt is recorded", async || {
            let one = app.deliveries("contact").await.pop()?;
            one.last_error.is_some().then_some(one)
        })
        .await;
    assert_eq!(one.state, State::Pending);
    let error = one.last_error.expect("an excerpt");
    assert!(
        error.starts_with(r#"status 422: {"message":"not valid","errors":[{"field":"#),
        "{error}"
    );
    assert!(error.len() < 600 && !logs::holds_canary(&error), "{error}");
}

#[tokio::test]
async fn an_answer_of_1_mib_is_shared_by_all_its_readers() {
    let register = FakeService::start();
    let checks: Vec<String> = (0..20)
        .map(|reader| format!("  reader{reader}: {{when: \"checks.first.response.status == 200\", refuse: [{{when: \"checks.first.response.body.last != 'b'\", message: \"No.\"}}]}}\n"))
        .collect();
    let yaml = format!(
        "services: {{register: {{url: \"${{env:REGISTER}}\"}}}}\nchecks:\n  first: {{ask: {{service: register, get: /}}}}\n{}",
        checks.concat()
    );
    let app = TestApp::with(&yaml)
        .service("REGISTER", &register)
        .start()
        .await;
    register.respond_with(
        200,
        &json!({"many": vec![json!({"a": 1}); 100_000], "last": "b"}),
    );
    assert!(app.pre(&payload()).await.is_admitted());
}
