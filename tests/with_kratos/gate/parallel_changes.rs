//! Visitors send changes in settings many times at the same moment, on PostgreSQL and with two instances of Vestibule behind a load
//! balancer.

use futures_util::future::join_all;

use super::late_refusals::is_refused;
use super::methods::{timeout, wait_for_releases};
use super::submissions::{assert_no_alarm, builder, confirmations, prove_guard, rounds};
use crate::support::fields::{EMAIL, Fields, INVITE, VAT_NUMBER, company_with_unknown_number};
use crate::support::load_balancer::LoadBalancer;
use crate::support::postgres::Server;
use crate::support::service::{Behaviour, ONE_USE_PREFIX, UNKNOWN_VAT_PREFIX, vat_number};
use crate::support::visitor::{Flow, Page, Visitor};
use crate::support::{Client, TestEnv, company, within};

/// The number of accounts in each race.
const ACCOUNTS: usize = 4;
/// How often each visitor sends the form.
const COPIES: usize = 3;

/// An account with a signed-in visitor.
struct Account {
    visitor: Visitor,
    typed: Fields,
    id: String,
}

async fn start() -> Option<(TestEnv, LoadBalancer)> {
    let builder = builder()
        .on_postgres(Server::start()?)
        .with_extra_instances(1);
    let (env, balancer) = builder.start_behind_load_balancer().await;
    prove_guard(&env).await;
    Some((env, balancer))
}

async fn accounts(env: &TestEnv) -> Vec<Account> {
    let sign_up = (0..ACCOUNTS).map(async |_| {
        let typed = company();
        let mut visitor = env.visitor(Client::Api);
        let identity = visitor.sign_up(&typed.clone().by_password()).await;
        let id = identity["id"].as_str().expect("an id").to_owned();
        Account { visitor, typed, id }
    });
    join_all(sign_up).await
}

/// Opens [`COPIES`] copies of the settings form of each account.
async fn forms(accounts: &[Account]) -> Vec<Vec<Flow<'_>>> {
    let opened = accounts.iter().map(async |account| {
        let id = account.visitor.settings().await.id;
        let copies = (0..COPIES).map(|_| account.visitor.reopen(Page::Settings, &id));
        join_all(copies).await
    });
    join_all(opened).await
}

/// Sends all forms at the same moment. Returns which changes Kratos saved.
async fn race(forms: &mut [Vec<Flow<'_>>], typed: &[Vec<Fields>]) -> Vec<Vec<bool>> {
    let sent = forms.iter_mut().zip(typed).map(async |(forms, typed)| {
        let sent = forms.iter_mut().zip(typed);
        let sent = sent.map(async |(form, typed)| form.submit(typed).await.status == 200);
        join_all(sent).await
    });
    join_all(sent).await
}

/// The fields of the three copies of each form: one with a shared invite, one with its own invite, and one with its own invite and
/// a taken address.
fn with_invites(accounts: &[Account], taken: &str, round: usize) -> Vec<Vec<Fields>> {
    let invite = |account: &Account, end: String| {
        let typed = account.typed.clone().by_profile();
        typed.with(INVITE, format!("{ONE_USE_PREFIX}{round}-{end}"))
    };
    let all = accounts.iter().enumerate();
    all.map(|(number, account)| {
        vec![
            invite(account, "shared".to_owned()),
            invite(account, format!("own-{number}")),
            invite(account, format!("taken-{number}")).with(EMAIL, taken),
        ]
    })
    .collect()
}

pub async fn kratos_saves_one_of_many_changes_with_one_invite() {
    let Some((env, balancer)) = start().await else {
        return;
    };
    let taken = company();
    let first = taken.clone().by_password();
    env.visitor(Client::Api).sign_up(&first).await;
    let accounts = accounts(&env).await;
    let (mut total_saved, mut total_confirmed) = (0, 0);
    let mut rounds_of_changes = Vec::new();
    for round in 0..rounds() {
        let typed = with_invites(&accounts, taken.text(EMAIL), round);
        let mut forms = forms(&accounts).await;
        let saved = race(&mut forms, &typed).await;
        let shared = saved.iter().filter(|saved| saved[0]).count();
        assert!(
            shared <= 1,
            "round {round}: {shared} changes with one invite"
        );
        assert!(
            saved.iter().all(|saved| !saved[2]),
            "Kratos refuses the taken address"
        );
        rounds_of_changes.push((typed, saved));
    }
    wait_for_releases(&env).await;
    for (typed, saved) in rounds_of_changes {
        let mut expected: Vec<(String, usize)> = Vec::new();
        for (typed, saved) in typed.iter().flatten().zip(saved.into_iter().flatten()) {
            let invite = typed.text(INVITE).to_owned();
            total_saved += usize::from(saved);
            match expected.iter_mut().find(|(other, _)| *other == invite) {
                Some((_, times)) => *times += usize::from(saved),
                None => expected.push((invite, usize::from(saved))),
            }
        }
        for (invite, times) in expected {
            let confirmed = confirmations(&env, &invite);
            assert_eq!(confirmed, times, "{invite}");
            total_confirmed += confirmed;
        }
    }
    for account in &accounts {
        let now = env.kratos.identity(&account.id).await;
        if let Some(invite) = now["traits"]["invite"].as_str() {
            assert_eq!(confirmations(&env, invite), 1, "{invite}");
        }
    }
    let sent = rounds() * ACCOUNTS * COPIES;
    let calls = balancer.calls();
    eprintln!(
        "settings on two instances: {sent} changes sent, {total_saved} saved, {total_confirmed} invites confirmed, none left; \
         calls {calls:?}"
    );
    assert!(total_saved > 0);
    assert_no_alarm(&env).await;
}

/// The visitors change to unknown numbers while the register is down.
pub async fn vestibule_checks_every_change_after_an_outage_of_the_register() {
    let Some((env, balancer)) = start().await else {
        return;
    };
    let mut all = Vec::new();
    let mut saved_numbers = Vec::new();
    for _ in 0..rounds() {
        env.vat_register.set_behaviour(Behaviour::Works);
        let accounts = accounts(&env).await;
        env.vat_register.set_behaviour(Behaviour::Answers(503));
        let typed: Vec<Vec<Fields>> = accounts
            .iter()
            .map(|account| {
                let bad = (0..COPIES).map(|_| {
                    let number = company_with_unknown_number();
                    let typed = account.typed.clone().by_profile();
                    typed.with(VAT_NUMBER, number.text(VAT_NUMBER))
                });
                bad.collect()
            })
            .collect();
        let saved = {
            let mut forms = forms(&accounts).await;
            race(&mut forms, &typed).await
        };
        let sent = typed.iter().flatten().zip(saved.into_iter().flatten());
        let saved = sent.filter(|(_, saved)| *saved);
        saved_numbers.extend(saved.map(|(typed, _)| typed.text(VAT_NUMBER).to_owned()));
        all.extend(accounts);
    }
    // The register answers 503 while the visitors send changes. So any other response is to a deferred check. The earliest are
    // during the sign-ups of the next round.
    let is_checked = |number: &str| {
        let answered = env.vat_register.answered();
        let mut answered = answered.iter().filter(|(_, status)| *status == 200);
        answered.any(|(call, _)| vat_number(call) == number)
    };
    env.vat_register.set_behaviour(Behaviour::Works);
    let mut changed = 0;
    for account in &all {
        let now = env.kratos.identity(&account.id).await;
        let number = now["traits"]["vat_number"].as_str().expect("a number");
        if !number.starts_with(UNKNOWN_VAT_PREFIX) {
            continue;
        }
        changed += 1;
        within(
            timeout(),
            "Vestibule refuses the account late",
            async || is_refused(&env.kratos.identity(&account.id).await).then_some(()),
        )
        .await;
        // The refusal may concern a number that the visitor saved earlier.
        within(timeout(), "Vestibule checks the number", async || {
            is_checked(number).then_some(())
        })
        .await;
    }
    // Vestibule also checks a saved number that a later change replaced.
    for number in &saved_numbers {
        within(
            timeout(),
            "Vestibule checks each saved number",
            async || is_checked(number).then_some(()),
        )
        .await;
    }
    let sent = all.len() * COPIES;
    let calls = balancer.calls();
    eprintln!(
        "settings on two instances, register down: {sent} changes sent, {} saved, {changed} of {} accounts changed, all \
         of them refused late; calls {calls:?}",
        saved_numbers.len(),
        all.len()
    );
    assert!(
        changed > 0,
        "Kratos saved no change, so the test proves nothing"
    );
    assert_no_alarm(&env).await;
}
