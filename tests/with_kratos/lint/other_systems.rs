//! Hooks of other systems beside Vestibule's.

use serde_json::{Value, json};
use vestibule_testing::fake_service::{Behaviour, FakeService, Received};

use super::scene::{Scene, Seen, hooks};
use crate::support::fields::VAT_NUMBER;
use crate::support::service::{UNKNOWN_VAT_NUMBER, UNKNOWN_VAT_PREFIX};
use crate::support::{Client, company, eventually};

/// `function(ctx) {identity: ctx.identity}`
const TEMPLATE: &str = "base64://ZnVuY3Rpb24oY3R4KSB7aWRlbnRpdHk6IGN0eC5pZGVudGl0eX0=";

/// A hook of another system.
fn hook_of(system: &FakeService, response: &Value) -> Value {
    json!({"hook": "web_hook", "config": {
        "url": system.url(), "method": "POST", "body": TEMPLATE, "response": response,
    }})
}

/// Answers other traits and another external id.
fn changes_the_identity(call: &Received) -> (u16, String, Option<(&'static str, String)>) {
    let mut traits = call.body["identity"]["traits"].clone();
    traits["vat_number"] = json!(UNKNOWN_VAT_NUMBER);
    let identity = json!({"traits": traits, "external_id": "of-another-system"});
    (200, json!({"identity": identity}).to_string(), None)
}

/// A later blocking hook changes what Vestibule has checked. If Kratos calls it first, Vestibule checks what it has changed.
pub async fn a_later_blocking_hook_changes_what_vestibule_has_checked() {
    let scene = Scene::start().await;
    let other = FakeService::answering(changes_the_identity);
    let hook = hook_of(&other, &json!({"parse": true}));
    let report = scene
        .change(|settings| hooks(settings, "registration", "password").insert(1, hook.clone()))
        .await;
    report.assert_reports("blocking-hook-behind");
    let mut visitor = scene.env.visitor(Client::Api);
    let stored = visitor.sign_up(&company().by_password()).await;
    assert_eq!(stored["traits"]["vat_number"], UNKNOWN_VAT_NUMBER);
    assert_eq!(stored["external_id"], "of-another-system");
    let asked = scene.env.checked_vat_numbers();
    assert!(
        !asked
            .iter()
            .any(|number| number.starts_with(UNKNOWN_VAT_PREFIX)),
        "{asked:?}"
    );

    let report = scene
        .change(|settings| hooks(settings, "registration", "password").insert(0, hook))
        .await;
    report.assert_clean_of("blocking-hook-behind");
    assert_eq!(scene.sign_up(&company()).await, Seen::unknown_number());
}

/// The visitor waits for another system after the account is saved, and sees its failure. With `ignore`, neither.
pub async fn a_visitor_waits_for_the_hook_of_another_system_and_sees_its_failure() {
    let scene = Scene::start().await;
    let other = FakeService::start();
    let report = scene
        .change(|settings| {
            let hook = hook_of(&other, &json!({"ignore": false}));
            hooks(settings, "registration", "password").insert(1, hook);
        })
        .await;
    let said = report.assert_reports("foreign-post");
    assert!(said.contains("the visitor waits for this hook"), "{said}");
    let fails = || other.change_behaviour(Behaviour::Answers(404, "{}".to_owned()));
    let seen = scene.sign_up_that_waits_for(&other, fails).await;
    assert_eq!(seen, Seen::Failed);

    let report = scene
        .change(|settings| {
            let hook = hook_of(&other, &json!({"ignore": true}));
            hooks(settings, "registration", "password").insert(1, hook);
        })
        .await;
    let said = report.assert_reports("foreign-post");
    assert!(said.contains("in the background"), "{said}");
    other.set_behaviour(Behaviour::Hangs);
    assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
    other.release_hanging_calls();

    // The fix: no such hook, and a subscription.
    scene.change(|_| ()).await.assert_clean();
    let typed = company();
    assert_eq!(scene.sign_up(&typed).await, Seen::Accepted);
    eventually("Vestibule delivers the account", async || {
        let received = scene.env.crm.received();
        let mut traits = received
            .iter()
            .map(|call| &call.body["data"]["identity"]["traits"]);
        traits
            .any(|traits| traits["vat_number"] == typed.text(VAT_NUMBER))
            .then_some(())
    })
    .await;
}
