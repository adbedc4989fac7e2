//! `vestibule test`: the tests of the examples pass and reach every outcome; what fails is shown.

use std::path::Path;

use super::{folder_with, run, text};

const SETTINGS: &str = "services: {crm: {url: \"http://crm\", timeout: 2s}}
checks:
  vat: {field: traits.vat, ask: {service: crm, get: \"/vat/{value}\"}, set: {metadata_public.ok: true}, refuse: [{when: 404, message: {id: 4900101, en: \"No.\"}}, {when: 410, message: {id: 4900102, en: \"Gone.\"}}]}
subscriptions:
  contact: {events: [identity.created], send: {service: crm, post: /c, json: {ok: \"{identity.metadata_public.ok}\"}}}
";

fn case(body: &str) -> String {
    format!("settings: vestibule.yaml\ncases:\n  - {body}\n")
}

/// Runs `vestibule test` on one file. Returns the exit code and what it printed.
fn test(cases: &str, arguments: &[&str]) -> (i32, String) {
    let folder = folder_with(SETTINGS);
    std::fs::write(folder.path().join("tests.yaml"), cases).expect("the file is written");
    let all: Vec<&str> = ["test"]
        .iter()
        .chain(arguments)
        .copied()
        .chain(["tests.yaml"])
        .collect();
    let output = run(folder.path(), &all);
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().expect("an exit code"), printed)
}

#[test]
fn the_tests_of_the_examples_pass_and_reach_every_outcome() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = |folder: &str, except: &[&str]| -> Vec<String> {
        let files = std::fs::read_dir(root.join(folder)).expect("a folder");
        let names = files.map(|file| {
            file.expect("a file")
                .file_name()
                .into_string()
                .expect("a text")
        });
        let mut names: Vec<String> = names
            .filter(|name| {
                Path::new(name).extension().is_some_and(|end| end == "yaml")
                    && !except.contains(&&**name)
            })
            .collect();
        names.sort();
        names
    };
    let names = listed("examples/rule-tests", &[]);
    assert_eq!(
        names,
        listed("examples/settings", &[]),
        "each example has tests"
    );
    let paths: Vec<String> = names
        .iter()
        .map(|name| format!("examples/rule-tests/{name}"))
        .collect();
    let mut all = vec!["test", "--coverage", "--fail-under", "100"];
    all.extend(paths.iter().map(String::as_str));
    let output = run(root, &all);
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{printed}");
    assert!(printed.contains(" 0 failed"), "{printed}");
}

#[test]
fn differences_are_shown() {
    let good = "{name: a, traits: {vat: \"1\"}, answers: {crm: [{get: /vat/1}]}, expect: {verdict: changed, changes: {metadata_public: {ok: true}}, deliveries: [{subscription: contact, request: POST /c, body: {ok: true}}]}}";
    let (code, printed) = test(&case(good), &[]);
    assert_eq!(
        (code, printed.as_str()),
        (0, "tests.yaml: a ... ok\n1 case passed, 0 failed\n")
    );
    for (from, to, parts) in [
        (
            "verdict: changed",
            "verdict: refused",
            &[
                "verdict (- expected, + actual)",
                "- \"refused\"",
                "+ \"changed\"",
            ][..],
        ),
        (
            "{ok: true}}, del",
            "{ok: false}}, del",
            &[
                "changes (- expected",
                "-     \"ok\": false",
                "+     \"ok\": true",
            ],
        ),
        (
            "request: POST /c",
            "request: POST /d",
            &["deliveries (- expected", "\"request\": \"POST /c\""],
        ),
        (
            "get: /vat/1",
            "get: /vat/2",
            &[
                "`crm` was asked `GET /vat/1`, and the case has no answer to that",
                "verdict",
            ],
        ),
        (
            "get: /vat/1",
            "get: /vat/1, post: /x",
            &["needs exactly one of `get`, `post`, `put`, `patch` and `delete`"],
        ),
        (
            "get: /vat/1",
            "get: /vat/1, status: 410",
            &["+ \"refused\""],
        ),
        ("get: /vat/1", "get: /vat/1, delay: 3s", &["+ \"refused\""]),
        (
            "get: /vat/1",
            "get: /vat/1, delay: soon",
            &["`delay` of an answer of `crm`"],
        ),
        (
            "answers:",
            "not_asked: [crm], answers:",
            &["`crm` must not be asked, and was asked `GET /vat/1`"],
        ),
    ] {
        let changed = good.replace(from, to);
        assert_ne!(changed, good, "{from}");
        let (code, printed) = test(&case(&changed), &[]);
        assert_eq!(code, 1, "{to}\n{printed}");
        for part in parts
            .iter()
            .chain(&["tests.yaml: a ... FAILED", "0 cases passed, 1 failed"])
        {
            assert!(printed.contains(part), "{to}: {part}\n{printed}");
        }
    }
}

#[test]
fn only_expected_members_of_a_message_are_compared_and_shown() {
    let settings = "settings: {checks: {a: {field: traits.a, refuse: [{when: \"true\", message: \"No a.\"}]}, b: {field: traits.b, refuse: [{when: \"true\", message: \"No b.\"}]}}}\n";
    let case = |messages: &str| {
        format!(
            "{settings}cases: [{{name: a, traits: {{a: x, b: y}}, expect: {{verdict: refused, messages: [{messages}]}}}}]\n"
        )
    };
    let (code, printed) = test(&case("{text: No a.}, {field: traits.b}"), &[]);
    assert_eq!(code, 0, "{printed}");
    for (messages, differing) in [
        (
            "{field: traits.b, text: No b.}",
            &["+     \"text\": \"No a.\""][..],
        ),
        (
            "{field: traits.a, text: No a.}, {field: traits.b, text: No c.}",
            &["-     \"text\": \"No c.\"", "+     \"text\": \"No b.\""],
        ),
    ] {
        let (code, printed) = test(&case(messages), &[]);
        assert_eq!(code, 1, "{printed}");
        for part in differing {
            assert!(printed.contains(part), "{part}\n{printed}");
        }
        assert!(!printed.contains("\"id\""), "{printed}");
    }
}

#[test]
fn an_answer_that_no_request_got_is_a_note() {
    let (code, printed) = test(
        &case(
            "{name: a, traits: {vat: \"1\"}, answers: {crm: [{get: /vat/1}, {post: /vat/10}]}, expect: {verdict: changed}}",
        ),
        &[],
    );
    assert_eq!(
        (code, printed.as_str()),
        (
            0,
            "tests.yaml: a ... ok\n    note: answer not used: POST /vat/10\n1 case passed, 0 failed\n"
        )
    );
}

/// `vestibule test` would ignore a misspelt trait, and Kratos refuses it.
#[test]
fn a_trait_that_the_identity_schema_forbids_fails_a_case() {
    // {"properties":{"traits":{"type":"object","properties":{"vat":{"type":"string"}},"additionalProperties":false}}}
    const SCHEMA: &str = "base64://eyJwcm9wZXJ0aWVzIjp7InRyYWl0cyI6eyJ0eXBlIjoib2JqZWN0IiwicHJvcGVydGllcyI6eyJ2YXQiOnsidHlwZSI6InN0cmluZyJ9fSwiYWRkaXRpb25hbFByb3BlcnRpZXMiOmZhbHNlfX19";
    for (traits, problem) in [
        ("{vat: \"1\"}", None),
        (
            "{vta: \"1\"}",
            Some(
                "the identity schema `default` allows no `traits.vta`, so Kratos refuses the form; did you mean `traits.vat`?",
            ),
        ),
    ] {
        let file = format!(
            "settings: {{kratos: {{identity_schemas: {{default: \"{SCHEMA}\"}}}}}}\ncases: [{{name: a, traits: {traits}, expect: {{verdict: admitted}}}}]\n"
        );
        let (code, printed) = test(&file, &[]);
        assert_eq!(code, i32::from(problem.is_some()), "{printed}");
        assert!(printed.contains(problem.unwrap_or("... ok")), "{printed}");
    }
}

#[test]
fn the_coverage_lists_what_no_case_reached() {
    let accepted = "{name: a, traits: {vat: \"1\"}, answers: {crm: [{get: /vat/1}]}, expect: {verdict: changed}}";
    let (code, printed) = test(&case(accepted), &["--coverage", "--fail-under", "50"]);
    assert_eq!(code, 1, "{printed}");
    for part in [
        "not reached: vat: refused by refuse[0]\n",
        "not reached: vat: refused by refuse[1]\n",
        "not reached: vat: unavailable, refuse (timeout, connection,",
        "not reached: vat: not applicable\n",
        "coverage: 1 of 5 outcomes (20 %)",
        "the coverage is below 50 %",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    let gone = "{name: b, traits: {vat: \"1\"}, answers: {crm: [{get: /vat/1, status: 410}]}, expect: {verdict: refused, messages: [{id: 4900102}]}}";
    let (code, printed) = test(
        &format!("{}  - {gone}\n", case(accepted)),
        &["--coverage", "--fail-under", "40"],
    );
    assert_eq!(code, 0, "{printed}");
    assert!(
        !printed.contains("refuse[1]") && printed.contains("refuse[0]"),
        "{printed}"
    );
}

#[test]
fn a_wrong_test_file_is_explained() {
    for (file, parts) in [
        (
            case("{name: a, expcet: {verdict: admitted}}"),
            &[
                "there is no key `expcet` here",
                "did you mean `expect`?",
                "`expect` is missing",
            ][..],
        ),
        (
            case("{name: a, expect: {verdict: allowed}}"),
            &["`allowed`", "admitted"],
        ),
        (case("{name: a, expect: {}}"), &["`verdict` is missing"]),
        (
            "settings: missing.yaml\ncases: []\n".to_owned(),
            &["missing.yaml", "cannot read the file"],
        ),
        (
            "settings: {checks: {a: {feild: traits.a}}}\ncases: []\n".to_owned(),
            &["there is no key `feild` here"],
        ),
        (
            "settings: vestibule.yaml\ncases: []\n".to_owned(),
            &["no case ran"],
        ),
        ("cases: [\n".to_owned(), &["tests.yaml"]),
    ] {
        let (code, printed) = test(&file, &[]);
        assert_eq!(code, 1, "{file}\n{printed}");
        for part in parts {
            assert!(printed.contains(part), "{file}\n{part}\n{printed}");
        }
    }
}

/// A wrong name would make an expectation hold whatever happens.
#[test]
fn unknown_names_and_repeated_names_fail_a_case() {
    for (keys, part) in [
        (
            "not_asked: [crmm]",
            "the settings have no service `crmm`; did you mean `crm`?",
        ),
        (
            "answers: {crn: []}",
            "the settings have no service `crn`; did you mean `crm`?",
        ),
        (
            "not_asked: [nonsense]",
            "the settings have no service `nonsense`; they have crm",
        ),
    ] {
        let (code, printed) = test(
            &case(&format!(
                "{{name: a, {keys}, expect: {{verdict: admitted}}}}"
            )),
            &[],
        );
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    let (code, printed) = test(
        &case("{name: a, expect: {verdict: admitted, checks: {vta: accepted}}}"),
        &[],
    );
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("the settings have no check `vta`; did you mean `vat`?"),
        "{printed}"
    );
    let two = "{name: a, expect: {verdict: admitted}}";
    let (code, printed) = test(&format!("{}  - {two}\n", case(two)), &[]);
    assert_eq!(code, 1, "{printed}");
    assert_eq!(
        printed.matches("another case has the same name").count(),
        2,
        "{printed}"
    );
}

#[test]
fn cases_are_chosen_by_name_and_reported_for_ci() {
    let two = format!(
        "{}  - {{name: two, expect: {{verdict: refused}}}}\n",
        case("{name: one, expect: {verdict: admitted}}")
    );
    let (code, printed) = test(&two, &["--run", "^on"]);
    assert_eq!(
        (code, printed.as_str()),
        (0, "tests.yaml: one ... ok\n1 case passed, 0 failed\n")
    );
    let folder = folder_with(SETTINGS);
    std::fs::write(folder.path().join("tests.yaml"), &two).expect("the file is written");
    let output = run(
        folder.path(),
        &["test", "--junit", "report.xml", "tests.yaml"],
    );
    assert_eq!(output.status.code(), Some(1));
    let report = std::fs::read_to_string(folder.path().join("report.xml")).expect("a report");
    assert!(
        report.contains("<testsuite name=\"tests.yaml\" tests=\"2\" failures=\"1\">"),
        "{report}"
    );
    assert!(
        report.contains("<testcase classname=\"tests.yaml\" name=\"one\"/>"),
        "{report}"
    );
}
