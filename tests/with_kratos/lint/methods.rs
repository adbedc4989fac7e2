//! Sign-ups by methods without hooks.

use serde_json::{Value, json};

use super::scene::{Report, Scene, Seen, hooks, remove_hooks};
use crate::support::Client;
use crate::support::browser::Browser;
use crate::support::fields::{EMAIL, Fields, company_with_unknown_number};
use crate::support::passkey::{self, ORIGIN, RELYING_PARTY};
use crate::support::provider::Provider;
use crate::support::visitor::Page;

/// Removes the hooks of a method, asserts that lint reports this method, and that a visitor with an unknown number signs up by it
/// without any call. With the snippet of lint, Vestibule refuses the visitor.
async fn is_open_without_hooks(
    scene: &Scene,
    method: &str,
    prepare: impl Fn(&mut Value),
    sign_up: impl AsyncFn(&Fields),
) {
    let has_account = async || {
        let typed = company_with_unknown_number();
        sign_up(&typed).await;
        scene.has_account(&typed).await
    };
    let report = scene
        .change(|settings| {
            prepare(settings);
            remove_hooks(settings, "registration", method);
        })
        .await;
    assert_reports(&report, method);
    let before = scene.calls("registration").await;
    assert!(has_account().await, "{method} is open");
    assert_eq!(scene.calls("registration").await, before, "{method}");

    scene.paste(&report, "unhooked-method").await;
    assert!(!has_account().await, "{method} is checked");
    assert_eq!(
        scene.calls("registration").await[0],
        before[0] + 1,
        "{method}"
    );
}

fn assert_reports(report: &Report, method: &str) {
    let said = report.assert_reports("unhooked-method");
    assert!(
        said.contains(&format!("sign-ups by `{method}` bypass every check")),
        "{said}"
    );
}

/// Signs up by code, as far as Kratos lets a native app.
pub async fn sign_up_by_code(scene: &Scene, typed: &Fields) -> Seen {
    let visitor = scene.env.visitor(Client::Api);
    let mut flow = visitor.registration().await;
    let typed = typed.clone().by_code();
    let asked = flow.submit(&typed).await;
    if Seen::of(&asked) != Seen::Refused(Vec::new()) {
        return Seen::of(&asked);
    }
    let code = scene.env.kratos.mailed_code(typed.text(EMAIL), 0).await;
    Seen::of(&flow.submit(&typed.with("code", code)).await)
}

/// Leaves the methods and recovery to the defaults of Kratos.
fn by_default(settings: &mut Value) {
    let remove = |section: &mut Value, keys: &[&str]| {
        let section = section.as_object_mut().expect("a section");
        section.retain(|key, _| !keys.contains(&key.as_str()));
    };
    let selfservice = &mut settings["selfservice"];
    let methods = &mut selfservice["methods"];
    remove(methods, &["code", "oidc", "passkey", "webauthn"]);
    remove(&mut methods["password"], &["enabled"]);
    remove(&mut selfservice["flows"]["recovery"], &["enabled"]);
}

/// By default, `password` and `code` are enabled, and neither other methods nor recovery are. `code` signs visitors up without
/// `passwordless_enabled`.
pub async fn password_and_code_are_open_by_default() {
    let scene = Scene::start().await;
    let by_code = async |typed: &Fields| {
        sign_up_by_code(&scene, typed).await;
    };
    is_open_without_hooks(&scene, "code", by_default, by_code).await;
    let by_password = async |typed: &Fields| {
        scene.sign_up(typed).await;
    };
    is_open_without_hooks(&scene, "password", by_default, by_password).await;

    let visitor = scene.env.visitor(Client::BrowserJson);
    let form = visitor.registration().await.shown;
    for group in ["oidc", "passkey", "webauthn"] {
        let nodes = form["ui"]["nodes"].as_array().expect("nodes");
        assert!(nodes.iter().all(|node| node["group"] != group), "{group}");
    }
    let (status, shown) = visitor.try_open(Page::Recovery).await;
    assert_ne!(status, 200, "{shown}");
}

/// `passwordless_enabled: true` opens `code` although `enabled` is false. Without a `code` identifier in a schema, it is closed.
pub async fn code_is_closed_without_both_keys_or_without_an_identifier() {
    let scene = Scene::start().await;
    let report_and_sign_up = async |code: Value| {
        let report = scene
            .change(|settings| {
                remove_hooks(settings, "registration", "code");
                settings["selfservice"]["methods"]["code"] = code;
            })
            .await;
        let typed = company_with_unknown_number();
        let seen = sign_up_by_code(&scene, &typed).await;
        let is_open = scene.has_account(&typed).await;
        assert_eq!(seen == Seen::Accepted, is_open, "{seen:?}");
        (report, is_open)
    };
    let passwordless = json!({"enabled": false, "passwordless_enabled": true});
    let (report, is_open) = report_and_sign_up(passwordless).await;
    assert_reports(&report, "code");
    let [finding] = &report.of_rule("unhooked-method")[..] else {
        panic!("one finding: {report:?}");
    };
    let help = finding["help"].as_str().expect("a help");
    for key in ["enabled", "passwordless_enabled"] {
        let line = format!("`selfservice.methods.code.{key}: false`");
        assert!(help.contains(&line), "{help}");
    }
    assert!(is_open);

    let neither = json!({"enabled": false, "passwordless_enabled": false});
    let (report, is_open) = report_and_sign_up(neither).await;
    report.assert_clean_of("unhooked-method");
    assert!(!is_open);

    let both = json!({"enabled": true, "passwordless_enabled": true});
    let (report, is_open) = report_and_sign_up(both.clone()).await;
    assert_reports(&report, "code");
    assert!(is_open);
    scene.env.kratos.change_schema(|schema| {
        let email = &mut schema["properties"]["traits"]["properties"]["email"];
        let credentials = email["ory.sh/kratos"]["credentials"].as_object_mut();
        credentials.expect("credentials").remove("code");
    });
    let (report, is_open) = report_and_sign_up(both).await;
    report.assert_clean_of("unhooked-method");
    assert!(!is_open);
}

pub async fn a_social_sign_up_bypasses_every_check_without_hooks() {
    let provider = Provider::start();
    let scene = Scene::of(Scene::builder().with_provider(&provider)).await;
    let sign_up = async |typed: &Fields| {
        let browser = Browser::new(&scene.env.kratos.public);
        let form = browser.registration().await;
        let at_provider = browser.choose_provider(&form, typed).await;
        let callback = browser.redirect_target(&at_provider).await;
        browser.open(&callback).await;
    };
    is_open_without_hooks(&scene, "oidc", |_| (), sign_up).await;
}

/// A passkey, and a security key with `passwordless: true`.
pub async fn a_sign_up_by_passkey_or_security_key_bypasses_every_check_without_hooks() {
    let scene = Scene::of(Scene::builder().with_passkeys()).await;
    let sign_up = async |typed: &Fields| {
        let visitor = scene.env.visitor(Client::Api);
        let mut flow = visitor.registration().await;
        let passkey = passkey::created_for(&flow.shown);
        flow.submit(&typed.clone().by_passkey(&passkey)).await;
    };
    is_open_without_hooks(&scene, "passkey", |_| (), sign_up).await;

    let webauthn = |passwordless: bool| {
        json!({"enabled": true, "config": {
            "passwordless": passwordless,
            "rp": {"id": RELYING_PARTY, "display_name": "The tests", "origins": [ORIGIN]},
        }})
    };
    let sign_up = async |typed: &Fields| {
        let visitor = scene.env.visitor(Client::BrowserJson);
        let mut flow = visitor.registration().await;
        let key = passkey::registered_for(&flow.shown);
        let typed = typed
            .clone()
            .with("method", "webauthn")
            .with("webauthn_register_displayname", "A key")
            .with("webauthn_register", key);
        flow.submit(&typed).await;
    };
    let passwordless = |settings: &mut Value| {
        settings["selfservice"]["methods"]["webauthn"] = webauthn(true);
    };
    is_open_without_hooks(&scene, "webauthn", passwordless, sign_up).await;

    let report = scene
        .change(|settings| {
            settings["selfservice"]["methods"]["webauthn"] = webauthn(false);
            hooks(settings, "registration", "webauthn").clear();
        })
        .await;
    report.assert_clean_of("unhooked-method");
    let visitor = scene.env.visitor(Client::BrowserJson);
    let form = visitor.registration().await.shown;
    assert!(!form.to_string().contains("webauthn_register"), "{form}");
}
