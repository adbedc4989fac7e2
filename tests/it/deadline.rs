//! `pre` answers within `hooks.deadline`, regardless of the services.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::poll;
use serde_json::json;

use crate::support::fake_service::{Behaviour, unused_address};
use crate::support::{FakeService, TestApp, bounded, payload};

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

async fn start(quick: &FakeService, slow: &FakeService) -> TestApp {
    TestApp::with(TWO)
        .service("QUICK", quick)
        .service("SLOW", slow)
        .start()
        .await
}

/// Waits until `pre` waits only for the slow service.
async fn wait_for_quick_answer(app: &TestApp, outcome: &str) {
    let answered =
        format!("vestibule_service_requests_total{{service=\"quick\",outcome=\"{outcome}\"}}");
    app.eventually("the quick service has answered", async || {
        (app.metric(&answered).await > 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_deadline_cuts_off_a_silent_service_and_keeps_other_findings() {
    let (quick, slow) = (FakeService::start(), FakeService::start());
    quick.respond_with(404, &json!({}));
    slow.set_behaviour(Behaviour::Hangs);
    let app = start(&quick, &slow).await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        slow.next_call().await;
        wait_for_quick_answer(&app, "4xx").await;
        app.clock.advance(Duration::from_millis(3960));
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
async fn a_request_ends_after_the_timeout_of_its_service() {
    let (quick, slow) = (FakeService::start(), FakeService::start());
    quick.set_behaviour(Behaviour::Hangs);
    let app = start(&quick, &slow).await;
    let body = payload();
    let (reply, ()) = tokio::join!(app.pre(&body), async {
        slow.next_call().await;
        quick.next_call().await;
        app.clock.advance(Duration::from_secs(2));
    });
    assert_eq!(reply.refused(), [("#/traits/invite".to_owned(), 4_900_001)]);
}

#[tokio::test]
async fn a_check_is_not_started_after_the_deadline() {
    let (first, second) = (FakeService::start(), FakeService::start());
    first.set_behaviour(Behaviour::Hangs);
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
        first.next_call().await;
        app.clock.advance(Duration::from_millis(4960));
    });
    assert_eq!(reply.refused(), [("#/traits/invite".to_owned(), 4_900_001)]);
    assert!(second.received().is_empty());
}

#[tokio::test]
async fn an_unreachable_service_is_reported_immediately() {
    let app = TestApp::with(TWO)
        .env("QUICK", &unused_address())
        .env("SLOW", &unused_address())
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

#[tokio::test]
async fn a_system_clock_that_is_set_does_not_move_the_deadline() {
    let hour = TimeDelta::hours(1);
    for change in [-hour, hour] {
        let (quick, slow) = (FakeService::start(), FakeService::start());
        quick.respond_with(200, &json!({}));
        slow.set_behaviour(Behaviour::Hangs);
        let app = start(&quick, &slow).await;
        let body = payload();
        let mut call = Box::pin(app.pre(&body));
        tokio::select! {
            reply = &mut call => panic!("answered before: {reply:?}"),
            () = async {
                slow.next_call().await;
                wait_for_quick_answer(&app, "2xx").await;
                app.clock.set(app.clock.now() + change);
            } => {}
        }
        for _ in 0..100 {
            assert!(poll!(&mut call).is_pending(), "{change}");
            tokio::task::yield_now().await;
        }
        app.clock.advance(Duration::from_millis(3960));
        let reply = bounded("the call ends at its deadline", call).await;
        assert_eq!(
            reply.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_001)]
        );
    }
}
