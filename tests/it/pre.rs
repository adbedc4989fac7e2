//! `pre` always gives Kratos a valid response, regardless of what fails.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::json;

use crate::support::app::{KEY, OTHER_KEY};
use crate::support::failing_store::{FailingStore, Fault};
use crate::support::fake_invites::FakeInvites;
use crate::support::{FakeService, TestApp, bounded, payload};

const PATH: &str = "/hooks/registration/pre?method=password";

/// One check that asks a register.
const REGISTER: &str = r#"
checks:
  vat_number:
    field: traits.vat_number
    ask: {get: "${env:REGISTER}/vat/{value}"}
    refuse: [{when: 404, message: "This number is not registered."}]
"#;

const RESERVES: &str = r#"
checks:
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 409, message: "This invite is used up."}]
"#;

#[tokio::test]
async fn an_accepted_sign_up_gets_204_without_a_body() {
    let register = FakeService::start();
    let app = TestApp::with(REGISTER)
        .service("REGISTER", &register)
        .start()
        .await;
    let reply = app.pre(&payload()).await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    let request = register.next_call().await;
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("GET", "/vat/DE-canary-1")
    );
}

#[tokio::test]
async fn a_refusal_is_400_with_the_message_on_the_field() {
    let register = FakeService::start();
    register.respond_with(404, &json!({}));
    let app = TestApp::with(REGISTER)
        .service("REGISTER", &register)
        .start()
        .await;
    let reply = app.pre(&payload()).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.headers["content-type"], "application/json");
    insta::assert_json_snapshot!(reply.json(), @r###"
    {
      "messages": [
        {
          "instance_ptr": "#/traits/vat_number",
          "messages": [
            {
              "id": 4900000,
              "text": "This number is not registered.",
              "type": "error",
              "context": {
                "check": "vat_number",
                "field": "traits.vat_number"
              }
            }
          ]
        }
      ]
    }
    "###);
}

#[tokio::test]
async fn an_unreadable_body_is_refused_with_a_message() {
    let app = TestApp::with("").start().await;
    let good = payload().to_string();
    let cut = good[..good.len() / 2].to_owned();
    let bodies = [
        ("empty", String::new()),
        ("white space", " \r\n".to_owned()),
        ("truncated", cut),
        ("not JSON", "canary".to_owned()),
        ("null", "null".to_owned()),
        ("a list", "[]".to_owned()),
        ("an empty object", "{}".to_owned()),
        (
            "a version that is a text",
            payload().with("/version", "canary").to_string(),
        ),
        (
            "a flow that is a text",
            payload().with("/flow", "canary").to_string(),
        ),
        (
            "a flow without id",
            payload().without("/flow/id").to_string(),
        ),
        (
            "an identity that is a list",
            payload().with("/identity", json!([])).to_string(),
        ),
        (
            "traits that are a text",
            payload().with("/identity/traits", "canary").to_string(),
        ),
        (
            "no traits",
            payload().without("/identity/traits").to_string(),
        ),
        (
            "nodes that are a text",
            payload().with("/nodes", "canary").to_string(),
        ),
        (
            "headers that are a list",
            payload()
                .with("/request/headers", json!(["canary"]))
                .to_string(),
        ),
        ("too deep", "[".repeat(100_000)),
    ];
    for (name, body) in bodies {
        let reply = app.call(PATH, body).await;
        assert_eq!(reply.status, 400, "{name}");
        assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)], "{name}");
    }
}

#[tokio::test]
async fn a_body_of_256_kib_is_read_and_one_byte_more_is_refused() {
    let app = TestApp::with("").start().await;
    let sized = |size: usize| {
        let short = payload()
            .with("/flow/transient_payload/filler", "")
            .to_string();
        payload()
            .with(
                "/flow/transient_payload/filler",
                "x".repeat(size - short.len()),
            )
            .to_string()
    };
    let most = sized(256 * 1024);
    assert_eq!(most.len(), 262_144);
    assert_eq!(app.call(PATH, most).await.status, 204);
    let reply = app.call(PATH, sized(256 * 1024 + 1)).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)]);
    let reply = app.call(PATH, sized(8 * 1024 * 1024)).await;
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)]);
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused_at_the_deadline() {
    let app = TestApp::with("").start().await;
    let address = app.app.hooks_address;
    let (sent, part_is_sent) = tokio::sync::oneshot::channel();
    let caller = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        write!(stream, "POST {PATH} HTTP/1.1\r\nHost: vestibule\r\nX-Vestibule-Key: {KEY}\r\nContent-Length: 1000\r\n\r\n{{\"vers").unwrap();
        sent.send(()).unwrap();
        let mut answer = [0; 2048];
        let length = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    });
    bounded("a part of the call is sent", part_is_sent)
        .await
        .unwrap();
    // The deadline counts from the head of the request, so the clock advances until the response is there.
    app.eventually("the call is answered", async || {
        app.clock.advance(Duration::from_secs(1));
        caller.is_finished().then_some(())
    })
    .await;
    let answer = caller.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("4900001"), "{answer}");
}

#[tokio::test]
async fn a_wrong_or_missing_key_gets_401_with_a_message_and_no_service_is_asked() {
    let register = FakeService::start();
    let app = TestApp::with(REGISTER)
        .service("REGISTER", &register)
        .start()
        .await;
    let body = payload().to_string();
    let wrong: [&[(&str, &str)]; 5] = [
        &[],
        &[("X-Vestibule-Key", "")],
        &[("X-Vestibule-Key", "canary-key-one-012345678")],
        &[("X-Vestibule-Key", "canary-key-one-01234567890")],
        &[("Authorization", KEY)],
    ];
    for headers in wrong {
        for path in [
            PATH,
            "/hooks/registration/post?method=password",
            "/hooks/settings/pre?method=profile",
        ] {
            let reply = app.call_with(path, body.clone(), headers).await;
            assert_eq!(reply.status, 401, "{headers:?}");
            assert_eq!(
                reply.refused(),
                [("#/".to_owned(), 4_900_004)],
                "{headers:?}"
            );
        }
    }
    assert!(register.received().is_empty());
}

#[tokio::test]
async fn two_keys_are_valid_at_the_same_time() {
    let app = TestApp::with("hooks: {keys: [\"${env:VESTIBULE_KEY}\", \"${env:OTHER}\"]}")
        .env("OTHER", OTHER_KEY)
        .start()
        .await;
    for key in [KEY, OTHER_KEY] {
        let reply = app
            .call_with(PATH, payload().to_string(), &[("X-Vestibule-Key", key)])
            .await;
        assert_eq!(reply.status, 204);
    }
    let reply = app
        .call_with(
            PATH,
            payload().to_string(),
            &[("X-Vestibule-Key", "canary-key-three-456789")],
        )
        .await;
    assert_eq!(reply.status, 401);
}

#[tokio::test]
async fn an_unknown_url_or_method_is_refused_with_a_message() {
    let app = TestApp::with("").start().await;
    for (path, status) in [
        ("/hooks/registration/during?method=password", 404),
        ("/hooks/login/post?method=password", 404),
        ("/hooks/registration", 404),
        ("/hooks/registration/pre/password", 404),
        ("/", 404),
        ("/metrics", 404),
    ] {
        let reply = app.call(path, payload().to_string()).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_004)], "{path}");
    }
    for method in [
        reqwest::Method::GET,
        reqwest::Method::PUT,
        reqwest::Method::DELETE,
    ] {
        let request = app
            .http
            .request(method.clone(), app.url(PATH))
            .header("X-Vestibule-Key", KEY);
        let reply = request.body(payload().to_string()).send().await.unwrap();
        assert_eq!(reply.status(), 405, "{method}");
        assert!(reply.text().await.unwrap().contains("4900004"), "{method}");
    }
}

#[tokio::test]
async fn an_unusual_query_string_is_accepted() {
    let app = TestApp::with("").start().await;
    for query in [
        "",
        "?",
        "?method=",
        "?method=Password%20%7B",
        "?method=password&method=oidc",
        "?%ff=%ff",
        "?method",
    ] {
        let reply = app
            .call(
                &format!("/hooks/registration/pre{query}"),
                payload().to_string(),
            )
            .await;
        assert_eq!(reply.status, 204, "{query}");
    }
}

#[tokio::test]
async fn a_message_has_no_braces_and_no_angle_bracket() {
    let app = TestApp::with(
        "checks: {never: {field: traits.invite, refuse: [{when: \"true\", message: \"{value} is {{not}} <b>ours\"}]}}",
    )
    .start()
    .await;
    let reply = app
        .pre(&payload().with_trait("invite", "canary{x}<script>"))
        .await;
    let messages = reply.messages();
    assert_eq!(messages[0].2, "canary(x)‹script> is (not) ‹b>ours");
}

#[tokio::test]
async fn a_panic_during_a_check_refuses_with_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let invites = FakeInvites::with_uses(1);
    let app = TestApp::with(RESERVES)
        .env("INVITES", &invites.url())
        .store(store.clone())
        .start()
        .await;
    // The check reads the reservations of the flow before it asks the service.
    store.set_fault(Some(Fault::PanicIn("flow")));
    let reply = app.pre(&payload()).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.refused(), [("#/".to_owned(), 4_900_001)]);
    let internal_errors = "vestibule_hook_requests_total{flow=\"registration\",stage=\"pre\",outcome=\"internal_error\"}";
    assert!((app.metric(internal_errors).await - 1.0).abs() < 0.1);
    assert_eq!(invites.hold_requests(), 0);
}
