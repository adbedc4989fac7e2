//! No sign-up method evades a check, on PostgreSQL and with two instances of Vestibule. The load balancer alternates between them,
//! so `pre` and `post` of a sign-up go to different instances.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use serde_json::Value;
use tokio::sync::Mutex;

use super::late_refusals::is_refused;
use super::social;
use super::submissions::{RACERS, assert_no_alarm, builder, confirmations, copies, race, rounds};
use crate::support::fields::{EMAIL, Fields, INVITE, VAT_NUMBER, company_with_unknown_number};
use crate::support::passkey;
use crate::support::postgres::Server;
use crate::support::provider::Provider;
use crate::support::reservations::Reservations;
use crate::support::service::{Behaviour, ONE_USE_PREFIX, UNKNOWN_VAT_PREFIX, vat_number};
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::FormResponse;
use crate::support::{Client, TestEnv, company, eventually, within};

/// Longer than the last look-up and the pauses between two attempts.
pub fn timeout() -> Duration {
    let for_each = Duration::from_secs(30);
    for_each * u32::try_from(rounds().max(3)).expect("some rounds")
}

/// The sign-up method.
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

    /// The number of parallel submissions of one form.
    fn racers(self) -> usize {
        match self {
            Self::Password | Self::Passkey => RACERS,
            // Each new code invalidates the one before, so each submission takes time to prepare.
            Self::Code => 4,
            Self::Oidc => 6,
        }
    }

    /// Sends one form with each of these fields at the same moment, with this behaviour of the register. Returns the number of
    /// sign-ups.
    async fn race(
        self,
        env: &TestEnv,
        client: Client,
        typed: Vec<Fields>,
        register: Behaviour,
    ) -> usize {
        if self == Self::Code {
            let responses = race_by_code(env, client, typed, register).await;
            return accepted(&responses);
        }
        env.vat_register.set_behaviour(register);
        if self == Self::Oidc {
            return social::race(env, &typed).await;
        }
        let visitor = env.visitor(client);
        let form = visitor.registration().await;
        let mut forms = copies(&visitor, &form.id, typed.len()).await;
        let filled = forms.iter().zip(typed).map(|(form, typed)| match self {
            Self::Passkey => typed.by_passkey(&passkey::created_for(&form.shown)),
            _ => typed.by_password(),
        });
        let filled: Vec<Fields> = filled.collect();
        accepted(&race(&mut forms, &filled).await)
    }
}

/// Waits until every invite without an account is released, and asserts that no other one is.
pub async fn wait_for_releases(env: &TestEnv) {
    within(
        timeout(),
        "Vestibule releases every invite without an account",
        async || {
            let reservations = Reservations::after(&env.invites.received());
            reservations.unconfirmed().is_empty().then_some(())
        },
    )
    .await;
    let reservations = Reservations::after(&env.invites.received());
    assert_eq!(reservations.confirmed_and_released(), [""; 0]);
}

fn accepted(responses: &[FormResponse]) -> usize {
    responses
        .iter()
        .filter(|response| response.is_accepted())
        .count()
}

/// A code can be used once, and a new code invalidates the one before. So each submission waits in its check until all have
/// arrived. On a slow machine Kratos may answer the first one earlier, and then show no form.
async fn race_by_code(
    env: &TestEnv,
    client: Client,
    typed: Vec<Fields>,
    register: Behaviour,
) -> Vec<FormResponse> {
    env.vat_register.set_behaviour(Behaviour::Hangs);
    let visitor = env.visitor(client);
    let form = visitor.registration().await;
    let mut forms = copies(&visitor, &form.id, typed.len()).await;
    let (queue, remaining) = (Mutex::new(()), Mutex::new(typed.len()));
    let sent = forms.iter_mut().zip(typed).map(async |(form, typed)| {
        let turn = queue.lock().await;
        let typed = typed.by_code();
        let requests_code = typed.clone().with("resend", "code");
        let asked = form.submit(&requests_code).await;
        if !asked.is_shown_again() {
            count_down(&remaining, env, &register).await;
            return asked;
        }
        let code = env.kratos.mailed_code(typed.text(EMAIL), 0).await;
        let number = typed.text(VAT_NUMBER).to_owned();
        let typed = typed.with("code", code);
        let response = pin!(form.submit(&typed));
        let is_checked = pin!(eventually("Vestibule checks the number", async || {
            env.checked_vat_numbers().contains(&number).then_some(())
        }));
        let first = select(response, is_checked).await;
        drop(turn);
        count_down(&remaining, env, &register).await;
        match first {
            Either::Left((response, _)) => response,
            Either::Right(((), response)) => response.await,
        }
    });
    join_all(sent).await
}

/// When no submission remains, the register answers all of them.
async fn count_down(remaining: &Mutex<usize>, env: &TestEnv, register: &Behaviour) {
    let mut remaining = remaining.lock().await;
    *remaining -= 1;
    if *remaining == 0 {
        env.vat_register.set_behaviour(register.clone());
    }
}

/// The accounts with one of these values in this field.
async fn accounts_where(env: &TestEnv, field: &str, values: &BTreeSet<String>) -> Vec<Value> {
    let name = field.trim_start_matches("traits.");
    let all = env.kratos.identities().await.into_iter();
    all.filter(|one| {
        let value = one["traits"][name].as_str();
        value.is_some_and(|value| values.contains(value))
    })
    .collect()
}

/// The results of a test case.
#[derive(Debug, Default)]
struct Results {
    is_guarded: bool,
    submissions: usize,
    accounts: usize,
    invites: Vec<String>,
    refused_late: Vec<String>,
}

/// Half of the submissions of a form share an invite, the others have their own. With the one-identity guard Kratos creates one
/// account from the form, without it at most one account for each invite.
async fn invites(
    env: &TestEnv,
    method: Method,
    client: Client,
    round: usize,
    results: &mut Results,
) {
    let shared = format!("{ONE_USE_PREFIX}{method}-{client}-{round}-shared");
    let typed: Vec<Fields> = (0..method.racers())
        .map(|racer| match racer % 2 {
            0 => company().with(INVITE, shared.as_str()),
            _ => company().with(
                INVITE,
                format!("{ONE_USE_PREFIX}{method}-{client}-{round}-{racer}"),
            ),
        })
        .collect();
    let codes: BTreeSet<String> = typed
        .iter()
        .map(|typed| typed.text(INVITE).to_owned())
        .collect();
    results.submissions += typed.len();
    let signed_up = method.race(env, client, typed, Behaviour::Works).await;
    let created = accounts_where(env, INVITE, &codes).await;
    assert_eq!(signed_up, created.len(), "{client}, round {round}");
    if results.is_guarded {
        assert_eq!(created.len(), 1, "{client}, round {round}: {created:#?}");
        let external_id = created[0]["external_id"].as_str().unwrap_or_default();
        assert!(external_id.starts_with("vestibule:"), "{created:#?}");
    }
    results.accounts += created.len();
    results.invites.extend(codes);
}

/// The register is down, and all submissions of the form have unknown numbers.
async fn deferrals(
    env: &TestEnv,
    method: Method,
    client: Client,
    round: usize,
    results: &mut Results,
) {
    let typed: Vec<Fields> = (0..method.racers())
        .map(|_| company_with_unknown_number())
        .collect();
    let numbers: BTreeSet<String> = typed
        .iter()
        .map(|typed| typed.text(VAT_NUMBER).to_owned())
        .collect();
    results.submissions += typed.len();
    let outage = Behaviour::Answers(503);
    let signed_up = method.race(env, client, typed, outage).await;
    let created = accounts_where(env, VAT_NUMBER, &numbers).await;
    assert_eq!(signed_up, created.len(), "{client}, round {round}");
    assert!(!created.is_empty(), "{client}, round {round}");
    if results.is_guarded {
        assert_eq!(created.len(), 1, "{client}, round {round}: {created:#?}");
    }
    results.accounts += created.len();
    let ids = created.iter().filter_map(|one| one["id"].as_str());
    results.refused_late.extend(ids.map(str::to_owned));
}

pub async fn visitor_evades_no_check_on_two_instances(method: Method) {
    evade_no_check(method, builder(), true).await;
}

/// Vestibule releases the reservations of sign-ups that Kratos refuses after the flow expires.
pub async fn visitor_evades_no_check_on_two_instances_without_the_one_identity_guard(
    method: Method,
) {
    evade_no_check(
        method,
        builder().without_guard().with_flow_lifespan("20s"),
        false,
    )
    .await;
}

async fn evade_no_check(method: Method, builder: TestEnvBuilder, is_guarded: bool) {
    let Some(server) = Server::start() else {
        return;
    };
    let provider = Provider::start();
    let builder = builder
        .on_postgres(server)
        .with_extra_instances(1)
        .with_provider(&provider)
        .with_passkeys()
        .with_deadline("20s");
    let (env, balancer) = builder.start_behind_load_balancer().await;
    // Proves to Vestibule that this Kratos stores external ids for this method.
    let first = vec![company()];
    let client = method.clients()[0];
    let signed_up = method.race(&env, client, first, Behaviour::Works).await;
    assert_eq!(signed_up, 1, "Kratos accepts the first sign-up");

    let mut results = Results {
        is_guarded,
        ..Results::default()
    };
    for client in method.clients() {
        for round in 0..rounds() {
            deferrals(&env, method, *client, round, &mut results).await;
        }
    }
    let before = env.vat_register.received().len();
    // Meanwhile Vestibule repeats the deferred checks.
    for client in method.clients() {
        for round in 0..rounds() {
            invites(&env, method, *client, round, &mut results).await;
        }
    }

    for id in &results.refused_late {
        within(
            timeout(),
            "Vestibule refuses the account late",
            async || is_refused(&env.kratos.identity(id).await).then_some(()),
        )
        .await;
    }
    let asked = env.vat_register.received();
    let asked: BTreeSet<String> = asked[before..].iter().map(vat_number).collect();
    wait_for_releases(&env).await;
    let mut confirmed = 0;
    let all = env.kratos.identities().await;
    for invite in &results.invites {
        let with_invite = all.iter().filter(|one| one["traits"]["invite"] == *invite);
        let accounts = with_invite.count();
        assert!(accounts <= 1, "{invite}: {accounts}");
        assert_eq!(confirmations(&env, invite), accounts, "{invite}");
        confirmed += accounts;
    }
    for one in all {
        let number = one["traits"]["vat_number"].as_str().expect("a number");
        let is_unknown = number.starts_with(UNKNOWN_VAT_PREFIX);
        assert!(!is_unknown || asked.contains(number), "{number}");
    }
    let calls = balancer.calls();
    let accounts = results.accounts;
    eprintln!(
        "{method} on two instances, guarded: {is_guarded}: {} submissions, {accounts} accounts, {} invites, {confirmed} confirmed, none remaining; {} refused \
         late; calls {calls:?}",
        results.submissions,
        results.invites.len(),
        results.refused_late.len()
    );
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    assert_no_alarm(&env).await;
}
