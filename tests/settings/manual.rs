//! The schema, the manual and the example match the program.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use vestibule::config::schema::{markdown, resolved, schema};
use vestibule::config::{self, Environment};

use crate::file;
use crate::problems::updating;

#[test]
fn every_key_of_the_schema_is_described() {
    let schema = schema();
    let keys = keys(&schema);
    assert!(keys.len() > 60, "{} keys", keys.len());
    for (path, described) in keys {
        assert!(described, "`{path}` has no description");
    }
}

#[test]
fn the_schema_follows_draft_2020_12() {
    let schema = schema();
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(schema["additionalProperties"], false);
}

/// `UPDATE=1 cargo test --test settings` writes the manual.
#[test]
fn the_manual_is_up_to_date() {
    let path = file("docs/configuration.md");
    if updating() {
        fs::write(&path, markdown()).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == markdown(),
        "docs/configuration.md is stale: UPDATE=1 cargo test --test settings"
    );
}

#[test]
fn the_example_shows_every_key_and_is_valid() {
    let path = file("vestibule.example.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let variables = [
        ("VESTIBULE_KEY", "a-key-for-tests-only"),
        ("CRM_PASSWORD", "p"),
        (
            "CRM_SIGNING_SECRET",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ),
        ("BILLING_KEY", "b"),
        ("VESTIBULE_ADMIN_TOKEN", "a-token-for-tests-only"),
    ];
    let environment =
        Environment::of(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let settings =
        config::load(&path, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!settings.checks.is_empty() && !settings.subscriptions.is_empty());
    assert!(settings.warnings.is_empty(), "{}", settings.warnings);
    let words: BTreeSet<&str> = text
        .split(|character: char| !character.is_alphanumeric() && character != '_')
        .collect();
    for (path, _) in keys(&schema()) {
        let key = path.rsplit('.').next().unwrap();
        assert!(
            words.contains(key),
            "`{path}` is not in vestibule.example.yaml"
        );
    }
}

/// Returns every key with its path, and whether it is described.
fn keys(root: &Value) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    walk(root, root, "", &mut found);
    found
}

fn walk(root: &Value, schema: &Value, path: &str, found: &mut Vec<(String, bool)>) {
    let target = resolved(root, schema);
    for (key, property) in target["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        found.push((path.clone(), property["description"].is_string()));
        walk(root, property, &path, found);
    }
    for key in ["additionalProperties", "items"] {
        if target[key].is_object() {
            walk(root, &target[key], path, found);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        for choice in target[key].as_array().into_iter().flatten() {
            walk(root, choice, path, found);
        }
    }
}

/// `UPDATE=1 cargo test --test settings` writes the page.
#[test]
fn the_reference_of_the_command_line_is_up_to_date() {
    let path = file("docs/command-line.md");
    let expected = vestibule::cli::reference::markdown();
    if updating() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(
        fs::read_to_string(path).unwrap_or_default() == expected,
        "docs/command-line.md is stale: UPDATE=1 cargo test --test settings"
    );
}
