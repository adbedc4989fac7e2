//! Changes in settings that people send many times at the same moment, on PostgreSQL and with two instances of Vestibule, which
//! Kratos calls in turn.

use futures_util::future::join_all;

use super::late_refusals::is_refused;
use super::methods::patience;
use super::submissions::{confirmations, no_alarm, plan, prove_guard, rounds};
use crate::support::fields::{EMAIL, Fields, INVITE, VAT_NUMBER, company_without_number};
use crate::support::load_balancer::LoadBalancer;
use crate::support::postgres::Server;
use crate::support::reservations::Reservations;
use crate::support::service::{Behaviour, ONE_USE, UNKNOWN_VAT_NUMBERS, vat_number};
use crate::support::visitor::{Flow, Page, Visitor};
use crate::support::{Client, TestEnv, company, within};

/// How many people race.
const PEOPLE: usize = 4;
/// How often each of them sends the form.
const COPIES: usize = 3;

/// A visitor who is signed in.
struct Person {
    visitor: Visitor,
    typed: Fields,
    id: String,
}

async fn opened() -> Option<(TestEnv, LoadBalancer)> {
    let plan = plan().on_postgres(Server::start()?).with_other_instances(1);
    let (house, relay) = plan.open_behind_a_relay().await;
    prove_guard(&house).await;
    Some((house, relay))
}

async fn people(house: &TestEnv) -> Vec<Person> {
    let signs_up = (0..PEOPLE).map(async |_| {
        let typed = company();
        let mut visitor = house.visitor(Client::Api);
        let identity = visitor.signs_up(&typed.clone().by_password()).await;
        let id = identity["id"].as_str().expect("an id").to_owned();
        Person { visitor, typed, id }
    });
    join_all(signs_up).await
}

/// The settings form of each person, as often as this.
async fn forms(people: &[Person]) -> Vec<Vec<Flow<'_>>> {
    let opened = people.iter().map(async |person| {
        let id = person.visitor.settings().await.id;
        let copies = (0..COPIES).map(|_| person.visitor.again(Page::Settings, &id));
        join_all(copies).await
    });
    join_all(opened).await
}

/// Sends all forms at the same moment; returns which were saved.
async fn race(forms: &mut [Vec<Flow<'_>>], typed: &[Vec<Fields>]) -> Vec<Vec<bool>> {
    let sent = forms.iter_mut().zip(typed).map(async |(forms, typed)| {
        let sent = forms.iter_mut().zip(typed);
        let sent = sent.map(async |(form, typed)| form.submit(typed).await.status == 200);
        join_all(sent).await
    });
    join_all(sent).await
}

/// Of the three copies of each person's form one has an invite that all of them want, one an invite of its own, and one an
/// invite of its own with an address that is taken.
fn with_invites(people: &[Person], taken: &str, round: usize) -> Vec<Vec<Fields>> {
    let invite = |person: &Person, end: String| {
        let typed = person.typed.clone().by_profile();
        typed.with(INVITE, format!("{ONE_USE}{round}-{end}"))
    };
    let all = people.iter().enumerate();
    all.map(|(number, person)| {
        vec![
            invite(person, "shared".to_owned()),
            invite(person, format!("own-{number}")),
            invite(person, format!("taken-{number}")).with(EMAIL, taken),
        ]
    })
    .collect()
}

pub async fn one_invite_serves_one_of_many_changes() {
    let Some((house, relay)) = opened().await else {
        return;
    };
    let taken = company();
    let first = taken.clone().by_password();
    house.visitor(Client::Api).signs_up(&first).await;
    let people = people(&house).await;
    let (mut saved_in_all, mut confirmed_in_all) = (0, 0);
    let mut rounds_of_changes = Vec::new();
    for round in 0..rounds() {
        let typed = with_invites(&people, taken.text(EMAIL), round);
        let mut forms = forms(&people).await;
        let saved = race(&mut forms, &typed).await;
        let shared = saved.iter().filter(|saved| saved[0]).count();
        assert!(
            shared <= 1,
            "round {round}: {shared} changes with one invite"
        );
        assert!(saved.iter().all(|saved| !saved[2]), "the address is taken");
        rounds_of_changes.push((typed, saved));
    }
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
    for (typed, saved) in rounds_of_changes {
        let mut expected: Vec<(String, usize)> = Vec::new();
        for (typed, saved) in typed.iter().flatten().zip(saved.into_iter().flatten()) {
            let invite = typed.text(INVITE).to_owned();
            saved_in_all += usize::from(saved);
            match expected.iter_mut().find(|(other, _)| *other == invite) {
                Some((_, times)) => *times += usize::from(saved),
                None => expected.push((invite, usize::from(saved))),
            }
        }
        for (invite, times) in expected {
            let confirmed = confirmations(&house, &invite);
            assert_eq!(confirmed, times, "{invite}");
            confirmed_in_all += confirmed;
        }
    }
    for person in &people {
        let now = house.kratos.identity(&person.id).await;
        if let Some(invite) = now["traits"]["invite"].as_str() {
            assert_eq!(confirmations(&house, invite), 1, "{invite}");
        }
    }
    let sent = rounds() * PEOPLE * COPIES;
    let calls = relay.calls();
    eprintln!(
        "settings on two instances: {sent} changes sent, {saved_in_all} saved, {confirmed_in_all} invites confirmed, none left; \
         calls {calls:?}"
    );
    assert!(saved_in_all > 0);
    no_alarm(&house).await;
}

/// All numbers that people change theirs to are bad, and the register is away.
pub async fn every_change_is_asked_about_once_the_register_is_back() {
    let Some((house, relay)) = opened().await else {
        return;
    };
    let mut all = Vec::new();
    let mut saved_numbers = Vec::new();
    for _ in 0..rounds() {
        house.vat_register.does(Behaviour::Works);
        let people = people(&house).await;
        house.vat_register.does(Behaviour::Answers(503));
        let typed: Vec<Vec<Fields>> = people
            .iter()
            .map(|person| {
                let bad = (0..COPIES).map(|_| {
                    let number = company_without_number();
                    let typed = person.typed.clone().by_profile();
                    typed.with(VAT_NUMBER, number.text(VAT_NUMBER))
                });
                bad.collect()
            })
            .collect();
        let saved = {
            let mut forms = forms(&people).await;
            race(&mut forms, &typed).await
        };
        let sent = typed.iter().flatten().zip(saved.into_iter().flatten());
        let saved = sent.filter(|(_, saved)| *saved);
        saved_numbers.extend(saved.map(|(typed, _)| typed.text(VAT_NUMBER).to_owned()));
        all.extend(people);
    }
    // While changes are checked, the register answers 503. So any other answer is to a deferred question. The answer can be
    // as early as the sign-ups of the next round.
    let is_asked = |number: &str| {
        let answered = house.vat_register.answered();
        let mut answered = answered.iter().filter(|(_, status)| *status == 200);
        answered.any(|(asked, _)| vat_number(asked) == number)
    };
    house.vat_register.does(Behaviour::Works);
    let mut changed = 0;
    for person in &all {
        let now = house.kratos.identity(&person.id).await;
        let number = now["traits"]["vat_number"].as_str().expect("a number");
        if !number.starts_with(UNKNOWN_VAT_NUMBERS) {
            continue;
        }
        changed += 1;
        within(patience(), "the account is refused late", async || {
            is_refused(&house.kratos.identity(&person.id).await).then_some(())
        })
        .await;
        // The refusal may be about a number that the person had saved before this one.
        within(patience(), "the number is asked about", async || {
            is_asked(number).then_some(())
        })
        .await;
    }
    // Also of a change that a later change has replaced.
    for number in &saved_numbers {
        within(patience(), "each saved number is asked about", async || {
            is_asked(number).then_some(())
        })
        .await;
    }
    let sent = all.len() * COPIES;
    let calls = relay.calls();
    eprintln!(
        "settings on two instances, register away: {sent} changes sent, {} saved, {changed} of {} accounts changed, all \
         of them refused late; calls {calls:?}",
        saved_numbers.len(),
        all.len()
    );
    assert!(changed > 0, "nothing was saved, so this shows nothing");
    no_alarm(&house).await;
}
