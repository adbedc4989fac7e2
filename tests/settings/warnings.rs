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
