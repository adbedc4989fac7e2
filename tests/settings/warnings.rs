//! Warnings: the settings are valid and probably a mistake.

use std::fs;

use vestibule::config;

use crate::environment;

/// Returns the warnings about these settings with this identity schema.
fn warnings(text: &str, schema: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("schema.json"), schema).expect("a file");
    let path = folder.path().join("vestibule.yaml");
    let settings =
        config::read(text, &path, &environment()).unwrap_or_else(|problems| panic!("{problems}"));
    if settings.warnings.is_empty() {
        return String::new();
    }
    let report = settings.warnings.to_string();
    report.replace(&path.display().to_string(), "vestibule.yaml")
}

const SCHEMA: &str = r#"{"properties": {"traits": {"type": "object", "properties": {
    "email": {"type": "string"},
    "invite": {"title": "Invite"},
    "address": {"type": "object", "properties": {"city": {"type": "string"}, "street": {"maxLength": 80}}},
    "emails": {"type": "array", "items": {"type": "string"}}
}}}}"#;

#[test]
fn a_checked_trait_without_a_type_in_the_schema_is_a_warning() {
    let text = r#"kratos: {identity_schema: "file://schema.json"}
checks:
  email: {field: traits.email, refuse: [{when: "value == 'x'"}]}
  invite: {field: traits.invite, refuse: [{when: "value == 'x'"}]}
  street:
    refuse: [{when: "identity.traits.address.street == 'x'"}]
  listed: {field: traits.emails.0, refuse: [{when: "identity.traits.address.city == 'x'"}]}
  unknown: {field: traits.vat_number, refuse: [{when: "value == 'x'"}]}
"#;
    insta::assert_snapshot!(warnings(text, SCHEMA));
}

#[test]
fn accept_is_a_warning_where_a_service_is_asked() {
    let text = r#"checks:
  short: {ask: {get: "http://a/"}, on_unavailable: accept}
  default: {ask: {get: "http://a/"}, on_unavailable: {default: accept, timeout: refuse}}
  named: {ask: {get: "http://a/"}, on_unavailable: {timeout: accept}}
  observed: {ask: {get: "http://a/"}, on_unavailable: accept, mode: observe}
  expression: {refuse: [{when: "true"}], on_unavailable: accept}
"#;
    insta::assert_snapshot!(warnings(text, "{}"));
}

#[test]
fn a_reservation_without_the_admin_api_is_a_warning() {
    let reserve = r#"checks:
  invite: {field: traits.invite, reserve: {take: {post: "http://a/{value}"}, release: {delete: "http://a/{value}"}}}
"#;
    insta::assert_snapshot!(warnings(reserve, "{}"));
    let looked_up = format!("kratos: {{admin_url: \"http://kratos:4434\"}}\n{reserve}");
    assert_eq!(warnings(&looked_up, "{}"), "");
}

#[test]
fn without_a_schema_there_is_no_warning_about_types() {
    let text = "checks: {a: {field: traits.invite, refuse: [{when: \"value == 'x'\"}]}}";
    assert_eq!(warnings(text, SCHEMA), "");
}

#[test]
fn a_field_that_is_compared_with_the_previous_one_can_be_emptied() {
    let text = r#"checks:
  refused: {flows: [settings], field: traits.user_name, refuse: [{when: "previous.traits.user_name != value"}]}
  condition: {flows: [settings], field: traits.user_name, when: has(previous.traits.user_name), refuse: [{when: "true"}]}
  nested: {flows: [settings], field: traits.company.vat, refuse: [{when: "has(previous.traits.company) && previous.traits.company.vat != value"}]}
  listed: {flows: [settings], field: traits.emails.0, refuse: [{when: "previous.traits.emails[0] != value"}]}
  both: {field: traits.user_name, refuse: [{when: "has(previous.traits.user_name) && previous.traits.user_name != value"}]}
  with_a_service:
    flows: [settings]
    field: traits.user_name
    ask: {get: "http://a/{value}"}
    refuse: [{when: 404}, {when: "previous.traits.user_name != response.body.name"}]
"#;
    insta::assert_snapshot!(warnings(text, "{}"));
}

#[test]
fn a_field_that_cannot_be_emptied_is_no_warning() {
    for check in [
        "field: traits.a, immutable: true",
        "field: traits.a, immutable: true, refuse: [{when: \"has(previous.traits.a) && previous.traits.a != value\"}]",
        "flows: [settings], field: traits.a, required: true, refuse: [{when: previous.traits.a != value}]",
        "flows: [settings], field: traits.a, absent: check, refuse: [{when: previous.traits.a != value}]",
        "flows: [settings], field: traits.a, refuse: [{when: previous.traits.b != value}]",
        "flows: [settings], field: traits.a, when: has(previous.traits.a)",
        "flows: [settings], field: traits.emails.0, refuse: [{when: \"previous.traits.emails[1] == value\"}]",
        "flows: [settings], refuse: [{when: previous.traits.a != identity.traits.a}]",
    ] {
        let text = format!("checks: {{c: {{{check}}}}}");
        assert_eq!(warnings(&text, "{}"), "", "{check}");
    }
}

#[test]
fn immutable_under_a_condition_that_a_visitor_can_change_is_a_warning() {
    let text = r#"checks:
  kind: {field: traits.vat, immutable: true, when: identity.traits.kind == 'firm'}
  nested: {field: traits.company.vat, immutable: true, when: has(identity.traits.company.kind)}
  all: {field: traits.vat, immutable: true, when: size(identity.traits) > 2}
  own: {field: traits.vat, immutable: true, when: value.startsWith('DE') && identity.traits.vat != 'DE1'}
  schema: {field: traits.vat, immutable: true, when: identity.schema_id == 'firm' && identity.metadata_public.plan == 'gold'}
"#;
    insta::assert_snapshot!(warnings(text, "{}"));
}
