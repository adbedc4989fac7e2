//! No check is evaded by any method of signing up, on PostgreSQL and with two instances of Vestibule. Kratos calls them in turn, so
//! `pre` and `post` of a sign-up go to different instances.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use serde_json::Value;
use tokio::sync::Mutex;

use super::late_refusals::is_refused;
use super::social;
use super::submissions::{RACERS, confirmations, copies, no_alarm, plan, race, rounds};
use crate::support::fields::{EMAIL, Fields, INVITE, VAT_NUMBER, company_without_number};
use crate::support::passkey;
use crate::support::postgres::Server;
use crate::support::provider::Provider;
use crate::support::reservations::Reservations;
use crate::support::service::{Behaviour, ONE_USE, UNKNOWN_VAT_NUMBERS, vat_number};
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::Answer;
use crate::support::{Client, TestEnv, company, eventually, within};

/// Longer than the last look-up and the pauses between two tries take.
pub fn patience() -> Duration {
    let for_each = Duration::from_secs(30);
    for_each * u32::try_from(rounds().max(3)).expect("some rounds")
}

/// The method by which a visitor signs up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Password,
    Code,
    Oidc,
    Passkey,
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Password => "password",
            Self::Code => "code",
            Self::Oidc => "oidc",
            Self::Passkey => "passkey",
        })
    }
}

impl Method {
    pub const ALL: [Self; 4] = [Self::Password, Self::Code, Self::Oidc, Self::Passkey];

    fn clients(self) -> &'static [Client] {
        match self {
            Self::Oidc => &[Client::BrowserForm],
            _ => &[Client::BrowserForm, Client::BrowserJson, Client::Api],
        }
    }

    /// How many submissions of one form race.
    fn racers(self) -> usize {
        match self {
            Self::Password | Self::Passkey => RACERS,
            // Each code ends the one before, so each takes some time to get to its race.
            Self::Code => 4,
            Self::Oidc => 6,
        }
    }

    /// Sends one form with each of these at the same moment, while the register does this. Returns how many are signed up.
    async fn race(
        self,
        house: &TestEnv,
        client: Client,
        typed: Vec<Fields>,
        register: Behaviour,
    ) -> usize {
        if self == Self::Code {
            let answers = race_of_codes(house, client, typed, register).await;
            return accepted(&answers);
        }
        house.vat_register.does(register);
        if self == Self::Oidc {
            return social::race(house, &typed).await;
        }
        let visitor = house.visitor(client);
        let form = visitor.registration().await;
        let mut forms = copies(&visitor, &form.id, typed.len()).await;
        let filled = forms.iter().zip(typed).map(|(form, typed)| match self {
            Self::Passkey => typed.by_passkey(&passkey::made_for(&form.shown)),
            _ => typed.by_password(),
        });
        let filled: Vec<Fields> = filled.collect();
        accepted(&race(&mut forms, &filled).await)
    }
}

fn accepted(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.is_accepted()).count()
}

/// A code serves once, and a new one ends the one before. So each submission waits in its check until all of them are there. On
/// a slow machine the first may have to be answered before, and then Kratos may not show the form any more.
async fn race_of_codes(
    house: &TestEnv,
    client: Client,
    typed: Vec<Fields>,
    register: Behaviour,
) -> Vec<Answer> {
    house.vat_register.does(Behaviour::Hangs);
    let visitor = house.visitor(client);
    let form = visitor.registration().await;
    let mut forms = copies(&visitor, &form.id, typed.len()).await;
    let (turn, left) = (Mutex::new(()), Mutex::new(typed.len()));
    let sent = forms.iter_mut().zip(typed).map(async |(form, typed)| {
        let mine = turn.lock().await;
        let typed = typed.by_code();
        let asks_for_code = typed.clone().with("resend", "code");
        let asked = form.submit(&asks_for_code).await;
        if !asked.is_shown_again() {
            one_less(&left, house, &register).await;
            return asked;
        }
        let code = house.kratos.code_mailed_to(typed.text(EMAIL), 0).await;
        let number = typed.text(VAT_NUMBER).to_owned();
        let typed = typed.with("code", code);
        let answer = pin!(form.submit(&typed));
        let is_checked = pin!(eventually("the number is asked about", async || {
            house.vat_numbers_asked().contains(&number).then_some(())
        }));
        let first = select(answer, is_checked).await;
        drop(mine);
        one_less(&left, house, &register).await;
        match first {
            Either::Left((answer, _)) => answer,
            Either::Right(((), answer)) => answer.await,
        }
    });
    join_all(sent).await
}

/// When no submission is left, the register answers all of them.
async fn one_less(left: &Mutex<usize>, house: &TestEnv, register: &Behaviour) {
    let mut left = left.lock().await;
    *left -= 1;
    if *left == 0 {
        house.vat_register.does(register.clone());
    }
}

/// The accounts that have one of these values in this field.
async fn accounts_where(house: &TestEnv, field: &str, values: &BTreeSet<String>) -> Vec<Value> {
    let name = field.trim_start_matches("traits.");
    let all = house.kratos.identities().await.into_iter();
    all.filter(|one| {
        let value = one["traits"][name].as_str();
        value.is_some_and(|value| values.contains(value))
    })
    .collect()
}

/// What a scene has seen.
#[derive(Debug, Default)]
struct Seen {
    is_guarded: bool,
    submissions: usize,
    accounts: usize,
    invites: Vec<String>,
    refused_late: Vec<String>,
}

/// Half of the submissions of a form have one invite, the others have one each. With the one-identity guard one of all of them
/// serves one account, without it each of them serves at most one.
async fn invites(house: &TestEnv, method: Method, client: Client, round: usize, seen: &mut Seen) {
    let shared = format!("{ONE_USE}{method}-{client}-{round}-shared");
    let typed: Vec<Fields> = (0..method.racers())
        .map(|racer| match racer % 2 {
            0 => company().with(INVITE, shared.as_str()),
            _ => company().with(
                INVITE,
                format!("{ONE_USE}{method}-{client}-{round}-{racer}"),
            ),
        })
        .collect();
    let codes: BTreeSet<String> = typed
        .iter()
        .map(|typed| typed.text(INVITE).to_owned())
        .collect();
    seen.submissions += typed.len();
    let signed_up = method.race(house, client, typed, Behaviour::Works).await;
    let made = accounts_where(house, INVITE, &codes).await;
    assert_eq!(signed_up, made.len(), "{client}, round {round}");
    if seen.is_guarded {
        assert_eq!(made.len(), 1, "{client}, round {round}: {made:#?}");
        let external_id = made[0]["external_id"].as_str().unwrap_or_default();
        assert!(external_id.starts_with("vestibule:"), "{made:#?}");
    }
    seen.accounts += made.len();
    seen.invites.extend(codes);
}

/// The register is away, and all numbers of the form are bad.
async fn deferrals(house: &TestEnv, method: Method, client: Client, round: usize, seen: &mut Seen) {
    let typed: Vec<Fields> = (0..method.racers())
        .map(|_| company_without_number())
        .collect();
    let numbers: BTreeSet<String> = typed
        .iter()
        .map(|typed| typed.text(VAT_NUMBER).to_owned())
        .collect();
    seen.submissions += typed.len();
    let away = Behaviour::Answers(503);
    let signed_up = method.race(house, client, typed, away).await;
    let made = accounts_where(house, VAT_NUMBER, &numbers).await;
    assert_eq!(signed_up, made.len(), "{client}, round {round}");
    assert!(!made.is_empty(), "{client}, round {round}");
    if seen.is_guarded {
        assert_eq!(made.len(), 1, "{client}, round {round}: {made:#?}");
    }
    seen.accounts += made.len();
    let ids = made.iter().filter_map(|one| one["id"].as_str());
    seen.refused_late.extend(ids.map(str::to_owned));
}

pub async fn no_check_is_evaded_on_two_instances(method: Method) {
    no_check_is_evaded(method, plan(), true).await;
}

/// What is reserved for a sign-up that Kratos refuses is released after the end of the form.
pub async fn without_our_external_id_no_check_is_evaded_on_two_instances(method: Method) {
    no_check_is_evaded(method, plan().unguarded().expiring_after("20s"), false).await;
}

async fn no_check_is_evaded(method: Method, plan: TestEnvBuilder, is_guarded: bool) {
    let Some(server) = Server::start() else {
        return;
    };
    let provider = Provider::start();
    let plan = plan
        .on_postgres(server)
        .with_other_instances(1)
        .with_provider(&provider)
        .with_passkeys()
        .answering_within("20s");
    let (house, relay) = plan.open_behind_a_relay().await;
    // Shows Vestibule that this Kratos stores external ids also for this method.
    let first = vec![company()];
    let client = method.clients()[0];
    let signed_up = method.race(&house, client, first, Behaviour::Works).await;
    assert_eq!(signed_up, 1, "the first sign-up");

    let mut seen = Seen {
        is_guarded,
        ..Seen::default()
    };
    for client in method.clients() {
        for round in 0..rounds() {
            deferrals(&house, method, *client, round, &mut seen).await;
        }
    }
    let before = house.vat_register.received().len();
    // The deferred questions are asked again meanwhile.
    for client in method.clients() {
        for round in 0..rounds() {
            invites(&house, method, *client, round, &mut seen).await;
        }
    }

    for id in &seen.refused_late {
        within(patience(), "the account is refused late", async || {
            is_refused(&house.kratos.identity(id).await).then_some(())
        })
        .await;
    }
    let asked = house.vat_register.received();
    let asked: BTreeSet<String> = asked[before..].iter().map(vat_number).collect();
    within(
        patience(),
        "no invite is held without an account",
        async || {
            let holds = Reservations::after(&house.invites.received());
            holds.left().is_empty().then_some(())
        },
    )
    .await;
    let holds = Reservations::after(&house.invites.received());
    assert_eq!(holds.both_ways(), [""; 0]);
    let mut confirmed = 0;
    let all = house.kratos.identities().await;
    for invite in &seen.invites {
        let with_it = all.iter().filter(|one| one["traits"]["invite"] == *invite);
        let accounts = with_it.count();
        assert!(accounts <= 1, "{invite}: {accounts}");
        assert_eq!(confirmations(&house, invite), accounts, "{invite}");
        confirmed += accounts;
    }
    for one in all {
        let number = one["traits"]["vat_number"].as_str().expect("a number");
        let is_unknown = number.starts_with(UNKNOWN_VAT_NUMBERS);
        assert!(!is_unknown || asked.contains(number), "{number}");
    }
    let calls = relay.calls();
    let accounts = seen.accounts;
    eprintln!(
        "{method} on two instances, guarded: {is_guarded}: {} submissions, {accounts} accounts, {} invites, {confirmed} confirmed, none left; {} refused \
         late; calls {calls:?}",
        seen.submissions,
        seen.invites.len(),
        seen.refused_late.len()
    );
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    no_alarm(&house).await;
}
