//! Vestibule refuses fields of a sign-up.

use crate::support::fields::{EMAIL, INVITE, VAT_NUMBER};
use crate::support::message::{INVITE_UNKNOWN, VAT_UNKNOWN};
use crate::support::service::UNKNOWN_VAT_NUMBER;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

pub async fn visitor_corrects_a_refused_field_in_the_same_flow(client: Client) {
    let env = TestEnv::start().await;
    let visitor = env.visitor(client);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let response = flow
        .submit(&typed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER))
        .await;
    assert_eq!(response.assert_refused(), [at(VAT_NUMBER, VAT_UNKNOWN)]);
    assert!(env.kratos.identities().await.is_empty());

    let response = flow.submit(&typed).await;
    let identity = flow.assert_signed_up(&response).await;
    assert_eq!(identity["traits"]["email"], typed.text(EMAIL));
    assert_eq!(identity["traits"]["vat_number"], typed.text(VAT_NUMBER));
}

pub async fn vestibule_refuses_two_fields_in_one_response(client: Client) {
    let env = TestEnv::start().await;
    let visitor = env.visitor(client);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let both = typed
        .clone()
        .with(VAT_NUMBER, UNKNOWN_VAT_NUMBER)
        .with(INVITE, "MADE-UP");
    let response = flow.submit(&both).await;
    assert_eq!(
        response.assert_refused(),
        [at(INVITE, INVITE_UNKNOWN), at(VAT_NUMBER, VAT_UNKNOWN)]
    );

    let one = typed.with(INVITE, "MADE-UP-TOO");
    assert_eq!(
        flow.submit(&one).await.assert_refused(),
        [at(INVITE, INVITE_UNKNOWN)]
    );

    let response = flow.submit(&one.with(INVITE, "WELCOME-2026")).await;
    flow.assert_signed_up(&response).await;
}

pub async fn visitor_sees_the_message_of_a_hidden_field_above_the_form(client: Client) {
    let env = TestEnv::builder().in_two_steps().start().await;
    let visitor = env.visitor(client);
    let typed = company();
    let unknown = typed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);

    let mut flow = visitor.registration().await;
    let response = flow.submit(&unknown.clone().by_profile()).await;
    assert_eq!(
        response.assert_shown_again(),
        [],
        "Kratos shows the second step"
    );
    assert!(flow.is_hidden(VAT_NUMBER));
    assert!(
        env.checked_vat_numbers().is_empty(),
        "Kratos has called no hook"
    );

    let response = flow.submit(&unknown.by_password()).await;
    assert_eq!(
        response.assert_refused(),
        [at("form", VAT_UNKNOWN), at(VAT_NUMBER, VAT_UNKNOWN)]
    );
    let seen = &response.assert_shown_again()[0].text;
    assert!(
        seen.starts_with("VAT number"),
        "the message starts with the field's title: {seen:?}"
    );
    assert!(
        seen.contains("This VAT number is not registered."),
        "{seen:?}"
    );

    let response = flow.submit(&typed.clone().by_password()).await;
    let identity = flow.assert_signed_up(&response).await;
    assert_eq!(identity["traits"]["vat_number"], typed.text(VAT_NUMBER));
}

pub async fn vestibule_answers_in_the_language_of_the_visitor() {
    let env = TestEnv::start().await;
    for (language, expected) in [
        (
            "de-AT,de;q=0.9,en;q=0.5",
            "Diese USt-IdNr. ist nicht registriert.",
        ),
        ("en-GB", "This VAT number is not registered."),
        ("fi", "This VAT number is not registered."),
    ] {
        let visitor = env.visitor(Client::BrowserForm).with_language(language);
        let mut flow = visitor.registration().await;
        let typed = company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER).by_password();
        let response = flow.submit(&typed).await;
        let texts: Vec<String> = response
            .assert_shown_again()
            .into_iter()
            .map(|message| message.text)
            .collect();
        assert_eq!(texts, [expected], "{language}");
    }
}
