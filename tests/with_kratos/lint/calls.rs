//! How Kratos calls a hook: with or without an id, and in the background.

use serde_json::{Value, json};
use vestibule_testing::fake_service::FakeService;

use super::scene::{Scene, Seen, hooks};
use crate::support::fields::VAT_NUMBER;
use crate::support::test_env::KEY;
use crate::support::{company, port};

/// Kratos sends a trigger id, the same for every repetition of a call, unless `emit_analytics_event` is false.
pub async fn kratos_sends_no_trigger_id_without_the_analytics_event() {
    let scene = Scene::start().await;
    let recorder = FakeService::answering(|_| (204, String::new(), None));
    let to_recorder = |hook: &mut Value| {
        let path = "/hooks/registration/pre?method=password";
        hook["config"]["url"] = json!(format!("{}{path}", recorder.url()));
    };
    let report = scene
        .change(|settings| {
            let hook = &mut hooks(settings, "registration", "password")[0];
            to_recorder(hook);
            hook["config"]["emit_analytics_event"] = json!(false);
        })
        .await;
    report.assert_reports("analytics-off");
    assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
    let call = recorder.next_call().await;
    assert_eq!(call.header("X-Vestibule-Key"), Some(KEY));
    assert_eq!(call.header("Ory-Webhook-Trigger-ID"), None);

    scene.paste(&report, "analytics-off").await;
    assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
    let call = recorder.next_call().await;
    assert!(call.header("Ory-Webhook-Trigger-ID").is_some(), "{call:?}");
}

/// Kratos calls an ignored `post` in the background, and forgets it when it stops. Another `post` is awaited.
pub async fn kratos_forgets_an_ignored_post_when_it_stops() {
    let mut scene = Scene::start().await;
    let recorder = FakeService::answering_on(port::listener(), |_| (204, String::new(), None));
    let path = "/hooks/registration/post?method=password";
    let url = format!("{}{path}", recorder.url());
    let report = scene
        .change(|settings| {
            let config = &mut hooks(settings, "registration", "password")[1]["config"];
            config["url"] = json!(url);
            config["response"] = json!({"ignore": true});
        })
        .await;
    report.assert_reports("post-ignored");
    recorder.go_down().await;
    let lost = company();
    assert_eq!(
        scene.sign_up(&lost).await,
        Seen::Accepted,
        "Kratos does not wait for the call"
    );
    let file = scene.env.kratos.file().to_owned();
    scene.env.kratos.restart(&[&file], &[]).await;
    recorder.come_up().await;
    let reported = company();
    assert_eq!(scene.sign_up(&reported).await, Seen::Accepted);
    recorder.next_call().await;
    let [call] = <[_; 1]>::try_from(recorder.received()).expect("one call");
    assert_eq!(
        call.body["identity"]["traits"]["vat_number"],
        reported.text(VAT_NUMBER)
    );

    scene.paste(&report, "post-ignored").await;
    let release = || recorder.release_hanging_calls();
    let seen = scene.sign_up_that_waits_for(&recorder, release).await;
    assert_eq!(seen, Seen::Accepted);
}
