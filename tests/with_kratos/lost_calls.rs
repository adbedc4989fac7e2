//! Calls that are lost, or arrive without a body.

use regex::Regex;

use crate::support::fields::{EMAIL, VAT_NUMBER};
use crate::support::message::TRY_AGAIN;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

/// For about every fifth huge form, a call arrives without a body.
const ROUNDS: std::ops::Range<usize> = 20..150;
/// More than the number of Jsonnet workers that may be broken.
const TRIES: usize = 30;

pub async fn vestibule_repeats_a_lost_response_without_a_second_call_to_the_service() {
    let (env, proxy) = TestEnv::builder().start_behind_lossy_proxy().await;
    let mut visitor = env.visitor(Client::BrowserForm);
    let typed = company().by_password();

    visitor.sign_up(&typed).await;

    let triggers: Vec<String> = proxy
        .first_bytes()
        .iter()
        .filter_map(|call| header(call, "ory-webhook-trigger-id"))
        .collect();
    assert!(triggers.len() >= 2, "Kratos repeats the call: {triggers:?}");
    assert_eq!(
        triggers[0], triggers[1],
        "the repeated call has the same trigger id"
    );
    assert_eq!(env.checked_vat_numbers(), [typed.text(VAT_NUMBER)]);
}

/// Above 64 KiB of input a Jsonnet worker of Kratos breaks, and Kratos calls this hook or the next with an
/// empty body (contract §3.7).
pub async fn no_visitor_signs_up_unchecked_after_a_huge_form() {
    let env = TestEnv::start().await;
    let (mut rounds, mut refused) = (0, 0);
    while rounds < ROUNDS.start || refused == 0 {
        assert!(
            rounds < ROUNDS.end,
            "every call had a body, so the test proves nothing"
        );
        rounds += 1;
        let huge = company().with("transient_payload.note", "x".repeat(100_000));
        for typed in [huge, company()] {
            let visitor = env.visitor(Client::BrowserJson);
            let mut flow = visitor.registration().await;
            let response = flow.submit(&typed.clone().by_password()).await;
            if response.is_accepted() {
                let asked = env.checked_vat_numbers();
                let number = typed.text(VAT_NUMBER);
                assert!(
                    asked.iter().any(|asked| asked == number),
                    "{number} signed up unchecked"
                );
            } else if !response.body["error"].is_object() {
                assert_eq!(response.assert_refused(), [at("form", TRY_AGAIN)]);
                refused += 1;
            }
        }
    }
    let asked = env.checked_vat_numbers();
    for identity in env.kratos.identities().await {
        let number = identity["traits"]["vat_number"]
            .as_str()
            .expect("a VAT number");
        assert!(
            asked.iter().any(|asked| asked == number),
            "{} signed up unchecked",
            identity["traits"]["email"]
        );
    }

    let typed = company().by_password();
    let mut tries = 0;
    loop {
        tries += 1;
        let visitor = env.visitor(Client::BrowserJson);
        let mut flow = visitor.registration().await;
        let response = flow.submit(&typed).await;
        if response.is_accepted() {
            let identity = flow.assert_signed_up(&response).await;
            assert_eq!(identity["traits"]["email"], typed.text(EMAIL));
            break;
        }
        assert!(
            tries < TRIES,
            "an ordinary sign-up succeeds again: {response:#?}"
        );
    }
}

fn header(call: &str, name: &str) -> Option<String> {
    let line = Regex::new(&format!(r"(?im)^{name}:[ \t]*(\S+)\r?$")).expect("a pattern");
    Some(line.captures(call)?[1].to_owned())
}
