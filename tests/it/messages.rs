//! The messages for the visitor: text, position and language.

use serde_json::json;

use crate::support::{TestApp, payload};

const SETTINGS: &str = r#"
hooks: {default_language: de}
messages:
  vat_unknown: {id: 4900101, en: "No {value.size()} letters.", de: "Keine {value.size()} Zeichen.", pt-BR: "Nada."}
  try_again: {en: "Later.", de: "Später."}
checks:
  vat_number: {field: traits.vat_number, refuse: [{when: "true", message: vat_unknown}]}
"#;

#[tokio::test]
async fn a_message_is_placed_where_the_visitor_sees_it() {
    let app = TestApp::with(SETTINGS).start().await;
    let at = |place: &str, text: &str| (place.to_owned(), 4_900_101, text.to_owned());
    let visible = app.pre(&payload()).await.messages();
    assert_eq!(visible, [at("#/traits/vat_number", "Keine 11 Zeichen.")]);
    let hidden = app
        .pre(&payload().hiding("traits.vat_number"))
        .await
        .messages();
    assert_eq!(
        hidden,
        [
            at("#/traits/vat_number", "Keine 11 Zeichen."),
            at("#/", "VAT number: Keine 11 Zeichen.")
        ]
    );
    let missing = app
        .pre(&payload().with("/nodes", json!([{"name": "traits.email"}])))
        .await
        .messages();
    assert_eq!(missing, [at("#/", "Keine 11 Zeichen.")]);
    for nodes in [json!(null), json!([])] {
        let unknown = app.pre(&payload().with("/nodes", nodes)).await.messages();
        assert_eq!(unknown, [at("#/", "Keine 11 Zeichen.")]);
    }
}

#[tokio::test]
async fn a_message_is_in_the_language_of_the_visitor_or_the_default() {
    let app = TestApp::with(SETTINGS).start().await;
    for (header, expected) in [
        ("en-GB,en;q=0.9", "No 11 letters."),
        ("fr, en;q=0.5", "No 11 letters."),
        ("fr", "Keine 11 Zeichen."),
        ("pt-BR", "Nada."),
        ("pt", "Keine 11 Zeichen."),
        ("", "Keine 11 Zeichen."),
        ("*", "Keine 11 Zeichen."),
    ] {
        let messages = app.pre(&payload().in_language(header)).await.messages();
        assert_eq!(messages[0].2, expected, "{header}");
    }
}

#[tokio::test]
async fn a_replaced_built_in_message_keeps_its_id() {
    let app = TestApp::with(SETTINGS).start().await;
    let reply = app
        .call("/hooks/registration/pre?method=password", "")
        .await;
    assert_eq!(
        reply.messages(),
        [("#/".to_owned(), 4_900_001, "Später.".to_owned())]
    );
}

#[tokio::test]
async fn a_message_has_the_context_that_a_front_end_needs_to_translate_it() {
    let app = TestApp::with(SETTINGS).start().await;
    let body = app.pre(&payload()).await.json();
    assert_eq!(
        body["messages"][0]["messages"][0]["context"],
        json!({"message": "vat_unknown", "check": "vat_number", "field": "traits.vat_number"})
    );
}

#[tokio::test]
async fn a_message_that_cannot_be_rendered_falls_back_to_the_built_in_text() {
    let app = TestApp::with(
        r#"checks: {invite: {field: traits.invite, refuse: [{when: "true", message: {id: 4900102, en: "{identity.traits.nothing}"}}]}}"#,
    )
    .start()
    .await;
    let messages = app.pre(&payload().in_language("en")).await.messages();
    assert_eq!(
        messages,
        [(
            "#/traits/invite".to_owned(),
            4_900_102,
            "This value is not valid.".to_owned()
        )]
    );
}

#[tokio::test]
async fn one_response_holds_all_findings() {
    let app = TestApp::with(
        r#"
checks:
  vat_number: {field: traits.vat_number, refuse: [{when: "true", message: "One."}]}
  invite: {field: traits.invite, refuse: [{when: "true", message: "Two."}]}
  person: {refuse: [{when: "true", message: "Three."}]}
"#,
    )
    .start()
    .await;
    let messages: Vec<_> = app
        .pre(&payload())
        .await
        .messages()
        .into_iter()
        .map(|(place, _, text)| (place, text))
        .collect();
    let expected = [
        ("#/traits/vat_number", "One."),
        ("#/traits/invite", "Two."),
        ("#/", "Three."),
    ];
    assert_eq!(
        messages,
        expected.map(|(place, text)| (place.to_owned(), text.to_owned()))
    );
}
