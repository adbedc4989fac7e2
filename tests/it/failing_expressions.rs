//! Expressions that fail: on what the visitor sent, on a response, and because another check has no response.

use serde_json::{Value, json};

use crate::support::fake_service::Behaviour;
use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

const TRY_AGAIN: u64 = 4_900_001;
const NOT_VALID: u64 = 4_900_002;
const NO: u64 = 4_900_101;

/// Returns the id of the message; `None` if the sign-up is admitted.
async fn message_of(app: &TestApp, body: &Payload) -> Option<u64> {
    let reply = app.pre(body).await;
    if reply.is_admitted() {
        return None;
    }
    let refused = reply.refused();
    assert_eq!(refused.len(), 1, "{refused:?}");
    Some(refused[0].1)
}

/// The check of the issue: the account at the service must be old enough.
#[tokio::test]
async fn an_entry_that_fails_does_not_hide_another_one_that_refuses() {
    let young =
        "{when: \"timestamp(response.body.created_at) > timestamp('2026-01-01T00:00:00Z')\"}";
    let by_status = "{when: 404, message: {id: 4900101, en: \"Unknown.\"}}";
    let by_body = "{when: response.body.blocked, message: {id: 4900101, en: \"Unknown.\"}}";
    let known = json!({"created_at": "2020-01-01T00:00:00Z", "blocked": false}).to_string();
    let blocked = json!({"created_at": "yesterday", "blocked": true}).to_string();
    let page = "<html>".to_owned();
    #[rustfmt::skip]
    let table = [
        (format!("{young}, {by_status}"), 404, "{}".to_owned(), Some(NO)),
        (format!("{by_status}, {young}"), 404, page.clone(), Some(NO)),
        (format!("{young}, {by_body}"), 200, blocked.clone(), Some(NO)),
        (format!("{by_body}, {young}"), 200, blocked.clone(), Some(NO)),
        (format!("{young}, {by_body}"), 503, blocked.clone(), Some(NO)),
        (format!("{young}, {by_body}"), 429, blocked, Some(NO)),
        (format!("{young}, {by_body}"), 200, known.clone(), None),
        // If none refuses, the following rows of the table decide.
        (format!("{young}, {by_status}"), 503, page.clone(), None),
        (format!("{young}, {by_status}"), 408, page.clone(), None),
        (format!("{young}, {by_status}"), 429, page.clone(), Some(TRY_AGAIN)),
        (format!("{young}, {by_status}"), 400, page.clone(), Some(NOT_VALID)),
        (format!("{young}, {by_status}"), 403, page.clone(), Some(NOT_VALID)),
        // Where an acceptance would be read, the answer is unexpected.
        (format!("{young}, {by_status}"), 200, page.clone(), Some(TRY_AGAIN)),
        (format!("{young}, {by_body}"), 204, String::new(), Some(TRY_AGAIN)),
        (format!("{by_body}, {young}"), 200, json!({"blocked": false}).to_string(), Some(TRY_AGAIN)),
    ];
    for (refuse, status, answer, expected) in table {
        let service = FakeService::start();
        service.set_behaviour(Behaviour::Answers(status, answer.clone()));
        let yaml = format!(
            "checks:\n  c:\n    field: traits.invite\n    ask: {{get: \"${{env:SERVICE}}/{{value}}\"}}\n    on_unavailable: accept\n    refuse: [{refuse}]\n"
        );
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .start()
            .await;
        assert_eq!(
            message_of(&app, &payload()).await,
            expected,
            "{refuse} {status} {answer}"
        );
    }
}

/// The check of the issue: the token of a captcha is in the transient payload, and the check has no field.
#[tokio::test]
async fn a_captcha_without_a_token_is_not_valid() {
    let ask = |request: &str| format!("ask: {{post: \"${{env:CAPTCHA}}/siteverify\", {request}}}");
    let checks = [
        ask("form: {response: \"{flow.transient_payload.captcha}\"}"),
        ask("json: {response: \"{flow.transient_payload.captcha}\"}"),
        ask("query: {response: \"{flow.transient_payload.captcha}\"}"),
        ask("headers: {X-Token: \"{flow.transient_payload.captcha}\"}"),
        format!(
            "when: \"flow.transient_payload.captcha != 'skip'\", {}",
            ask("form: {a: b}")
        ),
    ];
    for check in &checks {
        for (rest, expected) in [
            ("", NOT_VALID),
            (", on_unavailable: accept", NOT_VALID),
            (
                ", on_unavailable: {default: accept, timeout: refuse}",
                NOT_VALID,
            ),
            (
                ", invalid_message: {id: 4900101, en: \"Please solve the captcha.\"}",
                NO,
            ),
            (", field: traits.email", NOT_VALID),
        ] {
            let service = FakeService::start();
            let yaml = format!(
                "checks: {{captcha: {{{check}, refuse: [{{when: \"!response.body.success\"}}]{rest}}}}}"
            );
            let app = TestApp::with(&yaml)
                .service("CAPTCHA", &service)
                .start()
                .await;
            let without = payload().with("/flow/transient_payload", json!({"note": "canary"}));
            for missing in [
                without.clone(),
                without.clone().with("/flow/transient_payload", json!({})),
                without.clone().with("/flow/transient_payload", json!(null)),
                without
                    .clone()
                    .with("/flow/transient_payload", json!("canary")),
                without.clone().without("/flow/transient_payload"),
            ] {
                assert_eq!(
                    message_of(&app, &missing).await,
                    Some(expected),
                    "{check}{rest}"
                );
            }
            assert!(service.received().is_empty(), "{check}{rest}");
            let solved = without.with("/flow/transient_payload/captcha", "token");
            service.respond_with(200, &json!({"success": true}));
            assert_eq!(message_of(&app, &solved).await, None, "{check}{rest}");
            service.respond_with(200, &json!({"success": false}));
            assert_eq!(
                message_of(&app, &solved).await,
                Some(NOT_VALID),
                "{check}{rest}"
            );
        }
    }
}

/// An expression on a response can also read what the visitor sent. If that is missing, no later response helps.
#[tokio::test]
async fn an_expression_on_a_response_that_fails_on_what_the_visitor_sent_is_not_valid() {
    let service = FakeService::start();
    let found = json!({"owner": "ada", "least": 18, "tags": ["a"]});
    #[rustfmt::skip]
    let table = [
        ("refuse: [{when: response.body.owner != identity.traits.owner}]", NOT_VALID),
        ("refuse: [{when: identity.traits.age < response.body.least}]", NOT_VALID),
        ("refuse: [{when: \"!(identity.traits.address.country in response.body.tags)\"}]", NOT_VALID),
        ("accept: response.body.owner == identity.traits.owner", NOT_VALID),
        ("accept: response.body.owner == flow.transient_payload.owner", NOT_VALID),
        ("refuse: [{when: \"response.body.owner != request.headers['Accept-Language']\"}]", NOT_VALID),
        ("refuse: [{when: response.body.owner != identity.traits.owner}], invalid_message: {id: 4900101, en: \"No.\"}", NO),
        // What the service did not send is unexpected.
        ("refuse: [{when: response.body.none != identity.traits.email}]", TRY_AGAIN),
        ("refuse: [{when: response.body.none != identity.traits.email}, {when: response.body.owner != identity.traits.owner}]", TRY_AGAIN),
        ("accept: response.body.none == identity.traits.email", TRY_AGAIN),
        ("refuse: [{when: response.headers.none == identity.traits.email}]", TRY_AGAIN),
    ];
    for (rest, expected) in table {
        service.respond_with(200, &found);
        let on_unavailable = "on_unavailable: {default: accept, unexpected_answer: refuse}";
        let yaml = format!(
            "checks: {{c: {{ask: {{get: \"${{env:SERVICE}}/a\"}}, {on_unavailable}, {rest}}}}}"
        );
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .start()
            .await;
        assert_eq!(message_of(&app, &payload()).await, Some(expected), "{rest}");
        // Neither is an answer that only the settings name.
        service.respond_with(404, &found);
        assert!(message_of(&app, &payload()).await.is_some(), "{rest}");
    }
    // The operator can accept the kind.
    service.respond_with(200, &found);
    let yaml = "checks: {c: {ask: {get: \"${env:SERVICE}/a\"}, on_unavailable: {expression: accept}, refuse: [{when: response.body.owner != identity.traits.owner}]}}";
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    assert_eq!(message_of(&app, &payload()).await, None);
}

#[tokio::test]
async fn an_expression_that_reads_a_missing_response_asks_to_try_again() {
    let other =
        "other: {field: traits.nick, ask: {get: \"${env:SERVICE}/a\"}, on_unavailable: accept}";
    let read = "checks.other.response.body.x";
    let rows = [
        format!("when: {read} == 1"),
        format!("refuse: [{{when: {read} == 1}}]"),
        format!("ask: {{get: \"${{env:SERVICE}}/b\"}}, accept: {read} == 1"),
        format!("ask: {{get: \"${{env:SERVICE}}/{{{read}}}\"}}"),
        format!("field: traits.email, refuse: [{{when: {read} == value}}]"),
        format!("field: traits.none, required: {read} == 1"),
        format!("field: traits.none, required: true, when: {read} == 1"),
        format!("invalid_message: {{id: 4900101, en: \"No.\"}}, when: {read} == 1"),
    ];
    for row in rows {
        let service = FakeService::start();
        let app = TestApp::with(&format!("checks: {{c: {{{row}}}, {other}}}"))
            .service("SERVICE", &service)
            .start()
            .await;
        // `other` is not applicable, or its service gives no response.
        assert_eq!(message_of(&app, &payload()).await, Some(TRY_AGAIN), "{row}");
        service.set_behaviour(Behaviour::Breaks);
        let applicable = payload().with_trait("nick", Value::from("n"));
        assert_eq!(
            message_of(&app, &applicable).await,
            Some(TRY_AGAIN),
            "{row}"
        );
    }
}
