//! What Kratos sends of the visitor's request and form.

use serde_json::json;
use vestibule::kratos::template::template;

use super::scene::{NOT_POSSIBLE, Scene, Seen};
use crate::support::Client;
use crate::support::fields::{VAT_NUMBER, company_with_unknown_number};
use crate::support::message::{TRY_AGAIN, VAT_UNKNOWN};

const VERSION_1: &str = include_str!("../../fixtures/kratos/version-1.jsonnet");

/// Vestibule refuses the body of another template, and of one that does not send what the settings read.
pub async fn vestibule_refuses_the_body_of_another_template() {
    let scene = Scene::start().await;
    let other = "function(ctx) {email: ctx.identity.traits.email}".to_owned();
    let correct = scene.env.kratos.replace_template(&other);
    for (rule, template, seen) in [
        ("body-not-ours", other, Seen::Refused(vec![TRY_AGAIN])),
        (
            "body-headers",
            template(&[]),
            Seen::Refused(vec![NOT_POSSIBLE]),
        ),
        (
            "body-outdated",
            VERSION_1.to_owned(),
            Seen::Refused(vec![NOT_POSSIBLE]),
        ),
    ] {
        scene.env.kratos.replace_template(&template);
        scene.report().assert_reports(rule);
        assert_eq!(scene.sign_up_with_known_number().await, seen, "{rule}");
        scene.env.kratos.replace_template(&correct);
        scene.report().assert_clean();
        assert_eq!(scene.sign_up_with_known_number().await, Seen::Accepted);
    }
}

/// Kratos sends a request header only if it is listed. A list replaces the default.
pub async fn kratos_passes_only_listed_headers_to_hooks() {
    const TENANT_CLOSED: u64 = 4_900_105;
    let scene = Scene::start().await;
    let sign_up = async || {
        let visitor = scene
            .env
            .visitor(Client::Api)
            .with_language("de")
            .with_headers(&[("X-Tenant", "closed")]);
        let mut flow = visitor.registration().await;
        let typed = company_with_unknown_number().by_password();
        let response = flow.submit(&typed).await;
        let mut texts = Vec::new();
        if Seen::of(&response) != Seen::Accepted {
            texts.extend(
                response
                    .assert_shown_again()
                    .into_iter()
                    .map(|one| (one.id, one.text)),
            );
        }
        texts.sort();
        texts
    };
    let german = "Diese USt-IdNr. ist nicht registriert.".to_owned();
    let both = [
        (VAT_UNKNOWN, german.clone()),
        (TENANT_CLOSED, "This tenant accepts no sign-ups.".to_owned()),
    ];
    assert_eq!(sign_up().await, both);

    let report = scene
        .change(|settings| {
            let root = settings.as_object_mut().expect("kratos.yml");
            root.remove("clients");
        })
        .await;
    report.assert_reports("header-allowlist");
    assert_eq!(sign_up().await, both[..1]);
    scene
        .paste(&report, "header-allowlist")
        .await
        .assert_clean();
    assert_eq!(sign_up().await, both);

    let report = scene
        .change(|settings| {
            settings["clients"]["web_hook"]["header_allowlist"] = json!(["X-Tenant"]);
        })
        .await;
    report.assert_reports("language-header");
    let english = "This VAT number is not registered.".to_owned();
    assert_eq!(sign_up().await, [(VAT_UNKNOWN, english), both[1].clone()]);
}

/// The default of Kratos is two steps.
pub async fn kratos_hides_the_fields_when_it_calls_vestibule_unless_the_style_is_set() {
    let scene = Scene::start().await;
    let report = scene
        .change(|settings| {
            let registration = &mut settings["selfservice"]["flows"]["registration"];
            registration
                .as_object_mut()
                .expect("a section")
                .remove("style");
        })
        .await;
    report.assert_reports("two-step");
    let visitor = scene.env.visitor(Client::Api);
    let typed = company_with_unknown_number();
    let mut flow = visitor.registration().await;
    let response = flow.submit(&typed.clone().by_profile()).await;
    assert_eq!(
        response.assert_shown_again(),
        [],
        "Kratos shows the second step"
    );
    assert!(flow.is_hidden(VAT_NUMBER));
    assert_eq!(scene.calls("registration").await, [0, 0]);
    let response = flow.submit(&typed.clone().by_password()).await;
    assert!(flow.is_hidden(VAT_NUMBER));
    let fields = response
        .assert_refused()
        .into_iter()
        .map(|(field, _)| field);
    assert_eq!(fields.collect::<Vec<_>>(), ["form", VAT_NUMBER]);

    scene
        .change(|settings| {
            settings["selfservice"]["flows"]["registration"]["style"] = json!("unified");
        })
        .await
        .assert_clean();
    let mut flow = visitor.registration().await;
    let response = flow.submit(&typed.by_password()).await;
    assert!(!flow.is_hidden(VAT_NUMBER));
    let fields = response
        .assert_refused()
        .into_iter()
        .map(|(field, _)| field);
    assert_eq!(fields.collect::<Vec<_>>(), [VAT_NUMBER]);
}
