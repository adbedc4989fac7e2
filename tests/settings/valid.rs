//! Valid settings files.

use std::fs;
use std::time::Duration;

use vestibule::checks::{Absent, Mode, Policy};
use vestibule::config::settings::Dsn;
use vestibule::config::{self, Environment};
use vestibule::kratos::Flow;

use crate::{environment, file, read};

#[test]
fn the_three_short_examples_are_valid_without_variables() {
    let nothing = Environment::of([]);
    for (name, checks, deliveries) in [
        ("one-field", 1, 0),
        ("throwaway-addresses", 1, 0),
        ("notify-back-end", 0, 1),
    ] {
        let path = file(&format!("examples/settings/{name}.yaml"));
        let settings =
            config::load(&path, &nothing).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(
            (settings.checks.len(), settings.subscriptions.len()),
            (checks, deliveries),
            "{name}"
        );
        assert!(
            settings.hooks.keys.is_empty(),
            "there is no key until the operator sets one"
        );
    }
}

#[test]
fn every_example_is_valid() {
    let variables = [
        "VESTIBULE_KEY",
        "VAT_REGISTER",
        "CRM",
        "CRM_TOKEN",
        "INVITES",
    ];
    let environment = Environment::of(
        variables.map(|name| (name.to_owned(), "http://127.0.0.1:9/long-enough".to_owned())),
    );
    let mut seen = 0;
    for entry in fs::read_dir(file("examples/settings")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            seen += 1;
            let settings =
                config::load(&path, &environment).unwrap_or_else(|problems| panic!("{problems}"));
            assert!(settings.warnings.is_empty(), "{}", settings.warnings);
        }
    }
    assert!(seen >= 4);
}

#[test]
fn an_empty_mapping_has_the_defaults() {
    for text in ["{}", "hooks:\nchecks:\nserve:\n"] {
        let settings = read(text).unwrap_or_else(|problems| panic!("{text:?}: {problems}"));
        assert_eq!(settings.hooks_address.port, 4480);
        assert_eq!(settings.admin_address.host.to_string(), "127.0.0.1");
        assert_eq!(settings.hooks.deadline, Duration::from_secs(5));
        assert_eq!(settings.hooks.default_language, "en");
        assert_eq!(settings.hooks.keys.len(), 1, "VESTIBULE_KEY");
        assert_eq!(settings.dsn, Dsn::Sqlite("vestibule.db".into()));
        assert_eq!(settings.log.level, tracing::Level::INFO);
    }
}

#[test]
fn a_text_can_be_interpolated_from_the_environment_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("key");
    fs::write(&secret, "a-key-from-a-file-0123\n").unwrap();
    let text = format!(
        "hooks: {{keys: [\"${{env:VESTIBULE_KEY}}\", '${{file:{}}}']}}\ndsn: sqlite:///tmp/${{env:NAME:-vestibule}}.db\nserve: {{hooks: {{port: \"${{env:PORT:-4499}}\"}}}}\n",
        secret.display()
    );
    let settings = read(&text).unwrap();
    assert!(settings.hooks.keys[0].matches(b"a-key-for-tests-only"));
    assert!(
        settings.hooks.keys[1].matches(b"a-key-from-a-file-0123"),
        "without its last newline"
    );
    assert_eq!(settings.dsn, Dsn::Sqlite("/tmp/vestibule.db".into()));
    assert_eq!(settings.hooks_address.port, 4499);
}

#[test]
fn names_numbers_and_booleans_can_come_from_the_environment() {
    let settings = read(
        "log: {level: \"${env:LEVEL:-debug}\"}
services: {s: {url: \"http://s\", auth: {type: \"${env:AUTH:-bearer}\", config: {token: \"${env:SECRET}\"}}}}
messages: {m: {id: \"${env:NUMBER:-4900123}\", en: \"No.\"}}
checks:
  a:
    field: traits.a
    required: ${env:STRICT:-true}
    flows: [\"${env:FLOW:-settings}\"]
    mode: ${env:MODE:-observe}
    on_unavailable: ${env:OPEN:-accept}
    refuse: [{when: \"value == 'x'\", message: m}]
",
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.log.level, tracing::Level::DEBUG);
    let check = &settings.checks[0];
    assert_eq!(check.absent, Absent::Refuse);
    assert_eq!(check.flows, [Flow::Settings]);
    assert_eq!(check.mode, Mode::Observe);
    assert_eq!(check.on_unavailable.default, Policy::Accept);
    let wording = check.refuse[0].message.as_ref().unwrap();
    assert_eq!(wording.id, 4_900_123);
    assert!(settings.services[0].auth.is_some());
}

#[test]
fn a_list_can_be_read_from_a_file_beside_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("domains.txt"),
        "# throwaway\ntrash.example\n\n  mail.example  \n",
    )
    .unwrap();
    let text = "lists: {throwaway: {file: domains.txt}}\nchecks: {a: {when: \"'mail.example' in lists.throwaway\"}}";
    config::read(text, &folder.path().join("vestibule.yaml"), &environment()).unwrap();
}

#[test]
fn anchors_and_quotes_work_as_in_yaml() {
    let settings = read(
        "services:\n  a: &a {url: \"http://a\", timeout: 2s}\n  b: *a\nchecks:\n  c:\n    when: >-\n      identity.traits.x == 'y'\n      && true\n",
    )
    .unwrap();
    assert_eq!(settings.services.len(), 2);
    assert_eq!(settings.services[1].timeout, Some(Duration::from_secs(2)));
}
