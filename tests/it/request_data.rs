//! Data of the visitor's request: the address, listed headers, the URL that opened the flow; and bodies of old templates.

use serde_json::{Value, json};

use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, logs, payload};

const PRE: &str = "/hooks/registration/pre?method=password";
const NOT_POSSIBLE: u64 = 4_900_004;

/// A body of version 1, which lists no headers.
fn version_1() -> Payload {
    payload()
        .with("/version", 1)
        .without("/forwarded_headers")
        .without("/flow/request_url")
}

fn forwarding(headers: &[&str]) -> Payload {
    let all = ["Accept-Language", "User-Agent", "True-Client-Ip"];
    let all: Vec<&&str> = all.iter().chain(headers).collect();
    payload().with("/forwarded_headers", json!(all))
}

async fn start(settings: &str, service: &FakeService) -> TestApp {
    TestApp::with(settings)
        .service("SERVICE", service)
        .start()
        .await
}

async fn misconfigurations(app: &TestApp, reason: &str) -> f64 {
    let name = format!("vestibule_hook_misconfigurations_total{{reason=\"{reason}\"}}");
    app.metric(&name).await
}

#[tokio::test]
async fn the_address_of_the_visitor_is_counted_from_the_right() {
    let service = FakeService::start();
    let app = start(
        "hooks: {client_ip: {header: x-forwarded-for, trusted_proxies: 2}}\n\
         checks: {ip: {ask: {post: \"${env:SERVICE}/\", json: {ip: \"{request.client_ip}\"}}}}",
        &service,
    )
    .await;
    let mut without = 0.0;
    for (header, expected) in [
        (json!("203.0.113.7, 192.0.2.1"), json!("203.0.113.7")),
        (
            json!("198.51.100.1, 203.0.113.7:4711, 192.0.2.1"),
            json!("203.0.113.7"),
        ),
        (
            json!("forged, 2001:DB8::7, [2001:db8::1]:443"),
            json!("2001:db8::7"),
        ),
        (json!("::ffff:203.0.113.7, 192.0.2.1"), json!("203.0.113.7")),
        (json!("192.0.2.1"), Value::Null),
        (json!("203.0.113.7, unknown, 192.0.2.1"), Value::Null),
        (json!("203.0.113.7, , 192.0.2.1"), Value::Null),
        (json!(""), Value::Null),
        (Value::Null, Value::Null),
        (json!({"not": "a text"}), Value::Null),
    ] {
        let mut visitor =
            forwarding(&["X-Forwarded-For"]).with("/flow/id", crate::support::app::uuid());
        if !header.is_null() {
            visitor = visitor.with("/request/headers/X-Forwarded-For", header.clone());
        }
        assert_eq!(app.pre(&visitor).await.status, 204, "{header}");
        let asked = service.next_call().await.json();
        assert_eq!(asked, json!({"ip": expected}), "{header}");
        without += f64::from(u8::from(expected.is_null()));
    }
    let counted = misconfigurations(&app, "without_client_ip").await;
    assert!((counted - without).abs() < 0.1, "{counted}");
    let line = "no address at its place in `X-Forwarded-For`";
    assert_eq!(logs::lines_with(line).len(), 1, "once an hour");
}

#[tokio::test]
async fn a_header_with_one_address_needs_no_current_template() {
    let service = FakeService::start();
    let app = start(
        "hooks: {client_ip: {header: True-Client-Ip}}\n\
         checks: {ip: {ask: {post: \"${env:SERVICE}/\", json: {ip: \"{request.client_ip}\"}}}}",
        &service,
    )
    .await;
    for visitor in [version_1(), payload()] {
        assert_eq!(app.pre(&visitor).await.status, 204);
        let asked = service.next_call().await.json();
        assert_eq!(asked, json!({"ip": "192.0.2.7"}));
    }
}

#[tokio::test]
async fn without_the_setting_there_is_no_address() {
    let service = FakeService::start();
    let app = start(
        "checks: {ip: {ask: {post: \"${env:SERVICE}/\", json: {request: \"{request}\"}}}}",
        &service,
    )
    .await;
    assert_eq!(app.pre(&payload()).await.status, 204);
    let request = service.next_call().await.json()["request"].clone();
    assert_eq!(request.get("client_ip"), None);
    assert_eq!(request["headers"]["True-Client-Ip"], "192.0.2.7");
}

#[tokio::test]
async fn the_address_is_in_the_delivery_of_the_account() {
    let service = FakeService::start();
    let app = start(
        "hooks: {client_ip: {header: X-Forwarded-For}}\n\
         subscriptions: {crm: {events: [identity.created], send: {post: \"${env:SERVICE}/\", json: {ip: \"{request.client_ip}\"}}}}",
        &service,
    )
    .await;
    let visitor = forwarding(&["X-Forwarded-For"])
        .with("/request/headers/X-Forwarded-For", "forged, 203.0.113.7");
    assert!(app.pre(&visitor).await.is_admitted());
    assert_eq!(app.post(&visitor.saved()).await.status, 204);
    assert_eq!(
        service.next_call().await.json(),
        json!({"ip": "203.0.113.7"})
    );
}

#[tokio::test]
async fn a_check_reads_listed_headers_the_opened_url_and_the_provider() {
    let app = TestApp::with(
        "hooks: {headers: [x-country]}\n\
         lists: {links: [FRIENDS]}\n\
         checks:\n  country: {refuse: [{when: \"request.headers[?'X-Country'].orValue('') == 'XX'\", message: {id: 4900201, en: \"No.\"}}]}\n  \
         link: {refuse: [{when: \"!(query_parameter(flow.request_url, 'invite') in lists.links)\", message: {id: 4900202, en: \"No.\"}}]}\n  \
         provider: {refuse: [{when: \"flow.provider == 'forbidden'\", message: {id: 4900203, en: \"No.\"}}]}\n",
    )
    .start()
    .await;
    let visitor = || {
        forwarding(&["X-Country"])
            .with("/flow/id", crate::support::app::uuid())
            .with("/flow/request_url", "http://kratos/browser?invite=FRIENDS")
    };
    for good in [
        visitor(),
        visitor().with("/request/headers/X-Country", "DE"),
        visitor().with("/flow/provider", "allowed"),
        visitor().with(
            "/flow/request_url",
            "http://kratos/api?a=b&invite=FRIEN%44S",
        ),
    ] {
        assert_eq!(app.pre(&good).await.status, 204, "{good}");
    }
    for (bad, id) in [
        (
            visitor().with("/request/headers/X-Country", "XX"),
            4_900_201,
        ),
        (
            visitor().with("/flow/request_url", "http://kratos/browser?invite=canary"),
            4_900_202,
        ),
        (
            visitor().with("/flow/request_url", "http://kratos/browser"),
            4_900_202,
        ),
        (visitor().without("/flow/request_url"), 4_900_202),
        (visitor().with("/flow/provider", "forbidden"), 4_900_203),
    ] {
        let refused = app.pre(&bad).await.refused();
        assert_eq!(refused, [("#/".to_owned(), id)], "{bad}");
    }
}

#[tokio::test]
async fn version_1_is_accepted_if_the_settings_need_nothing_of_version_2() {
    let app = TestApp::with(
        "checks: {a: {refuse: [{when: \"request.headers['User-Agent'] == 'x' || flow.type == 'x'\"}]}}",
    )
    .start()
    .await;
    assert_eq!(app.pre(&version_1()).await.status, 204);
    assert_eq!(app.post(&version_1().saved()).await.status, 204);
    let changed = version_1().changed_from(&json!({"email": "canary@example.org"}));
    assert_eq!(app.settings(&changed).await.status, 204);
    assert!(misconfigurations(&app, "old_template").await < 0.1);
}

/// The key that each of these settings needs, and a body without it.
#[tokio::test]
async fn an_old_template_is_refused_with_not_possible_and_reported() {
    for (settings, missing, body) in [
        (
            "checks: {a: {when: \"flow.request_url == ''\"}}",
            "the settings need `flow.request_url`, which the template of `selfservice.flows.registration.after.password.hooks`",
            version_1(),
        ),
        (
            "checks: {a: {when: \"flow.provider == 'a'\"}}",
            "the settings need `flow.provider`,",
            version_1(),
        ),
        (
            "checks: {a: {flows: [settings], when: \"previous.state == 'inactive'\"}}",
            "the settings need `previous.state`,",
            version_1(),
        ),
        (
            "hooks: {headers: [X-Tenant]}",
            "the settings need the request header `X-Tenant`,",
            version_1(),
        ),
        (
            "hooks: {client_ip: {header: X-Real-Ip}}",
            "the settings need the request header `X-Real-Ip`,",
            // A template of the current version that was printed for other settings.
            forwarding(&["X-Forwarded-For"]).with("/request/headers/X-Real-Ip", "192.0.2.1"),
        ),
        (
            "subscriptions: {crm: {events: [identity.created], send: {post: \"http://127.0.0.1:9/\", form: {a: \"{flow.request_url}\"}}}}",
            "the settings need `flow.request_url`,",
            version_1(),
        ),
    ] {
        let app = TestApp::with(settings).start().await;
        let reply = app.pre(&body).await;
        assert_eq!(
            reply.refused(),
            [("#/".to_owned(), NOT_POSSIBLE)],
            "{settings}"
        );
        let changed = body.clone().changed_from(&json!({}));
        let reply = app.settings(&changed).await;
        assert_eq!(
            reply.refused(),
            [("#/".to_owned(), NOT_POSSIBLE)],
            "{settings}"
        );
        assert!((misconfigurations(&app, "old_template").await - 2.0).abs() < 0.1);
        assert!(!logs::lines_with(missing).is_empty(), "{missing}");
        let requests = "vestibule_hook_requests_total{flow=\"registration\",stage=\"pre\",outcome=\"misconfigured\"}";
        assert!((app.metric(requests).await - 1.0).abs() < 0.1);
    }
}

#[tokio::test]
async fn a_post_of_an_old_template_is_delivered_and_reported() {
    let service = FakeService::start();
    let app = start(
        "hooks: {headers: [X-Tenant]}\n\
         subscriptions: {crm: {events: [identity.created], send: {post: \"${env:SERVICE}/\", json: {id: \"{identity.id}\"}}}}",
        &service,
    )
    .await;
    let saved = version_1().saved();
    assert_eq!(app.post(&saved).await.status, 204);
    assert_eq!(
        service.next_call().await.json()["id"],
        saved.0["identity"]["id"]
    );
    assert!((misconfigurations(&app, "old_template").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_login_needs_nothing_of_version_2() {
    let app = TestApp::with("hooks: {headers: [X-Tenant]}").start().await;
    for path in ["/hooks/login/pre?method=password", "/hooks/recovery/pre"] {
        let reply = app.call(path, version_1().saved().to_string()).await;
        assert_eq!(reply.status, 204, "{path}");
    }
}

#[tokio::test]
async fn an_unknown_version_is_refused_with_not_possible_and_reported() {
    let app = TestApp::with("").start().await;
    for version in [0, 3, 99] {
        for path in [
            PRE,
            "/hooks/settings/pre?method=profile",
            "/hooks/login/pre?method=password",
            "/hooks/recovery/pre",
        ] {
            let body = payload().saved().with("/version", version).to_string();
            let reply = app.call(path, body).await;
            assert_eq!(
                reply.refused(),
                [("#/".to_owned(), NOT_POSSIBLE)],
                "{version} {path}"
            );
        }
    }
    assert!((misconfigurations(&app, "template_version").await - 12.0).abs() < 0.1);
    assert!(
        !logs::lines_with("the body has version 99, but this Vestibule reads the versions 1 to 2")
            .is_empty()
    );
    // The account exists, so a `post` that cannot be read is an alarm.
    let body = payload().saved().with("/version", 3).to_string();
    let reply = app
        .call("/hooks/registration/post?method=password", body)
        .await;
    assert_eq!(reply.status, 204);
    let alarms = "vestibule_lost_posts_total{reason=\"unreadable\"}";
    assert!((app.metric(alarms).await - 1.0).abs() < 0.1);
}
