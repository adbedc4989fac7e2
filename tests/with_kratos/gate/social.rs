//! Sign-ups with an `OpenID` provider: the callbacks of one form race.

use futures_util::future::join_all;
use reqwest::header::LOCATION;

use super::submissions::{accounts_with, confirmations, no_alarm, plan, releases, rounds};
use crate::support::browser::Browser;
use crate::support::fields::{Fields, INVITE};
use crate::support::provider::Provider;
use crate::support::service::ONE_USE;
use crate::support::{TestEnv, company, eventually};

/// How many callbacks of one form race.
const RACERS: usize = 6;
/// Where browsers go after a sign-up.
const SIGNED_UP: &str = "http://127.0.0.1:4455/";

pub async fn one_invite_serves_one_account_of_parallel_callbacks() {
    let provider = Provider::start();
    let house = plan().with_provider(&provider).open().await;
    // Shows Vestibule that this Kratos stores external ids also for this method.
    let first = format!("{ONE_USE}first");
    assert_eq!(one_invite(&house, &first, 1).await, 1);
    for round in 0..rounds() {
        let invite = format!("{ONE_USE}social-{round}");
        assert_eq!(
            one_invite(&house, &invite, RACERS).await,
            1,
            "round {round}"
        );
    }
    no_alarm(&house).await;
}

/// Returns the number of accounts.
async fn one_invite(house: &TestEnv, invite: &str, racers: usize) -> usize {
    let typed: Vec<Fields> = (0..racers)
        .map(|_| company().with(INVITE, invite))
        .collect();
    let signed_up = race(house, &typed).await;
    let made = accounts_with(house, invite).await;
    for one in &made {
        let external_id = one["external_id"].as_str().unwrap_or_default();
        assert!(external_id.starts_with("vestibule:"), "{one}");
    }
    eventually("the invite is confirmed", async || {
        (confirmations(house, invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(house, invite), 1);
    assert_eq!(releases(house, invite), 0);
    assert_eq!(signed_up, made.len());
    made.len()
}

/// Sends one form with each of these, each time to another person at the provider, and lets all callbacks arrive at the same
/// moment. Returns how many people are signed in after it.
pub async fn race(house: &TestEnv, typed: &[Fields]) -> usize {
    let browser = Browser::new(&house.kratos.public);
    let form = browser.registration().await;
    let mut callbacks = Vec::new();
    for fields in typed {
        let copy = browser.copied();
        let at_provider = copy.chooses_provider(&form, fields).await;
        let callback = copy.follows(&at_provider).await;
        callbacks.push((copy, callback));
    }
    let called = callbacks
        .iter()
        .map(|(copy, callback)| copy.opens(callback));
    let answers = join_all(called).await;
    // The others get the form again, with a message, or the error page of Kratos.
    let is_signed_up = |answer: &&reqwest::Response| {
        let location = answer.headers().get(LOCATION);
        location.is_some_and(|location| location == SIGNED_UP)
    };
    answers.iter().filter(is_signed_up).count()
}
