//! A template that is nothing but one path written with `?` is null in JSON, and left out of `form` and `query`.

use serde_json::{Value, json};

use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

/// Subscribes to every event with this request, and calls one hook. Returns the call that the receiver got.
async fn sent(request: &str, hook: &str, body: &Payload) -> crate::support::fake_service::Received {
    let crm = FakeService::start();
    let yaml = format!(
        "subscriptions: {{crm: {{events: [identity.created, identity.updated, identity.verified], send: {request}}}}}"
    );
    let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
    assert_eq!(app.call(hook, body.to_string()).await.status, 204);
    crm.next_call().await
}

const CREATED: &str = "/hooks/registration/post?method=password";
const UPDATED: &str = "/hooks/settings/post?method=profile";
const VERIFIED: &str = "/hooks/verification/post";

#[tokio::test]
async fn absent_values_are_null_in_json() {
    let changed = payload().changed_from(&json!({"email": "canary-before@example.org"}));
    for (template, hook, body, expected) in [
        (
            "{identity.traits.?company_number}",
            CREATED,
            payload().saved(),
            Value::Null,
        ),
        (
            "{identity.traits.?address.city}",
            VERIFIED,
            payload().saved(),
            Value::Null,
        ),
        (
            "{identity.traits.?tags[0]}",
            CREATED,
            payload().saved(),
            Value::Null,
        ),
        (
            "{identity.traits.?tags[0]}",
            CREATED,
            payload().saved().with_trait("tags", json!([7])),
            json!(7),
        ),
        (
            "{previous.traits.?email}",
            CREATED,
            payload().saved(),
            Value::Null,
        ),
        (
            "{previous.traits.?email}",
            UPDATED,
            changed.clone(),
            json!("canary-before@example.org"),
        ),
        ("{previous.traits.?phone}", UPDATED, changed, Value::Null),
        (
            "{flow.?return_to}",
            CREATED,
            payload().saved().without("/flow/return_to"),
            Value::Null,
        ),
        (
            "{request.headers[?'Accept-Language']}",
            CREATED,
            payload().saved(),
            Value::Null,
        ),
    ] {
        let request = format!(
            "{{post: \"${{env:CRM}}/x\", json: {{n: \"{template}\", list: [\"{template}\"]}}}}"
        );
        let call = sent(&request, hook, &body).await;
        assert_eq!(
            call.json(),
            json!({"n": expected, "list": [expected]}),
            "{template}"
        );
    }
}

#[tokio::test]
async fn absent_values_are_left_out_of_forms_and_queries() {
    for (template, body, expected) in [
        ("{identity.traits.?phone}", payload().saved(), ""),
        (
            "{identity.traits.?phone}",
            payload().saved().with_trait("phone", Value::Null),
            "",
        ),
        (
            "{identity.traits.?phone}",
            payload().saved().with_trait("phone", "+49 1"),
            "phone=%2B49+1",
        ),
        (
            "{identity.traits.?phone}",
            payload().saved().with_trait("phone", ""),
            "phone=",
        ),
        (
            "{identity.traits.?phone}",
            payload().saved().with_trait("phone", 7),
            "phone=7",
        ),
        ("{identity.traits.?contact.phone}", payload().saved(), ""),
        ("{previous.?traits.phone}", payload().saved(), ""),
        ("{flow.transient_payload.?phone}", payload().saved(), ""),
    ] {
        let form = format!("{{post: \"${{env:CRM}}/x\", form: {{phone: \"{template}\"}}}}");
        let call = sent(&form, CREATED, &body).await;
        assert_eq!(call.body, expected, "{template}");
        let query = format!("{{get: \"${{env:CRM}}/x\", query: {{phone: \"{template}\"}}}}");
        let call = sent(&query, CREATED, &body).await;
        let target = if expected.is_empty() {
            "/x".to_owned()
        } else {
            format!("/x?{expected}")
        };
        assert_eq!(call.target, target, "{template}");
        // The other parameters stay, also those of the path.
        let both = format!(
            "{{get: \"${{env:CRM}}/x?v=1\", query: {{a: \"1\", phone: \"{template}\", z: \"{{identity.traits.company}}\"}}}}"
        );
        let call = sent(&both, CREATED, &body).await;
        let between = if expected.is_empty() {
            String::new()
        } else {
            format!("&{expected}")
        };
        assert_eq!(
            call.target,
            format!("/x?v=1&a=1{between}&z=Canary+GmbH"),
            "{template}"
        );
    }
}

#[tokio::test]
async fn a_check_leaves_absent_values_out_too() {
    let register = FakeService::start();
    let app = TestApp::with(
        r#"
checks:
  known:
    ask: {post: "${env:REGISTER}/known", form: {mail: "{identity.traits.email}", phone: "{identity.traits.?phone}", before: "{previous.?traits.phone}"}}
    flows: [registration, settings]
"#,
    )
    .service("REGISTER", &register)
    .start()
    .await;
    assert_eq!(app.pre(&payload()).await.status, 204);
    assert_eq!(register.next_call().await.body, "mail=canary%40example.org");
    let before = json!({"email": "canary@example.org", "phone": "1"});
    let changed = payload().with_trait("phone", "2").changed_from(&before);
    assert_eq!(app.settings(&changed).await.status, 204);
    assert_eq!(
        register.next_call().await.body,
        "mail=canary%40example.org&phone=2&before=1"
    );
}
