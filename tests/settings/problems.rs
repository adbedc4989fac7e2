//! The reports of problems, compared with their exact text.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use vestibule::config::{self, Environment};

use crate::{environment, file, read};

#[test]
fn seven_problems_are_reported_together() {
    let text = fs::read_to_string(file("tests/fixtures/config/seven-problems.yaml")).unwrap();
    let report = read(&text).unwrap_err();
    insta::assert_snapshot!(report);
    assert!(
        report.starts_with("vestibule.yaml has 7 problems"),
        "{report}"
    );
}

/// Each broken file has its expected report beside it. `UPDATE=1 cargo test --test settings` writes the reports.
#[test]
fn every_kind_of_problem_has_its_message() {
    let folder = file("tests/fixtures/config/broken");
    let mut seen = 0;
    let mut stale = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let report = read(&fs::read_to_string(&path).unwrap())
            .err()
            .unwrap_or_else(|| panic!("{} has no problem", path.display()));
        let expected = path.with_extension("txt");
        if updating() {
            fs::write(&expected, &report).unwrap();
        }
        let known = fs::read_to_string(&expected).unwrap_or_default();
        if known != report {
            stale.push(format!(
                "{}\n--- expected\n{known}\n--- reported\n{report}",
                path.display()
            ));
        }
    }
    assert!(seen >= 30, "{seen} files");
    assert!(
        stale.is_empty(),
        "{}\nIf the new reports are right: UPDATE=1 cargo test --test settings",
        stale.join("\n")
    );
}

#[expect(clippy::disallowed_methods, reason = "a switch for developers")]
pub fn updating() -> bool {
    std::env::var("UPDATE").is_ok()
}

#[test]
fn a_problem_never_shows_a_value_from_the_environment() {
    for text in [
        "dsn: \"${env:SECRET}\"",
        "services: {crm: {url: \"${env:SECRET}\"}}",
        "services: {crm: {url: \"http://x/${env:SECRET}?a=1\"}}",
        "hooks: {keys: [\"${env:SECRET}\"]}",
        "hooks: {deadline: \"${env:SECRET}\"}",
        "serve: {hooks: {host: \"${env:SECRET}\", port: \"${env:SECRET}\"}}",
        "checks: {a: {ask: {get: \"${env:SECRET}/x\"}}}",
        "checks: {a: {ask: {get: \"http://x/{${env:SECRET}}\"}}}",
        "checks: {a: {when: \"${env:SECRET}\"}}",
        "checks: {a: {field: \"${env:SECRET}\"}}",
        "checks: {a: {ask: {service: \"${env:SECRET}\", get: /}}}",
        "kratos: {admin_url: \"${env:SECRET}\"}",
        "hooks: {default_language: \"${env:SECRET}\", client_ip: {header: \"a b ${env:SECRET}\"}, headers: [\"a ${env:SECRET}\"]}",
        "lists: {a: {file: \"${env:SECRET}\"}}",
        "log: {level: \"${env:SECRET}\"}",
        "checks: {a: {field: traits.a, required: \"${env:SECRET}\", mode: \"${env:SECRET}\", flows: [\"${env:SECRET}\"]}}",
        "services: {a: {url: \"http://a\", auth: {type: \"${env:SECRET}\", config: {token: a}}}}",
        "messages: {a: {id: \"${env:SECRET}\", en: A.}}",
    ] {
        let report = read(text).unwrap_err();
        assert!(!report.contains("hush-hush"), "{text}\n{report}");
    }
}

#[test]
fn a_missing_file_is_reported() {
    let report = vestibule::config::load(&file("nowhere.yaml"), &environment())
        .unwrap_err()
        .to_string();
    assert!(
        report.contains("nowhere.yaml has 1 problem\n\n  cannot read the file: No such file"),
        "{report}"
    );
}

#[test]
fn an_empty_file_is_reported() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "---\n...\n", "null\n"] {
        let report = read(text).unwrap_err();
        assert!(
            report.starts_with("vestibule.yaml has 1 problem\n\n  the file is empty\n"),
            "{text:?}: {report}"
        );
    }
}

#[test]
fn a_key_that_is_only_in_the_environment_is_validated() {
    let environment = Environment::of([("VESTIBULE_KEY".to_owned(), "hush-hush".to_owned())]);
    let report = config::read("{}", Path::new("vestibule.yaml"), &environment)
        .unwrap_err()
        .to_string();
    assert_eq!(
        report,
        "vestibule.yaml has 1 problem\n\n  hooks.keys: the environment variable `VESTIBULE_KEY` is not a valid key: a key needs at \
         least 16 printable ASCII characters without spaces\n    help: generate one with `vestibule keygen`\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Every text gives settings or problems, and never a panic.
    #[test]
    fn no_settings_text_causes_a_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "checks", "services", "messages", "subscriptions", "deliveries", "hooks", "lists", "serve", "dsn", "a", "b", "field", "ask", "get", "refuse",
                "when", "set", "after", "url", "id", "en", ":", ": ", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ",", "\"", "'", "!",
                "&x ", "*x", "|", ">", "%", "@", "${env:", "${", "}", "traits.a", "http://h/", "{value}", "404", "5s", "null", "true", "\t", "---",
                "é", "? ", "<<", "#",
            ]),
            0..40,
        )
    ) {
        let _ = read(&parts.concat());
    }
}
