//! Decisions are recorded without values, and an operator can read why a visitor was refused.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::Reply;
use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, logs, payload};

const SETTINGS: &str = r#"
checks:
  vat: {field: traits.vat_number, ask: {get: "${env:REGISTER}/{value}"}, refuse: [{when: 404, message: {id: 4900101, en: "No."}}]}
  invite: {field: traits.invite, refuse: [{when: "value == 'canary-1'", message: {id: 4900102, en: "Used."}}]}
"#;

async fn start(settings: &str) -> (TestApp, FakeService) {
    let register = FakeService::start();
    let app = TestApp::with(settings)
        .service("REGISTER", &register)
        .start()
        .await;
    (app, register)
}

/// A sign-up in a flow of its own.
fn sign_up(invite: &str) -> Payload {
    payload()
        .with("/flow/id", json!(Uuid::new_v4()))
        .with("/identity/traits/invite", json!(invite))
        .with("/identity/traits/vat_number", json!("NL123"))
}

fn flow_id(sign_up: &Payload) -> String {
    sign_up.0["flow"]["id"].as_str().expect("a text").to_owned()
}

/// Decisions are gathered for a second before they are stored.
async fn shown(app: &TestApp, flow_id: &str) -> Value {
    let path = format!("/decisions/{flow_id}");
    app.advance_until(
        "the decision is stored",
        Duration::from_secs(1),
        async || {
            let reply = app.admin_get(&path).await;
            (reply.status == 200).then(|| reply.json())
        },
    )
    .await
}

async fn listed(app: &TestApp, query: &str) -> Vec<String> {
    let page: Reply = app.admin_get(&format!("/decisions{query}")).await;
    let page = page.json();
    let decisions = page["decisions"].as_array().expect("a list").iter();
    decisions
        .map(|one| one["flow_id"].as_str().expect("a text").to_owned())
        .collect()
}

#[tokio::test]
async fn an_operator_reads_which_check_refused_and_which_was_unavailable() {
    let (app, register) = start(SETTINGS).await;
    let (used, down, good) = (sign_up("canary-1"), sign_up("a"), sign_up("b"));
    assert_eq!(app.pre(&used).await.status, 400);
    register.respond_with(503, &json!({}));
    assert_eq!(app.pre(&down).await.status, 400);
    register.respond_with(200, &json!({}));
    assert_eq!(app.pre(&good).await.status, 204);
    let identity = Uuid::new_v4();
    let saved = good.clone().with("/identity/id", json!(identity));
    assert_eq!(app.post(&saved).await.status, 204);

    let refused = shown(&app, &flow_id(&used)).await;
    let refused = &refused["decisions"][0];
    assert_eq!(refused["outcome"], "refused");
    assert_eq!(refused["flow"], "registration");
    assert_eq!(refused["identity_id"], Value::Null);
    assert_eq!(refused["checks"][0]["outcome"], "accepted");
    assert_eq!(refused["checks"][1]["check"], "invite");
    assert_eq!(refused["checks"][1]["message_id"], 4_900_102);
    let unavailable = shown(&app, &flow_id(&down)).await;
    assert_eq!(
        unavailable["decisions"][0]["checks"][0]["outcome"],
        "unavailable"
    );
    assert!(unavailable["decisions"][0]["checks"][0]["kind"].is_string());
    app.advance_until(
        "the identity is stored",
        Duration::from_secs(1),
        async || {
            let shown = app
                .admin_get(&format!("/decisions/{}", flow_id(&good)))
                .await
                .json();
            (shown["decisions"][0]["identity_id"] == json!(identity)).then_some(())
        },
    )
    .await;
    for (query, expected) in [
        ("?outcome=refused&check=invite", vec![&used]),
        ("?outcome=unavailable", vec![&down]),
        ("?outcome=admitted", vec![&good]),
        (&*format!("?identity={identity}"), vec![&good]),
        (&*format!("?flow_id={}", flow_id(&down)), vec![&down]),
        ("?limit=1", vec![&good]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(flow_id).collect();
        assert_eq!(listed(&app, query).await, expected, "{query}");
    }
    let page = app.admin_get("/decisions").await.text;
    assert!(
        !page.contains("NL123") && !page.contains("canary"),
        "{page}"
    );
}

#[tokio::test]
async fn wrong_requests_for_decisions_are_explained() {
    let (app, _register) = start(SETTINGS).await;
    for (path, status, message) in [
        (
            "/decisions/nonsense",
            400,
            "`flow_id`: `nonsense` is not an id",
        ),
        (
            "/decisions/00000000-0000-0000-0000-000000000404",
            404,
            "there is no decision about the flow",
        ),
        (
            "/decisions?outcome=deferred",
            400,
            "`outcome`: `deferred` is not an outcome",
        ),
        ("/decisions?cursor=x", 400, "`cursor`: `x` is not a number"),
        ("/decisions?state=refused", 400, "unknown parameter `state`"),
        (
            "/decisions?since=yesterday",
            400,
            "`since`: `yesterday` is not a day or a time",
        ),
    ] {
        let reply = app.admin_get(path).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.text.contains(message), "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn admitted_sign_ups_can_be_left_out() {
    let (app, _register) = start(&format!("{SETTINGS}decisions: {{keep: refused}}\n")).await;
    let (good, used) = (sign_up("b"), sign_up("canary-1"));
    app.pre(&good).await;
    app.pre(&used).await;
    shown(&app, &flow_id(&used)).await;
    assert_eq!(listed(&app, "").await, [flow_id(&used)]);
}

#[tokio::test]
async fn the_log_names_the_checks_that_refused_or_were_unavailable() {
    let (app, register) = start(SETTINGS).await;
    register.respond_with(503, &json!({}));
    let used = sign_up("canary-1");
    app.pre(&used).await;
    let lines = logs::lines_with(&flow_id(&used));
    let line = lines
        .iter()
        .find(|line| line.contains("Evaluated a registration"));
    let line = line.unwrap_or_else(|| panic!("{lines:?}"));
    assert!(line.contains("\"refused_by\":\"invite\""), "{line}");
    assert!(line.contains("\"unavailable\":\"vat\""), "{line}");
}
