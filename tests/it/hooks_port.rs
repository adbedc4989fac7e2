//! Calls that any client on the network can send to the hooks port: they are counted, and cannot fill the log or raise an alarm.

use std::time::Duration;

use reqwest::Method;

use crate::support::{FakeKratos, TestApp, logs, payload};

const POST: &str = "/hooks/registration/post?method=password";

async fn requests(app: &TestApp, labels: &str) -> f64 {
    app.metric(&format!("vestibule_hook_requests_total{{{labels}}}"))
        .await
}

#[tokio::test]
async fn wrong_verbs_of_a_hook_are_logged_once_a_minute_for_each_path() {
    let app = TestApp::with("").start().await;
    // Other tests call other methods, so these lines are only of this test.
    let call = async |verb: Method, path: &str| {
        let url = app.url(&format!("{path}?method=hooks_port_verbs"));
        let reply = app.http.request(verb, url).send().await.expect("an answer");
        reply.status().as_u16()
    };
    let logged = || logs::lines_with("hooks_port_verbs").len();
    for verb in [Method::GET, Method::PUT, Method::PATCH, Method::OPTIONS] {
        assert_eq!(call(verb, "/hooks/settings/pre").await, 405);
    }
    assert_eq!(logged(), 1);
    assert_eq!(call(Method::GET, "/hooks/settings/post").await, 405);
    assert_eq!(logged(), 2);
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(call(Method::GET, "/hooks/settings/pre").await, 405);
    assert_eq!(logged(), 3);
    let counted = requests(
        &app,
        "flow=\"settings\",stage=\"pre\",outcome=\"method_not_allowed\"",
    )
    .await;
    assert!((counted - 5.0).abs() < 0.1, "{counted}");
}

#[tokio::test]
async fn a_flood_of_unknown_paths_does_not_hide_a_wrong_verb() {
    let app = TestApp::with("").start().await;
    for number in 0..150 {
        let url = app.url(&format!("/hooks_port_flood/{number}"));
        assert_eq!(app.http.get(url).send().await.unwrap().status(), 404);
    }
    let logged = logs::lines_with("/hooks_port_flood/").len();
    assert_eq!(logged, 100);
    let url = app.url("/hooks/recovery/pre?method=hooks_port_flood_verb");
    assert_eq!(app.http.get(url).send().await.unwrap().status(), 405);
    assert_eq!(logs::lines_with("hooks_port_flood_verb").len(), 1);
    let counted = requests(&app, "flow=\"\",stage=\"\",outcome=\"not_found\"").await;
    assert!((counted - 150.0).abs() < 0.1, "{counted}");
}

#[tokio::test]
async fn other_verbs_of_health_paths_get_404_with_a_message_and_are_counted() {
    let app = TestApp::with("").start().await;
    for path in ["/health/alive", "/health/ready"] {
        let reply = app.call(path, payload().to_string()).await;
        assert_eq!(reply.status, 404, "{path}");
        assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_004)], "{path}");
        let reply = app.http.get(app.url(path)).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
    }
    let counted = requests(&app, "flow=\"\",stage=\"\",outcome=\"not_found\"").await;
    assert!((counted - 2.0).abs() < 0.1, "{counted}");
}

#[tokio::test]
async fn a_post_without_a_valid_key_is_counted_and_raises_no_alarm() {
    let kratos = FakeKratos::start();
    let app = TestApp::with(
        "kratos: {admin_url: \"${env:KRATOS}\"}\n\
         subscriptions: {crm: {events: [identity.created], send: {post: \"http://127.0.0.1:9/\"}}}",
    )
    .kratos("KRATOS", &kratos)
    .start()
    .await;
    let visitor = payload();
    assert!(app.pre(&visitor).await.is_admitted());
    app.wait_for_pending_sign_up(&visitor).await;
    let path = "/hooks/registration/post?method=hooks_port_key";
    let mut count = 0.0;
    for headers in [
        &[][..],
        &[("X-Vestibule-Key", "wrong")],
        &[("X-Vestibule-Key", "")],
    ] {
        for body in ["", "{}", &visitor.clone().saved().to_string()] {
            let reply = app.call_with(path, body.to_owned(), headers).await;
            assert_eq!(reply.status, 401);
            assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_004)]);
            count += 1.0;
        }
    }
    let counted = requests(
        &app,
        "flow=\"registration\",stage=\"post\",outcome=\"unauthorized\"",
    )
    .await;
    assert!((counted - count).abs() < 0.1, "{counted}");
    let metrics = app.admin_get("/metrics").await.text;
    let alarm = metrics
        .lines()
        .find(|line| line.starts_with("vestibule_lost_posts_total{"));
    assert_eq!(alarm, None);
    assert_eq!(logs::lines_with("hooks_port_key").len(), 1);
    assert_eq!(
        kratos.service.request_lines(),
        Vec::<String>::new(),
        "nothing is looked up"
    );

    // With a valid key, the same body is a lost `post`.
    assert_eq!(app.call(POST, "").await.status, 204);
    let alarms = "vestibule_lost_posts_total{reason=\"unreadable\"}";
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
    app.eventually("the sign-up is looked up", async || {
        (!kratos.service.request_lines().is_empty()).then_some(())
    })
    .await;
}
