//! `vestibule kratos lint`: exit codes, output formats, standard input and the files of the command line.

use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use vestibule_testing::fake_service::FakeService;
use vestibule_testing::port;

use super::{text, vestibule};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kratos-lint");

/// Runs the command in the folder of a fixture.
fn lint(fixture: &str, arguments: &[&str]) -> (i32, String) {
    let folder = Path::new(FIXTURES).join(fixture);
    let all = [&["kratos", "lint"], arguments].concat();
    finished(&vestibule(&folder, &all).output().expect("the program runs"))
}

fn finished(output: &Output) -> (i32, String) {
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().expect("an exit code"), printed)
}

const MAP: &str = "/etc/config/kratos=.";

#[test]
fn the_exit_code_of_lint_tells_problems_from_warnings() {
    let whole = &["-c", "kratos.yml", "--env-file", "kratos.env", "--map", MAP][..];
    let strict = [whole, &["--strict"]].concat();
    for (fixture, arguments, code) in [
        ("clean", whole, 0),
        ("clean", &strict, 0),
        (
            "clean",
            &[whole, &["--settings", "vestibule.yaml", "--strict"]].concat(),
            0,
        ),
        ("pre-ignored", whole, 1),
        ("post-missing", whole, 0),
        ("post-missing", &strict, 1),
        ("two-step", &strict, 0),
        ("clean", &["-c", "none.yml"], 2),
        ("clean", &["-c", "kratos.yml", "--settings", "none.yaml"], 2),
        (
            "clean",
            &["-c", "kratos.yml", "--schema", "default=none.json"],
            2,
        ),
        ("clean", &["-c", "kratos.yml", "--map", "nonsense"], 2),
        ("clean", &["-c", "kratos.yml", "--schema", "nonsense"], 2),
        ("clean", &[], 2),
    ] {
        let (found, printed) = lint(fixture, arguments);
        assert_eq!(found, code, "{fixture} {arguments:?}\n{printed}");
    }
}

#[test]
fn findings_of_lint_are_one_json_object() {
    let arguments = [
        "-c",
        "kratos.yml",
        "--env-file",
        "kratos.env",
        "--format",
        "json",
    ];
    let (_, printed) = lint("pre-ignored", &arguments);
    let found: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(found["valid"], false);
    let problem = &found["problems"][0];
    assert_eq!(problem["rule"], "pre-ignored");
    assert_eq!(problem["file"], "kratos.yml");
    assert_eq!(problem["help"], "response: {parse: true}");
    assert_eq!(problem["line"], 28);
    assert_eq!(found["warnings"], serde_json::json!([]));
    let not_checked = found["not_checked"].to_string();
    for part in ["--settings", "--schema default=FILE", "vestibule.jsonnet"] {
        assert!(not_checked.contains(part), "{not_checked}");
    }
}

#[test]
fn findings_of_lint_are_annotations_of_github() {
    let arguments = [
        "-c",
        "kratos.yml",
        "--env-file",
        "kratos.env",
        "--map",
        MAP,
        "--format",
        "github",
    ];
    for (fixture, level) in [
        ("pre-ignored", "error"),
        ("post-missing", "warning"),
        ("two-step", "notice"),
    ] {
        let (_, printed) = lint(fixture, &arguments);
        let start = format!("::{level} file=kratos.yml,line=");
        assert!(printed.starts_with(&start), "{printed}");
        assert!(printed.contains(&format!("[{fixture}]")), "{printed}");
        assert!(printed.contains("\nnot checked: "), "{printed}");
    }
}

#[test]
fn lint_reads_standard_input_and_given_schemas() {
    let folder = Path::new(FIXTURES).join("unhooked-method");
    let kratos = std::fs::read_to_string(folder.join("kratos.yml")).expect("kratos.yml");
    let arguments = [
        "kratos",
        "lint",
        "-c",
        "-",
        "--schema",
        "default=identity.schema.json",
    ];
    let mut child = vestibule(&folder, &arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut input = child.stdin.take().expect("standard input");
    input.write_all(kratos.as_bytes()).expect("it is written");
    drop(input);
    let (code, printed) = finished(&child.wait_with_output().expect("an output"));
    assert_eq!(code, 1);
    assert!(
        printed.starts_with("standard input has 2 problems"),
        "{printed}"
    );
    assert!(printed.contains("sign-ups by `code` bypass"), "{printed}");
}

#[test]
fn the_help_of_lint_has_exit_codes_and_examples() {
    let (code, printed) = lint("clean", &["--help"]);
    assert_eq!(code, 0);
    for part in ["Exit codes:", "Examples:", "--env-file", "--map"] {
        assert!(printed.contains(part), "{printed}");
    }
}

#[test]
fn the_hooks_that_are_printed_for_settings_pass_lint() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a folder");
    let hooks = folder.path().join("vestibule-hooks.yml");
    let hooks_path = hooks.to_str().expect("a path");
    for settings in [
        "vestibule.example.yaml",
        "examples/settings/company.yaml",
        "examples/settings/invites.yaml",
        "examples/settings/notify-back-end.yaml",
    ] {
        let print = [
            "kratos",
            "hooks",
            "--inline",
            "--allow-missing-env",
            "--config",
            settings,
        ];
        let printed = vestibule(root, &print).output().expect("the program runs");
        let printed = text(&printed.stdout).replace("PUT-YOUR-KEY-HERE", "a-key-of-this-test");
        std::fs::write(&hooks, printed).expect("the file is written");
        let check = [
            "kratos",
            "lint",
            "-c",
            "kratos-config/kratos.yml",
            "-c",
            hooks_path,
            "--settings",
            settings,
        ];
        let output = vestibule(root, &check).output().expect("the program runs");
        let (_, report) = finished(&output);
        assert!(
            report.ends_with("no problems, no warnings, no notes\n"),
            "{settings}\n{report}"
        );
    }
}

/// Runs lint on a fixture with a running Kratos of this version, whose identity schema has these traits.
fn lint_running(fixture: &str, version: &'static str, traits: &[&str]) -> (i32, String) {
    let public = super::doctor::kratos::public(traits);
    let kratos = super::doctor::kratos::kratos(version, public.url());
    let admin = kratos.url();
    let arguments = [
        "-c",
        "kratos.yml",
        "--env-file",
        "kratos.env",
        "--kratos-admin",
        &admin,
        "--settings",
        "vestibule.yaml",
    ];
    lint(fixture, &arguments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lint_takes_schemas_and_version_from_a_running_kratos() {
    const FIELD: &str = "unknown-field";
    const OLD: &str = "old-kratos";
    for (fixture, version, traits, is_reported) in [
        (FIELD, "v26.2.0", &["email"][..], true),
        (FIELD, "v26.2.0", &["email", "vat_nummer"], false),
        // kratos.yml of this fixture names v1.3.1.
        (OLD, "v25.3.0", &["email", "vat_number"], true),
        (OLD, "v26.2.0", &["email", "vat_number"], false),
        // A Kratos that was built from source has no version.
        (OLD, "master", &["email", "vat_number"], true),
    ] {
        let (code, printed) = lint_running(fixture, version, traits);
        assert_eq!(
            code,
            i32::from(is_reported),
            "{fixture} {version}\n{printed}"
        );
        if fixture == OLD && is_reported {
            let (judged, note) = if version == "master" {
                ("v1.3.1", "running Kratos: `master` is not a version")
            } else {
                (version, "")
            };
            let message = format!("Kratos {judged}: the check `vat_number`");
            assert!(printed.contains(&message), "{printed}");
            assert!(printed.contains(note), "{printed}");
        }
        let rule = format!("[{fixture}]");
        assert_eq!(printed.contains(&rule), is_reported, "{printed}");
        assert!(!printed.contains("--schema"), "{printed}");
    }
}

/// The schema of this Kratos has the id `customer`, as in the settings. kratos.yml names `default`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lint_compares_the_ids_of_identity_schemas_with_those_of_a_running_kratos() {
    let (code, printed) = lint_running("schema-ids", "v26.2.0", &["email", "vat_number"]);
    assert_eq!(code, 0, "{printed}");
    assert!(!printed.contains("[schema-ids]"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lint_says_why_it_cannot_ask_a_running_kratos() {
    let public = super::doctor::kratos::public(&["email"]);
    let nowhere = format!("http://127.0.0.1:{}", port::free());
    let cut_off = super::doctor::kratos::kratos("v26.2.0", nowhere.clone());
    let empty = FakeService::answering(|call| match call.path.as_str() {
        "/version" => (200, "{\"version\": \"v26.2.0\"}".to_owned(), None),
        _ => (200, "[]".to_owned(), None),
    });
    let other = FakeService::start();
    for (admin, part) in [
        (nowhere.clone(), "help: check that Kratos runs"),
        (other.url(), "4433 is the public API"),
        (public.url(), "4433 is the public API"),
        (cut_off.url(), "--kratos-public"),
        (empty.url(), "without an identity schema"),
        ("kratos:4434".to_owned(), "http://"),
    ] {
        let arguments = ["-c", "kratos.yml", "--kratos-admin", &admin];
        let (code, printed) = lint("clean", &arguments);
        assert_eq!(code, 2, "{admin}: {printed}");
        assert!(printed.contains(part), "{admin}: {printed}");
    }
    let arguments = [
        "-c",
        "kratos.yml",
        "--kratos-admin",
        &cut_off.url(),
        "--kratos-public",
        &public.url(),
    ];
    let (code, printed) = lint("clean", &arguments);
    assert_ne!(code, 2, "{printed}");
    // Only one source of schemas can be given.
    let both = ["--schema", "default=identity.schema.json"];
    let (code, printed) = lint("clean", &[&arguments[..], &both].concat());
    assert_eq!(code, 2, "{printed}");
}
