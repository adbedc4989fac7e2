//! The same call gets the same answer without a second question.

use std::time::Duration;

use serde_json::json;

use crate::support::app::KEY;
use crate::support::service::Behaviour;
use crate::support::{FakeService, TestApp, payload};

const PATH: &str = "/hooks/registration/pre?method=password";
const ASKS: &str = "checks: {invite: {field: traits.invite, ask: {get: \"${env:INVITES}/{value}\"}, refuse: [{when: 404, message: \"No.\"}]}}";

#[tokio::test]
async fn the_same_trigger_id_is_asked_once_and_answered_the_same() {
    let invites = FakeService::start();
    invites.answers(404, &json!({}));
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
    invites.answers(200, &json!({}));
    let second = app.call_with(PATH, body.clone(), &headers).await;
    assert_eq!((first.status, first.text), (second.status, second.text));
    assert_eq!(invites.received().len(), 1);

    // Another body, another hook: not the same call.
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

    app.hand.advance(Duration::from_mins(2));
    assert_eq!(app.call_with(PATH, body, &headers).await.status, 204);
    assert_eq!(invites.received().len(), 4);
}

#[tokio::test]
async fn the_same_trigger_id_at_the_same_moment_is_asked_once_also_when_the_first_caller_leaves() {
    let invites = FakeService::start();
    invites.does(Behaviour::Hangs);
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
        let asked = invites.next();
        tokio::pin!(first, asked);
        // The first caller is gone once the question has been asked.
        tokio::select! {
            _ = &mut first => panic!("nobody has answered yet"),
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
            // Both are on their way, or will find the answer remembered: either way no second question.
            tokio::task::yield_now().await;
            invites.end_hangs();
        }
    );
    assert_eq!((second.status, third.status), (204, 204));
    assert_eq!(invites.received().len(), 1);
}

#[tokio::test]
async fn without_a_trigger_id_nothing_is_remembered() {
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
async fn the_work_goes_on_when_its_only_caller_leaves() {
    let invites = FakeService::start();
    invites.does(Behaviour::Hangs);
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
    invites.next().await;
    // Gone for good: the connection is reset, not only closed for writing.
    caller.set_zero_linger().unwrap();
    drop(caller);
    invites.end_hangs();
    while app
        .metric("vestibule_check_outcomes_total{check=\"invite\",outcome=\"accepted\"}")
        .await
        < 0.5
    {}
}
