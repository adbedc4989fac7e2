//! Every settings file and every example of this repository passes `vestibule validate --strict`, also in CI, where its
//! environment variables are missing.

use std::fs;
use std::path::{Path, PathBuf};

use vestibule::config::{self, Environment};

use crate::file;

/// Words at the beginning of a line that only settings of Vestibule have.
const SECTIONS: [&str; 4] = ["checks:", "subscriptions:", "hooks:", "kratos:"];

fn expect_no_finding(text: &str, path: &Path, environment: &Environment, about: &str) {
    let review = config::review_text(text, path, environment);
    assert!(
        review.problems.is_empty() && review.warnings.is_empty(),
        "{about}\n{}{}",
        review.problems,
        review.warnings
    );
    assert!(review.settings.is_some(), "{about}");
}

fn in_ci() -> Environment {
    Environment::of([]).allowing_missing()
}

fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(file(folder))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found
}

#[test]
fn every_settings_file_passes_strict() {
    let mut files = files_in("examples/settings", "yaml");
    files.push(file("vestibule.example.yaml"));
    assert!(files.len() >= 6);
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        expect_no_finding(&text, &path, &in_ci(), &path.display().to_string());
    }
}

/// Returns the YAML blocks of a document that hold settings.
fn blocks(document: &str) -> Vec<String> {
    document
        .split("\n```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("\n```").next())
        .filter(|block| {
            let mut lines = block.lines();
            lines.any(|line| SECTIONS.iter().any(|section| line.starts_with(section)))
        })
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_example_in_the_documents_passes_strict() {
    let mut documents = files_in("docs", "md");
    documents.push(file("README.md"));
    documents.push(file("examples/native-client/README.md"));
    documents.push(file("examples/front-end/README.md"));
    let mut seen = 0;
    for path in documents {
        let document = fs::read_to_string(&path).expect("a document");
        for block in blocks(&document) {
            seen += 1;
            // Relative paths in documents begin where the examples are.
            let place = file("examples/settings/vestibule.yaml");
            let about = format!("{}\n{block}", path.display());
            expect_no_finding(&block, &place, &in_ci(), &about);
        }
    }
    assert!(seen >= 3, "{seen} examples");
}

/// The settings inside of Kubernetes and compose files are checked where they are written out.
#[test]
fn settings_in_a_config_map_pass_strict() {
    let manifest = fs::read_to_string(file("examples/kubernetes/vestibule.yaml")).expect("a file");
    let mut lines = manifest.lines();
    let key = lines
        .find(|line| line.trim_start().starts_with("vestibule.yaml: |"))
        .expect("the settings in the ConfigMap");
    let indent = key.len() - key.trim_start().len();
    let settings: Vec<&str> = lines
        .take_while(|line| line.trim().is_empty() || line.len() - line.trim_start().len() > indent)
        .map(|line| line.get(indent + 2..).unwrap_or_default())
        .collect();
    let settings = settings.join("\n");
    assert!(settings.contains("checks:"), "{settings}");
    let place = file("examples/kubernetes/settings.yaml");
    expect_no_finding(
        &settings,
        &place,
        &in_ci(),
        "examples/kubernetes/vestibule.yaml",
    );
}

#[test]
fn a_placeholder_has_the_type_of_its_place() {
    for text in [
        "services: {a: {url: \"${env:URL}\", timeout: \"${env:TIMEOUT}\", headers: {X: \"${env:H}\"}}}",
        "services: {a: {url: \"https://${env:HOST}:${env:PORT}/api/${env:PATH}\", timeout: \"${env:T}s\"}}",
        "services: {a: {url: \"${env:SCHEME}://${env:HOST}\", limit: {concurrent: \"${env:N}\", per_second: \"${env:R}\"}}}",
        "services: {a: {url: \"http://a\", sign: {secret: \"${env:S}\"}, auth: {type: bearer, config: {token: \"${file:/nowhere}\"}}}}",
        "services: {a: {url: \"http://a\", sign: {secrets: [\"${env:S}\", \"${env:T}\"]}}}",
        "hooks: {keys: [\"${env:KEY}\", \"${file:/nowhere}\"], deadline: \"${env:D}\", default_language: \"${env:L}\"}",
        "dsn: \"${env:DSN}\"",
        "dsn: \"postgres://u:${env:PASSWORD}@${env:HOST}:${env:PORT}/${env:NAME}\"",
        "serve: {hooks: {host: \"${env:HOST}\", port: \"${env:PORT}\"}, shutdown_delay: \"${env:D}\"}",
        "log: {level: \"${env:LEVEL}\", format: \"${env:FORMAT}\"}",
        "kratos: {admin_url: \"${env:KRATOS}\", identity_schema: \"${env:SCHEMA}\", use_external_id: \"${env:U}\"}",
        "kratos: {identity_schemas: {default: \"file://${env:SCHEMA}\"}}",
        "messages: {a: {id: \"${env:ID}\", en: \"${env:TEXT}\"}, b: {id: \"${env:ID2}\", en: \"No.\"}}",
        "lists: {a: [\"${env:A}\"], b: {file: \"${env:FILE}\"}}",
        "checks: {a: {field: traits.a, required: \"${env:R}\", mode: \"${env:M}\", flows: [\"${env:F}\"], ask: {get: \"${env:URL}/x/{value}\"}}}",
        "services: {s: {url: \"http://s\"}}\nchecks: {a: {ask: {service: s, get: \"${env:PREFIX}/x\"}}}",
        "subscriptions: {a: {events: [\"${env:E}\"], send: {post: \"${env:URL}\", json: {key: \"${env:K}\"}}, retry: {max_elapsed: \"${env:M}\"}}}",
        "kratos: {admin_url: \"http://k\"}\nreconcile: {every: \"${env:E}\", since: \"${env:S}\", per_second: \"${env:P}\"}",
        "retention: {deliveries: \"${env:D}\", decisions: \"${env:D}\"}",
    ] {
        let path = Path::new("vestibule.yaml");
        let strict = config::review_text(text, path, &Environment::of([]));
        assert!(!strict.problems.is_empty(), "{text}");
        let review = config::review_text(text, path, &in_ci());
        assert!(review.problems.is_empty(), "{text}\n{}", review.problems);
        assert!(review.settings.is_some(), "{text}");
    }
}

#[test]
fn a_placeholder_hides_no_other_problem() {
    for (text, expected) in [
        ("services: {a: {url: \"${URL}\"}}", "is neither"),
        (
            "services: {a: {url: \"${env:URL}\", timeout: 5}}",
            "has no unit",
        ),
        (
            "checks: {a: {refuse: [{when: \"identity.id == '${env:X}'\"}]}}",
            "an expression cannot contain `${…}`",
        ),
        (
            "checks: {a: {ask: {get: \"${env:URL}/{valeu}\"}}}",
            "there is no name `valeu`",
        ),
        ("log: {levle: \"${env:LEVEL}\"}", "there is no key `levle`"),
    ] {
        let review = config::review_text(text, Path::new("vestibule.yaml"), &in_ci());
        let report = review.problems.to_string();
        assert!(
            review.problems.len() == 1 && report.contains(expected),
            "{text}\n{report}"
        );
    }
}

#[test]
fn a_missing_choice_is_no_finding_if_one_of_its_values_is_right() {
    for text in [
        "checks: {a: {field: traits.a, required: \"${env:R}\"}}",
        "checks: {a: {field: traits.a, absent: \"${env:A}\", required: \"${env:R}\", refuse: [{when: value.size() > 5}]}}",
        "kratos: {admin_url: \"http://k\"}\nchecks: {a: {ask: {get: \"http://a/\"}, on_unavailable: \"${env:P}\", on_expiry: keep}}",
        "checks: {a: {ask: {get: \"http://a/\"}, flows: [\"${env:F}\"], refuse: [{when: \"previous.traits.a == 'x'\"}]}}",
        "subscriptions: {a: {events: [\"${env:E}\"], supersede: \"${env:R}\", send: {post: \"http://a/\", json: {was: \"{previous.traits.?a}\"}}}}",
        "subscriptions: {a: {events: [identity.updated], once: \"${env:O}\", supersede: \"${env:R}\", send: {post: \"http://a/\"}}}",
        "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: \"${env:M}\"}], invalid_message: \"${env:N}\"}}",
        "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: \"not_${env:M}\"}]}}",
        "services: {a: {url: \"http://a\", auth: {type: \"${env:T}\", config: {user: u, password: p}}}}",
        "services: {a: {url: \"http://a\", auth: {type: \"${env:T}\", config: {name: n, value: v, in: \"${env:I}\"}}}}",
        "services: {a: {url: \"http://a\"}}\nchecks: {c: {ask: {service: \"${env:S}\", get: /x}}}",
        "checks: {a: {ask: {get: \"http://a/\"}}, b: {ask: {get: \"http://b/\"}, after: [\"${env:A}\"]}, c: {after: [b], ask: {get: \"http://c/\"}}}",
        "kratos: {identity_schema: \"file://flat.json\"}\nchecks: {a: {field: \"${env:F}\", refuse: [{when: \"value.startsWith('x') || identity.traits.user_name == 'x'\"}]}}",
        "hooks: {headers: [\"${env:H}\"]}\nchecks: {a: {refuse: [{when: \"request.headers['X-Country'] == 'x'\"}]}}",
        "hooks: {client_ip: {header: \"${env:H}\", trusted_proxies: \"${env:N}\"}}\nchecks: {a: {refuse: [{when: \"request.headers['X-Real-Ip'] == 'x'\"}]}}",
    ] {
        let path = file("tests/fixtures/identity-schemas/vestibule.yaml");
        expect_no_finding(text, &path, &in_ci(), text);
    }
}

#[test]
fn a_missing_choice_hides_no_check() {
    for (text, expected) in [
        (
            "checks: {a: {field: traits.a, required: \"${env:R}\", refuse: [{when: valeu == 'x'}]}}",
            "there is no name `valeu`",
        ),
        (
            "checks: {a: {ask: {get: \"http://a/\"}, on_unavailable: \"${env:P}\", refuse: [{when: respnse.status == 404}]}}",
            "there is no name `respnse`",
        ),
        (
            "subscriptions: {a: {events: [\"${env:E}\"], send: {post: \"http://a/{identiy.id}\"}}}",
            "there is no name `identiy`",
        ),
        (
            "services: {}\nchecks: {c: {ask: {service: \"${env:S}\", get: /x}}}",
            "there is no service",
        ),
        (
            "checks: {a: {ask: {get: \"http://a/\"}, after: [b]}, b: {ask: {get: \"http://b/\"}, after: [\"${env:A}\"]}}",
            "in a circle",
        ),
    ] {
        let review = config::review_text(text, Path::new("vestibule.yaml"), &in_ci());
        let report = review.problems.to_string();
        assert!(
            review.problems.len() == 1 && report.contains(expected),
            "{text}\n{report}"
        );
    }
    let text = "kratos: {admin_url: \"http://k\"}\nchecks: {a: {ask: {get: \"http://a/\"}, on_unavailable: \"${env:P}\"}, b: {field: traits.a, required: \"${env:R}\"}}";
    let review = config::review_text(text, Path::new("vestibule.yaml"), &in_ci());
    let settings = review
        .settings
        .unwrap_or_else(|| panic!("{}", review.problems));
    assert_eq!(settings.checks.len(), 2);
    // The hooks that refuse logins are printed, unless they are not needed for sure.
    assert!(settings.can_deactivate());
}
