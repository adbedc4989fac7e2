//! `pre` answers within `hooks.deadline`, however services behave.

use std::time::Duration;

use serde_json::json;

use crate::support::service::{Behaviour, nobody};
use crate::support::{FakeService, TestApp, payload};

const TWO: &str = r#"
hooks: {deadline: 4s}
services:
  quick: {url: "${env:QUICK}", timeout: 2s}
  slow: {url: "${env:SLOW}", timeout: 20s}
checks:
  vat_number:
    field: traits.vat_number
    ask: {service: slow, get: "/vat/{value}"}
  invite:
    field: traits.invite
    ask: {service: quick, get: "/invites/{value}"}
    refuse: [{when: 404, message: {id: 4900101, en: "No such invite."}}]
"#;

#[tokio::test]
async fn a_service_that_says_nothing_ends_with_the_deadline_and_the_others_are_heard() {
    let (quick, slow) = (FakeService::start(), FakeService::start());
    quick.answers(404, &json!({}));
    slow.does(Behaviour::Hangs);
    let app = TestApp::with(TWO)
        .service("QUICK", &quick)
        .service("SLOW", &slow)
        .start()
        .await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        slow.next().await;
        // The quick one's answer has been read; only the slow one is waited for.
        while app
            .metric("vestibule_service_requests_total{service=\"quick\",outcome=\"4xx\"}")
            .await
            < 0.5
        {}
        app.hand.advance(Duration::from_millis(3960));
    });
    let mut refused = reply.refused();
    refused.sort();
    assert_eq!(
        refused,
        [
            ("#/traits/invite".to_owned(), 4_900_101),
            ("#/traits/vat_number".to_owned(), 4_900_001)
        ]
    );
    assert!(
        (app.metric("vestibule_check_unavailable_total{check=\"vat_number\",kind=\"timeout\"}")
            .await
            - 1.0)
            .abs()
            < 0.1
    );
}

#[tokio::test]
async fn a_service_has_no_longer_than_its_own_timeout() {
    let (quick, slow) = (FakeService::start(), FakeService::start());
    quick.does(Behaviour::Hangs);
    let app = TestApp::with(TWO)
        .service("QUICK", &quick)
        .service("SLOW", &slow)
        .start()
        .await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        slow.next().await;
        quick.next().await;
        app.hand.advance(Duration::from_secs(2));
    });
    assert_eq!(reply.refused(), [("#/traits/invite".to_owned(), 4_900_001)]);
}

#[tokio::test]
async fn a_check_that_waited_for_a_slow_one_is_not_begun_after_the_deadline() {
    let (first, second) = (FakeService::start(), FakeService::start());
    first.does(Behaviour::Hangs);
    let app = TestApp::with(
        r#"
services: {first: {url: "${env:FIRST}", timeout: 20s}, second: {url: "${env:SECOND}"}}
checks:
  one: {field: traits.vat_number, on_unavailable: accept, ask: {service: first, get: "/{value}"}}
  two: {field: traits.invite, after: [one], ask: {service: second, get: "/{value}"}}
"#,
    )
    .service("FIRST", &first)
    .service("SECOND", &second)
    .start()
    .await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        first.next().await;
        app.hand.advance(Duration::from_millis(4960));
    });
    assert_eq!(reply.refused(), [("#/traits/invite".to_owned(), 4_900_001)]);
    assert!(second.received().is_empty());
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_at_once() {
    let app = TestApp::with(TWO)
        .env("QUICK", &nobody())
        .env("SLOW", &nobody())
        .start()
        .await;
    let reply = app.pre(&payload()).await;
    assert_eq!(
        reply.refused(),
        [
            ("#/traits/vat_number".to_owned(), 4_900_001),
            ("#/traits/invite".to_owned(), 4_900_001)
        ]
    );
}
