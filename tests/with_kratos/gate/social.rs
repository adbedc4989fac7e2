//! Sign-ups with an `OpenID` provider: parallel callbacks of one form.

use futures_util::future::join_all;
use reqwest::header::LOCATION;

use super::submissions::{
    accounts_with, assert_no_alarm, builder, confirmations, releases, rounds,
};
use crate::support::browser::Browser;
use crate::support::fields::{Fields, INVITE};
use crate::support::provider::Provider;
use crate::support::service::ONE_USE_PREFIX;
use crate::support::{TestEnv, company, eventually};

/// The number of parallel callbacks of one form.
const RACERS: usize = 6;
/// Where Kratos sends browsers after a sign-up.
const SIGNED_UP: &str = "http://127.0.0.1:4455/";

pub async fn kratos_creates_one_account_with_one_invite_from_parallel_callbacks() {
    let provider = Provider::start();
    let env = builder().with_provider(&provider).start().await;
    // Proves to Vestibule that this Kratos stores external ids for this method.
    let first = format!("{ONE_USE_PREFIX}first");
    assert_eq!(race_for_invite(&env, &first, 1).await, 1);
    for round in 0..rounds() {
        let invite = format!("{ONE_USE_PREFIX}social-{round}");
        assert_eq!(
            race_for_invite(&env, &invite, RACERS).await,
            1,
            "round {round}"
        );
    }
    assert_no_alarm(&env).await;
}

/// Sends one form `racers` times with this invite. Returns the number of accounts.
async fn race_for_invite(env: &TestEnv, invite: &str, racers: usize) -> usize {
    let typed: Vec<Fields> = (0..racers)
        .map(|_| company().with(INVITE, invite))
        .collect();
    let signed_up = race(env, &typed).await;
    let created = accounts_with(env, invite).await;
    for one in &created {
        let external_id = one["external_id"].as_str().unwrap_or_default();
        assert!(external_id.starts_with("vestibule:"), "{one}");
    }
    eventually("Vestibule confirms the invite", async || {
        (confirmations(env, invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(env, invite), 1);
    assert_eq!(releases(env, invite), 0);
    assert_eq!(signed_up, created.len());
    created.len()
}

/// Sends one form with each of these fields, each time with another identity at the provider, and opens all callbacks at the same
/// moment. Returns how many visitors are signed in.
pub async fn race(env: &TestEnv, typed: &[Fields]) -> usize {
    let browser = Browser::new(&env.kratos.public);
    let form = browser.registration().await;
    let mut callbacks = Vec::new();
    for fields in typed {
        let copy = browser.with_copied_cookies();
        let at_provider = copy.choose_provider(&form, fields).await;
        let callback = copy.redirect_target(&at_provider).await;
        callbacks.push((copy, callback));
    }
    let called = callbacks.iter().map(|(copy, callback)| copy.open(callback));
    let responses = join_all(called).await;
    // The others get the form with a message, or the error page of Kratos.
    let is_signed_up = |response: &&reqwest::Response| {
        let location = response.headers().get(LOCATION);
        location.is_some_and(|location| location == SIGNED_UP)
    };
    responses.iter().filter(is_signed_up).count()
}
