//! The result of a check, in the order of the table in the design, §3.

use serde_json::{Value, json};

use crate::support::fake_service::{Behaviour, unused_address};
use crate::support::{FakeService, TestApp, payload};

/// The result of the sign-up.
#[derive(Debug, PartialEq)]
enum SignUpResult {
    /// 204
    Admitted,
    /// The message of the refusal, on the field.
    Refused,
    /// "This value is not valid."
    NotValid,
    /// The same, because the service answers with a 4xx that the settings do not name.
    RejectedQuestion,
    /// "Please try again later", for this reason.
    TryAgain(&'static str),
}

use SignUpResult::{Admitted, NotValid, Refused, RejectedQuestion, TryAgain};

async fn sign_up_result(app: &TestApp) -> SignUpResult {
    let reply = app.pre(&payload()).await;
    if reply.status == 204 {
        return Admitted;
    }
    let refused = reply.refused();
    assert_eq!(refused.len(), 1);
    match refused[0].1 {
        4_900_101 => Refused,
        4_900_002 => {
            let rejected =
                "vestibule_check_unavailable_total{check=\"c\",kind=\"rejected_question\"}";
            if app.metric(rejected).await > 0.5 {
                RejectedQuestion
            } else {
                NotValid
            }
        }
        4_900_001 => {
            let kinds = [
                "timeout",
                "connection",
                "status_5xx",
                "rate_limited",
                "rejected_credentials",
                "declared",
                "unexpected_answer",
                "expression",
            ];
            for kind in kinds {
                if app
                    .metric(&format!(
                        "vestibule_check_unavailable_total{{check=\"c\",kind=\"{kind}\"}}"
                    ))
                    .await
                    > 0.5
                {
                    return TryAgain(kind);
                }
            }
            panic!("a kind is counted")
        }
        other => panic!("message {other}"),
    }
}

#[tokio::test]
async fn a_response_is_evaluated_in_the_order_of_the_table() {
    let body = |body: Value| body.to_string();
    let no = "messages: {no: {id: 4900101, en: \"No.\"}}\nchecks:\n  c:\n    field: traits.invite\n    ask: {get: \"${env:SERVICE}/{value}\"}\n";
    #[rustfmt::skip]
    let table: Vec<(&str, u16, String, &str, SignUpResult)> = vec![
        // 1. Declared
        ("declared", 200, body(json!({"busy": true})), "on_unavailable: {when: response.body.busy}", TryAgain("declared")),
        ("declared before refused", 200, body(json!({"busy": true, "valid": false})), "on_unavailable: {when: response.body.busy}\n    refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("declared")),
        ("declared before a status that refuse names", 404, body(json!({"busy": true})), "on_unavailable: {when: response.body.busy}\n    refuse: [{when: 404, message: no}]", TryAgain("declared")),
        ("declared before a 503", 503, body(json!({"busy": true})), "on_unavailable: {when: response.body.busy}", TryAgain("declared")),
        ("not declared", 200, body(json!({"busy": false})), "on_unavailable: {when: response.body.busy}", Admitted),
        ("`on_unavailable.when` fails, and the answer is accepted", 200, "<html>".to_owned(), "on_unavailable: {when: response.body.busy}", Admitted),
        ("`on_unavailable.when` fails, and the answer refuses", 404, "<html>".to_owned(), "on_unavailable: {when: response.body.busy}\n    refuse: [{when: 404, message: no}]", Refused),
        ("`on_unavailable.when` fails on a 503", 503, "<html>".to_owned(), "on_unavailable: {when: response.body.busy}", TryAgain("status_5xx")),
        // 2. Refused
        ("refused by status", 404, body(json!({})), "refuse: [{when: 404, message: no}]", Refused),
        ("refused by expression", 200, body(json!({"valid": false})), "refuse: [{when: \"!response.body.valid\", message: no}]", Refused),
        ("refused before accepted", 200, body(json!({"valid": false})), "refuse: [{when: \"!response.body.valid\", message: no}]\n    accept: response.status == 200", Refused),
        ("refused by the second entry", 410, body(json!({})), "refuse: [{when: 404, message: \"Other.\"}, {when: 410, message: no}]", Refused),
        ("refused by the first entry that holds", 404, body(json!({})), "refuse: [{when: 404, message: no}, {when: response.status == 404, message: \"Other.\"}]", Refused),
        ("a status refuses before an expression that is listed first", 404, body(json!({})), "refuse: [{when: response.status == 404, message: not_possible}, {when: 404, message: no}]", Refused),
        ("refused without its own message", 404, body(json!({})), "refuse: [{when: 404}]", NotValid),
        ("a 500 that refuse names", 500, body(json!({})), "refuse: [{when: 500, message: no}]", Refused),
        ("a 429 that refuse names", 429, body(json!({})), "refuse: [{when: 429, message: no}]", Refused),
        ("a 401 that refuse names", 401, body(json!({})), "refuse: [{when: 401, message: no}]", Refused),
        ("a 403 that refuse names", 403, body(json!({})), "refuse: [{when: 403, message: no}]", Refused),
        ("a 408 that refuse names", 408, body(json!({})), "refuse: [{when: 408, message: no}]", Refused),
        ("a 503 with a body that refuses", 503, body(json!({"valid": false})), "refuse: [{when: \"!response.body.valid\", message: no}]", Refused),
        ("a 500 that an expression refuses", 500, body(json!({})), "refuse: [{when: response.status == 500, message: no}]", Refused),
        ("a 400 with a body that refuses", 400, body(json!({"valid": false})), "refuse: [{when: \"!response.body.valid\", message: no}]", Refused),
        ("an entry that fails does not hide the next", 200, body(json!({"valid": false})), "refuse: [{when: response.body.none == 1}, {when: \"!response.body.valid\", message: no}]", Refused),
        ("an entry that fails does not hide the one before", 200, body(json!({"valid": false})), "refuse: [{when: \"!response.body.valid\", message: no}, {when: response.body.none == 1}]", Refused),
        ("an entry that fails does not hide a status", 404, "<html>".to_owned(), "refuse: [{when: response.body.none == 1}, {when: 404, message: no}]", Refused),
        // 3. No usable response, regardless of `accept`
        ("a 408", 408, body(json!({})), "", TryAgain("timeout")),
        ("a 425", 425, body(json!({})), "", TryAgain("connection")),
        ("a 500", 500, body(json!({})), "", TryAgain("status_5xx")),
        ("a 501", 501, body(json!({})), "", TryAgain("status_5xx")),
        ("a 503 while refuse names 500", 503, body(json!({})), "refuse: [{when: 500, message: no}]", TryAgain("status_5xx")),
        ("a 503 that `accept` would accept", 503, body(json!({"ok": true})), "accept: response.body.ok", TryAgain("status_5xx")),
        ("a 429", 429, body(json!({})), "", TryAgain("rate_limited")),
        ("a 429 that `accept` would accept", 429, body(json!({})), "accept: 429", TryAgain("rate_limited")),
        ("a 401", 401, body(json!({})), "", TryAgain("rejected_credentials")),
        ("a 407", 407, body(json!({})), "", TryAgain("rejected_credentials")),
        ("a 401 that `accept` would accept", 401, body(json!({"ok": true})), "accept: response.body.ok", TryAgain("rejected_credentials")),
        ("an entry fails on a 503", 503, "<html>".to_owned(), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("status_5xx")),
        ("an entry fails on a 429", 429, "<html>".to_owned(), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("rate_limited")),
        ("an entry fails on a 401", 401, "<html>".to_owned(), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("rejected_credentials")),
        ("an entry fails on a 408", 408, "<html>".to_owned(), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("timeout")),
        // 4. Accepted, because `accept` says so
        ("accepted by status", 404, body(json!({})), "accept: 404", Admitted),
        ("a 403 that `accept` names", 403, body(json!({})), "accept: 403", Admitted),
        ("accepted by expression", 200, body(json!({"ok": true})), "accept: response.body.ok", Admitted),
        ("a body in plain text", 200, "fine".to_owned(), "accept: response.body == 'fine'", Admitted),
        ("a header", 200, body(json!({})), "accept: response.headers['content-type'].startsWith('application/json')", Admitted),
        ("accepted while an entry failed", 200, body(json!({"ok": true})), "refuse: [{when: response.body.none == 1}]\n    accept: response.body.ok", TryAgain("unexpected_answer")),
        ("a 404 accepted while an entry failed", 404, String::new(), "refuse: [{when: response.body.taken}]\n    accept: 404", TryAgain("unexpected_answer")),
        // 5. Any other 4xx
        ("a 400", 400, body(json!({})), "", RejectedQuestion),
        ("a 403", 403, "<html>".to_owned(), "", RejectedQuestion),
        ("a 404 that nothing names", 404, body(json!({})), "", RejectedQuestion),
        ("a 404 while `accept` names another", 404, body(json!({})), "accept: 410", RejectedQuestion),
        ("a 418", 418, body(json!({})), "", RejectedQuestion),
        ("a 451", 451, body(json!({})), "", RejectedQuestion),
        ("a page of a firewall, on which every expression fails", 400, "<html>".to_owned(), "on_unavailable: {when: response.body.busy}\n    refuse: [{when: \"!response.body.valid\", message: no}]\n    accept: response.body.valid", RejectedQuestion),
        // 6. Accepted, because no setting decides otherwise
        ("a 200", 200, body(json!({})), "", Admitted),
        ("a 204", 204, String::new(), "", Admitted),
        ("a 299", 299, body(json!({})), "", Admitted),
        ("a page of a gateway where JSON is expected", 200, "<html>canary</html>".to_owned(), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("unexpected_answer")),
        ("JSON without the field", 200, body(json!({"other": 1})), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("unexpected_answer")),
        ("a field of the wrong type", 200, body(json!({"valid": "canary"})), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("unexpected_answer")),
        ("no body where one is expected", 200, String::new(), "refuse: [{when: \"!response.body.valid\", message: no}]", TryAgain("unexpected_answer")),
        ("a refusal that is not bool", 200, body(json!({"valid": 1})), "refuse: [{when: response.body.valid, message: no}]", TryAgain("unexpected_answer")),
        // 7. Otherwise
        ("a 302", 302, String::new(), "", TryAgain("unexpected_answer")),
        ("not accepted", 200, body(json!({"ok": false})), "accept: response.body.ok", TryAgain("unexpected_answer")),
        ("a 200 while `accept` names another", 200, body(json!({})), "accept: 404", TryAgain("unexpected_answer")),
        ("`accept` fails", 200, body(json!({})), "accept: response.body.ok", TryAgain("unexpected_answer")),
        ("too long", 200, "x".repeat(1024 * 1024 + 1), "", TryAgain("unexpected_answer")),
    ];
    for (name, status, answer, rest, expected) in table {
        let service = FakeService::start();
        service.set_behaviour(Behaviour::Answers(status, answer));
        let app = TestApp::with(&format!("{no}    {rest}\n"))
            .service("SERVICE", &service)
            .start()
            .await;
        assert_eq!(sign_up_result(&app).await, expected, "{name}");
    }
}

#[tokio::test]
async fn a_missing_response_makes_the_check_unavailable() {
    let yaml = "checks: {c: {field: traits.invite, ask: {get: \"${env:SERVICE}/{value}\"}}}";
    let app = TestApp::with(yaml)
        .env("SERVICE", &unused_address())
        .start()
        .await;
    assert_eq!(sign_up_result(&app).await, TryAgain("connection"));
    let service = FakeService::start();
    service.set_behaviour(Behaviour::Breaks);
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    assert_eq!(sign_up_result(&app).await, TryAgain("connection"));
    let app = TestApp::with(yaml)
        .env("SERVICE", "http://169.254.169.254")
        .start()
        .await;
    assert_eq!(sign_up_result(&app).await, TryAgain("connection"));
}

#[tokio::test]
async fn a_value_that_fails_an_expression_refuses_the_sign_up() {
    let table = [
        (
            "field: traits.invite\n    ask: {get: \"${env:SERVICE}/{value.substring(90)}\"}",
            NotValid,
        ),
        (
            "field: traits.invite\n    ask: {get: \"${env:SERVICE}/a\", query: {q: \"{identity.traits.none}\"}}",
            NotValid,
        ),
        (
            "field: traits.invite\n    when: value.substring(90) == ''\n    ask: {get: \"${env:SERVICE}/a\"}",
            NotValid,
        ),
        (
            "field: traits.invite\n    refuse: [{when: value.substring(90) == '', message: \"No.\"}]",
            NotValid,
        ),
        (
            "field: traits.invite\n    invalid_message: {id: 4900101, en: \"Odd.\"}\n    ask: {get: \"${env:SERVICE}/{value.substring(90)}\"}",
            Refused,
        ),
        // Also without a field.
        (
            "ask: {get: \"${env:SERVICE}/{identity.traits.none}\"}",
            NotValid,
        ),
        (
            "when: identity.traits.none == 1\n    ask: {get: \"${env:SERVICE}/a\"}",
            NotValid,
        ),
        (
            "refuse: [{when: identity.traits.none == 1, message: \"No.\"}]",
            NotValid,
        ),
        (
            "invalid_message: {id: 4900101, en: \"Odd.\"}\n    refuse: [{when: identity.traits.email.substring(90) == ''}]",
            Refused,
        ),
        // A failing entry does not hide an entry that refuses.
        (
            "refuse: [{when: identity.traits.none == 1}, {when: \"true\", message: {id: 4900101, en: \"No.\"}}]",
            Refused,
        ),
        (
            "on_unavailable: {expression: accept}\n    refuse: [{when: identity.traits.none == 1}, {when: \"true\", message: {id: 4900101, en: \"No.\"}}]",
            Refused,
        ),
        // The operator can accept the sign-up, with a field and without.
        (
            "on_unavailable: {expression: accept}\n    refuse: [{when: identity.traits.none == 1}]",
            Admitted,
        ),
        (
            "field: traits.invite\n    on_unavailable: {expression: accept}\n    ask: {get: \"${env:SERVICE}/{value.substring(90)}\"}",
            Admitted,
        ),
    ];
    for (rest, expected) in table {
        let service = FakeService::start();
        let app = TestApp::with(&format!("checks:\n  c:\n    {rest}\n"))
            .service("SERVICE", &service)
            .start()
            .await;
        assert_eq!(sign_up_result(&app).await, expected, "{rest}");
        assert!(service.received().is_empty());
    }
}

#[tokio::test]
async fn a_value_cannot_change_the_structure_of_a_path() {
    let service = FakeService::start();
    let yaml =
        "checks: {c: {field: traits.invite, ask: {get: \"${env:SERVICE}/invites/{value}/hold\"}}}";
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    for (value, path) in [
        ("a/../b", "/invites/a%2F..%2Fb/hold"),
        ("a?b#c", "/invites/a%3Fb%23c/hold"),
        ("50%", "/invites/50%25/hold"),
        ("%2e%2e", "/invites/%252e%252e/hold"),
        ("ä b", "/invites/%C3%A4%20b/hold"),
        ("a\\b;c", "/invites/a%5Cb%3Bc/hold"),
    ] {
        assert_eq!(
            app.pre(&payload().with_trait("invite", value)).await.status,
            204,
            "{value}"
        );
        assert_eq!(service.next_call().await.target, path);
    }
    let with_a_prefix = TestApp::with("checks: {c: {field: traits.invite, ask: {get: \"${env:SERVICE}/DE{value.substring(2)}\"}}}")
        .service("SERVICE", &service)
        .start()
        .await;
    let before = service.received().len();
    let reply = with_a_prefix
        .pre(&payload().with_trait("invite", "DE"))
        .await;
    assert_eq!(
        reply.refused(),
        [("#/traits/invite".to_owned(), 4_900_002)],
        "an empty value would address the whole collection"
    );
    assert_eq!(service.received().len(), before);
    for value in [".", ".."] {
        let reply = app.pre(&payload().with_trait("invite", value)).await;
        assert_eq!(
            reply.refused(),
            [("#/traits/invite".to_owned(), 4_900_002)],
            "{value}"
        );
    }
}

#[tokio::test]
async fn a_request_is_built_from_the_settings() {
    let service = FakeService::start();
    let app = TestApp::with(
        r#"
services:
  register:
    url: "${env:SERVICE}/v1/"
    headers: {X-Fixed: "a ${env:BRACES}"}
    auth: {type: basic_auth, config: {user: me, password: "${env:PASSWORD}"}}
checks:
  json:
    field: traits.vat_number
    ask:
      service: register
      post: /check
      query: {flow: "{flow.id}", braces: "{{}}"}
      headers: {X-Method: "{method}"}
      json: {country: "{value.substring(0, 2)}", n: "{1 + 1}", list: ["{[1, 2]}", "a{2}"], deep: {t: true, x: null}, env: "${env:BRACES}"}
  form:
    field: traits.invite
    after: [json]
    ask: {service: register, put: /form, form: {a: "{value}", b: "1 & 2"}}
"#,
    )
    .service("SERVICE", &service)
    .env("BRACES", "{value}")
    .env("PASSWORD", "canary-password")
    .start()
    .await;
    let body = payload()
        .with_trait("vat_number", "DE811115368")
        .with_trait("invite", "a b&c");
    assert_eq!(app.pre(&body).await.status, 204);
    let request = service.next_call().await;
    let flow = body.0["flow"]["id"].as_str().unwrap();
    assert_eq!(
        (request.method.as_str(), request.target.clone()),
        ("POST", format!("/v1/check?flow={flow}&braces=%7B%7D"))
    );
    assert_eq!(request.header("X-Fixed"), Some("a {value}"));
    assert_eq!(request.header("X-Method"), Some("password"));
    assert_eq!(
        request.header("Authorization"),
        Some("Basic bWU6Y2FuYXJ5LXBhc3N3b3Jk")
    );
    assert_eq!(request.header("Content-Type"), Some("application/json"));
    assert!(request.header("traceparent").is_some());
    assert_eq!(
        request.json(),
        json!({"country": "DE", "n": 2, "list": [[1, 2], "a2"], "deep": {"t": true, "x": null}, "env": "{value}"})
    );
    let request = service.next_call().await;
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("PUT", "/v1/form")
    );
    assert_eq!(
        request.header("Content-Type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(request.body, "a=a+b%26c&b=1+%26+2");
}

#[tokio::test]
async fn credentials_are_sent_in_the_configured_place() {
    for (auth, header, value) in [
        (
            "{type: bearer, config: {token: \"${env:TOKEN}\"}}",
            "Authorization",
            "Bearer canary-token",
        ),
        (
            "{type: api_key, config: {name: X-Api-Key, value: \"${env:TOKEN}\", in: header}}",
            "X-Api-Key",
            "canary-token",
        ),
        (
            "{type: api_key, config: {name: sid, value: \"${env:TOKEN}\", in: cookie}}",
            "Cookie",
            "sid=canary-token",
        ),
    ] {
        let service = FakeService::start();
        let yaml = format!(
            "services: {{s: {{url: \"${{env:SERVICE}}\", auth: {auth}}}}}\nchecks: {{c: {{ask: {{service: s, get: /a}}}}}}"
        );
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .env("TOKEN", "canary-token")
            .start()
            .await;
        assert_eq!(app.pre(&payload()).await.status, 204);
        assert_eq!(service.next_call().await.header(header), Some(value));
    }
    let service = FakeService::start();
    let yaml = "services: {s: {url: \"${env:SERVICE}\", auth: {type: api_key, config: {name: key, value: \"${env:TOKEN}\", in: query}}}}\nchecks: {c: {ask: {service: s, get: \"/a?b=1\"}}}";
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .env("TOKEN", "canary-token")
        .start()
        .await;
    assert_eq!(app.pre(&payload()).await.status, 204);
    assert_eq!(service.next_call().await.target, "/a?b=1&key=canary-token");
}

#[tokio::test]
async fn a_trace_context_is_passed_on_to_services() {
    let service = FakeService::start();
    let app = TestApp::with("checks: {c: {ask: {get: \"${env:SERVICE}/a\"}}}")
        .service("SERVICE", &service)
        .start()
        .await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("X-Vestibule-Key", crate::support::app::KEY),
        ("traceparent", parent),
    ];
    let path = "/hooks/registration/pre?method=password";
    assert_eq!(
        app.call_with(path, payload().to_string(), &headers)
            .await
            .status,
        204
    );
    let request = service.next_call().await;
    let child = request.header("traceparent").unwrap();
    assert!(
        child.starts_with("00-0af7651916cd43dd8448eb211c80319c-")
            && child.ends_with("-01")
            && child != parent
    );
    assert!(!crate::support::logs::lines_with("0af7651916cd43dd8448eb211c80319c").is_empty());
}

#[tokio::test]
async fn on_unavailable_is_configured_per_kind() {
    let table = [
        // `accept`, short or as `default`, covers only failures that a service or the network can cause.
        ("on_unavailable: accept", 503, Admitted),
        ("on_unavailable: accept", 408, Admitted),
        ("on_unavailable: accept", 425, Admitted),
        ("on_unavailable: accept", 401, Admitted),
        ("on_unavailable: accept", 407, Admitted),
        ("on_unavailable: accept", 429, TryAgain("rate_limited")),
        ("on_unavailable: accept", 302, TryAgain("unexpected_answer")),
        ("on_unavailable: accept", 400, RejectedQuestion),
        ("on_unavailable: accept", 403, RejectedQuestion),
        ("on_unavailable: accept", 404, RejectedQuestion),
        ("on_unavailable: {default: accept}", 503, Admitted),
        (
            "on_unavailable: {default: accept}",
            429,
            TryAgain("rate_limited"),
        ),
        ("on_unavailable: {default: accept}", 400, RejectedQuestion),
        (
            "on_unavailable: {default: accept, when: response.status == 200}",
            200,
            Admitted,
        ),
        ("on_unavailable: refuse", 503, TryAgain("status_5xx")),
        (
            "on_unavailable: refuse",
            401,
            TryAgain("rejected_credentials"),
        ),
        ("on_unavailable: refuse", 400, RejectedQuestion),
        // Kinds that the settings name.
        ("on_unavailable: {status_5xx: accept}", 503, Admitted),
        ("on_unavailable: {timeout: accept}", 408, Admitted),
        (
            "on_unavailable: {rate_limited: accept}",
            503,
            TryAgain("status_5xx"),
        ),
        (
            "on_unavailable: {status_5xx: refuse, default: accept}",
            503,
            TryAgain("status_5xx"),
        ),
        ("on_unavailable: {rate_limited: accept}", 429, Admitted),
        (
            "on_unavailable: {rejected_credentials: accept}",
            401,
            Admitted,
        ),
        (
            "on_unavailable: {rejected_credentials: refuse, default: accept}",
            401,
            TryAgain("rejected_credentials"),
        ),
        ("on_unavailable: {rejected_question: accept}", 404, Admitted),
        (
            "on_unavailable: {unexpected_answer: accept}",
            404,
            RejectedQuestion,
        ),
        ("on_unavailable: {unexpected_answer: accept}", 302, Admitted),
        (
            "on_unavailable: {declared: accept, when: response.status == 200}",
            200,
            Admitted,
        ),
    ];
    for (rest, status, expected) in table {
        let service = FakeService::start();
        service.respond_with(status, &json!({}));
        let yaml = format!(
            "checks:\n  c:\n    field: traits.invite\n    ask: {{get: \"${{env:SERVICE}}/a\"}}\n    {rest}\n"
        );
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .start()
            .await;
        assert_eq!(sign_up_result(&app).await, expected, "{rest} {status}");
        if expected == Admitted {
            let metrics = app.admin_get("/metrics").await.text;
            assert!(
                metrics.contains("vestibule_fail_open_total{check=\"c\""),
                "{rest}"
            );
        }
    }
    // `default` covers failures of the service. A visitor can cause a failing expression, so `expression` must be named.
    for (unavailable, expected) in [("accept", NotValid), ("{expression: accept}", Admitted)] {
        let yaml = format!(
            "checks: {{c: {{on_unavailable: {unavailable}, refuse: [{{when: identity.traits.none == 1}}]}}}}"
        );
        let app = TestApp::with(&yaml).start().await;
        assert_eq!(sign_up_result(&app).await, expected, "{unavailable}");
    }
}

#[tokio::test]
async fn a_request_that_the_service_rejects_refuses_the_field_with_invalid_message() {
    for (rest, expected) in [
        ("field: traits.invite", ("#/traits/invite", 4_900_002)),
        (
            "field: traits.invite\n    invalid_message: {id: 4900101, en: \"Odd.\"}",
            ("#/traits/invite", 4_900_101),
        ),
        ("when: \"true\"", ("#/", 4_900_002)),
    ] {
        for status in [400, 403, 404, 413, 414, 422] {
            let service = FakeService::start();
            service.respond_with(status, &json!({}));
            let yaml = format!(
                "checks:\n  c:\n    {rest}\n    ask: {{get: \"${{env:SERVICE}}/{{identity.traits.invite}}\"}}\n    on_unavailable: accept\n"
            );
            let app = TestApp::with(&yaml)
                .service("SERVICE", &service)
                .start()
                .await;
            let reply = app.pre(&payload().with_trait("invite", "a/b")).await;
            assert_eq!(service.next_call().await.target, "/a%2Fb");
            assert_eq!(
                reply.refused(),
                [(expected.0.to_owned(), expected.1)],
                "{rest} {status}"
            );
        }
    }
}

#[tokio::test]
async fn rejected_credentials_raise_an_alarm() {
    let service = FakeService::start();
    service.respond_with(401, &json!({}));
    let app = TestApp::with(
        "services: {tax_register: {url: \"${env:SERVICE}\"}}\nchecks: {c: {ask: {service: tax_register, get: /a}}}",
    )
    .service("SERVICE", &service)
    .start()
    .await;
    assert_eq!(sign_up_result(&app).await, TryAgain("rejected_credentials"));
    let counted = app
        .metric("vestibule_rejected_credentials_total{service=\"tax_register\"}")
        .await;
    assert!((counted - 1.0).abs() < 0.1, "{counted}");
    let alarms = crate::support::logs::lines_with("ALARM: service `tax_register` rejects");
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(alarms[0].contains("\"ERROR\""), "{}", alarms[0]);
}

#[tokio::test]
async fn a_check_of_an_absent_field_is_not_applicable_unless_required() {
    for absent in [
        json!(null),
        json!(""),
        json!([]),
        json!({}),
        json!(" \t\n"),
        json!("\u{200b}"),
        json!("\u{a0}\u{feff}\u{2060}"),
        json!("\u{3164}"),
    ] {
        for (required, expected) in [("false", None), ("true", Some(4_900_003))] {
            let yaml = format!(
                "checks: {{c: {{field: traits.invite, required: {required}, refuse: [{{when: \"true\", message: \"No.\"}}]}}}}"
            );
            let app = TestApp::with(&yaml).start().await;
            let reply = app
                .pre(&payload().with_trait("invite", absent.clone()))
                .await;
            match expected {
                None => assert_eq!(reply.status, 204),
                Some(id) => assert_eq!(reply.refused(), [("#/traits/invite".to_owned(), id)]),
            }
        }
    }
    let app = TestApp::with("checks: {c: {field: traits.invite, required: true}}")
        .start()
        .await;
    assert_eq!(
        app.pre(&payload().without("/identity/traits/invite"))
            .await
            .refused(),
        [("#/traits/invite".to_owned(), 4_900_003)]
    );
    for present in [
        json!(0),
        json!(false),
        json!("0"),
        json!([""]),
        json!("\u{200b}."),
    ] {
        assert_eq!(
            app.pre(&payload().with_trait("invite", present))
                .await
                .status,
            204
        );
    }
}

#[tokio::test]
async fn in_domains_matches_subdomains_and_internationalized_domains() {
    let app = TestApp::with(
        "lists: {throwaway: [trash.example, \"müll.example\"]}\nchecks: {email: {field: traits.email, refuse: [{when: \"in_domains(value, lists.throwaway)\", message: \"No.\"}]}}",
    )
    .start()
    .await;
    for (address, refused) in [
        ("a@trash.example", true),
        ("a@mail.TRASH.example", true),
        ("a@müll.example", true),
        ("a@xn--mll-hoa.example", true),
        ("a@nottrash.example", false),
        ("a@example", false),
        ("trash.example@good.example", false),
    ] {
        let reply = app.pre(&payload().with_trait("email", address)).await;
        assert_eq!(reply.status == 400, refused, "{address}");
    }
}

#[tokio::test]
async fn required_applies_only_if_when_is_true() {
    let table = [
        ("identity.traits.kind == 'company'", "company", true),
        ("identity.traits.kind == 'company'", "private", false),
        // An expression that fails on an absent field does not change the message.
        ("value.startsWith('DE')", "company", true),
    ];
    for (when, kind, refused) in table {
        let yaml = format!(
            "checks: {{c: {{field: traits.vat_number, required: true, when: \"{when}\"}}}}"
        );
        let app = TestApp::with(&yaml).start().await;
        let absent = payload()
            .without("/identity/traits/vat_number")
            .with_trait("kind", kind);
        let reply = app.pre(&absent).await;
        if refused {
            assert_eq!(
                reply.refused(),
                [("#/traits/vat_number".to_owned(), 4_900_003)],
                "{when}"
            );
        } else {
            assert_eq!(reply.status, 204, "{when}");
        }
    }
}

#[tokio::test]
async fn a_value_is_sent_untrimmed() {
    let service = FakeService::start();
    let app = TestApp::with(
        "checks: {c: {field: traits.invite, ask: {get: \"${env:SERVICE}/{value}\"}}}",
    )
    .service("SERVICE", &service)
    .start()
    .await;
    assert_eq!(
        app.pre(&payload().with_trait("invite", " a\u{200b} "))
            .await
            .status,
        204
    );
    assert_eq!(service.next_call().await.target, "/%20a%E2%80%8B%20");
}

#[tokio::test]
async fn a_list_or_an_object_in_place_of_a_text_is_refused_before_a_service_is_asked() {
    let field = "field: traits.invite\n    ";
    let table = [
        (true, "ask: {get: \"${env:SERVICE}/{value}\"}"),
        (
            true,
            "ask: {get: \"${env:SERVICE}/a\", query: {code: \"{value}\"}}",
        ),
        (
            true,
            "ask: {get: \"${env:SERVICE}/a\", headers: {X-Code: \"{value}\"}}",
        ),
        (
            true,
            "ask: {post: \"${env:SERVICE}/a\", form: {code: \"{value}\"}}",
        ),
        (
            true,
            "ask: {post: \"${env:SERVICE}/a\", json: {code: \"code {value}\"}}",
        ),
        (
            true,
            "ask: {post: \"${env:SERVICE}/a\", json: {code: \"{value.lowerAscii()}\"}}",
        ),
        // Also if the response decides: no request is sent, and the service is not unavailable.
        (
            true,
            "ask: {post: \"${env:SERVICE}/a\", json: {code: \"{value}\"}}\n    refuse: [{when: response.body.code != value.upperAscii()}]",
        ),
        (
            true,
            "ask: {post: \"${env:SERVICE}/a\", json: {code: \"{value}\"}}\n    accept: value.contains(response.body.code)",
        ),
        (
            true,
            "ask: {post: \"${env:SERVICE}/a\", json: {code: \"{value}\"}}\n    set: {traits.slug: \"{value.trim()}\"}",
        ),
        (true, "refuse: [{when: value in lists.bad}]"),
        (true, "refuse: [{when: \"in_domains(value, lists.bad)\"}]"),
        (
            true,
            "reserve: {take: {post: \"${env:SERVICE}/a\", json: {code: \"{value}\"}}, release: {delete: \"${env:SERVICE}/{value}\"}}",
        ),
        (
            false,
            "ask: {get: \"${env:SERVICE}/{identity.traits.invite}\"}",
        ),
        (
            false,
            "ask: {get: \"${env:SERVICE}/a\"}\n    on_unavailable: {default: accept, unexpected_answer: accept}\n    refuse: [{when: identity.traits.invite.startsWith(response.body.x)}]",
        ),
    ];
    for (has_field, rest) in table {
        for value in [
            json!(["canary"]),
            json!([["canary"]]),
            json!({"a": "canary"}),
        ] {
            let service = FakeService::start();
            let head = if has_field { field } else { "" };
            let yaml = format!("lists: {{bad: [canary]}}\nchecks:\n  c:\n    {head}{rest}\n");
            let app = TestApp::with(&yaml)
                .service("SERVICE", &service)
                .start()
                .await;
            let place = if has_field { "#/traits/invite" } else { "#/" };
            let reply = app
                .pre(&payload().with_trait("invite", value.clone()))
                .await;
            assert_eq!(
                reply.refused(),
                [(place.to_owned(), 4_900_002)],
                "{rest} {value}"
            );
            assert!(service.received().is_empty(), "{rest} {value}");
        }
    }
}

#[tokio::test]
async fn a_list_is_accepted_where_the_settings_expect_a_list() {
    for rest in [
        "ask: {post: \"${env:SERVICE}/a\", json: {codes: \"{value}\"}}",
        "refuse: [{when: \"value.exists(code, code in lists.bad)\"}]",
        "refuse: [{when: size(value) > 2}]",
        "refuse: [{when: \"type(value) == list ? false : value.startsWith('x')\"}]",
        "refuse: [{when: \"type(value) == string && value.startsWith('x')\"}]",
        "when: type(value) == string\n    ask: {get: \"${env:SERVICE}/{value}\"}",
        "ask: {get: \"${env:SERVICE}/{value[0]}\"}",
        "ask: {get: \"${env:SERVICE}/{value.join('-')}\"}",
    ] {
        let service = FakeService::start();
        let yaml =
            format!("lists: {{bad: [bad]}}\nchecks:\n  c:\n    field: traits.invite\n    {rest}\n");
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .start()
            .await;
        let reply = app
            .pre(&payload().with_trait("invite", json!(["one", "two"])))
            .await;
        assert_eq!(reply.status, 204, "{rest}");
    }
}

#[tokio::test]
async fn a_field_can_be_an_entry_of_a_list() {
    let service = FakeService::start();
    service.respond_with(404, &json!({}));
    let app = TestApp::with(
        "checks: {c: {field: traits.emails.1, ask: {get: \"${env:SERVICE}/{value}\"}, refuse: [{when: 404, message: \"No.\"}]}}",
    )
    .service("SERVICE", &service)
    .start()
    .await;
    let emails = |list| payload().with_trait("emails", list);
    let reply = app.pre(&emails(json!(["a", "b"]))).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_000)]);
    assert_eq!(service.next_call().await.target, "/b");
    // The form has one node for the whole list.
    let with_node = emails(json!(["a", "b"])).with("/nodes/0/name", "traits.emails");
    assert_eq!(
        app.pre(&with_node).await.refused(),
        [("#/traits/emails".to_owned(), 4_900_000)]
    );
    for without in [json!(["a"]), json!([]), json!("ab"), json!(null)] {
        assert_eq!(
            app.pre(&emails(without.clone())).await.status,
            204,
            "{without}"
        );
    }
}
