//! Fields that are entries of lists: `traits.emails.0`.

use serde_json::{Value, json};

use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

fn with_traits(traits: Value) -> Payload {
    payload().with("/identity/traits", traits)
}

/// A form with these nodes.
fn with_nodes(payload: Payload, names: &[&str]) -> Payload {
    let nodes: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
    payload.with("/nodes", nodes)
}

#[tokio::test]
async fn a_check_runs_on_an_entry_of_a_list() {
    let throwaway = "refuse: [{when: \"in_domains(value, lists.throwaway)\"}]";
    #[rustfmt::skip]
    let table = [
        ("traits.emails.0", json!({"emails": ["a@mailinator.com"]}), true),
        ("traits.emails.0", json!({"emails": ["a@example.org", "a@mailinator.com"]}), false),
        ("traits.emails.1", json!({"emails": ["a@example.org", "a@mailinator.com"]}), true),
        ("traits.people.0.email", json!({"people": [{"email": "a@mailinator.com"}]}), true),
        ("traits.people.1.emails.0", json!({"people": [{}, {"emails": ["a@mailinator.com"]}]}), true),
        ("traits.rows.0.1", json!({"rows": [["x@example.org", "a@mailinator.com"]]}), true),
        // An index into something that is not a list, or beyond its end, is absent.
        ("traits.emails.0", json!({"emails": []}), false),
        ("traits.emails.0", json!({"emails": "a@mailinator.com"}), false),
        ("traits.emails.0", json!({"emails": null}), false),
        ("traits.emails.0", json!({"emails": 7}), false),
        ("traits.emails.0", json!({}), false),
        ("traits.emails.1", json!({"emails": ["a@mailinator.com"]}), false),
        ("traits.emails.x", json!({"emails": ["a@mailinator.com"]}), false),
        ("traits.people.0.email", json!({"people": ["a@mailinator.com"]}), false),
        ("traits.people.email", json!({"people": [{"email": "a@mailinator.com"}]}), false),
        ("traits.emails.0", json!({"emails": ["\u{200b}"]}), false),
    ];
    for (field, traits, is_refused) in table {
        let yaml = format!(
            "lists: {{throwaway: [mailinator.com]}}\nchecks: {{c: {{field: {field}, {throwaway}}}}}"
        );
        let app = TestApp::with(&yaml).start().await;
        for reply in [
            app.pre(&with_traits(traits.clone())).await,
            app.settings(&with_traits(traits.clone()).changed_from(&json!({})))
                .await,
        ] {
            assert_eq!(
                reply.status,
                if is_refused { 400 } else { 204 },
                "{field} {traits}"
            );
        }
        // What is absent is refused if it is required.
        let required = yaml.replace("refuse:", "required: true, refuse:");
        let app = TestApp::with(&required).start().await;
        let id = if is_refused { Some(4_900_002) } else { None };
        let reply = app.pre(&with_traits(traits.clone())).await;
        let is_present =
            is_refused || field == "traits.emails.0" && traits["emails"][1].is_string();
        if is_present {
            assert_eq!(reply.status == 400, id.is_some(), "{field} {traits}");
        } else {
            assert_eq!(reply.refused()[0].1, 4_900_003, "{field} {traits}");
        }
    }
}

#[tokio::test]
async fn the_message_of_an_entry_goes_to_the_nearest_node_that_the_form_has() {
    let traits = json!({"emails": ["a", "b"], "people": [{"email": "a", "name": {"first": "x"}}]});
    for (field, nodes, expected) in [
        (
            "traits.emails.0",
            &["traits.emails.0", "traits.emails"][..],
            "#/traits/emails/0",
        ),
        (
            "traits.emails.0",
            &["traits.emails", "traits.emails.1"],
            "#/traits/emails",
        ),
        ("traits.emails.1", &["traits.emails.1"], "#/traits/emails/1"),
        ("traits.emails.0", &["traits.email"], "#/"),
        ("traits.emails.0", &[], "#/"),
        (
            "traits.people.0.email",
            &["traits.people.0.email"],
            "#/traits/people/0/email",
        ),
        (
            "traits.people.0.email",
            &["traits.people.0", "traits.people"],
            "#/traits/people/0",
        ),
        (
            "traits.people.0.email",
            &["traits.people"],
            "#/traits/people",
        ),
        (
            "traits.people.0.name.first",
            &["traits.people.0.name", "traits.people"],
            "#/traits/people/0/name",
        ),
    ] {
        for refusal in [
            "refuse: [{when: \"true\"}]",
            "immutable: true",
            "ask: {get: \"${env:SERVICE}/a\"}",
        ] {
            let service = FakeService::start();
            service.respond_with(503, &json!({}));
            let yaml = format!("checks: {{c: {{field: {field}, {refusal}}}}}");
            let app = TestApp::with(&yaml)
                .service("SERVICE", &service)
                .start()
                .await;
            let other =
                json!({"emails": ["x", "y"], "people": [{"email": "y", "name": {"first": "y"}}]});
            let changed = with_nodes(with_traits(other), nodes).changed_from(&traits);
            let reply = app.settings(&changed).await;
            let places: Vec<String> = reply
                .refused()
                .into_iter()
                .map(|(place, _)| place)
                .collect();
            assert_eq!(places, [expected], "{field} {nodes:?} {refusal}");
        }
    }
}

#[tokio::test]
async fn a_check_sets_an_entry_of_a_list() {
    let yaml = r#"
checks:
  first: {field: traits.emails.0, set: {traits.emails.0: "{value.lowerAscii()}"}}
  project: {field: traits.projects.0.name, set: {traits.projects.0.slug: "{value.lowerAscii()}", metadata_public.project: "{value}"}}
  missing: {when: "true", set: {traits.emails.5: "x", traits.tags.0: "x", metadata_public.list.0: "x"}}
"#;
    let app = TestApp::with(yaml).start().await;
    let reply = app
        .pre(&with_traits(json!({"emails": ["A@X.org", "B@X.org"], "projects": [{"name": "One"}, {"name": "Two"}]})))
        .await;
    assert_eq!(
        reply.json()["identity"],
        json!({
            "traits": {"emails": ["a@x.org", "B@X.org"], "projects": [{"name": "One", "slug": "one"}, {"name": "Two"}]},
            "metadata_public": {"project": "One", "list": {"0": "x"}},
        })
    );
    let failed = app
        .metric("vestibule_set_failures_total{check=\"missing\"}")
        .await;
    assert!(
        (failed - 2.0).abs() < 0.1,
        "an entry that does not exist is not written: {failed}"
    );
    // Without a list there is no entry, so the checks do not apply.
    let reply = app
        .pre(&with_traits(
            json!({"emails": "A", "projects": {"name": "One"}}),
        ))
        .await;
    assert_eq!(
        reply.json()["identity"],
        json!({"metadata_public": {"list": {"0": "x"}}})
    );
}

#[tokio::test]
async fn an_entry_that_is_read_and_a_field_of_that_entry_are_one_value() {
    let service = FakeService::start();
    let yaml = r#"
checks:
  first: {field: traits.emails.0, required: true, ask: {get: "${env:SERVICE}/{identity.traits.emails[0]}"}}
"#;
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    let emails = |list: Value| json!({ "emails": list });
    for (before, after, asked) in [
        (json!([null]), json!([""]), 0),
        (json!([]), json!([" "]), 0),
        (json!(["a"]), json!(["a", "b"]), 0),
        (json!(["a"]), json!(["c"]), 1),
    ] {
        let changed = with_traits(emails(after.clone())).changed_from(&emails(before));
        assert_eq!(app.settings(&changed).await.status, 204, "{after}");
        assert_eq!(service.received().len(), asked, "{after}");
    }
}
