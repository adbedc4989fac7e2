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
    let folder = folder_with(SETTINGS);
    let all: Vec<&str> = ["try"].iter().chain(arguments).copied().collect();
    let output = output(vestibule(folder.path(), &all).env("REGISTER", register.url()));
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
    ] {
        let (code, printed) = try_with(&register, arguments);
        assert_ne!(code, 0, "{arguments:?}");
        assert!(printed.contains(part), "{arguments:?}\n{printed}");
    }
}
