//! Who may call the admin port.

use reqwest::Method;
use serde_json::json;

use crate::support::app::Builder;
use crate::support::{TestApp, logs};

const TOKEN: &str = "canary-admin-token-0123456789";

/// Operations that show or change data, and those that every client may call.
const GUARDED: [(Method, &str); 7] = [
    (Method::GET, "/deliveries"),
    (
        Method::GET,
        "/deliveries/00000000-0000-0000-0000-000000000000",
    ),
    (Method::POST, "/deliveries/retry"),
    (Method::POST, "/deliveries/discard"),
    (Method::GET, "/late-refusals"),
    (Method::POST, "/late-refusals/lift"),
    (Method::GET, "/jobs"),
];
const OPEN: [&str; 6] = [
    "/health/alive",
    "/health/ready",
    "/version",
    "/metrics",
    "/metrics/prometheus",
    "/openapi.json",
];

/// Calls an operation with these headers, and returns the status.
async fn call(app: &TestApp, method: &Method, path: &str, headers: &[(&str, &str)]) -> u16 {
    let url = format!("http://{}{path}", app.app.admin_address);
    let mut request = app
        .http
        .request(method.clone(), url)
        .header("Content-Type", "application/json")
        .body(json!({"all": true}).to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    if matches!(status, 401 | 403) {
        let is_challenged = response.headers().contains_key("www-authenticate");
        assert_eq!(is_challenged, status == 401);
        let body: serde_json::Value = response.json().await.expect("JSON");
        assert!(body["error"]["help"].is_string(), "{body}");
    }
    status
}

async fn assert_all(builder: Builder, headers: &[(&str, &str)], forbidden: Option<u16>) {
    let app = builder.start().await;
    for (method, path) in &GUARDED {
        let status = call(&app, method, path, headers).await;
        match forbidden {
            Some(expected) => assert_eq!(status, expected, "{method} {path} {headers:?}"),
            None => assert!(!matches!(status, 401 | 403), "{path} {headers:?} {status}"),
        }
    }
    for path in OPEN {
        let status = call(&app, &Method::GET, path, headers).await;
        assert_eq!(status, 200, "{path} {headers:?}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_call_the_admin_api_by_dns_rebinding() {
    let rebound = [
        ("Host", "evil.example:4481"),
        ("Origin", "http://evil.example:4481"),
    ];
    assert_all(TestApp::with(""), &rebound, Some(403)).await;
    assert_all(TestApp::with(""), &rebound[..1], Some(403)).await;
}

#[tokio::test]
async fn a_page_of_another_site_cannot_call_the_admin_api_by_its_address() {
    let foreign = [("Origin", "https://evil.example")];
    assert_all(TestApp::with(""), &foreign, Some(403)).await;
    assert_all(TestApp::with(""), &[("Origin", "null")], Some(403)).await;
}

#[tokio::test]
async fn addresses_localhost_and_hosts_of_the_settings_are_allowed() {
    for host in ["127.0.0.1:4481", "[::1]:4481", "localhost:4481", "10.0.0.1"] {
        assert_all(TestApp::with(""), &[("Host", host)], None).await;
    }
    let named = || TestApp::with("").admin("allowed_hosts: [vestibule.internal]");
    let own = [
        ("Host", "Vestibule.internal"),
        ("Origin", "https://vestibule.internal"),
    ];
    assert_all(named(), &own, None).await;
    assert_all(named(), &[("Host", "other.internal")], Some(403)).await;
}

#[tokio::test]
async fn a_token_of_the_settings_is_required() {
    let with_token = || {
        TestApp::with("")
            .env("TOKEN", TOKEN)
            .admin("token: \"${env:TOKEN}\"")
    };
    let bearer = format!("Bearer {TOKEN}");
    assert_all(with_token(), &[("Authorization", &bearer)], None).await;
    assert_all(with_token(), &[], Some(401)).await;
    let wrong = "Bearer canary-admin-token-012345678x";
    for value in [wrong, "Bearer", "Bearer ", TOKEN, "Basic Zm9vOmJhcg=="] {
        assert_all(with_token(), &[("Authorization", value)], Some(401)).await;
    }
    let rebound = [("Authorization", &*bearer), ("Host", "evil.example")];
    assert_all(with_token(), &rebound, Some(403)).await;
    assert_eq!(logs::lines_with(TOKEN), Vec::<String>::new());
}
