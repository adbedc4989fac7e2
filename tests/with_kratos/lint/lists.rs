//! Lists of hooks that Kratos does not use.

use serde_json::json;

use super::scene::{Scene, Seen, hooks, move_to_all_methods, remove_hooks};
use crate::support::Client;
use crate::support::fields::company_with_unknown_number;

/// Kratos never calls a blocking hook in the list for all methods.
pub async fn kratos_never_calls_a_blocking_hook_in_the_list_for_all_methods() {
    let scene = Scene::start().await;
    let report = scene
        .change(|settings| {
            move_to_all_methods(settings, "registration", "password", 0);
            move_to_all_methods(settings, "settings", "profile", 0);
        })
        .await;
    let said = report.assert_reports("never-called");
    assert!(
        said.contains("registration.after.hooks") && said.contains("settings.after.hooks"),
        "{said}"
    );
    report.assert_reports("unhooked-method");
    report.assert_reports("unhooked-profile");
    let typed = company_with_unknown_number();
    let mut visitor = scene.env.visitor(Client::Api);
    visitor.sign_up(&typed.clone().by_password()).await;
    let other = company_with_unknown_number();
    let change = crate::support::company()
        .with("traits.email", typed.text("traits.email"))
        .with("traits.vat_number", other.text("traits.vat_number"))
        .by_profile();
    visitor
        .settings()
        .await
        .submit(&change)
        .await
        .assert_saved();
    assert!(scene.has_account(&other).await);
    assert_eq!(scene.calls("registration").await, [0, 1]);
    assert_eq!(scene.calls("settings").await, [0, 1]);

    // Also where a method has no list of its own.
    let report = scene
        .change(|settings| {
            move_to_all_methods(settings, "registration", "password", 0);
            remove_hooks(settings, "registration", "password");
        })
        .await;
    report.assert_reports("never-called");
    assert_eq!(scene.sign_up_with_unknown_number().await, Seen::Accepted);
    assert_eq!(scene.calls("registration").await, [0, 1]);

    scene.change(|_| ()).await.assert_clean();
    assert_eq!(
        scene.sign_up_with_unknown_number().await,
        Seen::unknown_number()
    );
}

/// A list of a method replaces the list for all methods, also a list with `session` alone or with `pre` alone.
pub async fn kratos_uses_the_list_for_all_methods_only_where_a_method_has_no_hooks() {
    let scene = Scene::start().await;
    let session = json!({"hook": "session"});
    for (own, posts) in [(None, 1), (Some("session"), 0), (Some("pre"), 0)] {
        let before = scene.calls("registration").await[1];
        let report = scene
            .change(|settings| {
                let pre = hooks(settings, "registration", "password")[0].clone();
                move_to_all_methods(settings, "registration", "password", 1);
                remove_hooks(settings, "registration", "password");
                let hook = own.map(|name| if name == "pre" { pre } else { session.clone() });
                if let Some(hook) = hook {
                    hooks(settings, "registration", "password").push(hook);
                }
            })
            .await;
        let found = report.of_rule("shadowed-list");
        assert_eq!(!found.is_empty(), own.is_some(), "{found:#?}");
        if own.is_some() {
            let said = report.assert_reports("shadowed-list");
            assert!(said.contains("`password`"), "{said}");
        }
        assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
        let after = scene.calls("registration").await[1];
        assert_eq!(after - before, posts, "{own:?}");
    }
    scene.change(|_| ()).await.assert_clean();
    let before = scene.calls("registration").await;
    assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
    assert_eq!(
        scene.calls("registration").await,
        [before[0] + 1, before[1] + 1]
    );
}
