//! A repeated call gets the cached response, and no service is asked again.

use std::time::Duration;

use serde_json::json;

use crate::support::app::KEY;
use crate::support::fake_service::Behaviour;
use crate::support::{FakeService, TestApp, payload};

const PATH: &str = "/hooks/registration/pre?method=password";
const ASKS: &str = "checks: {invite: {field: traits.invite, ask: {get: \"${env:INVITES}/{value}\"}, refuse: [{when: 404, message: \"No.\"}]}}";

#[tokio::test]
async fn calls_with_the_same_trigger_id_ask_once_and_get_the_same_answer() {
    let invites = FakeService::start();
    invites.respond_with(404, &json!({}));
    let app = TestApp::with(ASKS)
        .service("INVITES", &invites)
        .start()
        .await;
    let headers = [
        ("X-Vestibule-Key", KEY),
        (
            "Ory-Webhook-Trigger-ID",
            "8474962b-9285-4104-9ac4-1b5ec4ac6aa3",
        ),
    ];
    let body = payload().to_string();
    let first = app.call_with(PATH, body.clone(), &headers).await;
    invites.respond_with(200, &json!({}));
    let second = app.call_with(PATH, body.clone(), &headers).await;
    assert_eq!((first.status, first.text), (second.status, second.text));
    assert_eq!(invites.received().len(), 1);

    // A call with another body or of another hook is not the same call.
    assert_eq!(
        app.call_with(PATH, payload().to_string(), &headers)
            .await
            .status,
        204
    );
    assert_eq!(
        app.call_with(
            "/hooks/registration/pre?method=oidc",
            body.clone(),
            &headers
        )
        .await
        .status,
        204
    );
    assert_eq!(invites.received().len(), 3);

    app.clock.advance(Duration::from_mins(2));
    assert_eq!(app.call_with(PATH, body, &headers).await.status, 204);
    assert_eq!(invites.received().len(), 4);
}

#[tokio::test]
async fn parallel_calls_with_the_same_trigger_id_ask_once_although_the_first_caller_disconnects() {
    let invites = FakeService::start();
    invites.set_behaviour(Behaviour::Hangs);
    let app = TestApp::with(ASKS)
        .service("INVITES", &invites)
        .start()
        .await;
    let headers = [
        ("X-Vestibule-Key", KEY),
        (
            "Ory-Webhook-Trigger-ID",
            "8474962b-9285-4104-9ac4-1b5ec4ac6aa3",
        ),
    ];
    let body = payload().to_string();
    {
        let first = app.call_with(PATH, body.clone(), &headers);
        let asked = invites.next_call();
        tokio::pin!(first, asked);
        // The first caller disconnects after the service was asked.
        tokio::select! {
            _ = &mut first => panic!("the service has not answered yet"),
            _ = &mut asked => {}
        }
    }
    let ((second, third), ()) = tokio::join!(
        async {
            tokio::join!(
                app.call_with(PATH, body.clone(), &headers),
                app.call_with(PATH, body.clone(), &headers)
            )
        },
        async {
            // Both calls wait for the first one or find its cached response, so the service is not asked again.
            tokio::task::yield_now().await;
            invites.release_hanging_calls();
        }
    );
    assert_eq!((second.status, third.status), (204, 204));
    assert_eq!(invites.received().len(), 1);
}

#[tokio::test]
async fn calls_without_a_trigger_id_are_not_cached() {
    let invites = FakeService::start();
    let app = TestApp::with(ASKS)
        .service("INVITES", &invites)
        .start()
        .await;
    let body = payload().to_string();
    for _ in 0..2 {
        assert_eq!(
            app.call_with(PATH, body.clone(), &[("X-Vestibule-Key", KEY)])
                .await
                .status,
            204
        );
    }
    assert_eq!(invites.received().len(), 2);
}

#[tokio::test]
async fn checks_continue_when_the_only_caller_disconnects() {
    let invites = FakeService::start();
    invites.set_behaviour(Behaviour::Hangs);
    let app = TestApp::with(ASKS)
        .service("INVITES", &invites)
        .start()
        .await;
    let address = app.app.hooks_address;
    let body = payload().to_string();
    let mut caller = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: v\r\nX-Vestibule-Key: {KEY}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut caller, format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    invites.next_call().await;
    // The connection is reset, not only closed for writing.
    caller.set_zero_linger().unwrap();
    drop(caller);
    invites.release_hanging_calls();
    app.eventually("the check is finished", async || {
        let accepted = "vestibule_check_outcomes_total{check=\"invite\",outcome=\"accepted\"}";
        (app.metric(accepted).await > 0.5).then_some(())
    })
    .await;
}
