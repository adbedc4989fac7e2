//! How long an attempt may take: `send.timeout`, else the service's `timeout`, else 15 s. A question before saving has 3 s.

use std::time::Duration;

use vestibule::model::delivery::State;

use super::delivery_order::{all_deliveries, wait_until_idle};
use crate::support::fake_service::Behaviour;
use crate::support::{FakeService, TestApp, logs, payload};

const JUST_BEFORE: Duration = Duration::from_millis(1);

#[tokio::test]
async fn an_attempt_may_take_as_long_as_the_settings_say() {
    for (service, send, seconds) in [
        ("", "", 15),
        (", timeout: 2s", "", 2),
        (", timeout: 40s", "", 40),
        ("", ", timeout: 1s", 1),
        (", timeout: 2s", ", timeout: 20s", 20),
        (", timeout: 20s", ", timeout: 60s", 60),
    ] {
        let crm = FakeService::start();
        crm.set_behaviour(Behaviour::Hangs);
        let yaml = format!(
            "services: {{crm: {{url: \"${{env:CRM}}\"{service}}}}}\n\
             subscriptions: {{crm: {{events: [identity.created], send: {{service: crm, post: /x{send}}}}}}}"
        );
        let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
        assert_eq!(app.post(&payload().saved()).await.status, 204);
        crm.next_call().await;
        let limit = Duration::from_secs(seconds);
        app.clock.advance(limit - JUST_BEFORE);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(all_deliveries(&app).await[0].last_error, None, "{yaml}");
        app.clock.advance(JUST_BEFORE);
        wait_until_idle(&app).await;
        let error = all_deliveries(&app).await.remove(0).last_error;
        assert_eq!(error.as_deref(), Some("timeout"), "{yaml}");
    }
}

#[tokio::test]
async fn a_receiver_that_answers_after_four_seconds_gets_a_delivery_once() {
    for (keys, url) in [
        ("service: crm, post: /x", false),
        ("post: \"${env:CRM}/x\"", true),
    ] {
        let crm = FakeService::start();
        crm.set_behaviour(Behaviour::Hangs);
        let services = if url {
            ""
        } else {
            "services: {crm: {url: \"${env:CRM}\"}}\n"
        };
        let yaml = format!(
            "{services}subscriptions: {{crm: {{events: [identity.created], send: {{{keys}}}}}}}"
        );
        let app = TestApp::with(&yaml).service("CRM", &crm).start().await;
        assert_eq!(app.post(&payload().saved()).await.status, 204);
        crm.next_call().await;
        app.clock.advance(Duration::from_secs(4));
        crm.release_hanging_calls();
        wait_until_idle(&app).await;
        let done = all_deliveries(&app).await.remove(0);
        assert_eq!((done.state, done.attempts), (State::Delivered, 1), "{keys}");
    }
}

#[tokio::test]
async fn a_question_before_saving_has_three_seconds() {
    for (timeout, seconds) in [("", 3), (", timeout: 1s", 1), (", timeout: 4s", 4)] {
        let register = FakeService::start();
        register.set_behaviour(Behaviour::Hangs);
        let yaml = format!(
            "services: {{register: {{url: \"${{env:REGISTER}}\"{timeout}}}}}\n\
             checks: {{known: {{field: traits.email, ask: {{service: register, get: /x}}, on_unavailable: {{timeout: accept}}}}}}"
        );
        let app = TestApp::with(&yaml)
            .service("REGISTER", &register)
            .start()
            .await;
        let body = payload();
        let calling = app.pre(&body);
        let answering = async {
            register.next_call().await;
            app.clock.advance(Duration::from_secs(seconds));
        };
        let (reply, ()) = futures_util::join!(calling, answering);
        assert_eq!(reply.status, 204, "{timeout}: {reply:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_keeps_timing_out_is_reported() {
    let crm = FakeService::start();
    crm.set_behaviour(Behaviour::Hangs);
    let yaml = "services: {crm: {url: \"${env:CRM}\"}}\n\
                subscriptions: {often_too_slow: {events: [identity.created], send: {service: crm, post: /x, timeout: 1s}}}";
    let app = TestApp::with(yaml).service("CRM", &crm).start().await;
    assert_eq!(app.post(&payload().saved()).await.status, 204);
    let warnings = || {
        let lines = logs::lines_with("often_too_slow");
        lines
            .iter()
            .filter(|line| line.contains("timed out; each is repeated"))
            .count()
    };
    for attempt in 1..=5 {
        crm.next_call().await;
        app.clock.advance(Duration::from_secs(1));
        let next = wait_until_idle(&app).await.expect("another attempt");
        assert_eq!(warnings(), usize::from(attempt >= 3), "attempt {attempt}");
        app.clock
            .advance((next - app.clock.now()).to_std().unwrap_or_default());
    }
}
