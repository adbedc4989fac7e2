//! Changes in settings without Vestibule's hooks.

use serde_json::json;

use super::scene::{Scene, Seen, hooks, move_to_all_methods, remove_hooks};
use crate::support::fields::{COMPANY, Fields, VAT_NUMBER, company_with_unknown_number};
use crate::support::visitor::Visitor;
use crate::support::{Client, company};

/// A visitor who has signed up with a known number.
async fn signed_up(scene: &Scene) -> (Visitor, Fields) {
    let typed = company();
    let mut visitor = scene.env.visitor(Client::Api);
    visitor.sign_up(&typed.clone().by_password()).await;
    (visitor, typed)
}

/// Changes the number to one that the register does not know.
async fn change_number(visitor: &Visitor, typed: &Fields) -> Seen {
    let other = company_with_unknown_number();
    let change = typed
        .clone()
        .with(VAT_NUMBER, other.text(VAT_NUMBER))
        .by_profile();
    Seen::of(&visitor.settings().await.submit(&change).await)
}

/// Without a hook, or with the hook of another flow, a visitor changes a checked trait to anything.
pub async fn a_visitor_changes_a_checked_trait_to_anything_without_a_hook_in_settings() {
    let scene = Scene::start().await;
    let report = scene
        .change(|settings| remove_hooks(settings, "settings", "profile"))
        .await;
    report.assert_reports("unhooked-profile");
    let (visitor, typed) = signed_up(&scene).await;
    assert_eq!(change_number(&visitor, &typed).await, Seen::Accepted);
    assert_eq!(scene.calls("settings").await, [0, 0]);
    scene.paste(&report, "unhooked-profile").await;
    let (visitor, typed) = signed_up(&scene).await;
    assert_eq!(
        change_number(&visitor, &typed).await,
        Seen::unknown_number()
    );

    // The identity has an id in settings, so Vestibule takes the call for one after a sign-up.
    let report = scene
        .change(|settings| {
            let config = &mut hooks(settings, "settings", "profile")[0]["config"];
            let url = config["url"].as_str().expect("a URL");
            config["url"] = json!(url.replace("/hooks/settings", "/hooks/registration"));
        })
        .await;
    report.assert_reports("wrong-flow");
    let (visitor, typed) = signed_up(&scene).await;
    assert_eq!(change_number(&visitor, &typed).await, Seen::Accepted);
    scene.paste(&report, "wrong-flow").await.assert_clean();
    let (visitor, typed) = signed_up(&scene).await;
    assert_eq!(
        change_number(&visitor, &typed).await,
        Seen::unknown_number()
    );
}

/// Kratos reports a changed password only to hooks of `settings.after.password`, or of `settings.after` if there are none.
pub async fn kratos_reports_a_changed_password_only_to_a_hook() {
    let scene = Scene::start().await;
    let change_password = async || {
        let (visitor, _) = signed_up(&scene).await;
        let before = scene.calls("settings").await[1];
        let password = Fields::default()
            .with("method", "password")
            .with("password", "another-long-Pa55phrase");
        let response = visitor.settings().await.submit(&password).await;
        assert_eq!(Seen::of(&response), Seen::Accepted);
        scene.calls("settings").await[1] - before
    };
    let report = scene
        .change(|settings| remove_hooks(settings, "settings", "password"))
        .await;
    let said = report.assert_reports("event-not-hooked");
    assert!(
        said.contains("`credentials.changed`") && said.contains("`password`"),
        "{said}"
    );
    assert_eq!(change_password().await, 0);
    scene
        .paste(&report, "event-not-hooked")
        .await
        .assert_clean();
    assert_eq!(change_password().await, 1);

    // The hook of the list for all methods suffices where a method has no hooks.
    let report = scene
        .change(|settings| {
            move_to_all_methods(settings, "settings", "password", 0);
            remove_hooks(settings, "settings", "password");
        })
        .await;
    report.assert_clean_of("event-not-hooked");
    assert_eq!(change_password().await, 1);
}

/// Without `post`, Kratos does not report what it has saved.
pub async fn kratos_reports_no_account_without_a_post() {
    let scene = Scene::start().await;
    let report = scene
        .change(|settings| {
            hooks(settings, "registration", "password").remove(1);
            hooks(settings, "settings", "profile").remove(1);
        })
        .await;
    report.assert_reports("post-missing");
    let (visitor, typed) = signed_up(&scene).await;
    let change = typed.clone().with(COMPANY, "Another").by_profile();
    let response = visitor.settings().await.submit(&change).await;
    assert_eq!(Seen::of(&response), Seen::Accepted);
    assert_eq!(scene.calls("registration").await, [1, 0]);
    assert_eq!(scene.calls("settings").await, [1, 0]);

    scene.paste(&report, "post-missing").await.assert_clean();
    let (visitor, typed) = signed_up(&scene).await;
    let change = typed.with(COMPANY, "A third").by_profile();
    let response = visitor.settings().await.submit(&change).await;
    assert_eq!(Seen::of(&response), Seen::Accepted);
    assert_eq!(scene.calls("registration").await, [2, 1]);
    assert_eq!(scene.calls("settings").await, [2, 1]);
}
