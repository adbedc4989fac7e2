//! `vestibule try`: one sign-up against the settings and the real services.

use serde_json::{Value, json};
use vestibule_testing::fake_service::FakeService;
use vestibule_testing::program::output;

use super::{folder_with, text, vestibule};

const SETTINGS: &str = "services: {register: {url: \"${env:REGISTER}\", auth: {type: bearer, config: {token: canary-token}}}}
checks:
  vat: {field: traits.vat, ask: {service: register, get: \"/vat/{value}\", headers: {X-Api-Key: canary-key, X-Plain: plain}}, refuse: [{when: response.body.valid == false, message: {id: 4900101, en: \"No.\"}}]}
  later: {field: traits.other, when: \"method == 'code'\", refuse: [{when: \"true\", message: \"No.\"}]}
  invite: {field: traits.invite, reserve: {take: {service: register, post: \"/hold/{value}\"}, release: {service: register, delete: \"/holds/{taken.body.id}\"}}}
subscriptions:
  crm: {events: [identity.created], send: {post: \"http://crm/contacts\", json: {vat: \"{identity.traits.vat}\"}}}
kratos: {admin_url: \"http://127.0.0.1:1\"}
";

/// Runs `vestibule try`. Returns the exit code and what it printed.
fn try_with(register: &FakeService, arguments: &[&str]) -> (i32, String) {
    try_settings(SETTINGS, register, arguments)
}

/// Runs `vestibule try` with these settings.
fn try_settings(settings: &str, register: &FakeService, arguments: &[&str]) -> (i32, String) {
    let folder = folder_with(settings);
    std::fs::write(folder.path().join("secret"), "canary-of-a-file\n").expect("a file");
    std::fs::write(folder.path().join("schema.json"), SCHEMA).expect("a file");
    let all: Vec<&str> = ["try"].iter().chain(arguments).copied().collect();
    let mut command = vestibule(folder.path(), &all);
    command.env("REGISTER", register.url());
    let output = output(command.env("SEC", "canary/of the environment"));
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    (output.status.code().expect("an exit code"), printed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_check_is_explained() {
    let register = FakeService::start();
    register.respond_with(200, &json!({"valid": false}));
    let (code, printed) = try_with(&register, &["--traits", r#"{"vat": "NL1"}"#]);
    assert_eq!(code, 1, "{printed}");
    for part in [
        "vat: refused (",
        "  asked: GET /vat/NL1\n",
        "    X-Api-Key: (hidden)\n",
        "    X-Plain: plain\n",
        "  answered: 200 {\"valid\":false}\n",
        "  refuse[0].when `response.body.valid == false`: true\n",
        "later: not_applicable",
        "  did not run: `when` is false\n",
        "verdict: refused\n  traits.vat: No. (4900101)\n",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    assert!(!printed.contains("canary"), "{printed}");
    register.respond_with(200, &json!({"valid": true}));
    let (code, printed) = try_with(&register, &["--traits", r#"{"vat": "NL1"}"#, "--json"]);
    assert_eq!(code, 0, "{printed}");
    let trial: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(trial["verdict"], "admitted");
    assert_eq!(trial["deliveries"][0]["request"], "POST /contacts");
    assert_eq!(trial["deliveries"][0]["body"], json!({"vat": "NL1"}));
}

const SCHEMA: &str = r#"{"properties": {"traits": {"type": "object", "properties": {"vat": {"type": "string"}},
    "additionalProperties": false}}}"#;

/// The query, the path and the body of a question can hold a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_the_environment_and_of_files_are_hidden() {
    let settings = "checks:
  a: {field: traits.vat, ask: {post: \"${env:REGISTER}/${file:secret}/a\", query: {api_key: \"${env:SEC}\"}, headers: {X-Tenant: \"${env:SEC}\"}, json: {list: [\"x ${env:SEC}\"]}}, refuse: [{when: 404, message: \"No ${env:SEC}.\"}]}
  b: {field: traits.vat, ask: {post: \"${env:REGISTER}/b\", form: {key: \"${env:SEC}\"}}}
subscriptions:
  crm: {events: [identity.created], send: {post: \"http://crm/contacts\", json: {key: \"${env:SEC}\"}}}
";
    let register = FakeService::start();
    for (status, code) in [(200, 0), (404, 1)] {
        register.respond_with(status, &json!({"said": "canary/of the environment"}));
        for options in [&[][..], &["--json"]] {
            let arguments = [&["--traits", r#"{"vat": "NL1"}"#], options].concat();
            let (found, printed) = try_settings(settings, &register, &arguments);
            assert_eq!(found, code, "{printed}");
            assert!(!printed.contains("canary"), "{printed}");
            assert!(
                printed.contains("POST /(hidden)/a?api_key=(hidden)"),
                "{printed}"
            );
        }
    }
    // The checks ask in any order.
    let received = register.received();
    assert!(received.iter().any(|call| call.path.contains("canary")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reasons_name_what_the_visitor_sent() {
    let settings = "kratos: {identity_schemas: {default: \"file://schema.json\"}}
checks:
  needed: {field: traits.vat, required: true, refuse: [{when: \"value == 'x'\"}]}
  asked: {field: traits.vat, ask: {get: \"${env:REGISTER}/{value}\"}}
";
    let register = FakeService::start();
    register.respond_with(200, &json!({"text": "y".repeat(300)}));
    for (options, code, parts) in [
        (
            &["--traits", r#"{"vta": "a"}"#][..],
            1,
            &[
                "warning: the identity schema `default` allows no `traits.vta`",
                "did you mean `traits.vat`?",
                "needed: refused",
                "  refused by `required`: its field is absent\n",
                "asked: not_applicable",
                "  did not run: its field is absent\n",
            ][..],
        ),
        (
            &[
                "--flow",
                "settings",
                "--traits",
                r#"{"vat": "a"}"#,
                "--previous",
                r#"{"vat": "a"}"#,
            ],
            0,
            &["  did not run: nothing that it reads has changed\n"],
        ),
        (
            &["--traits", r#"{"vat": "a"}"#],
            0,
            &["yyy… (311 characters; `--json` prints more)\n"],
        ),
        (&["--traits", r#"{"vat": "a"}"#, "--json"], 0, &["yyy\""]),
    ] {
        let (found, printed) = try_settings(settings, &register, options);
        assert_eq!(found, code, "{options:?}\n{printed}");
        for part in parts {
            assert!(printed.contains(part), "{options:?}\n{part}\n{printed}");
        }
        assert!(
            !printed.contains("refuse[0].when `value == 'x'`: error"),
            "{printed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reservations_are_taken_and_released_only_on_request() {
    let register = FakeService::start();
    register.respond_with(201, &json!({"id": "h7"}));
    let (code, printed) = try_with(&register, &["--traits", r#"{"invite": "A"}"#]);
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("invite: unavailable, not_stored"),
        "{printed}"
    );
    assert_eq!(register.received().len(), 0);
    let (code, printed) = try_with(&register, &["--traits", r#"{"invite": "A"}"#, "--take"]);
    assert_eq!(code, 0, "{printed}");
    let calls: Vec<String> = register
        .received()
        .iter()
        .map(|call| format!("{} {}", call.method, call.path))
        .collect();
    assert_eq!(calls, ["POST /hold/A", "DELETE /holds/h7"]);
    // Without an answer that names the reservation, nothing can release it.
    register.respond_with(503, &json!({}));
    let (code, printed) = try_with(&register, &["--traits", r#"{"invite": "A"}"#, "--take"]);
    assert_eq!(code, 1, "{printed}");
    let reason = "the reservation of invite may still be held: `release` cannot be built";
    assert!(printed.contains(reason), "{printed}");
    assert!(
        printed.contains("taken with the Idempotency-Key "),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_down_and_wrong_arguments_are_explained() {
    let register = FakeService::start();
    register.respond_with(503, &json!({}));
    let (code, printed) = try_with(&register, &["--traits", r#"{"vat": "NL1"}"#]);
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("vat: unavailable, status_5xx"),
        "{printed}"
    );
    for (arguments, part) in [
        (&["--traits", "[1]"][..], "expected a JSON object"),
        (&[], "--traits"),
        (&["--payload", "missing.json"], "cannot read missing.json"),
        (
            &["--payload", "vestibule.yaml"],
            "is not the body of a call",
        ),
        (&["--traits", "{}", "--header", "X"], "expected NAME=VALUE"),
        (&["--traits", "{}", "--method", "zzz"], "lookup_secret"),
    ] {
        let (code, printed) = try_with(&register, arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(printed.contains(part), "{arguments:?}\n{printed}");
    }
}
