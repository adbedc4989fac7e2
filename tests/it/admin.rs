//! The admin API for deliveries.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;
use vestibule::base::clock::saturating_add;
use vestibule::model::delivery::{DeliveryOrder, Event, NewDelivery, State, time_ordered_id};
use vestibule::store::{Filter, WriteSet};

use crate::support::app::Reply;
use crate::support::failing_store::FailingStore;
use crate::support::{FakeService, TestApp, payload};

const CRM: &str = r#"
subscriptions:
  contact: {events: [identity.created], retry: {max_elapsed: 2d}, send: {post: "${env:CRM}/contacts"}}
"#;
const ADA: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);

/// Starts an app with deliveries that could not be built, so the dispatcher does not claim them. They are a minute apart.
async fn app_with_unbuilt_deliveries<const N: usize>(
    new: [(&str, Uuid); N],
) -> (TestApp, [Uuid; N]) {
    let app = TestApp::with("").start().await;
    let mut at = app.clock.now();
    let ids = new.map(|(subscription, identity)| {
        at = saturating_add(at, Duration::from_mins(1));
        NewDelivery {
            id: time_ordered_id(at),
            subscription: subscription.to_owned(),
            event: Event::IdentityCreated,
            unique_key: identity.to_string(),
            identity_id: identity,
            action: Err("the request could not be built".to_owned()),
            order: DeliveryOrder::default(),
            context: None,
            created_at: at,
            due_at: at,
            keep_trying_until: at,
        }
    });
    let store = &app.app.store;
    let stored = store.write(&WriteSet::of(ids.to_vec())).await;
    assert_eq!(stored.expect("the deliveries are stored").len(), N);
    (app, ids.map(|delivery| delivery.id))
}

/// Starts an app with a delivery that its target rejected.
async fn app_with_abandoned_delivery(crm: &FakeService) -> (TestApp, Uuid) {
    crm.respond_with(410, &json!({}));
    let app = TestApp::with(CRM).service("CRM", crm).start().await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next_call().await;
    let one = wait_for_state(&app, State::Abandoned).await;
    (app, one)
}

async fn wait_for_state(app: &TestApp, state: State) -> Uuid {
    app.eventually(&format!("the delivery is {state}"), async || {
        let all = app.app.store.list(&Filter::default(), 10).await;
        let newest = all.expect("a list").swap_remove(0);
        (newest.state == state).then_some(newest.id)
    })
    .await
}

async fn list_deliveries(app: &TestApp, query: &str) -> (Vec<String>, Value) {
    let reply = app.admin_get(&format!("/deliveries{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text);
    let page = reply.json();
    let ids = page["deliveries"].as_array().expect("a list").iter();
    let ids = ids.map(|one| one["id"].as_str().expect("an id").to_owned());
    (ids.collect(), page["next_cursor"].clone())
}

/// Asserts that the API reported an error with a message and a `help` line, and returns both.
fn assert_error(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.text);
    let body = reply.json();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    assert!(!text("message").is_empty(), "{body}");
    format!("{}; {}", text("message"), text("help"))
}

#[tokio::test]
async fn deliveries_can_be_listed_by_subscription_state_identity_and_time() {
    let (app, [one, two, three]) =
        app_with_unbuilt_deliveries([("crm", ADA), ("erp", ADA), ("crm", BOB)]).await;
    app.app
        .store
        .discard(
            &Filter {
                ids: vec![two],
                ..Filter::default()
            },
            app.clock.now(),
        )
        .await
        .unwrap();
    for (query, expected) in [
        ("", vec![three, two, one]),
        ("?subscription=crm", vec![three, one]),
        ("?state=discarded", vec![two]),
        ("?state=abandoned&subscription=crm", vec![three, one]),
        (&format!("?identity={ADA}"), vec![two, one]),
        ("?since=2026-11-23T14:34:53Z", vec![three, two]),
        ("?until=2026-11-23T14:34:53Z", vec![one]),
        ("?since=2026-11-24", vec![]),
        ("?since=2026-11-23&until=2026-11-24", vec![three, two, one]),
        ("?subscription=nothing", vec![]),
    ] {
        let expected: Vec<String> = expected.iter().map(Uuid::to_string).collect();
        assert_eq!(
            list_deliveries(&app, query).await,
            (expected, Value::Null),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_client_reads_a_long_list_page_by_page() {
    let (app, [one, two, three]) =
        app_with_unbuilt_deliveries([("a", ADA), ("b", ADA), ("c", ADA)]).await;
    let (first, next) = list_deliveries(&app, "?limit=2").await;
    assert_eq!(first, [three.to_string(), two.to_string()]);
    assert_eq!(next, two.to_string());
    let (second, next) = list_deliveries(&app, &format!("?limit=2&cursor={two}")).await;
    assert_eq!((second, next), (vec![one.to_string()], Value::Null));
    let (all, next) = list_deliveries(&app, "?limit=3").await;
    assert_eq!(
        (all.len(), next),
        (3, Value::Null),
        "the last page has no cursor"
    );
}

#[tokio::test]
async fn the_api_shows_a_delivery_with_its_attempts_and_without_personal_data() {
    let crm = FakeService::start();
    let (app, id) = app_with_abandoned_delivery(&crm).await;
    let reply = app.admin_get(&format!("/deliveries/{id}")).await;
    assert_eq!(reply.status, 200);
    let shown = reply.json();
    assert_eq!(shown["id"], id.to_string());
    assert_eq!(shown["state"], "abandoned");
    assert_eq!(shown["keep_trying_until"], "2026-11-25T14:32:53Z");
    assert_eq!(shown["payload_kept"], true);
    assert_eq!(shown["tries"][0]["attempt"], 1);
    assert_eq!(shown["tries"][0]["status"], 410);
    for text in [reply.text, app.admin_get("/deliveries").await.text] {
        assert!(!text.to_lowercase().contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn the_api_answers_404_for_an_unknown_delivery() {
    let app = TestApp::with("").start().await;
    let error = assert_error(&app.admin_get(&format!("/deliveries/{ADA}")).await, 404);
    assert!(error.contains(&ADA.to_string()), "{error}");
}

#[tokio::test]
async fn a_retry_is_sent_immediately_and_gets_the_max_elapsed_of_its_subscription() {
    let crm = FakeService::start();
    let (app, id) = app_with_abandoned_delivery(&crm).await;
    app.clock.advance(Duration::from_hours(24 * 10));
    crm.respond_with(503, &json!({}));
    let reply = app
        .admin_post("/deliveries/retry", json!({"ids": [id]}).to_string())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(
        reply.json(),
        json!({"changed": 1, "skipped": [], "out_of_order": 0})
    );
    // The clock does not advance, so the dispatcher was woken.
    crm.next_call().await;
    let shown = app.admin_get(&format!("/deliveries/{id}")).await.json();
    assert_eq!(shown["keep_trying_until"], "2026-12-05T14:32:53Z");
}

#[tokio::test]
async fn the_api_reports_skipped_deliveries_with_the_reason() {
    let crm = FakeService::start();
    let app = TestApp::with(CRM).service("CRM", &crm).start().await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let id = wait_for_state(&app, State::Delivered).await;
    for path in ["/deliveries/retry", "/deliveries/discard"] {
        let reply = app
            .admin_post(path, json!({"ids": [id, ADA]}).to_string())
            .await
            .json();
        let skipped = json!([
            {"id": id, "reason": "it is delivered"},
            {"id": ADA, "reason": "the delivery does not exist"},
        ]);
        assert_eq!(
            (&reply["changed"], &reply["skipped"]),
            (&json!(0), &skipped)
        );
    }
}

#[tokio::test]
async fn an_operator_discards_deliveries_by_id_and_by_filter() {
    let (app, [one, two, three]) =
        app_with_unbuilt_deliveries([("crm", ADA), ("erp", ADA), ("crm", BOB)]).await;
    let discard = async |body: Value| {
        let reply = app
            .admin_post("/deliveries/discard", body.to_string())
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["changed"].clone()
    };
    assert_eq!(discard(json!({"ids": [two]})).await, 1);
    assert_eq!(
        list_deliveries(&app, "?state=discarded").await.0,
        [two.to_string()]
    );
    let narrowed = json!({"all": true, "subscription": "crm", "state": "abandoned", "identity": ADA,
        "since": "2026-11-23", "until": "2026-11-24"});
    assert_eq!(discard(narrowed).await, 1);
    assert_eq!(
        list_deliveries(&app, "?state=abandoned").await.0,
        [three.to_string()]
    );
    assert_eq!(discard(json!({"all": true})).await, 1);
    let (discarded, _) = list_deliveries(&app, "?state=discarded").await;
    assert_eq!(
        discarded,
        [three, two, one].map(|id| id.to_string()),
        "discarded deliveries are still listed"
    );
}

#[tokio::test]
async fn an_invalid_body_is_reported_and_changes_nothing() {
    let (app, [id]) = app_with_unbuilt_deliveries([("crm", ADA)]).await;
    let many: Vec<Uuid> = (0..1001).map(Uuid::from_u128).collect();
    for (body, expected) in [
        (
            "{}".to_owned(),
            "the body selects no deliveries; send `ids`, or `\"all\": true`",
        ),
        (
            json!({"subscription": "crm"}).to_string(),
            "the body selects no deliveries",
        ),
        (
            json!({"ids": [], "all": false}).to_string(),
            "the body selects no deliveries",
        ),
        (
            json!({"ids": [id], "all": true}).to_string(),
            "the body has both `ids` and `all`",
        ),
        (
            json!({"ids": [id, "x"]}).to_string(),
            "`ids[1]`: `x` is not an id",
        ),
        (json!({"ids": many}).to_string(), "`ids` has 1001 entries"),
        (
            json!({"all": true, "state": "pendng"}).to_string(),
            "`state`: `pendng` is not a state; use one of pending, ",
        ),
        (
            json!({"all": true, "state": "delivered"}).to_string(),
            "delivered deliveries cannot be changed",
        ),
        (
            json!({"all": true, "identity": "ada"}).to_string(),
            "`identity`: `ada` is not an id",
        ),
        (
            json!({"all": true, "since": "yesterday"}).to_string(),
            "`since`: `yesterday` is not a day or a time",
        ),
        (
            json!({"all": true, "since": "2026-11-24", "until": "2026-11-23"}).to_string(),
            "`since` is not before `until`",
        ),
        (
            json!({"all": true, "plna": "crm"}).to_string(),
            "unknown field `plna`, expected one of `ids`, `all`",
        ),
        (
            json!({"all": "true"}).to_string(),
            "expected a boolean at line 1 column 13",
        ),
        (String::new(), "the body cannot be read: EOF"),
        ("all=true".to_owned(), "the body cannot be read"),
    ] {
        for path in ["/deliveries/retry", "/deliveries/discard"] {
            let error = assert_error(&app.admin_post(path, body.clone()).await, 400);
            assert!(error.contains(expected), "{expected} in {error}");
        }
    }
    let long = format!("{{\"subscription\": \"{}\"}}", "x".repeat(256 * 1024));
    let error = assert_error(&app.admin_post("/deliveries/discard", long).await, 413);
    assert!(error.contains("262144 bytes"), "{error}");
    let (untouched, _) = list_deliveries(&app, "?state=abandoned").await;
    assert_eq!(untouched, [id.to_string()]);
}

#[tokio::test]
async fn invalid_query_parameters_are_reported() {
    let app = TestApp::with("").start().await;
    for (path, expected) in [
        (
            "/deliveries?plna=crm",
            "unknown parameter `plna`; known parameters: subscription, state, ",
        ),
        (
            "/deliveries?subscription=a&subscription=b",
            "the parameter `subscription` is repeated",
        ),
        (
            "/deliveries?state=lost",
            "`lost` is not a state; use one of pending, delivered, abandoned, discarded",
        ),
        (
            "/deliveries?identity=ada",
            "`identity`: `ada` is not an id; write an id such as ",
        ),
        (
            "/deliveries?since=2026-13-01",
            "`since`: `2026-13-01` is not a day or a time",
        ),
        ("/deliveries?until=now", "`until`: `now` is not a day"),
        (
            "/deliveries?since=2026-11-02&until=2026-11-01",
            "`since` is not before `until`",
        ),
        (
            "/deliveries?limit=0",
            "`limit`: `0` is not a number from 1 to 1000",
        ),
        ("/deliveries?limit=1001", "is not a number from 1 to 1000"),
        ("/deliveries?cursor=1", "`cursor`: `1` is not an id"),
        ("/deliveries/first", "`id`: `first` is not an id"),
    ] {
        let error = assert_error(&app.admin_get(path).await, 400);
        assert!(error.contains(expected), "{expected} in {error}");
    }
}

#[tokio::test]
async fn a_web_page_in_an_operators_browser_cannot_change_deliveries() {
    let (app, [id]) = app_with_unbuilt_deliveries([("crm", ADA)]).await;
    // What a page of another site can send without a preflight request: a form, or text.
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/json-patch+json"),
    ] {
        let url = format!("http://{}/deliveries/discard", app.app.admin_address);
        let mut request = app.http.post(url).body(r#"{"all": true}"#);
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 415, "{kind:?}");
        let body: Value = response.json().await.unwrap();
        assert!(
            body["error"]["help"]
                .as_str()
                .unwrap()
                .contains("`Content-Type: application/json`"),
            "{body}"
        );
    }
    // The preflight request is not granted.
    let url = format!("http://{}/deliveries/discard", app.app.admin_address);
    let asked = app
        .http
        .request(reqwest::Method::OPTIONS, url)
        .header("Origin", "https://example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type");
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(
        response
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
    assert_eq!(
        list_deliveries(&app, "?state=abandoned").await.0,
        [id.to_string()]
    );
}

#[tokio::test]
async fn a_json_content_type_may_have_a_charset() {
    let (app, [id]) = app_with_unbuilt_deliveries([("crm", ADA)]).await;
    let url = format!("http://{}/deliveries/discard", app.app.admin_address);
    let request = app
        .http
        .post(url)
        .header("Content-Type", "Application/JSON; charset=utf-8")
        .body(json!({"ids": [id]}).to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_wrong_path_gets_404_and_a_wrong_method_gets_405() {
    let app = TestApp::with("").start().await;
    let error = assert_error(&app.admin_get("/delivery").await, 404);
    assert!(
        error.contains("/delivery; use one of ") && error.contains("/deliveries/retry"),
        "{error}"
    );
    let reply = app.admin_get("/deliveries/retry").await;
    let error = assert_error(&reply, 405);
    assert!(error.contains("does not support GET; use POST"), "{error}");
    assert_eq!(reply.headers["allow"], "POST");
    let reply = app.admin_post("/deliveries", "{}").await;
    assert_error(&reply, 405);
    assert_eq!(reply.headers["allow"], "GET");
}

#[tokio::test]
async fn the_api_answers_503_with_a_message_while_the_database_fails() {
    let folder = tempfile::tempdir().unwrap();
    let store = FailingStore::in_folder(folder.path()).await;
    let app = TestApp::with("").store(store.clone()).start().await;
    store.set_failing(true);
    let replies = [
        app.admin_get("/deliveries").await,
        app.admin_get(&format!("/deliveries/{ADA}")).await,
        app.admin_post("/deliveries/retry", r#"{"all": true}"#)
            .await,
        app.admin_post("/deliveries/discard", json!({"ids": [ADA]}).to_string())
            .await,
    ];
    for reply in &replies {
        let error = assert_error(reply, 503);
        assert!(error.contains("database error"), "{error}");
    }
    store.set_failing(false);
    assert_eq!(app.admin_get("/deliveries").await.status, 200);
}

#[tokio::test]
async fn the_hooks_port_does_not_serve_the_admin_api() {
    let app = TestApp::with("").start().await;
    for path in ["/deliveries", "/openapi.json"] {
        let reply = app.http.get(app.url(path)).send().await.unwrap();
        assert_eq!(reply.status(), 404, "{path}");
    }
    let reply = app.call("/deliveries/discard", r#"{"all": true}"#).await;
    assert_eq!(reply.status, 404);
}

#[tokio::test]
async fn the_api_shows_no_text_of_a_receiver() {
    let crm = FakeService::start();
    crm.respond_with(
        422,
        &json!({"title": "Invalid name", "detail": "the canary of Ms Lovelace is unknown"}),
    );
    let app = TestApp::with(
        "subscriptions: {crm: {events: [identity.created], send: {post: \"${env:CRM}/x\"}}}",
    )
    .service("CRM", &crm)
    .start()
    .await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let failed = app
        .eventually("an attempt has failed", async || {
            let all = app.deliveries("crm").await;
            all.into_iter().find(|one| one.last_error.is_some())
        })
        .await;
    // The store, which the command line reads, has the text.
    assert!(failed.last_error.unwrap().contains("Lovelace"));
    let list = app.admin_get("/deliveries").await;
    let shown = app.admin_get(&format!("/deliveries/{}", failed.id)).await;
    let expected = r#"status 422: {"title":"Invalid name"}"#;
    assert_eq!(list.json()["deliveries"][0]["last_error"], expected);
    assert_eq!(shown.json()["last_error"], expected);
    assert_eq!(shown.json()["tries"][0]["error"], expected);
    for reply in [list, shown] {
        assert!(!reply.text.contains("Lovelace"), "{}", reply.text);
    }
}

#[tokio::test]
async fn a_body_that_never_ends_gets_400_after_five_seconds() {
    let app = TestApp::with("").start().await;
    let mut connection = tokio::net::TcpStream::connect(app.app.admin_address)
        .await
        .unwrap();
    let head = "POST /deliveries/retry HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{\"all";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 2048];
    let advance = app.eventually("the request is answered", async || {
        app.clock.advance(Duration::from_secs(1));
        None::<()>
    });
    let length = tokio::select! {
        read = connection.read(&mut answer) => read.unwrap(),
        () = advance => unreachable!("it has a bound"),
    };
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
