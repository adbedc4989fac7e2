//! `vestibule kratos lint`: each rule has a folder in tests/fixtures/kratos-lint/ with files that break exactly this rule,
//! and the report beside them. `UPDATE=1 cargo test --test settings` writes the reports.

use std::fs;
use std::path::Path;

use vestibule::lint::address::Mapping;
use vestibule::lint::rules::NAMES;
use vestibule::lint::{File, Input, Report, Severity, lint};

use crate::file;
use crate::problems::updating;

fn read(path: &Path, name: &str) -> Option<File> {
    let text = fs::read_to_string(path.join(name)).ok()?;
    let name = name.to_owned();
    Some(File { name, text })
}

/// Checks a folder: kratos.yml, and the other files that it has.
fn checked(folder: &Path) -> Report {
    let layers = ["kratos.yml", "hooks.yml"];
    lint(&Input {
        layers: layers
            .iter()
            .filter_map(|name| read(folder, name))
            .collect(),
        environment: read(folder, "kratos.env"),
        mappings: vec![Mapping {
            container: "/etc/config/kratos".to_owned(),
            local: folder.to_owned(),
        }],
        schemas: Vec::new(),
        running: None,
        settings: read(folder, "vestibule.yaml"),
    })
}

#[test]
fn lint_reports_exactly_the_broken_rule_of_each_fixture() {
    let mut stale = Vec::new();
    for name in NAMES {
        let folder = file("tests/fixtures/kratos-lint").join(name);
        assert!(folder.join("kratos.yml").exists(), "{name} has no fixture");
        let report = checked(&folder);
        let rules: Vec<&str> = report.findings.iter().map(|finding| finding.rule).collect();
        let text = report
            .to_string()
            .replace(&folder.display().to_string(), "FOLDER");
        if rules.is_empty() || rules.iter().any(|rule| *rule != name) {
            stale.push(format!("{name} reports {rules:?}\n{text}"));
        }
        let expected = folder.join("report.txt");
        if updating() {
            fs::write(&expected, &text).unwrap();
        }
        let known = fs::read_to_string(&expected).unwrap_or_default();
        if known != text {
            stale.push(format!(
                "{name}\n--- expected\n{known}\n--- reported\n{text}"
            ));
        }
        assert!(!text.contains("canary"), "{name} prints a key:\n{text}");
    }
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

#[test]
fn lint_has_no_fixture_without_a_rule() {
    for entry in fs::read_dir(file("tests/fixtures/kratos-lint")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_clean = name.starts_with("clean");
        assert!(is_clean || NAMES.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn lint_documents_every_rule() {
    let document = fs::read_to_string(file("docs/kratos-lint.md")).unwrap();
    for name in NAMES {
        let row = format!("- `{name}` (");
        assert_eq!(document.matches(&row).count(), 1, "{row}");
    }
    let rows = document
        .lines()
        .filter(|line| line.starts_with("- `") && line.contains("` ("))
        .count();
    assert_eq!(rows, NAMES.len());
}

/// Files that look wrong, but are not.
#[test]
fn lint_finds_nothing_in_clean_files() {
    let mut seen = 0;
    for entry in fs::read_dir(file("tests/fixtures/kratos-lint")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("clean") {
            seen += 1;
            let report = checked(&folder);
            assert!(report.findings.is_empty(), "{name}\n{report}");
        }
    }
    assert!(seen >= 1);
}

#[test]
fn lint_finds_nothing_in_the_kratos_of_this_repository() {
    let layer = |name: &str| read(&file(""), name).unwrap();
    for (layers, settings) in [
        (vec!["kratos-config/kratos.yml"], None),
        (
            vec!["kratos-config/kratos.yml", "compose/kratos-hooks.yml"],
            None,
        ),
        (
            vec!["kratos-config/kratos.yml", "compose/kratos-hooks.yml"],
            Some("examples/settings/company.yaml"),
        ),
    ] {
        let report = lint(&Input {
            layers: layers.iter().map(|name| layer(name)).collect(),
            settings: settings.map(layer),
            ..Input::default()
        });
        assert_eq!(report.count(Severity::Problem), 0, "{report}");
        assert!(report.findings.is_empty(), "{layers:?}\n{report}");
        // The environment of Kratos; and the settings, or their key.
        assert_eq!(report.not_checked.len(), 2, "{report}");
    }
}

/// A kratos.yml with hooks of Vestibule for `password` and the profile, and with other hooks and keys.
fn kratos(methods: &str, password: &str, flows: &str) -> String {
    let hook = |flow: &str, stage: &str, method: &str, more: &str| {
        format!(
            "{{hook: web_hook, config: {{url: \"http://v:4480/hooks/{flow}/{stage}?method={method}\", method: POST, \
             body: \"file://kratos-config/vestibule.jsonnet\", {more} \
             auth: {{type: api_key, config: {{in: header, name: X-Vestibule-Key, value: a-key-for-development-only}}}}}}}}"
        )
    };
    let parse = "response: {parse: true},";
    let pair = |flow: &str, method: &str| {
        [
            hook(flow, "pre", method, parse),
            hook(flow, "post", method, ""),
        ]
        .join(", ")
    };
    format!(
        "version: v26.2.0\nserve: {{public: {{base_url: \"http://localhost:4433/\"}}}}\n\
         identity: {{schemas: [{{id: default, url: \"file://kratos-config/identity.schema.json\"}}]}}\n\
         selfservice:\n  methods: {{{methods}}}\n  flows:\n    settings: {{after: {{profile: {{hooks: [{}]}}}}}}\n\
         \x20   registration:\n      style: unified\n      after: {{{password} password: {{hooks: [{}, {{hook: session}}]}}}}\n{flows}",
        pair("settings", "profile"),
        pair("registration", "password"),
    )
}

const ONLY_PASSWORD: &str = "code: {enabled: false}, oidc: {enabled: false}, passkey: {enabled: false}, webauthn: {enabled: false}";
const DEFERS: &str = "kratos: {admin_url: \"http://k\"}\nchecks: {vat: {field: traits.vat_number, ask: {get: \"http://s/\"}, on_unavailable: defer, refuse: [{when: 404}]}}";

/// Returns the names of the rules that report something, and what was not checked.
fn found(kratos: &str, environment: &str, settings: &str) -> (Vec<&'static str>, Vec<String>) {
    let file = |name: &str, text: &str| File {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let settings = (!settings.is_empty()).then(|| file("vestibule.yaml", settings));
    let report = lint(&Input {
        layers: vec![file("kratos.yml", kratos)],
        environment: Some(file("kratos.env", environment)),
        settings,
        ..Input::default()
    });
    let rules = report.findings.iter().map(|finding| finding.rule);
    (rules.collect(), report.not_checked)
}

#[test]
fn lint_knows_which_methods_are_open() {
    for (methods, environment, rules, not_checked) in [
        (ONLY_PASSWORD, "", &[][..], ""),
        // `code` is enabled by default, and the schema names a `code` identifier.
        (
            "oidc: {enabled: false}, passkey: {enabled: false}, webauthn: {enabled: false}",
            "",
            &["unhooked-method"],
            "",
        ),
        (
            ONLY_PASSWORD,
            "SELFSERVICE_METHODS_OIDC_ENABLED=true",
            &["unhooked-method"],
            "",
        ),
        (
            ONLY_PASSWORD,
            "SELFSERVICE_METHODS_WEBAUTHN_ENABLED=true",
            &[],
            "passwordless: true",
        ),
        (
            ONLY_PASSWORD,
            "SELFSERVICE_METHODS_WEBAUTHN_ENABLED=true\nSELFSERVICE_METHODS_WEBAUTHN_CONFIG_PASSWORDLESS=true",
            &["unhooked-method"],
            "",
        ),
        // The other methods are not enabled by default.
        ("code: {enabled: false}", "", &[], ""),
        // It enables `code`, whatever `enabled` is.
        (
            "code: {enabled: false, passwordless_enabled: true}",
            "",
            &["unhooked-method"],
            "",
        ),
        (
            ONLY_PASSWORD,
            "SELFSERVICE_METHODS_CODE_PASSWORDLESS_ENABLED=true",
            &["unhooked-method"],
            "",
        ),
        (
            "code: {enabled: false}, oidc: {enabled: \"${OIDC}\"}",
            "",
            &[],
            "methods.oidc.enabled",
        ),
        (
            "code: {enabled: true}, oidc: {enabled: false}, passkey: {enabled: false}",
            "IDENTITY_SCHEMAS_0_URL=https://example.com/schema.json",
            &[],
            "`code` identifier",
        ),
        (
            ONLY_PASSWORD,
            "SELFSERVICE_FLOWS_REGISTRATION_ENABLED=false\nSELFSERVICE_METHODS_OIDC_ENABLED=true",
            &[],
            "",
        ),
    ] {
        let (found, unseen) = found(&kratos(methods, "", ""), environment, "");
        assert_eq!(found, rules, "{methods} {environment}");
        let unseen = unseen.join("\n");
        assert!(
            unseen.contains(not_checked),
            "{methods} {environment}: {unseen}"
        );
    }
}

/// Kratos enables `password` unless kratos.yml says otherwise.
#[test]
fn lint_knows_that_password_is_enabled_by_default() {
    let only_code = |methods: &str| {
        let after = " password: {hooks: [";
        kratos(methods, "", "")
            .replace(after, " code: {hooks: [")
            .replace("?method=password", "?method=code")
    };
    let others = "oidc: {enabled: false}";
    for (methods, rules) in [
        (others.to_owned(), &["unhooked-method"][..]),
        (format!("password: {{enabled: false}}, {others}"), &[]),
    ] {
        let (found, unseen) = found(&only_code(&methods), "", "");
        assert_eq!(found, rules, "{methods}");
        assert_eq!(unseen.len(), 1, "{unseen:?}");
    }
}

#[test]
fn lint_accepts_hooks_that_are_repeated_under_a_method() {
    let foreign = "{hook: web_hook, config: {url: \"http://crm/\", method: POST, body: \"base64://e30=\", response: {ignore: true}}}";
    let list = format!("hooks: [{foreign}],");
    let (rules, _) = found(&kratos(ONLY_PASSWORD, &list, ""), "", "");
    assert_eq!(rules, ["shadowed-list", "foreign-post"]);
    let login = "    login: {after: {hooks: [{hook: require_verified_address}], password: {hooks: [{hook: require_verified_address}]}}}\n";
    let (rules, _) = found(&kratos(ONLY_PASSWORD, "", login), "", "");
    assert!(rules.is_empty(), "{rules:?}");
}

#[test]
fn lint_asks_for_hooks_of_late_refusals_where_they_are_needed() {
    let enabled = format!(
        "password: {{enabled: true}}, totp: {{enabled: false}}, lookup_secret: {{enabled: false}}, {ONLY_PASSWORD}"
    );
    let unknown = format!("totp: {{enabled: \"${{TOTP}}\"}}, {ONLY_PASSWORD}");
    let pre = "{hook: web_hook, config: {url: \"http://v:4480/hooks/login/pre\", method: POST, response: {parse: true}, \
               body: \"file://kratos-config/vestibule.jsonnet\", auth: {type: api_key, config: {in: header, name: X-Vestibule-Key, value: a-key-for-development-only}}}}";
    let no_recovery = "    recovery: {enabled: false}\n";
    let general = format!("{no_recovery}    login: {{after: {{hooks: [{pre}]}}}}\n");
    let shadowed = format!(
        "{no_recovery}    login: {{after: {{hooks: [{pre}], password: {{hooks: [{{hook: revoke_active_sessions}}]}}}}}}\n"
    );
    for (methods, flows, rules, not_checked) in [
        // Settings by password, and logins by password.
        (
            enabled.as_str(),
            no_recovery,
            &["late-refusals", "late-refusals"][..],
            "",
        ),
        (&enabled, &general, &["late-refusals"], ""),
        (
            &enabled,
            &shadowed,
            &["late-refusals", "late-refusals", "shadowed-list"],
            "",
        ),
        // Kratos enables `password` by default, and neither recovery nor `totp`.
        (ONLY_PASSWORD, "", &["late-refusals", "late-refusals"], ""),
        (
            &unknown,
            "    recovery: {enabled: \"${RECOVERY}\"}\n",
            &["late-refusals", "late-refusals"],
            "recovery.enabled",
        ),
        (
            &unknown,
            no_recovery,
            &["late-refusals", "late-refusals"],
            "late refusals at login by `totp`",
        ),
    ] {
        let (found, unseen) = found(&kratos(methods, "", flows), "", DEFERS);
        assert_eq!(found, rules, "{methods} {flows}");
        assert!(unseen.join("\n").contains(not_checked), "{unseen:?}");
    }
}

#[test]
fn lint_never_guesses_a_key() {
    let with = |key: &str| kratos(ONLY_PASSWORD, "", "").replace("a-key-for-development-only", key);
    for (key, rule, is_known) in [
        ("\"${VESTIBULE_KEY}\"", "key-placeholder", false),
        ("$VESTIBULE_KEY", "key-placeholder", false),
        ("\"{{ .Values.key }}\"", "key-placeholder", false),
        ("<your key>", "key-placeholder", false),
        ("PUT-YOUR-KEY-HERE", "key-placeholder", true),
        ("\"\"", "key-placeholder", true),
        ("a-random-key", "", true),
        ("pa$$word", "", true),
    ] {
        let (rules, unseen) = found(&with(key), "", "");
        assert!(rules.iter().all(|found| *found == rule), "{key}: {rules:?}");
        assert_eq!(rules.is_empty(), rule.is_empty(), "{key}");
        let names_placeholders = unseen.iter().any(|what| what.contains("placeholders"));
        assert_eq!(names_placeholders, !is_known, "{key}: {unseen:?}");
    }
    // The example's key is public, and a key in clear is readable. A Kratos for development may have both.
    for (key, rule) in [
        ("a-key-for-development-only", "key-of-example"),
        ("a-random-key", "key-in-clear"),
    ] {
        let (rules, _) = found(
            &with(key).replace("localhost:4433", "auth.example.com"),
            "",
            "",
        );
        assert!(
            !rules.is_empty() && rules.iter().all(|found| *found == rule),
            "{rules:?}"
        );
    }
}

/// Returns the help of the findings of one rule.
fn help_of(rule: &str, kratos: String) -> Vec<String> {
    let report = lint(&Input {
        layers: vec![File {
            name: "kratos.yml".to_owned(),
            text: kratos,
        }],
        ..Input::default()
    });
    let findings = report.findings.iter().filter(|one| one.rule == rule);
    findings
        .map(|one| one.problem.hint.clone().unwrap_or_default())
        .collect()
}

#[test]
fn lint_takes_the_stage_of_a_wrong_url_from_its_path() {
    let start = kratos(ONLY_PASSWORD, "", "");
    for (path, expected) in [
        ("/hooks/setings/pre?", "/hooks/settings/pre?"),
        ("/hooks/settings/pr?", "/hooks/settings/pre?"),
        ("/hook/settings/pre?", "/hooks/settings/pre?"),
    ] {
        let wrong = start
            .replace("/hooks/settings/pre?", path)
            .replace("response: {parse: true},", "");
        let help = help_of("wrong-path", wrong);
        assert_eq!(help.len(), 1, "{path}: {help:?}");
        assert!(help[0].contains(expected), "{path}: {help:?}");
    }
}

#[test]
fn lint_asks_for_hooks_to_be_printed_again_where_they_look_printed() {
    let start = kratos(
        &format!("passkey: {{enabled: true}}, {ONLY_PASSWORD}")
            .replace("passkey: {enabled: false}, ", ""),
        "",
        "",
    );
    let help = help_of("unhooked-method", start.clone());
    assert!(
        help[0].contains("add to `selfservice.flows.registration.after.passkey.hooks`"),
        "{help:?}"
    );
    let inline = start.replace("file://kratos-config/vestibule.jsonnet", "base64://e30=");
    let help = help_of("unhooked-method", inline);
    assert!(
        help[0].ends_with("vestibule kratos hooks --method password,passkey"),
        "{help:?}"
    );
}

#[test]
fn lint_compares_the_keys_of_hooks_with_those_of_the_settings() {
    let start = kratos(ONLY_PASSWORD, "", "");
    for (keys, rule, is_checked) in [
        ("[a-key-for-development-only]", "", true),
        (
            "[another-key-of-the-settings, a-key-for-development-only]",
            "",
            true,
        ),
        ("[another-key-of-the-settings]", "key-unknown", true),
        ("[\"${env:NO_SUCH_VARIABLE}\"]", "", false),
        (
            "[\"${env:NO_SUCH_VARIABLE}\", a-key-for-development-only]",
            "",
            true,
        ),
    ] {
        let (rules, unseen) = found(&start, "", &format!("hooks: {{keys: {keys}}}"));
        assert!(
            rules.iter().all(|found| *found == rule),
            "{keys}: {rules:?}"
        );
        assert_eq!(rules.is_empty(), rule.is_empty(), "{keys}");
        let is_named = unseen.iter().any(|what| what.contains("`hooks.keys`"));
        assert_eq!(is_named, !is_checked, "{keys}: {unseen:?}");
    }
}

#[test]
fn lint_knows_that_kratos_uses_the_list_for_all_methods_where_a_method_has_none() {
    const WANTS: &str =
        "subscriptions: {crm: {events: [identity.created], send: {post: \"http://crm/\"}}}";
    let post = "hooks: [{hook: web_hook, config: {url: \"http://v:4480/hooks/registration/post\", method: POST, \
                body: \"file://kratos-config/vestibule.jsonnet\", auth: {type: api_key, config: {in: header, name: X-Vestibule-Key, value: a-key-for-development-only}}}}],";
    let start = kratos(ONLY_PASSWORD, post, "");
    let own_list = |list: &str| {
        let before = start.split(" password: {hooks: [").next().unwrap();
        format!("{before} password: {{hooks: [{list}]}}}}\n").replace(
            ONLY_PASSWORD,
            &format!("password: {{enabled: true}}, {ONLY_PASSWORD}"),
        )
    };
    for (list, rules) in [
        ("", &[][..]),
        ("{hook: session}", &["event-not-hooked", "shadowed-list"]),
    ] {
        let (found, _) = found(&own_list(list), "", WANTS);
        assert_eq!(found, rules, "{list}");
    }
}

/// Half-written files are the usual input of an editor.
#[test]
fn lint_survives_a_missing_line_and_a_truncated_file() {
    for name in ["key-in-clear", "late-refusals"] {
        let folder = file("tests/fixtures/kratos-lint").join(name);
        let whole = fs::read_to_string(folder.join("kratos.yml")).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let settings = read(&folder, "vestibule.yaml");
        for index in 0..lines.len() {
            let without = [&lines[..index], &lines[index + 1..]].concat().join("\n");
            for text in [without, lines[..index].join("\n")] {
                let name = "kratos.yml".to_owned();
                let report = lint(&Input {
                    layers: vec![File { name, text }],
                    environment: read(&folder, "kratos.env"),
                    settings: settings.clone(),
                    ..Input::default()
                });
                assert!(!report.to_string().contains("canary"), "{report}");
            }
        }
    }
}
