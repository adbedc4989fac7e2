//! The same text is shown once at each place of the form.

use serde_json::{Value, json};

use crate::support::{FakeService, TestApp, payload};

#[tokio::test]
async fn two_findings_with_the_same_text_are_shown_once() {
    let a = "flows: [registration, settings], refuse: [{when: \"true\", message: \"No.\"}]";
    let with_id = "flows: [registration, settings], refuse: [{when: \"true\", message: {id: 4900101, en: \"No.\"}}]";
    let other =
        "flows: [registration, settings], refuse: [{when: \"true\", message: \"Neither.\"}]";
    let down = "flows: [registration, settings], ask: {get: \"${env:SERVICE}/a\"}";
    let nodes = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| json!({"name": name, "hidden": true}))
            .collect()
    };
    let none = json!([]);
    let at = |place: &str, text: &str| (place.to_owned(), text.to_owned());
    let unavailable = "This could not be checked just now. Please try again in a few minutes.";
    #[rustfmt::skip]
    let table = [
        // At form level: without a field, or because the form lacks the node.
        (format!("a: {{{a}}}, b: {{{a}}}"), none.clone(), vec![at("#/", "No.")]),
        (format!("a: {{{a}}}, b: {{{with_id}}}, c: {{{other}}}, d: {{{a}}}"), none.clone(), vec![at("#/", "No."), at("#/", "Neither.")]),
        (format!("a: {{field: traits.email, {a}}}, b: {{field: traits.invite, {a}}}"), none.clone(), vec![at("#/", "No.")]),
        (format!("a: {{{down}}}, b: {{{down}}}, c: {{field: traits.email, {down}}}"), none.clone(), vec![at("#/", unavailable)]),
        (format!("a: {{field: traits.none, required: true}}, b: {{field: traits.neither, required: true}}"), none, vec![at("#/", "This field is required.")]),
        // Of hidden fields: on each field, and once above the form.
        (
            format!("a: {{field: traits.email, {a}}}, b: {{field: traits.invite, {a}}}"),
            nodes(&["traits.email", "traits.invite"]),
            vec![at("#/traits/email", "No."), at("#/", "No."), at("#/traits/invite", "No.")],
        ),
        // On one field.
        (
            format!("a: {{field: traits.email, {a}}}, b: {{field: traits.email, {with_id}}}, c: {{field: traits.email, {other}}}"),
            json!([{"name": "traits.email"}]),
            vec![at("#/traits/email", "No."), at("#/traits/email", "Neither.")],
        ),
        // The same text on two fields is not the same finding.
        (
            format!("a: {{field: traits.email, {a}}}, b: {{field: traits.invite, {a}}}"),
            json!([{"name": "traits.email"}, {"name": "traits.invite"}]),
            vec![at("#/traits/email", "No."), at("#/traits/invite", "No.")],
        ),
    ];
    for (checks, nodes, expected) in table {
        let service = FakeService::start();
        service.respond_with(503, &json!({}));
        let app = TestApp::with(&format!("checks: {{{checks}}}"))
            .service("SERVICE", &service)
            .start()
            .await;
        let body = payload().with("/nodes", nodes);
        for reply in [
            app.pre(&body).await,
            app.settings(&body.clone().saved()).await,
        ] {
            let seen: Vec<(String, String)> = reply
                .messages()
                .into_iter()
                .map(|(place, _, text)| (place, text))
                .collect();
            assert_eq!(seen, expected, "{checks}");
        }
    }
}
