//! Health, version, metrics, and a graceful stop.

use serde_json::json;

use crate::support::fake_service::Behaviour;
use crate::support::{FakeService, TestApp, bounded, eventually, payload};

#[tokio::test]
async fn health_is_served_on_both_ports_and_the_rest_on_the_admin_port() {
    let app = TestApp::with("").start().await;
    for path in ["/health/alive", "/health/ready"] {
        assert_eq!(app.admin_get(path).await.status, 200);
        let reply = app.http.get(app.url(path)).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(
            reply.json::<serde_json::Value>().await.unwrap()["status"],
            "ok"
        );
    }
    assert_eq!(
        app.admin_get("/version").await.json(),
        json!({"version": env!("CARGO_PKG_VERSION")})
    );
    for path in ["/metrics", "/metrics/prometheus"] {
        let reply = app.admin_get(path).await;
        assert_eq!(reply.status, 200);
        assert!(
            reply.headers["content-type"]
                .to_str()
                .unwrap()
                .starts_with("application/openmetrics-text")
        );
    }
    for path in ["/version", "/metrics", "/metrics/prometheus"] {
        assert_eq!(
            app.http.get(app.url(path)).send().await.unwrap().status(),
            404,
            "{path} is not for the hooks' port"
        );
    }
}

#[tokio::test]
async fn the_documented_metrics_are_served() {
    let service = FakeService::start();
    service.respond_with(503, &json!({}));
    let app = TestApp::with(
        "checks: {c: {on_unavailable: accept, ask: {get: \"${env:SERVICE}/a\"}}}\nsubscriptions: {d: {events: [identity.created], send: {post: \"${env:SERVICE}/b\"}}}",
    )
    .service("SERVICE", &service)
    .start()
    .await;
    app.pre(&payload()).await;
    app.post(&payload().saved()).await;
    app.clock.advance(std::time::Duration::from_secs(3));
    let metrics = app.admin_get("/metrics").await.text;
    for line in [
        "vestibule_hook_requests_total{flow=\"registration\",stage=\"pre\",outcome=\"admitted\"} 1",
        "vestibule_hook_requests_total{flow=\"registration\",stage=\"post\",outcome=\"stored\"} 1",
        "vestibule_check_outcomes_total{check=\"c\",outcome=\"unavailable\"} 1",
        "vestibule_fail_open_total{check=\"c\",kind=\"status_5xx\"} 1",
        "vestibule_delivery_oldest_pending_seconds 3.0",
        "vestibule_deliveries_pending 1",
        "vestibule_database_up 1",
        "# EOF",
    ] {
        assert!(
            metrics.lines().any(|known| known == line),
            "{line} in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn a_decision_is_recorded_without_personal_data() {
    let app = TestApp::with("checks: {c: {field: traits.invite, refuse: [{when: \"true\", message: {id: 4900101, en: \"No.\"}}]}}").start().await;
    let body = payload();
    app.pre(&body).await.refused();
    let (folder, _) = app.stop().await;
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("vestibule.db"));
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let (flow_id, outcome, checks): (String, String, String) =
        sqlx::query_as("SELECT flow_id, outcome, checks FROM decisions")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(flow_id, body.0["flow"]["id"].as_str().unwrap());
    assert_eq!(outcome, "refused");
    let checks: serde_json::Value = serde_json::from_str(&checks).unwrap();
    assert_eq!(checks[0]["check"], "c");
    assert_eq!(checks[0]["outcome"], "refused");
    assert_eq!(checks[0]["message_id"], 4_900_101);
    assert!(!checks.to_string().to_lowercase().contains("canary"));
}

#[tokio::test]
async fn a_stop_waits_for_running_hook_calls() {
    let service = FakeService::start();
    service.set_behaviour(Behaviour::Hangs);
    let app = TestApp::with("checks: {c: {ask: {get: \"${env:SERVICE}/a\"}}}")
        .service("SERVICE", &service)
        .start()
        .await;
    let url = app.url("/hooks/registration/pre?method=password");
    let request = app
        .http
        .post(&url)
        .header("X-Vestibule-Key", crate::support::app::KEY)
        .body(payload().to_string());
    let call = tokio::spawn(request.send());
    service.next_call().await;
    let stopping = tokio::spawn(app.app.stop());
    // Wait until no connection is accepted.
    let address = url.split('/').nth(2).unwrap().to_owned();
    eventually("no connection is accepted", async || {
        (tokio::net::TcpStream::connect(&address).await.is_err()).then_some(())
    })
    .await;
    assert!(!call.is_finished());
    service.release_hanging_calls();
    let answer = bounded("the call is answered", call).await;
    assert_eq!(answer.unwrap().unwrap().status(), 204);
    bounded("Vestibule stops", stopping).await.unwrap();
}
