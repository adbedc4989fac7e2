//! The OpenAPI document of the admin API describes what Vestibule serves.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use vestibule::http::admin::openapi::{document, text};

use crate::support::{FakeService, TestApp, payload};

/// `UPDATE=1 cargo test --test it openapi` writes the document.
#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for developers")]
fn the_openapi_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(&path, text()).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap_or_default() == text(),
        "docs/openapi.json is stale: UPDATE=1 cargo test --test it openapi"
    );
}

/// Returns the operations of a document, as in `GET /deliveries`.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods").keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect()
}

/// Calls an operation, with a value for each parameter in braces.
async fn call(app: &TestApp, method: &str, path: &str) -> reqwest::Response {
    let nil = uuid::Uuid::nil().to_string();
    let path = path.replace("{id}", &nil).replace("{flow_id}", &nil);
    let url = format!("http://{}{path}", app.app.admin_address);
    app.http
        .request(method.parse().expect("a method"), url)
        .header("Content-Type", "application/json")
        .body(match path.as_str() {
            _ if method == "GET" => "",
            "/late-refusals/lift" => r#"{"identity": "00000000-0000-0000-0000-000000000000"}"#,
            _ => r#"{"all": true}"#,
        })
        .send()
        .await
        .expect("an answer")
}

#[tokio::test]
async fn every_served_operation_is_in_the_document() {
    let expected = [
        "GET /decisions",
        "GET /decisions/{flow_id}",
        "GET /deliveries",
        "GET /deliveries/{id}",
        "GET /health/alive",
        "GET /health/ready",
        "GET /jobs",
        "GET /late-refusals",
        "GET /metrics",
        "GET /metrics/prometheus",
        "GET /openapi.json",
        "GET /version",
        "POST /deliveries/discard",
        "POST /deliveries/retry",
        "POST /late-refusals/lift",
    ];
    assert_eq!(
        operations(&document()),
        expected.map(ToOwned::to_owned).into()
    );
    // Other methods on these paths are not served.
    let app = TestApp::with("").start().await;
    let mut refused = 0;
    for path in document()["paths"].as_object().unwrap().keys() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let response = call(&app, method, path).await;
            if !expected.contains(&format!("{method} {path}").as_str()) {
                assert_eq!(response.status(), 405, "{method} {path}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 60);
}

#[tokio::test]
async fn every_operation_in_the_document_is_served_as_described() {
    let app = TestApp::with("").start().await;
    let served = app.admin_get("/openapi.json").await;
    assert_eq!(served.json(), document());
    for operation in operations(&document()) {
        let (method, path) = operation.split_once(' ').unwrap();
        let response = call(&app, method, path).await;
        // No flow, no delivery and no identity has an id of zeros.
        let expected = match path {
            "/decisions/{flow_id}" | "/deliveries/{id}" | "/late-refusals/lift" => 404,
            _ => 200,
        };
        assert_eq!(response.status(), expected, "{operation}");
        let kind = response.headers()["content-type"].to_str().unwrap();
        let described = &document()["paths"][path][method.to_lowercase()]["responses"];
        assert!(
            described[expected.to_string()]["content"][kind].is_object(),
            "{operation}: {kind} in {described}"
        );
    }
}

#[test]
fn every_reference_resolves_and_everything_is_described() {
    let document = document();
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut references = 0;
    for rest in text.split("\"$ref\":\"").skip(1) {
        let reference = rest.split('"').next().unwrap();
        let pointer = reference
            .strip_prefix('#')
            .expect("a pointer into this document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
        references += 1;
    }
    assert!(references > 20, "{references} references");
    for (name, schema) in schemas {
        assert!(schema["description"].is_string(), "{name}");
        assert!(
            text.contains(&format!("#/components/schemas/{name}\"")),
            "{name} is used"
        );
        for (key, member) in schema["properties"].as_object().into_iter().flatten() {
            let described = member["description"].is_string() || member["$ref"].is_string();
            assert!(described, "{name}.{key}");
        }
    }
    assert_eq!(document["openapi"], json!("3.1.0"));
}

#[tokio::test]
async fn responses_have_the_members_that_the_document_requires() {
    let crm = FakeService::start();
    let app = TestApp::with(
        "subscriptions: {crm: {events: [identity.created], send: {post: \"${env:CRM}/x\"}}}",
    )
    .service("CRM", &crm)
    .start()
    .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let document = document();
    let members = |schema: &str| -> BTreeSet<String> {
        let required = document["components"]["schemas"][schema]["required"].as_array();
        let names = required.expect("members").iter();
        names
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    };
    let keys = |value: &Value| -> BTreeSet<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let page = app.admin_get("/deliveries").await.json();
    let id = page["deliveries"][0]["id"].as_str().expect("an id");
    let shown = app.admin_get(&format!("/deliveries/{id}")).await.json();
    let done = app
        .admin_post("/deliveries/retry", r#"{"all": true}"#)
        .await;
    let wrong = app.admin_get("/deliveries?limit=x").await.json();
    for (schema, value) in [
        ("Page", &page),
        ("DeliverySummary", &page["deliveries"][0]),
        ("DeliveryDetails", &shown),
        ("ActionResult", &done.json()),
        ("Error", &wrong),
        ("ErrorBody", &wrong["error"]),
    ] {
        assert_eq!(keys(value), members(schema), "{schema}");
    }
}
