//! `vestibule validate`: exit codes, output formats, and files whose environment is missing.

use serde_json::{Value, json};

use super::{folder_with, run, text, vestibule};

const WARNING: &str = "checks:\n  a: {field: traits.a}\n";
const PROBLEM: &str = "checks:\n  a: {field: traits.a}\n  b: {feild: traits.b, required: true}\n";
const CLEAN: &str = "checks: {a: {field: traits.a, required: true}}\n";
const NEEDS_ENVIRONMENT: &str = "hooks: {keys: [\"${env:KEY_OF_KRATOS}\"], deadline: \"${env:DEADLINE}\"}
services: {crm: {url: \"${env:CRM}\", auth: {type: bearer, config: {token: \"${file:/run/secrets/crm}\"}}}}
checks: {a: {field: traits.a, ask: {service: crm, get: \"/a/{value}\"}}}\n";

#[test]
fn the_exit_code_tells_problems_from_warnings() {
    for (settings, arguments, code) in [
        (CLEAN, &[][..], 0),
        (CLEAN, &["--strict"], 0),
        (WARNING, &[], 0),
        (WARNING, &["--strict"], 1),
        (PROBLEM, &[], 1),
        (PROBLEM, &["--strict"], 1),
        (NEEDS_ENVIRONMENT, &[], 1),
        (NEEDS_ENVIRONMENT, &["--allow-missing-env"], 0),
        (NEEDS_ENVIRONMENT, &["--allow-missing-env", "--strict"], 0),
        (CLEAN, &["--format", "xml"], 2),
        (CLEAN, &["--stricter"], 2),
    ] {
        let folder = folder_with(settings);
        for format in ["text", "json", "github"] {
            let mut all = vec!["validate", "vestibule.yaml"];
            all.extend(arguments);
            if !arguments.contains(&"--format") {
                all.extend(["--format", format]);
            }
            let output = vestibule(folder.path(), &all)
                .output()
                .expect("the program runs");
            let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(code), "{all:?}\n{printed}");
        }
    }
}

#[test]
fn problems_and_warnings_are_one_json_object() {
    let folder = folder_with(PROBLEM);
    let output = run(
        folder.path(),
        &["validate", "vestibule.yaml", "--format", "json"],
    );
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        found,
        json!({
            "file": "vestibule.yaml",
            "valid": false,
            "problems": [{
                "path": "checks.b.feild",
                "line": 3,
                "column": 7,
                "message": "there is no key `feild` here",
                "help": "did you mean `field`?",
            }],
            "warnings": [{
                "path": "checks.a",
                "line": 2,
                "column": 6,
                "message": "this check never refuses and never changes a sign-up",
                "help": "add `required: true`, `refuse`, `ask` or `set`, or remove the check",
            }],
        })
    );
    let folder = folder_with(CLEAN);
    let output = run(folder.path(), &["validate", "--format", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        found,
        json!({"file": "vestibule.yaml", "valid": true, "problems": [], "warnings": []})
    );
}

#[test]
fn problems_and_warnings_are_annotations_of_github() {
    let folder = folder_with(PROBLEM);
    let output = run(
        folder.path(),
        &["validate", "vestibule.yaml", "--format", "github"],
    );
    assert_eq!(
        text(&output.stdout),
        "::error file=vestibule.yaml,line=3,col=7,title=checks.b.feild::there is no key `feild` here%0Ahelp: did you mean `field`?\n\
         ::warning file=vestibule.yaml,line=2,col=6,title=checks.a::this check never refuses and never changes a sign-up%0Ahelp: \
         add `required: true`, `refuse`, `ask` or `set`, or remove the check\n"
    );
    let missing = run(
        folder.path(),
        &["validate", "none.yaml", "--format", "github"],
    );
    assert!(
        text(&missing.stdout).starts_with(
            "::error file=none.yaml,title=settings::cannot read the file: No such file"
        ),
        "{}",
        text(&missing.stdout)
    );
}

#[test]
fn a_secret_is_never_printed() {
    let settings =
        "services: {a: {url: \"${env:SECRET}\", auth: {type: bearer, token: \"${env:SECRET}\"}}}\n";
    let folder = folder_with(settings);
    for format in ["text", "json", "github"] {
        let output = vestibule(folder.path(), &["validate", "--format", format])
            .env("SECRET", "canary-secret")
            .output()
            .expect("the program runs");
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!printed.contains("canary"), "{printed}");
        assert!(
            printed.contains("`token` belongs into `config`"),
            "{printed}"
        );
    }
}

#[test]
fn the_help_has_the_exit_codes_and_an_example() {
    let folder = folder_with(CLEAN);
    for flag in ["-h", "--help"] {
        let help = text(&run(folder.path(), &["validate", flag]).stdout);
        for expected in [
            "Exit codes:",
            "1  a problem; with --strict, a problem or a warning",
            "vestibule validate --strict --allow-missing-env --format github",
        ] {
            assert!(help.contains(expected), "{help}");
        }
    }
}
