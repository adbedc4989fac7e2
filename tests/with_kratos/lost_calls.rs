//! Calls that get lost, or arrive without a body.

use crate::support::fields::{EMAIL, VAT_NUMBER};
use crate::support::message::TRY_AGAIN;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

/// About every fifth huge form has a call arrive without a body.
const ROUNDS: std::ops::Range<usize> = 20..150;
/// As many as there may be broken workers, and some more.
const TRIES: usize = 30;

pub async fn a_lost_answer_is_given_again_without_a_second_question() {
    let (house, network) = TestEnv::plan().open_behind_a_bad_network().await;
    let mut visitor = house.visitor(Client::BrowserForm);
    let typed = company().by_password();

    visitor.signs_up(&typed).await;

    let triggers = network.triggers();
    assert!(triggers.len() >= 2, "Kratos tried again: {triggers:?}");
    assert_eq!(triggers[0], triggers[1], "with the same trigger id");
    assert_eq!(house.vat_numbers_asked(), [typed.text(VAT_NUMBER)]);
}

/// Above 64 KiB of input Kratos's Jsonnet workers break, and this hook or the next is called with an
/// empty body (contract §3.7).
pub async fn nobody_gets_in_unchecked_behind_a_huge_form() {
    let house = TestEnv::open().await;
    let (mut rounds, mut refused) = (0, 0);
    while rounds < ROUNDS.start || refused == 0 {
        assert!(
            rounds < ROUNDS.end,
            "no call came without a body, so this shows nothing"
        );
        rounds += 1;
        let huge = company().with("transient_payload.note", "x".repeat(100_000));
        for typed in [huge, company()] {
            let visitor = house.visitor(Client::BrowserJson);
            let mut flow = visitor.registration().await;
            let answer = flow.submit(&typed.clone().by_password()).await;
            if answer.is_accepted() {
                let asked = house.vat_numbers_asked();
                let number = typed.text(VAT_NUMBER);
                assert!(
                    asked.iter().any(|asked| asked == number),
                    "{number} got in unchecked"
                );
            } else if !answer.body["error"].is_object() {
                assert_eq!(answer.refused(), [at("form", TRY_AGAIN)]);
                refused += 1;
            }
        }
    }
    let asked = house.vat_numbers_asked();
    for identity in house.kratos.identities().await {
        let number = identity["traits"]["vat_number"]
            .as_str()
            .expect("a VAT number");
        assert!(
            asked.iter().any(|asked| asked == number),
            "{} got in unchecked",
            identity["traits"]["email"]
        );
    }

    let typed = company().by_password();
    let mut tries = 0;
    loop {
        tries += 1;
        let visitor = house.visitor(Client::BrowserJson);
        let mut flow = visitor.registration().await;
        let answer = flow.submit(&typed).await;
        if answer.is_accepted() {
            let identity = flow.signed_up(&answer).await;
            assert_eq!(identity["traits"]["email"], typed.text(EMAIL));
            break;
        }
        assert!(
            tries < TRIES,
            "an ordinary sign-up works again: {answer:#?}"
        );
    }
}
