//! One form creates at most one account with one invite, also if a visitor sends the form many times in parallel.

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::fields::{EMAIL, Fields, INVITE, VAT_NUMBER};
use crate::support::message::{FORM_USED, INVITE_USED};
use crate::support::postgres::Server;
use crate::support::service::{Behaviour, ONE_USE_PREFIX, Received, UNKNOWN_VAT_NUMBER};
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::{Flow, FormResponse, Page, Visitor};
use crate::support::{Client, TestEnv, company, eventually};

/// How often each race runs without `GATE_ROUNDS`. For more: `GATE_ROUNDS=20 cargo test --test with_kratos gate`.
const ROUNDS: usize = 3;
/// The number of parallel submissions of one form.
pub const RACERS: usize = 12;

pub fn rounds() -> usize {
    std::env::var("GATE_ROUNDS").map_or(ROUNDS, |rounds| {
        rounds.parse().expect("GATE_ROUNDS is a number")
    })
}

pub fn builder() -> TestEnvBuilder {
    TestEnv::builder()
        .with_settings("nothing_is_lost.yaml")
        .with_faster_lookups(60)
}

/// Signs a visitor up, which proves to Vestibule that this Kratos stores external ids.
pub async fn prove_guard(env: &TestEnv) {
    let first = company().by_password();
    env.visitor(Client::Api).sign_up(&first).await;
}

/// Opens this number of copies of one form.
pub async fn copies<'v>(visitor: &'v Visitor, id: &str, number: usize) -> Vec<Flow<'v>> {
    let opened = (0..number).map(|_| visitor.reopen(Page::Registration, id));
    join_all(opened).await
}

/// Sends each form with its own fields, all at the same moment.
pub async fn race(forms: &mut [Flow<'_>], fields: &[Fields]) -> Vec<FormResponse> {
    join_all(
        forms
            .iter_mut()
            .zip(fields)
            .map(|(form, fields)| form.submit(fields)),
    )
    .await
}

/// The accounts with this invite.
pub async fn accounts_with(env: &TestEnv, invite: &str) -> Vec<Value> {
    let all = env.kratos.identities().await;
    all.into_iter()
        .filter(|one| one["traits"]["invite"] == invite)
        .collect()
}

/// The number of calls with this method and this end of the path.
fn calls(received: &[Received], method: &str, end: &str) -> usize {
    received
        .iter()
        .filter(|call| call.method == method && call.path.ends_with(end))
        .count()
}

pub fn confirmations(env: &TestEnv, invite: &str) -> usize {
    calls(
        &env.invites.received(),
        "POST",
        &format!("{invite}/confirm"),
    )
}

pub fn releases(env: &TestEnv, invite: &str) -> usize {
    let received = env.invites.received();
    received
        .iter()
        .filter(|call| call.method == "DELETE" && call.path.ends_with(invite))
        .count()
}

fn racers(invite: &str) -> Vec<Fields> {
    (0..RACERS)
        .map(|_| company().with(INVITE, invite).by_password())
        .collect()
}

async fn race_for_invite(env: &TestEnv, client: Client, round: usize) {
    let invite = format!("{ONE_USE_PREFIX}{client}-{round}");
    let taken = company().by_password();
    env.visitor(Client::Api).sign_up(&taken).await;

    let visitor = env.visitor(client);
    let mut form = visitor.registration().await;
    let first = taken.clone().with(INVITE, invite.as_str());
    let response = form.submit(&first).await;
    assert!(
        !response.is_accepted(),
        "Kratos refuses the taken address: {response:#?}"
    );
    let mut forms = copies(&visitor, &form.id, RACERS).await;
    race(&mut forms, &racers(&invite)).await;

    let created = accounts_with(env, &invite).await;
    assert!(
        created.len() <= 1,
        "{} accounts with one invite",
        created.len()
    );
    if created.is_empty() {
        // Without a proven guard, the submission with the taken address holds the reservation.
        eventually("Vestibule releases the invite", async || {
            (releases(env, &invite) == 1).then_some(())
        })
        .await;
        return;
    }
    eventually("Vestibule confirms the invite", async || {
        (confirmations(env, &invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(env, &invite), 1);
    assert_eq!(releases(env, &invite), 0);
}

/// Kratos refuses an address that Vestibule has accepted. Then the visitor sends the same form twelve times at the same moment.
pub async fn kratos_creates_one_account_with_one_invite_from_a_form_sent_many_times(
    client: Client,
) {
    let env = builder().start().await;
    prove_guard(&env).await;
    for round in 0..rounds() {
        race_for_invite(&env, client, round).await;
        let invite = format!("{ONE_USE_PREFIX}{client}-{round}");
        assert_eq!(accounts_with(&env, &invite).await.len(), 1);
    }
    assert_no_alarm(&env).await;
}

/// As above, with two instances of Vestibule behind one address, on one database.
pub async fn kratos_creates_one_account_with_one_invite_on_two_instances() {
    let Some(server) = Server::start() else {
        return;
    };
    let builder = builder().on_postgres(server).with_extra_instances(1);
    let (env, balancer) = builder.start_behind_load_balancer().await;
    prove_guard(&env).await;
    for round in 0..rounds() {
        race_for_invite(&env, Client::Api, round).await;
        let invite = format!("{ONE_USE_PREFIX}{}-{round}", Client::Api);
        assert_eq!(accounts_with(&env, &invite).await.len(), 1);
    }
    let calls = balancer.calls();
    assert!(calls.iter().all(|calls| *calls > RACERS), "{calls:?}");
    assert_no_alarm(&env).await;
}

pub async fn kratos_creates_at_most_one_account_with_one_invite_without_the_one_identity_guard(
    client: Client,
) {
    let env = builder()
        .without_guard()
        .with_flow_lifespan("4s")
        .start()
        .await;
    for round in 0..rounds() {
        race_for_invite(&env, client, round).await;
    }
    assert_no_alarm(&env).await;
}

/// Vestibule accepts the invite and then refuses an unknown one in the same form. Then the visitor sends the first invite again.
pub async fn vestibule_keeps_the_invite_for_the_accepted_submission_after_a_refused_one(
    client: Client,
) {
    let env = builder().start().await;
    prove_guard(&env).await;
    let invite = format!("{ONE_USE_PREFIX}{client}");
    let taken = company().by_password();
    env.visitor(Client::Api).sign_up(&taken).await;
    let visitor = env.visitor(client);
    let mut form = visitor.registration().await;
    let with_invite = taken.clone().with(INVITE, invite.as_str());
    assert!(!form.submit(&with_invite).await.is_accepted());
    let unknown = company().with(INVITE, "garbage").by_password();
    assert!(!form.submit(&unknown).await.assert_refused().is_empty());

    let good = company().with(INVITE, invite.as_str()).by_password();
    let response = form.submit(&good).await;
    form.assert_signed_up(&response).await;
    eventually("Vestibule confirms the invite", async || {
        (confirmations(&env, &invite) > 0).then_some(())
    })
    .await;
    assert_eq!(releases(&env, &invite), 0);
    // No other visitor gets the invite.
    let other = env.visitor(client);
    let mut form = other.registration().await;
    let response = form
        .submit(&company().with(INVITE, invite.as_str()).by_password())
        .await;
    let refused = response.assert_refused();
    assert!(
        refused.iter().any(|(_, id)| *id == INVITE_USED),
        "{refused:?}"
    );
    assert_no_alarm(&env).await;
}

/// The address is taken, so the visitor types another one and keeps the invite.
pub async fn visitor_keeps_the_invite_when_correcting_a_taken_address(client: Client) {
    let env = builder().start().await;
    prove_guard(&env).await;
    let invite = format!("{ONE_USE_PREFIX}{client}");
    let taken = company().by_password();
    env.visitor(Client::Api).sign_up(&taken).await;
    let visitor = env.visitor(client);
    let mut form = visitor.registration().await;
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let response = form
        .submit(&typed.clone().with(EMAIL, taken.text(EMAIL)))
        .await;
    assert!(!response.is_accepted());
    let response = form.submit(&typed).await;
    let identity = form.assert_signed_up(&response).await;
    assert!(
        identity["external_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("vestibule:") && id.len() == 58)
    );
    eventually("Vestibule confirms the invite", async || {
        (confirmations(&env, &invite) == 1).then_some(())
    })
    .await;
    // Vestibule refuses every further copy of the used form.
    if client == Client::Api {
        let mut copy = visitor.reopen(Page::Registration, &form.id).await;
        let response = copy.submit(&company().by_password()).await;
        assert_eq!(response.assert_refused(), [("form".to_owned(), FORM_USED)]);
    }
    assert_no_alarm(&env).await;
}

/// The visitor sends one form eight times with bad values while the register is down. Vestibule refuses every created account late.
pub async fn vestibule_checks_every_account_of_a_form_after_an_outage_of_the_register(
    client: Client,
) {
    for guarded in [true, false] {
        let env = if guarded {
            builder()
        } else {
            builder().without_guard()
        };
        let env = env.start().await;
        env.vat_register.set_behaviour(Behaviour::Answers(503));
        let visitor = env.visitor(client);
        let form = visitor.registration().await;
        let mut forms = copies(&visitor, &form.id, 8).await;
        let bad: Vec<Fields> = (0..8)
            .map(|_| company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER).by_password())
            .collect();
        race(&mut forms, &bad).await;
        let created = env.kratos.identities().await;
        if guarded {
            assert_eq!(created.len(), 1, "Kratos creates one account from one form");
        } else {
            assert!(!created.is_empty());
        }
        env.vat_register.set_behaviour(Behaviour::Works);
        for one in &created {
            let id = one["id"].as_str().expect("an id");
            eventually("Vestibule deactivates the account", async || {
                let now = env.kratos.identity(id).await;
                (now["state"] == "inactive").then_some(())
            })
            .await;
        }
        assert_no_alarm(&env).await;
    }
}

/// Vestibule refuses the invite in the second tab while the sign-up in the first is pending, and accepts it after the release.
pub async fn visitor_in_a_second_tab_gets_the_invite_after_its_release() {
    let env = builder().start().await;
    prove_guard(&env).await;
    let invite = format!("{ONE_USE_PREFIX}tabs");
    let taken = company().by_password();
    env.visitor(Client::Api).sign_up(&taken).await;
    let (first_tab, second_tab) = (
        env.visitor(Client::BrowserForm),
        env.visitor(Client::BrowserForm),
    );
    let mut first = first_tab.registration().await;
    let mut second = second_tab.registration().await;
    let with_invite = taken.clone().with(INVITE, invite.as_str());
    assert!(!first.submit(&with_invite).await.is_accepted());
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let refused = second.submit(&typed).await.assert_refused();
    assert!(
        refused.iter().any(|(_, id)| *id == INVITE_USED),
        "{refused:?}"
    );
    eventually("Vestibule releases the first reservation", async || {
        (releases(&env, &invite) == 1).then_some(())
    })
    .await;
    let response = second.submit(&typed).await;
    second.assert_signed_up(&response).await;
    assert_no_alarm(&env).await;
}

/// After the account is created, a new code for the same form creates no second account.
pub async fn kratos_creates_one_account_from_a_form_by_code() {
    let env = builder().start().await;
    let visitor = env.visitor(Client::Api);
    let typed = company().by_code();
    let mut form = visitor.registration().await;
    form.submit(&typed).await.assert_shown_again();
    let code = env.kratos.mailed_code(typed.text(EMAIL), 0).await;
    let response = form.submit(&typed.clone().with("code", code)).await;
    form.assert_signed_up(&response).await;

    let second = company().by_code();
    let mut copy = visitor.reopen(Page::Registration, &form.id).await;
    copy.submit(&second.clone().with("resend", "code")).await;
    let code = env.kratos.mailed_code(second.text(EMAIL), 0).await;
    let response = copy.submit(&second.with("code", code)).await;
    assert!(!response.is_accepted(), "{response:#?}");
    assert_eq!(env.kratos.identities().await.len(), 1);
    assert_no_alarm(&env).await;
}

/// The alarm about a look-up that Kratos answered too late, and the line that ends it.
const LATE_LOOK_UP: &str = "ALARM: Kratos's admin API does not answer";
const ANSWERS_AGAIN: &str = "Kratos's admin API answers look-ups of sign-ups again";

/// The alarms in a log. That the machine of the tests is overloaded is no alarm about a sign-up: a task waits for a thread,
/// or Kratos answers a look-up too late, and the next look-up in time.
pub fn alarms(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let answers_again = lines.iter().rposition(|line| line.contains(ANSWERS_AGAIN));
    let is_over = |number: usize| answers_again.is_some_and(|again| again > number);
    let is_alarm = |(number, line): &(usize, &str)| {
        line.contains("ALARM")
            && !line.contains("ALARM: a ready task waited")
            && !(line.contains(LATE_LOOK_UP) && is_over(*number))
    };
    let numbered = lines.into_iter().enumerate().filter(is_alarm);
    numbered.map(|(_, line)| line).collect()
}

/// Asserts that Vestibule logged no alarm and released no reservation too early.
pub async fn assert_no_alarm(env: &TestEnv) {
    let log_text = env.vestibule.log_text();
    assert_eq!(alarms(&log_text), [""; 0]);
    assert_no_late_post(env).await;
}

/// Asserts that no `post` arrived after the release of its reservations.
pub async fn assert_no_late_post(env: &TestEnv) {
    for instance in std::iter::once(&env.vestibule).chain(&env.extra_instances) {
        let late = instance.metric("vestibule_posts_after_release_total").await;
        assert!(
            late < 0.5,
            "Vestibule released {late} reservations too early"
        );
    }
}
