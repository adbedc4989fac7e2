//! Clients that hang up after Vestibule has accepted: Kratos saves some of them and sends no `post`. On PostgreSQL, with two
//! instances of Vestibule.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::submissions::{confirmations, no_late_post, plan, releases};
use crate::support::fields::{COMPANY, EMAIL, Fields, INVITE};
use crate::support::load_balancer::LoadBalancer;
use crate::support::postgres::Server;
use crate::support::rng::Rng;
use crate::support::service::{ONE_USE, Received};
use crate::support::visitor::{Flow, Visitor};
use crate::support::{Client, TestEnv, company, within};

/// How many clients are connected at a time.
const AT_ONCE: usize = 4;
/// Within this time everything must be delivered.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long after the answer to `pre` a client hangs up at the latest; longer on a machine on which Kratos takes longer.
const LATEST: Duration = Duration::from_millis(12);
const LATE_LOOK_UP: &str = "Kratos's admin API does not answer, so Vestibule cannot look up";
const RECOVERED: &str = "Recovered a lost `post`";

/// A visitor, what the visitor typed, and the invite in it.
struct Person {
    visitor: Visitor,
    typed: Fields,
    invite: String,
}

impl Person {
    fn new(house: &TestEnv, number: usize) -> Self {
        let invite = format!("{ONE_USE}hang-up-{number}");
        Self {
            visitor: house.visitor(Client::Api),
            typed: company(),
            invite,
        }
    }
}

pub async fn every_account_is_delivered_although_clients_hang_up() {
    sign_ups(60).await;
}

pub async fn every_account_is_delivered_although_two_hundred_clients_hang_up() {
    sign_ups(200).await;
}

pub async fn every_change_is_delivered_although_clients_hang_up() {
    changes(40).await;
}

pub async fn every_change_is_delivered_although_two_hundred_clients_hang_up() {
    changes(200).await;
}

/// Two instances, which Kratos calls in turn.
async fn opened_on(server: Server) -> (TestEnv, LoadBalancer) {
    let plan = plan().on_postgres(server).with_other_instances(1);
    plan.open_behind_a_relay().await
}

async fn sign_ups(number: usize) {
    let Some(server) = Server::start() else {
        return;
    };
    let (house, relay) = opened_on(server).await;
    let latest = time_to_save(&house, &relay).await;
    let before = house.kratos.identities().await.len();
    let rng = Rng::new();
    let people: Vec<Person> = (0..number).map(|one| Person::new(&house, one)).collect();
    for some in people.chunks(AT_ONCE) {
        let hang_ups = some.iter().map(async |person| {
            let flow = person.visitor.registration().await;
            let typed = person.typed.clone().with(INVITE, person.invite.as_str());
            let moment = at_random(&rng, latest);
            hang_up(&relay, &flow, &typed.by_password(), moment).await;
        });
        join_all(hang_ups).await;
    }

    let mut made = Vec::new();
    let settled = within(PATIENCE, "everything is delivered", async || {
        made = house.kratos.identities().await;
        let mut ids: Vec<&str> = made.iter().filter_map(|one| one["id"].as_str()).collect();
        let received = house.crm.received();
        let mut told = about(&received, "identity.created");
        ids.sort_unstable();
        told.sort_unstable();
        let all_settled = people.iter().all(|person| {
            let has_account = made
                .iter()
                .any(|one| one["traits"]["invite"] == person.invite.as_str());
            is_settled(&house, &person.invite, has_account)
        });
        let without = without_post(&relay, "/hooks/registration/post", &ids);
        (ids == told && all_settled).then_some((ids.len(), without))
    });
    let (accounts, without) = settled.await;
    let accounts = accounts - before;
    let seed = rng.seed;
    let recovered = house.vestibule.said().matches(RECOVERED).count();
    eprintln!(
        "sign-ups whose client hung up within {latest:?} (CRASH_SEED={seed}): sent {number}, identities {accounts}, of them without \
         `post` {without}; look-ups that came first {recovered}; each delivered once"
    );
    assert!(accounts > 0, "Kratos saved none, so this shows nothing");
    no_other_alarm(&house).await;
}

async fn changes(number: usize) {
    let Some(server) = Server::start() else {
        return;
    };
    let (house, relay) = opened_on(server).await;
    let latest = time_to_save(&house, &relay).await;
    let rng = Rng::new();
    let mut people: Vec<Person> = (0..number).map(|one| Person::new(&house, one)).collect();
    for some in people.chunks_mut(AT_ONCE) {
        let sign_ups = some.iter_mut().map(async |person| {
            let typed = person.typed.clone().by_password();
            person.visitor.signs_up(&typed).await;
        });
        join_all(sign_ups).await;
    }
    let recovered_before = house.vestibule.said().matches(RECOVERED).count();
    for some in people.chunks(AT_ONCE) {
        let hang_ups = some.iter().map(async |person| {
            let flow = person.visitor.settings().await;
            let typed = person.typed.clone().with(COMPANY, "Changed");
            let typed = typed.with(INVITE, person.invite.as_str()).by_profile();
            // Kratos ends the work on a settings change with its client, also after it is saved.
            let moment = at_random(&rng, latest * 2);
            hang_up(&relay, &flow, &typed, moment).await;
        });
        join_all(hang_ups).await;
    }

    let settled = within(PATIENCE, "everything is delivered", async || {
        let all = house.kratos.identities().await;
        let mut saved: Vec<&str> = all
            .iter()
            .filter(|one| one["traits"]["company"] == "Changed")
            .filter_map(|one| one["id"].as_str())
            .collect();
        let received = house.crm.received();
        let mut told = about(&received, "identity.updated");
        saved.sort_unstable();
        told.sort_unstable();
        let all_settled = people.iter().all(|person| {
            let is_saved = all
                .iter()
                .any(|one| one["traits"]["invite"] == person.invite.as_str());
            is_settled(&house, &person.invite, is_saved)
        });
        let without = without_post(&relay, "/hooks/settings/post", &saved);
        (saved == told && all_settled).then_some((saved.len(), without))
    });
    let (saved, without) = settled.await;
    let seed = rng.seed;
    let recovered = house.vestibule.said().matches(RECOVERED).count() - recovered_before;
    eprintln!(
        "settings changes whose client hung up within {:?} (CRASH_SEED={seed}): sent {number}, saved {saved}, of them without \
         `post` {without}; look-ups that came first {recovered}; each delivered once",
        latest * 2
    );
    assert!(saved > 0, "Kratos saved none, so this shows nothing");
    no_other_alarm(&house).await;
}

/// Sends the form and hangs up so long after Vestibule has accepted it.
async fn hang_up(relay: &LoadBalancer, flow: &Flow<'_>, typed: &Fields, moment: Duration) {
    let accepted = relay.pre_answered(typed.text(EMAIL));
    let connection = flow.send_without_reading(typed).await;
    tokio::time::timeout(Duration::from_secs(30), accepted)
        .await
        .expect("Vestibule is called within 30 s")
        .expect("the relay runs");
    tokio::time::sleep(moment).await;
    drop(connection);
}

/// A machine that is busy with these clients may answer a look-up too late, which is reported and repeated.
async fn no_other_alarm(house: &TestEnv) {
    let said = house.vestibule.said();
    let mut alarms = said.lines().filter(|line| line.contains("ALARM"));
    let other = alarms.find(|line| !line.contains(LATE_LOOK_UP));
    assert_eq!(other, None);
    no_late_post(house).await;
}

/// The identities in deliveries of this event.
fn about<'r>(received: &'r [Received], event: &str) -> Vec<&'r str> {
    received
        .iter()
        .filter(|call| call.body["type"] == event)
        .filter_map(|call| call.body["data"]["identity"]["id"].as_str())
        .collect()
}

/// Whether the invite of a saved form is confirmed, and that of any other is released; each once.
fn is_settled(house: &TestEnv, invite: &str, is_saved: bool) -> bool {
    let expected = if is_saved { (1, 0) } else { (0, 1) };
    (confirmations(house, invite), releases(house, invite)) == expected
}

/// How many of these identities had no `post`.
fn without_post(relay: &LoadBalancer, path: &str, ids: &[&str]) -> usize {
    ids.iter().filter(|id| !relay.had_post(path, id)).count()
}

fn at_random(rng: &Rng, latest: Duration) -> Duration {
    let most = u64::try_from(latest.as_micros()).expect("a short time");
    Duration::from_micros(rng.below(most))
}

/// How long Kratos takes on this machine from the answer to `pre` to the end of a sign-up. The sign-ups also show Vestibule
/// that this Kratos stores external ids.
async fn time_to_save(house: &TestEnv, relay: &LoadBalancer) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..4 {
        let typed = company().by_password();
        let accepted = relay.pre_answered(typed.text(EMAIL));
        let visitor = house.visitor(Client::Api);
        let mut flow = visitor.registration().await;
        let (answer, accepted) = join(flow.submit(&typed), async {
            accepted.await.expect("the relay runs");
            Instant::now()
        })
        .await;
        assert!(answer.is_accepted(), "{answer:#?}");
        shortest = shortest.min(accepted.elapsed());
    }
    shortest.max(LATEST)
}
