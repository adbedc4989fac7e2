//! The examples: each is loaded, and evaluated with canned responses of its services.

use std::path::Path;

use serde_json::{Value, json};
use vestibule::config::{self, Environment, Settings};
use vestibule::kratos::Flow;
use vestibule::model::request::Request;
use vestibule::model::verdict::Verdict;

use crate::support::direct::Direct;
use crate::support::payload;
use crate::support::payload::Payload;

fn example(name: &str) -> Settings {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let variables = [
        "VESTIBULE_KEY",
        "VAT_REGISTER",
        "CRM",
        "INVITES",
        "CRM_PASSWORD",
        "BILLING_KEY",
        "VESTIBULE_ADMIN_TOKEN",
    ];
    let variables =
        variables.map(|name| (name.to_owned(), "http://127.0.0.1:9/long-enough".to_owned()));
    let signing = (
        "CRM_SIGNING_SECRET".to_owned(),
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
    );
    let environment = Environment::of(variables.into_iter().chain([signing]));
    config::load(&path, &environment).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The result of one check in an evaluation.
#[derive(Debug, PartialEq, Eq)]
enum CheckResult {
    Accepted,
    NotApplicable,
    /// Refused with this message.
    Refused(u32),
    Unavailable,
}

use CheckResult::{Accepted, NotApplicable, Refused, Unavailable};

async fn result_of(direct: &Direct, check: &str, body: &Payload) -> CheckResult {
    let evaluated = direct.evaluate(Flow::Registration, body).await;
    let record = evaluated.records.iter().find(|one| &*one.check == check);
    let record = record.unwrap_or_else(|| panic!("the check {check}"));
    match record.outcome {
        "accepted" => Accepted,
        "not_applicable" => NotApplicable,
        "refused" => Refused(record.message_id.expect("a message")),
        "unavailable" => {
            let is_admitted = !matches!(evaluated.verdict, Verdict::Refuse(_));
            assert!(
                !is_admitted || !evaluated.deferred_checks.is_empty(),
                "nothing is admitted unchecked"
            );
            Unavailable
        }
        other => panic!("{other}"),
    }
}

/// The examples that ask VIES, each with the response to a valid and to an unknown number, and the message for a malformed one.
fn vies_examples() -> [(&'static str, Value, Value, u32); 3] {
    let by_post = |valid: bool| json!({"countryCode": "EL", "vatNumber": "123456789", "valid": valid, "name": "---", "address": "---"});
    let by_get = |valid: bool| json!({"isValid": valid, "userError": if valid { "VALID" } else { "INVALID" }, "name": "---"});
    [
        (
            "examples/settings/company.yaml",
            by_post(true),
            by_post(false),
            4_900_102,
        ),
        (
            "examples/settings/vat-number.yaml",
            by_get(true),
            by_get(false),
            4_900_102,
        ),
        (
            "vestibule.example.yaml",
            by_post(true),
            by_post(false),
            4_900_000,
        ),
    ]
}

fn asked_of_vies(direct: &Direct) -> Vec<Request> {
    let is_about_vat = |one: &Request| one.path.contains("vat");
    direct.asked().into_iter().filter(is_about_vat).collect()
}

fn vies_body() -> Payload {
    payload()
        .with_trait("email", "ada@shop.example")
        .with_trait("vat_number", "DE811115368")
        .with_trait("kind", "company")
        .with_trait("invite", "WELCOME-2026")
}

#[tokio::test]
async fn every_error_code_of_vies_means_unavailable() {
    let wrapped = |code: &str| json!({"actionSucceed": false, "errorWrappers": [{"error": code}]});
    let user_error = |code: &str| json!({"isValid": false, "userError": code, "name": "---"});
    let codes = [
        "SERVER_BUSY",
        "GLOBAL_MAX_CONCURRENT_REQ",
        "GLOBAL_MAX_CONCURRENT_REQ_TIME",
        "MS_MAX_CONCURRENT_REQ",
        "MS_MAX_CONCURRENT_REQ_TIME",
        "MS_UNAVAILABLE",
        "SERVICE_UNAVAILABLE",
        "TIMEOUT",
        "IP_BLOCKED",
        "VAT_BLOCKED",
        "INVALID_REQUESTER_INFO",
        "A_NEW_CODE",
        "",
    ];
    let mut responses: Vec<(u16, Value)> = Vec::new();
    for code in codes {
        responses.extend([
            (200, wrapped(code)),
            (200, user_error(code)),
            (500, wrapped(code)),
            (503, user_error(code)),
        ]);
    }
    responses.extend([
        (200, json!({"actionSucceed": false})),
        (200, json!({"actionSucceed": false, "errorWrappers": []})),
        (200, json!({"actionSucceed": false, "errorWrappers": [{"code": "SERVER_BUSY"}]})),
        (200, json!({"actionSucceed": false, "errorWrappers": [{"error": "INVALID_INPUT"}, {"error": "TIMEOUT"}]})),
        (200, json!({"isValid": false})),
        (200, json!({"isValid": true, "userError": "MS_UNAVAILABLE"})),
        (200, json!({})),
        (200, json!(null)),
        (200, json!("<html>")),
        (302, json!(null)),
        (429, json!(null)),
        (503, json!("<html>")),
    ]);
    for (name, valid, unknown, _) in vies_examples() {
        let settings = example(name);
        for (status, response) in responses.clone() {
            let canned = response.clone();
            let direct = Direct::new(&settings, move |_| (status, canned.clone()));
            let result = result_of(&direct, "vat_number", &vies_body()).await;
            assert_eq!(result, Unavailable, "{name} {status} {response}");
        }
        for (response, expected) in [(valid, Accepted), (unknown, Refused(4_900_101))] {
            let direct = Direct::new(&settings, move |_| (200, response.clone()));
            assert_eq!(
                result_of(&direct, "vat_number", &vies_body()).await,
                expected,
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn a_number_that_vies_cannot_read_is_malformed() {
    for (name, _, _, malformed) in vies_examples() {
        let settings = example(name);
        for (status, response) in [
            (
                200,
                json!({"actionSucceed": false, "errorWrappers": [{"error": "INVALID_INPUT"}]}),
            ),
            (
                400,
                json!({"actionSucceed": false, "errorWrappers": [{"error": "INVALID_INPUT"}]}),
            ),
            (200, json!({"isValid": false, "userError": "INVALID_INPUT"})),
            (400, json!({"isValid": false, "userError": "INVALID_INPUT"})),
        ] {
            let is_its_own = response["userError"].is_string() == name.contains("vat-number");
            let direct = Direct::new(&settings, move |_| (status, response.clone()));
            let result = result_of(&direct, "vat_number", &vies_body()).await;
            if is_its_own {
                assert_eq!(result, Refused(malformed), "{name} {status}");
            } else {
                assert_ne!(result, Accepted, "{name} {status}");
            }
        }
        // No request can be made of these.
        for number in ["D", "", "DE", "ÄÖ", ". -"] {
            let direct = Direct::new(&settings, |_| {
                (
                    200,
                    json!({"valid": true, "isValid": true, "userError": "VALID"}),
                )
            });
            let result = result_of(
                &direct,
                "vat_number",
                &vies_body().with_trait("vat_number", number),
            )
            .await;
            let is_asked = !asked_of_vies(&direct).is_empty();
            assert!(result != Accepted || is_asked, "{name} {number:?}");
            assert!(
                !is_asked || number == "DE" && !name.contains("vat-number"),
                "{name} {number:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_number_is_asked_for_as_vies_writes_it() {
    for (name, valid, _, _) in vies_examples() {
        let settings = example(name);
        for (typed, country, number) in [
            ("DE811115368", "DE", "811115368"),
            ("de811115368", "DE", "811115368"),
            (" de 811 115 368 ", "DE", "811115368"),
            ("DE811.115-368", "DE", "811115368"),
            ("DE\u{a0}811\u{2009}115\u{200b}368", "DE", "811115368"),
            ("EL123456789", "EL", "123456789"),
            ("GR123456789", "EL", "123456789"),
            ("gr 123456789", "EL", "123456789"),
            ("el-123456789", "EL", "123456789"),
            ("ATU12345678", "AT", "U12345678"),
            ("atu 12345678", "AT", "U12345678"),
            ("NL123456789B01", "NL", "123456789B01"),
            ("nl 1234.56.789.b.01", "NL", "123456789B01"),
            ("IE1+23456A", "IE", "1+23456A"),
            ("FRGR345678901", "FR", "GR345678901"),
            ("XI123456789", "XI", "123456789"),
        ] {
            let canned = valid.clone();
            let direct = Direct::new(&settings, move |_| (200, canned.clone()));
            let body = vies_body().with_trait("vat_number", typed);
            assert_eq!(
                result_of(&direct, "vat_number", &body).await,
                Accepted,
                "{name} {typed}"
            );
            let asked = asked_of_vies(&direct);
            let (path, body) = (&asked[0].path, asked[0].body.as_ref());
            if let Some(body) = body {
                let body: Value = serde_json::from_str(&body.text).expect("JSON");
                assert_eq!(
                    body,
                    json!({"countryCode": country, "vatNumber": number}),
                    "{name} {typed}"
                );
                assert_eq!(path, "/check-vat-number");
            } else {
                let number = number.replace('+', "%2B");
                assert_eq!(
                    *path,
                    format!("/ms/{country}/vat/{number}"),
                    "{name} {typed}"
                );
            }
        }
    }
}

#[test]
fn no_example_sends_credentials_to_vies() {
    for (name, _, _, _) in vies_examples() {
        let settings = example(name);
        let vies: Vec<_> = settings
            .services
            .iter()
            .filter(|one| one.name == "vies" || one.name == "vat_register")
            .collect();
        assert_eq!(vies.len(), 1, "{name}");
        assert!(vies[0].auth.is_none(), "{name}");
    }
}

/// A sign-up, the response of the service, and the result of the check.
#[tokio::test]
async fn each_example_does_what_it_says() {
    let with = |name: &str, value: Value| payload().with_trait(name, value);
    let company = |kind: &str| {
        payload()
            .without("/identity/traits/vat_number")
            .with_trait("kind", kind)
    };
    let long_name = "a".repeat(101);
    let settings = |name: &str| format!("examples/settings/{name}.yaml");
    let all = "vestibule.example.yaml".to_owned();
    #[rustfmt::skip]
    let table = [
        (settings("one-field"), "member", with("member_no", json!("7")), 200, Accepted),
        (settings("one-field"), "member", with("member_no", json!("7")), 404, Refused(4_900_000)),
        (settings("one-field"), "member", with("member_no", json!("7")), 503, Unavailable),
        (settings("one-field"), "member", payload(), 404, NotApplicable),
        (settings("throwaway-addresses"), "email", with("email", json!("a@mailinator.com")), 200, Refused(4_900_000)),
        (settings("throwaway-addresses"), "email", with("email", json!("a@mx.mailinator.com")), 200, Refused(4_900_000)),
        (settings("throwaway-addresses"), "email", payload(), 200, Accepted),
        (settings("invites"), "invite", payload(), 200, Accepted),
        (settings("invites"), "invite", payload().without("/identity/traits/invite"), 200, Refused(4_900_003)),
        (settings("company"), "vat_number", payload().without("/identity/traits/vat_number"), 200, Refused(4_900_003)),
        (settings("company"), "invite", payload(), 200, Refused(4_900_103)),
        (settings("company"), "invite", with("invite", json!("FRIENDS-2026")), 200, Accepted),
        (settings("vat-number"), "vat_number", company("private"), 200, NotApplicable),
        (settings("vat-number"), "vat_number", company("company"), 200, Refused(4_900_003)),
        (settings("vat-number"), "vat_number", company("").without("/identity/traits/kind"), 200, Refused(4_900_003)),
        (all.clone(), "email", payload(), 200, Accepted),
        (all.clone(), "email", with("email", json!("a@mailinator.com")), 200, Refused(4_900_000)),
        (all.clone(), "company", payload().without("/identity/traits/company"), 200, NotApplicable),
        (all.clone(), "company", payload(), 200, Accepted),
        (all.clone(), "company", with("company", json!(long_name)), 200, Refused(4_900_000)),
        (all, "score", payload(), 503, Unavailable),
    ];
    for (name, check, body, status, expected) in table {
        let direct = Direct::new(&example(&name), move |_| (status, json!({"points": 50})));
        assert_eq!(
            result_of(&direct, check, &body).await,
            expected,
            "{name} {check} {status} {body}"
        );
    }
}
