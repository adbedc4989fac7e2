//! Somebody signs up, and something they typed is refused.

use crate::support::fields::{EMAIL, INVITE, VAT_NUMBER};
use crate::support::message::{INVITE_UNKNOWN, VAT_UNKNOWN};
use crate::support::service::UNKNOWN_VAT_NUMBER;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

pub async fn a_refused_field_is_corrected_in_the_same_flow(client: Client) {
    let house = TestEnv::open().await;
    let visitor = house.visitor(client);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let answer = flow
        .submit(&typed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER))
        .await;
    assert_eq!(answer.refused(), [at(VAT_NUMBER, VAT_UNKNOWN)]);
    assert!(house.kratos.identities().await.is_empty());

    let answer = flow.submit(&typed).await;
    let identity = flow.signed_up(&answer).await;
    assert_eq!(identity["traits"]["email"], typed.text(EMAIL));
    assert_eq!(identity["traits"]["vat_number"], typed.text(VAT_NUMBER));
}

pub async fn two_fields_are_refused_at_once(client: Client) {
    let house = TestEnv::open().await;
    let visitor = house.visitor(client);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let both = typed
        .clone()
        .with(VAT_NUMBER, UNKNOWN_VAT_NUMBER)
        .with(INVITE, "MADE-UP");
    let answer = flow.submit(&both).await;
    assert_eq!(
        answer.refused(),
        [at(INVITE, INVITE_UNKNOWN), at(VAT_NUMBER, VAT_UNKNOWN)]
    );

    let one = typed.with(INVITE, "MADE-UP-TOO");
    assert_eq!(
        flow.submit(&one).await.refused(),
        [at(INVITE, INVITE_UNKNOWN)]
    );

    let answer = flow.submit(&one.with(INVITE, "WELCOME-2026")).await;
    flow.signed_up(&answer).await;
}

pub async fn a_hidden_field_is_refused_where_the_person_sees_it(client: Client) {
    let house = TestEnv::plan().in_two_steps().open().await;
    let visitor = house.visitor(client);
    let typed = company();
    let unknown = typed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);

    let mut flow = visitor.registration().await;
    let answer = flow.submit(&unknown.clone().by_profile()).await;
    assert_eq!(answer.shown_again(), [], "the second step");
    assert!(flow.hides(VAT_NUMBER));
    assert!(house.vat_numbers_asked().is_empty(), "no hook yet");

    let answer = flow.submit(&unknown.by_password()).await;
    assert_eq!(
        answer.refused(),
        [at("form", VAT_UNKNOWN), at(VAT_NUMBER, VAT_UNKNOWN)]
    );
    let seen = &answer.shown_again()[0].text;
    assert!(
        seen.starts_with("VAT number"),
        "the field's title in front: {seen:?}"
    );
    assert!(
        seen.contains("This VAT number is not registered."),
        "{seen:?}"
    );

    let answer = flow.submit(&typed.clone().by_password()).await;
    let identity = flow.signed_up(&answer).await;
    assert_eq!(identity["traits"]["vat_number"], typed.text(VAT_NUMBER));
}

pub async fn the_words_are_in_the_language_of_the_person() {
    let house = TestEnv::open().await;
    for (language, words) in [
        (
            "de-AT,de;q=0.9,en;q=0.5",
            "Diese USt-IdNr. ist nicht registriert.",
        ),
        ("en-GB", "This VAT number is not registered."),
        ("fi", "This VAT number is not registered."),
    ] {
        let visitor = house.visitor(Client::BrowserForm).reading(language);
        let mut flow = visitor.registration().await;
        let typed = company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER).by_password();
        let answer = flow.submit(&typed).await;
        let texts: Vec<String> = answer
            .shown_again()
            .into_iter()
            .map(|message| message.text)
            .collect();
        assert_eq!(texts, [words], "{language}");
    }
}
