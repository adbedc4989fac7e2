//! One decision, one consequence: a form that is sent many times, also in parallel, makes no more of it than one account.

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::fields::{EMAIL, Fields, INVITE, VAT_NUMBER};
use crate::support::message::{FORM_USED, INVITE_USED};
use crate::support::postgres::Server;
use crate::support::service::{Behaviour, ONE_USE, Received, UNKNOWN_VAT_NUMBER};
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::{Answer, Flow, Page, Visitor};
use crate::support::{Client, TestEnv, company, eventually};

/// How often a race is run, unless `GATE_ROUNDS` says otherwise: `GATE_ROUNDS=20 cargo test --test with_kratos gate`.
const ROUNDS: usize = 3;
/// How many submissions of one form race.
pub const RACERS: usize = 12;

pub fn rounds() -> usize {
    std::env::var("GATE_ROUNDS").map_or(ROUNDS, |rounds| {
        rounds.parse().expect("GATE_ROUNDS is a number")
    })
}

pub fn plan() -> TestEnvBuilder {
    TestEnv::plan()
        .on("nothing_is_lost.yaml")
        .looking_up_faster(60)
}

/// A sign-up that shows Vestibule that this Kratos stores external ids.
pub async fn prove_guard(house: &TestEnv) {
    let first = company().by_password();
    house.visitor(Client::Api).signs_up(&first).await;
}

/// The same form as often as this, as copies of one page would send it.
pub async fn copies<'v>(visitor: &'v Visitor, id: &str, number: usize) -> Vec<Flow<'v>> {
    let opened = (0..number).map(|_| visitor.again(Page::Registration, id));
    join_all(opened).await
}

/// Sends each form with fields of its own, at the same moment.
pub async fn race(forms: &mut [Flow<'_>], fields: &[Fields]) -> Vec<Answer> {
    join_all(
        forms
            .iter_mut()
            .zip(fields)
            .map(|(form, fields)| form.submit(fields)),
    )
    .await
}

/// The accounts that hold this invite.
pub async fn accounts_with(house: &TestEnv, invite: &str) -> Vec<Value> {
    let all = house.kratos.identities().await;
    all.into_iter()
        .filter(|one| one["traits"]["invite"] == invite)
        .collect()
}

/// The calls of this verb that end so.
fn calls(received: &[Received], verb: &str, end: &str) -> usize {
    received
        .iter()
        .filter(|call| call.method == verb && call.path.ends_with(end))
        .count()
}

pub fn confirmations(house: &TestEnv, invite: &str) -> usize {
    calls(
        &house.invites.received(),
        "POST",
        &format!("{invite}/confirm"),
    )
}

pub fn releases(house: &TestEnv, invite: &str) -> usize {
    let received = house.invites.received();
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

async fn one_invite(house: &TestEnv, client: Client, round: usize) {
    let invite = format!("{ONE_USE}{client}-{round}");
    let taken = company().by_password();
    house.visitor(Client::Api).signs_up(&taken).await;

    let visitor = house.visitor(client);
    let mut form = visitor.registration().await;
    let first = taken.clone().with(INVITE, invite.as_str());
    let answer = form.submit(&first).await;
    assert!(!answer.is_accepted(), "the address is taken: {answer:#?}");
    let mut forms = copies(&visitor, &form.id, RACERS).await;
    race(&mut forms, &racers(&invite)).await;

    let made = accounts_with(house, &invite).await;
    assert!(made.len() <= 1, "{} accounts with one invite", made.len());
    if made.is_empty() {
        // Without a proven guard the invite belongs to the submission whose address was taken.
        eventually("the invite is released", async || {
            (releases(house, &invite) == 1).then_some(())
        })
        .await;
        return;
    }
    eventually("the invite is confirmed", async || {
        (confirmations(house, &invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(house, &invite), 1);
    assert_eq!(releases(house, &invite), 0);
}

/// Kratos refuses an address after Vestibule has accepted; then the same form is sent twelve times at the same moment.
pub async fn one_invite_serves_one_account_of_a_form_that_is_sent_many_times(client: Client) {
    let house = plan().open().await;
    prove_guard(&house).await;
    for round in 0..rounds() {
        one_invite(&house, client, round).await;
        let invite = format!("{ONE_USE}{client}-{round}");
        assert_eq!(accounts_with(&house, &invite).await.len(), 1);
    }
    no_alarm(&house).await;
}

/// The same with two instances of Vestibule behind one address, on one database.
pub async fn on_two_instances_one_invite_serves_one_account_too() {
    let Some(server) = Server::start() else {
        return;
    };
    let plan = plan().on_postgres(server).with_other_instances(1);
    let (house, relay) = plan.open_behind_a_relay().await;
    prove_guard(&house).await;
    for round in 0..rounds() {
        one_invite(&house, Client::Api, round).await;
        let invite = format!("{ONE_USE}{}-{round}", Client::Api);
        assert_eq!(accounts_with(&house, &invite).await.len(), 1);
    }
    let calls = relay.calls();
    assert!(calls.iter().all(|calls| *calls > RACERS), "{calls:?}");
    no_alarm(&house).await;
}

pub async fn without_our_external_id_one_invite_serves_one_account_too(client: Client) {
    let house = plan().unguarded().expiring_after("4s").open().await;
    for round in 0..rounds() {
        one_invite(&house, client, round).await;
    }
    no_alarm(&house).await;
}

/// Accepted with the invite, refused with garbage in the same form, and then sent with the invite again.
pub async fn a_refused_submission_leaves_the_invite_with_the_accepted_one(client: Client) {
    let house = plan().open().await;
    prove_guard(&house).await;
    let invite = format!("{ONE_USE}{client}");
    let taken = company().by_password();
    house.visitor(Client::Api).signs_up(&taken).await;
    let visitor = house.visitor(client);
    let mut form = visitor.registration().await;
    let with_invite = taken.clone().with(INVITE, invite.as_str());
    assert!(!form.submit(&with_invite).await.is_accepted());
    let garbage = company().with(INVITE, "garbage").by_password();
    assert!(!form.submit(&garbage).await.refused().is_empty());

    let good = company().with(INVITE, invite.as_str()).by_password();
    let answer = form.submit(&good).await;
    form.signed_up(&answer).await;
    eventually("the invite is confirmed", async || {
        (confirmations(&house, &invite) > 0).then_some(())
    })
    .await;
    assert_eq!(releases(&house, &invite), 0);
    // Nobody else gets it.
    let other = house.visitor(client);
    let mut form = other.registration().await;
    let answer = form
        .submit(&company().with(INVITE, invite.as_str()).by_password())
        .await;
    let refused = answer.refused();
    assert!(
        refused.iter().any(|(_, id)| *id == INVITE_USED),
        "{refused:?}"
    );
    no_alarm(&house).await;
}

/// The honest way: the address was taken, so the visitor types another one and keeps the invite.
pub async fn a_correction_after_a_taken_address_keeps_the_invite(client: Client) {
    let house = plan().open().await;
    prove_guard(&house).await;
    let invite = format!("{ONE_USE}{client}");
    let taken = company().by_password();
    house.visitor(Client::Api).signs_up(&taken).await;
    let visitor = house.visitor(client);
    let mut form = visitor.registration().await;
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let answer = form
        .submit(&typed.clone().with(EMAIL, taken.text(EMAIL)))
        .await;
    assert!(!answer.is_accepted());
    let answer = form.submit(&typed).await;
    let identity = form.signed_up(&answer).await;
    assert!(
        identity["external_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("vestibule:") && id.len() == 58)
    );
    eventually("the invite is confirmed", async || {
        (confirmations(&house, &invite) == 1).then_some(())
    })
    .await;
    // The form is used up, for whoever has a copy of it.
    if client == Client::Api {
        let mut copy = visitor.again(Page::Registration, &form.id).await;
        let answer = copy.submit(&company().by_password()).await;
        assert_eq!(answer.refused(), [("form".to_owned(), FORM_USED)]);
    }
    no_alarm(&house).await;
}

/// Eight submissions of one form with bad values while the register is away: every account that comes of it is refused late.
pub async fn every_account_of_a_form_is_asked_about_once_the_register_is_back(client: Client) {
    for guarded in [true, false] {
        let house = if guarded { plan() } else { plan().unguarded() };
        let house = house.open().await;
        house.vat_register.does(Behaviour::Answers(503));
        let visitor = house.visitor(client);
        let form = visitor.registration().await;
        let mut forms = copies(&visitor, &form.id, 8).await;
        let bad: Vec<Fields> = (0..8)
            .map(|_| company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER).by_password())
            .collect();
        race(&mut forms, &bad).await;
        let made = house.kratos.identities().await;
        if guarded {
            assert_eq!(made.len(), 1, "one account of one form");
        } else {
            assert!(!made.is_empty());
        }
        house.vat_register.does(Behaviour::Works);
        for one in &made {
            let id = one["id"].as_str().expect("an id");
            eventually("the account is inactive", async || {
                let now = house.kratos.identity(id).await;
                (now["state"] == "inactive").then_some(())
            })
            .await;
        }
        no_alarm(&house).await;
    }
}

/// With one invite the second tab is refused while the first is pending, and passes after its release.
pub async fn two_tabs_with_one_invite_take_turns() {
    let house = plan().open().await;
    prove_guard(&house).await;
    let invite = format!("{ONE_USE}tabs");
    let taken = company().by_password();
    house.visitor(Client::Api).signs_up(&taken).await;
    let (one, other) = (
        house.visitor(Client::BrowserForm),
        house.visitor(Client::BrowserForm),
    );
    let mut first = one.registration().await;
    let mut second = other.registration().await;
    let with_invite = taken.clone().with(INVITE, invite.as_str());
    assert!(!first.submit(&with_invite).await.is_accepted());
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let refused = second.submit(&typed).await.refused();
    assert!(
        refused.iter().any(|(_, id)| *id == INVITE_USED),
        "{refused:?}"
    );
    eventually("the first is released", async || {
        (releases(&house, &invite) == 1).then_some(())
    })
    .await;
    let answer = second.submit(&typed).await;
    second.signed_up(&answer).await;
    no_alarm(&house).await;
}

/// After the account was made, a new code for the same form makes no second one.
pub async fn by_code_one_account_comes_of_a_form() {
    let house = plan().open().await;
    let visitor = house.visitor(Client::Api);
    let typed = company().by_code();
    let mut form = visitor.registration().await;
    form.submit(&typed).await.shown_again();
    let code = house.kratos.code_mailed_to(typed.text(EMAIL), 0).await;
    let answer = form.submit(&typed.clone().with("code", code)).await;
    form.signed_up(&answer).await;

    let second = company().by_code();
    let mut copy = visitor.again(Page::Registration, &form.id).await;
    copy.submit(&second.clone().with("resend", "code")).await;
    let code = house.kratos.code_mailed_to(second.text(EMAIL), 0).await;
    let answer = copy.submit(&second.with("code", code)).await;
    assert!(!answer.is_accepted(), "{answer:#?}");
    assert_eq!(house.kratos.identities().await.len(), 1);
    no_alarm(&house).await;
}

/// Nothing of it is worth an alarm.
pub async fn no_alarm(house: &TestEnv) {
    let said = house.vestibule.said();
    let alarm = said.lines().find(|line| line.contains("ALARM"));
    assert_eq!(alarm, None);
    no_late_post(house).await;
}

/// No account was reported after its reservations were released.
pub async fn no_late_post(house: &TestEnv) {
    for instance in std::iter::once(&house.vestibule).chain(&house.others) {
        let late = instance.metric("vestibule_posts_after_release_total").await;
        assert!(late < 0.5, "{late} reservations were released too early");
    }
}
