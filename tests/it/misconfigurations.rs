//! Vestibule reports hooks that are misconfigured in kratos.yml, in the log and in a metric, with the key to change.

use crate::support::{TestApp, logs, payload};

const REFUSES: &str = "checks: {never: {refuse: [{when: \"true\", message: \"No.\"}]}}\n\
    subscriptions: {crm: {events: [identity.created, identity.updated], send: {post: \"http://127.0.0.1:9/x\"}}}";

async fn misconfigurations(app: &TestApp, reason: &str) -> f64 {
    app.metric(&format!(
        "vestibule_hook_misconfigurations_total{{reason=\"{reason}\"}}"
    ))
    .await
}

#[tokio::test]
async fn a_pre_without_an_identity_is_refused_and_reported() {
    let app = TestApp::with("").start().await;
    for path in [
        "/hooks/registration/pre?method=password",
        "/hooks/settings/pre?method=profile",
    ] {
        let reply = app
            .call(path, payload().without("/identity").to_string())
            .await;
        assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_004)]);
    }
    assert!((misconfigurations(&app, "pre_without_identity").await - 2.0).abs() < 0.1);
    assert!(!logs::lines_with("selfservice.flows.settings.before.hooks").is_empty());
}

#[tokio::test]
async fn a_registration_pre_after_saving_gets_204_and_is_reported() {
    let app = TestApp::with(REFUSES).start().await;
    let reply = app
        .call(
            "/hooks/registration/pre?method=oidc",
            payload().saved().to_string(),
        )
        .await;
    assert_eq!(reply.status, 204);
    assert!((misconfigurations(&app, "pre_after_saving").await - 1.0).abs() < 0.1);
    assert!(!logs::lines_with("selfservice.flows.registration.after.oidc.hooks").is_empty());
}

#[tokio::test]
async fn a_post_before_saving_gets_204_stores_nothing_and_is_reported() {
    let app = TestApp::with(REFUSES).start().await;
    for body in [payload(), payload().without("/identity")] {
        let reply = app
            .call("/hooks/registration/post?method=code", body.to_string())
            .await;
        assert_eq!(reply.status, 204);
    }
    assert!((misconfigurations(&app, "post_before_saving").await - 2.0).abs() < 0.1);
    assert!(!logs::lines_with("selfservice.flows.registration.after.code.hooks").is_empty());
    let stored = app
        .app
        .store
        .list(&vestibule::store::Filter::default(), 10)
        .await
        .unwrap();
    assert!(stored.is_empty());
}

#[tokio::test]
async fn calls_answered_with_404_or_405_are_counted_and_each_path_is_logged_once_a_minute() {
    let app = TestApp::with("").start().await;
    for (path, status) in [
        ("/hooks/registration/pre?method=password", 405),
        ("/hook/registration/pre", 404),
        ("/hook/registration/pre", 404),
    ] {
        let reply = app.http.get(app.url(path)).send().await.unwrap();
        assert_eq!(reply.status(), status, "{path}");
    }
    for (labels, expected) in [
        (
            "flow=\"registration\",stage=\"pre\",outcome=\"method_not_allowed\"",
            1.0,
        ),
        ("flow=\"\",stage=\"\",outcome=\"not_found\"", 2.0),
    ] {
        let name = format!("vestibule_hook_requests_total{{{labels}}}");
        assert!((app.metric(&name).await - expected).abs() < 0.1, "{name}");
    }
    assert_eq!(logs::lines_with("/hook/registration/pre\"").len(), 1);
    app.clock.advance(std::time::Duration::from_mins(1));
    let url = app.url("/hook/registration/pre");
    app.http.get(url).send().await.unwrap();
    assert_eq!(logs::lines_with("/hook/registration/pre\"").len(), 2);
}
