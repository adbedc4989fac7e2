//! What an operator does with deliveries over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::saturating_add;
use vestibule::model::delivery::{Event, NewDelivery, State, time_ordered_id};
use vestibule::store::Filter;

use crate::support::app::Reply;
use crate::support::failing::Failing;
use crate::support::{FakeService, TestApp, payload};

const CRM: &str = r#"
subscriptions:
  contact: {events: [identity.created], retry: {max_elapsed: 2d}, send: {post: "${env:CRM}/contacts"}}
"#;
const ADA: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);

/// Deliveries that could not be built, so that no worker takes them up: a minute lies between one and the next.
async fn keeping<const N: usize>(made: [(&str, Uuid); N]) -> (TestApp, [Uuid; N]) {
    let app = TestApp::with("").start().await;
    let mut at = app.hand.now();
    let ids = made.map(|(plan, identity)| {
        at = saturating_add(at, Duration::from_mins(1));
        NewDelivery {
            id: time_ordered_id(at),
            subscription: plan.to_owned(),
            event: Event::IdentityCreated,
            unique_key: identity.to_string(),
            identity_id: identity,
            action: Err("the request could not be built".to_owned()),
            context: None,
            created_at: at,
            due_at: at,
            keep_trying_until: at,
        }
    });
    let store = &app.app.store;
    assert_eq!(
        store.accept(ids.to_vec()).await.expect("they are stored"),
        N
    );
    (app, ids.map(|new| new.id))
}

/// A delivery that its receiver does not want.
async fn abandoned(crm: &FakeService) -> (TestApp, Uuid) {
    crm.answers(410, &json!({}));
    let app = TestApp::with(CRM).service("CRM", crm).start().await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    crm.next().await;
    let one = reaches(&app, State::Abandoned).await;
    (app, one)
}

async fn reaches(app: &TestApp, state: State) -> Uuid {
    loop {
        let all = app
            .app
            .store
            .list(&Filter::default(), 10)
            .await
            .expect("a list");
        if all[0].state == state {
            return all[0].id;
        }
        tokio::task::yield_now().await;
    }
}

async fn listed(app: &TestApp, query: &str) -> (Vec<String>, Value) {
    let reply = app.admin(&format!("/deliveries{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.text);
    let page = reply.json();
    let ids = page["deliveries"].as_array().expect("a list").iter();
    let ids = ids.map(|one| one["id"].as_str().expect("an id").to_owned());
    (ids.collect(), page["next_cursor"].clone())
}

/// Asserts that it failed with words and a hint, and returns both.
fn failed(reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status, status, "{}", reply.text);
    let body = reply.json();
    let words = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    assert!(!words("message").is_empty(), "{body}");
    format!("{}; {}", words("message"), words("help"))
}

#[tokio::test]
async fn deliveries_are_listed_by_plan_state_identity_and_time() {
    let (app, [one, two, three]) = keeping([("crm", ADA), ("erp", ADA), ("crm", BOB)]).await;
    app.app
        .store
        .discard(
            &Filter {
                ids: vec![two],
                ..Filter::default()
            },
            app.hand.now(),
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
            listed(&app, query).await,
            (expected, Value::Null),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_long_list_is_read_page_by_page() {
    let (app, [one, two, three]) = keeping([("a", ADA), ("b", ADA), ("c", ADA)]).await;
    let (first, next) = listed(&app, "?limit=2").await;
    assert_eq!(first, [three.to_string(), two.to_string()]);
    assert_eq!(next, two.to_string());
    let (second, next) = listed(&app, &format!("?limit=2&cursor={two}")).await;
    assert_eq!((second, next), (vec![one.to_string()], Value::Null));
    let (all, next) = listed(&app, "?limit=3").await;
    assert_eq!(
        (all.len(), next),
        (3, Value::Null),
        "nothing comes after the last"
    );
}

#[tokio::test]
async fn a_delivery_is_shown_with_its_tries_and_without_a_value() {
    let crm = FakeService::start();
    let (app, id) = abandoned(&crm).await;
    let reply = app.admin(&format!("/deliveries/{id}")).await;
    assert_eq!(reply.status, 200);
    let shown = reply.json();
    assert_eq!(shown["id"], id.to_string());
    assert_eq!(shown["state"], "abandoned");
    assert_eq!(shown["keep_trying_until"], "2026-11-25T14:32:53Z");
    assert_eq!(shown["payload_kept"], true);
    assert_eq!(shown["tries"][0]["attempt"], 1);
    assert_eq!(shown["tries"][0]["status"], 410);
    for text in [reply.text, app.admin("/deliveries").await.text] {
        assert!(!text.to_lowercase().contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_delivery_that_is_not_there_is_404() {
    let app = TestApp::with("").start().await;
    let words = failed(&app.admin(&format!("/deliveries/{ADA}")).await, 404);
    assert!(words.contains(&ADA.to_string()), "{words}");
}

#[tokio::test]
async fn a_retry_leaves_at_once_and_is_kept_up_as_long_as_the_plan_says() {
    let crm = FakeService::start();
    let (app, id) = abandoned(&crm).await;
    app.hand.advance(Duration::from_hours(24 * 10));
    crm.answers(503, &json!({}));
    let reply = app
        .operate("/deliveries/retry", json!({"ids": [id]}).to_string())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json(), json!({"changed": 1, "skipped": []}));
    // The clock stands still: the dispatcher was woken.
    crm.next().await;
    let shown = app.admin(&format!("/deliveries/{id}")).await.json();
    assert_eq!(shown["keep_trying_until"], "2026-12-05T14:32:53Z");
}

#[tokio::test]
async fn what_was_named_and_left_alone_is_told_with_the_reason() {
    let crm = FakeService::start();
    let app = TestApp::with(CRM).service("CRM", &crm).start().await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let id = reaches(&app, State::Delivered).await;
    for path in ["/deliveries/retry", "/deliveries/discard"] {
        let reply = app
            .operate(path, json!({"ids": [id, ADA]}).to_string())
            .await;
        assert_eq!(
            reply.json(),
            json!({"changed": 0, "skipped": [
                {"id": id, "reason": "it is delivered"},
                {"id": ADA, "reason": "there is no such delivery"},
            ]})
        );
    }
}

#[tokio::test]
async fn deliveries_are_discarded_by_id_and_by_what_narrows_all_of_them() {
    let (app, [one, two, three]) = keeping([("crm", ADA), ("erp", ADA), ("crm", BOB)]).await;
    let discard = async |body: Value| {
        let reply = app.operate("/deliveries/discard", body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["changed"].clone()
    };
    assert_eq!(discard(json!({"ids": [two]})).await, 1);
    assert_eq!(listed(&app, "?state=discarded").await.0, [two.to_string()]);
    let narrowed = json!({"all": true, "subscription": "crm", "state": "abandoned", "identity": ADA,
        "since": "2026-11-23", "until": "2026-11-24"});
    assert_eq!(discard(narrowed).await, 1);
    assert_eq!(
        listed(&app, "?state=abandoned").await.0,
        [three.to_string()]
    );
    assert_eq!(discard(json!({"all": true})).await, 1);
    let (discarded, _) = listed(&app, "?state=discarded").await;
    assert_eq!(
        discarded,
        [three, two, one].map(|id| id.to_string()),
        "what is discarded can still be seen"
    );
}

#[tokio::test]
async fn what_a_body_says_wrongly_is_told_and_nothing_is_done() {
    let (app, [id]) = keeping([("crm", ADA)]).await;
    let many: Vec<Uuid> = (0..1001).map(Uuid::from_u128).collect();
    for (body, expected) in [
        (
            "{}".to_owned(),
            "the body names no deliveries; give `ids`, or `\"all\": true`",
        ),
        (
            json!({"subscription": "crm"}).to_string(),
            "the body names no deliveries",
        ),
        (
            json!({"ids": [], "all": false}).to_string(),
            "the body names no deliveries",
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
            let words = failed(&app.operate(path, body.clone()).await, 400);
            assert!(words.contains(expected), "{expected} in {words}");
        }
    }
    let long = format!("{{\"subscription\": \"{}\"}}", "x".repeat(256 * 1024));
    let words = failed(&app.operate("/deliveries/discard", long).await, 413);
    assert!(words.contains("262144 bytes"), "{words}");
    let (untouched, _) = listed(&app, "?state=abandoned").await;
    assert_eq!(untouched, [id.to_string()]);
}

#[tokio::test]
async fn what_a_url_says_wrongly_is_told() {
    let app = TestApp::with("").start().await;
    for (path, expected) in [
        (
            "/deliveries?plna=crm",
            "unknown parameter `plna`; known parameters: subscription, state, ",
        ),
        (
            "/deliveries?subscription=a&subscription=b",
            "`subscription` is given twice",
        ),
        (
            "/deliveries?state=lost",
            "`lost` is not a state; use one of pending, delivered, abandoned, discarded",
        ),
        (
            "/deliveries?identity=ada",
            "`identity`: `ada` is not an id; an id looks like ",
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
        let words = failed(&app.admin(path).await, 400);
        assert!(words.contains(expected), "{expected} in {words}");
    }
}

#[tokio::test]
async fn a_web_page_in_an_operators_browser_can_do_nothing() {
    let (app, [id]) = keeping([("crm", ADA)]).await;
    // What a page of another site may send without asking: a form, or text.
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
    // What it must ask for first is not granted.
    let url = format!("http://{}/deliveries/discard", app.app.admin_address);
    let asked = app
        .http
        .request(reqwest::Method::OPTIONS, url)
        .header("Origin", "https://example.com")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type");
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert!(
        response
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
    assert_eq!(listed(&app, "?state=abandoned").await.0, [id.to_string()]);
}

#[tokio::test]
async fn json_may_be_said_with_a_charset() {
    let (app, [id]) = keeping([("crm", ADA)]).await;
    let url = format!("http://{}/deliveries/discard", app.app.admin_address);
    let request = app
        .http
        .post(url)
        .header("Content-Type", "Application/JSON; charset=utf-8")
        .body(json!({"ids": [id]}).to_string());
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_wrong_path_and_a_wrong_verb_are_told() {
    let app = TestApp::with("").start().await;
    let words = failed(&app.admin("/delivery").await, 404);
    assert!(
        words.contains("/delivery; known paths: ") && words.contains("/deliveries/retry"),
        "{words}"
    );
    let reply = app.admin("/deliveries/retry").await;
    let words = failed(&reply, 405);
    assert!(words.contains("with GET; call it with POST"), "{words}");
    assert_eq!(reply.headers["allow"], "POST");
    let reply = app.operate("/deliveries", "{}").await;
    failed(&reply, 405);
    assert_eq!(reply.headers["allow"], "GET");
}

#[tokio::test]
async fn a_database_that_is_away_is_503_with_words() {
    let folder = tempfile::tempdir().unwrap();
    let store = Failing::in_folder(folder.path()).await;
    let app = TestApp::with("").store(store.clone()).start().await;
    store.fails(true);
    let replies = [
        app.admin("/deliveries").await,
        app.admin(&format!("/deliveries/{ADA}")).await,
        app.operate("/deliveries/retry", r#"{"all": true}"#).await,
        app.operate("/deliveries/discard", json!({"ids": [ADA]}).to_string())
            .await,
    ];
    for reply in &replies {
        let words = failed(reply, 503);
        assert!(words.contains("database error"), "{words}");
    }
    store.fails(false);
    assert_eq!(app.admin("/deliveries").await.status, 200);
}

#[tokio::test]
async fn the_hooks_port_knows_nothing_of_it() {
    let app = TestApp::with("").start().await;
    for path in ["/deliveries", "/openapi.json"] {
        let reply = app.http.get(app.url(path)).send().await.unwrap();
        assert_eq!(reply.status(), 404, "{path}");
    }
    let reply = app.call("/deliveries/discard", r#"{"all": true}"#).await;
    assert_eq!(reply.status, 404);
}
