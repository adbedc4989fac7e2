//! Kratos: the admin API, the version, and the identity schemas in force.

use std::path::Path;

use serde_json::{Value, json};
use vestibule_testing::fake_service::{Behaviour, FakeService};
use vestibule_testing::port;

use super::{Examination, PORTS, examine, examine_with, folder_with};

/// A Kratos of this version. Its admin API redirects to `public` for the identity schemas, as a real one does.
pub fn kratos(version: &'static str, public: String) -> FakeService {
    FakeService::answering(move |call| match call.path.as_str() {
        "/version" => (200, json!({"version": version}).to_string(), None),
        "/admin/identities" => (200, "[]".to_owned(), None),
        "/admin/schemas" => {
            let target = format!("{public}/schemas");
            (307, String::new(), Some(("location", target)))
        }
        _ => (404, json!({"error": {"code": 404}}).to_string(), None),
    })
}

/// A public API with an identity schema that has these traits.
pub fn public(traits: &[&str]) -> FakeService {
    let schemas = json!([{"id": "customer", "schema": schema(traits)}]).to_string();
    FakeService::answering(move |call| match call.path.as_str() {
        "/schemas" => (200, schemas.clone(), None),
        _ => (404, String::new(), None),
    })
}

fn schema(traits: &[&str]) -> Value {
    let properties = traits
        .iter()
        .map(|name| ((*name).to_owned(), json!({"type": "string"})));
    let properties: serde_json::Map<String, Value> = properties.collect();
    json!({
        "type": "object",
        "properties": {"traits": {"type": "object", "properties": properties, "additionalProperties": false}},
    })
}

fn settings(admin: &str, more: &str) -> String {
    format!(
        "{PORTS}kratos: {{admin_url: \"{admin}\"}}\n\
         checks:\n  vat:\n    field: traits.vat_number\n    {more}refuse: [{{when: \"value == 'x'\"}}]\n"
    )
}

fn examined(folder: &Path) -> Examination {
    examine(folder, "kratos", &[])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_identity_schemas_in_force_are_compared_with_the_settings() {
    for (traits, level, part) in [
        (&["email", "vat_number"][..], "ok", "in force: `customer`"),
        (&["email", "vat_id", "vatnumber"], "problem", "did you mean"),
        (
            &["email", "vat_number", "is_admin"],
            "warning",
            "`traits.is_admin`",
        ),
    ] {
        let public = public(traits);
        let kratos = kratos("v26.2.0", public.url());
        let folder = folder_with(&settings(&kratos.url(), ""));
        let found = examined(folder.path());
        let all = found.of("kratos", "schemas");
        let last = all.last().expect("a finding");
        assert_eq!(last["level"], level, "{:#}", found.report);
        assert!(last.to_string().contains(part), "{last}");
        found.assert("kratos", "version", "ok", "v26.2.0");
        found.assert("kratos", "access", "ok", "lists identities");
        found.assert("kratos", "clock", "ok", "agrees");
        assert_eq!(found.code, i32::from(level == "problem"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outdated_copy_of_an_identity_schema_is_a_warning() {
    let public = public(&["email", "vat_number"]);
    let kratos = kratos("v26.2.0", public.url());
    let (one, several) = ("identity_schema: \"", "identity_schemas: {customer: \"");
    for (copy, keys, is_outdated) in [
        (&["email", "vat_number"][..], one, false),
        (&["email", "vat_number", "old"], one, true),
        (&["email", "vat_number", "old"], several, true),
    ] {
        let admin = format!("{}\", {keys}file://schema.json", kratos.url());
        let end = if keys == several { "\"}}" } else { "\"}" };
        let written = settings(&admin, "").replacen("\"}", end, 1);
        let folder = folder_with(&written);
        std::fs::write(folder.path().join("schema.json"), schema(copy).to_string())
            .expect("a file");
        let found = examined(folder.path());
        let all = found.of("kratos", "schemas");
        let message = "is none of those that Kratos uses";
        let warned = all
            .iter()
            .any(|one| one["level"] == "warning" && one.to_string().contains(message));
        assert_eq!(warned, is_outdated, "{:#}", found.report);
        let path = if keys == several {
            "kratos.identity_schemas.customer"
        } else {
            "kratos.identity_schema"
        };
        let is_placed = all.iter().any(|one| one["path"] == path);
        assert_eq!(is_placed, is_outdated, "{:#}", found.report);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_api_that_hangs_is_named() {
    let public = public(&["vat_number"]);
    public.set_behaviour(Behaviour::Hangs);
    let kratos = kratos("v26.2.0", public.url());
    let folder = folder_with(&settings(&kratos.url(), ""));
    let options = ["--only", "kratos", "--timeout", "500ms"];
    let found = examine_with(folder.path(), &options, &[]);
    let part = format!(
        "{}/, which cannot be called: no response in time",
        public.url()
    );
    found.assert("kratos", "schemas", "not_checked", &part);
    public.release_hanging_calls();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_api_can_be_given_where_its_address_cannot_be_used() {
    let public = public(&["vat_number"]);
    let nowhere = format!("http://127.0.0.1:{}", port::free());
    let kratos = kratos("v26.2.0", nowhere);
    let folder = folder_with(&settings(&kratos.url(), ""));
    let found = examined(folder.path());
    found.assert("kratos", "schemas", "not_checked", "--kratos-public");
    assert_eq!(found.code, 0);
    let options = ["--only", "kratos", "--kratos-public", &public.url()];
    let found = examine_with(folder.path(), &options, &[]);
    found.assert("kratos", "schemas", "ok", "customer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kratos_that_is_too_old_or_another_program_is_a_problem() {
    let public = public(&["vat_number"]);
    let defers = "ask: {get: \"http://127.0.0.1:9/\"}\n    on_unavailable: defer\n    ";
    for (version, level, part) in [
        ("v25.3.0", "problem", "since v25.4.0"),
        ("v25.4.0", "ok", "v25.4.0"),
        ("master", "not_checked", "is not a version"),
    ] {
        let kratos = kratos(version, public.url());
        let folder = folder_with(&settings(&kratos.url(), defers));
        examined(folder.path()).assert("kratos", "version", level, part);
    }
    for (status, body, part) in [
        (200, "<html>", "4433 is the public API"),
        (404, "{}", "4433 is the public API"),
        (401, "{}", "kratos.auth"),
        (503, "{}", "log of Kratos"),
    ] {
        let other = FakeService::answering(move |_| (status, body.to_owned(), None));
        let folder = folder_with(&settings(&other.url(), ""));
        let found = examined(folder.path());
        assert_eq!(found.code, 1);
        for name in ["version", "access", "schemas"] {
            found.assert("kratos", name, "problem", part);
        }
    }
}
