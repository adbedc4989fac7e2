//! Clients disconnect after Vestibule has accepted. Kratos saves some of their forms and calls no `post`. On PostgreSQL, with two
//! instances of Vestibule.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};

use super::submissions::{alarms, assert_no_late_post, builder, confirmations, releases};
use crate::support::fields::{COMPANY, EMAIL, Fields, INVITE};
use crate::support::load_balancer::LoadBalancer;
use crate::support::postgres::Server;
use crate::support::rng::Rng;
use crate::support::service::{ONE_USE_PREFIX, Received};
use crate::support::visitor::{Flow, Visitor};
use crate::support::{Client, TestEnv, bounded, company, within};

/// The number of parallel clients.
const CONCURRENCY: usize = 4;
/// The time within which Vestibule must deliver everything.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The lower bound of the longest delay from the response to `pre` to the disconnect. The delay grows on a machine on which
/// Kratos is slower.
const MIN_MAX_DELAY: Duration = Duration::from_millis(12);
const LATE_LOOK_UP: &str = "Kratos's admin API does not answer, so Vestibule cannot look up";
const RECOVERED: &str = "Recovered a lost `post`";

/// A visitor with unique fields and a unique invite.
struct Participant {
    visitor: Visitor,
    typed: Fields,
    invite: String,
}

impl Participant {
    fn new(env: &TestEnv, number: usize) -> Self {
        let invite = format!("{ONE_USE_PREFIX}disconnect-{number}");
        Self {
            visitor: env.visitor(Client::Api),
            typed: company(),
            invite,
        }
    }
}

pub async fn vestibule_delivers_every_account_although_clients_disconnect() {
    disconnect_sign_ups(60).await;
}

pub async fn vestibule_delivers_every_account_although_two_hundred_clients_disconnect() {
    disconnect_sign_ups(200).await;
}

pub async fn vestibule_delivers_every_change_although_clients_disconnect() {
    disconnect_changes(40).await;
}

pub async fn vestibule_delivers_every_change_although_two_hundred_clients_disconnect() {
    disconnect_changes(200).await;
}

/// Starts two instances behind a load balancer.
async fn start_on(server: Server) -> (TestEnv, LoadBalancer) {
    let builder = builder().on_postgres(server).with_extra_instances(1);
    builder.start_behind_load_balancer().await
}

async fn disconnect_sign_ups(number: usize) {
    let Some(server) = Server::start() else {
        return;
    };
    let (env, balancer) = start_on(server).await;
    let max_delay = time_to_save(&env, &balancer).await;
    let before = env.kratos.identities().await.len();
    let rng = Rng::new();
    let participants: Vec<Participant> =
        (0..number).map(|one| Participant::new(&env, one)).collect();
    for chunk in participants.chunks(CONCURRENCY) {
        let disconnects = chunk.iter().map(async |participant| {
            let flow = participant.visitor.registration().await;
            let typed = participant
                .typed
                .clone()
                .with(INVITE, participant.invite.as_str());
            let delay = random_delay(&rng, max_delay);
            disconnect(&balancer, &flow, &typed.by_password(), delay).await;
        });
        join_all(disconnects).await;
    }

    let mut created = Vec::new();
    let settled = within(
        TIMEOUT,
        "Vestibule delivers and settles everything",
        async || {
            created = env.kratos.identities().await;
            let mut ids: Vec<&str> = created
                .iter()
                .filter_map(|one| one["id"].as_str())
                .collect();
            let received = env.crm.received();
            let mut delivered = delivered_ids(&received, "identity.created");
            ids.sort_unstable();
            delivered.sort_unstable();
            let all_settled = participants.iter().all(|participant| {
                let has_account = created
                    .iter()
                    .any(|one| one["traits"]["invite"] == participant.invite.as_str());
                is_settled(&env, &participant.invite, has_account)
            });
            let without_post_count = without_post(&balancer, "/hooks/registration/post", &ids);
            (ids == delivered && all_settled).then_some((ids.len(), without_post_count))
        },
    );
    let (accounts, without_post_count) = settled.await;
    let accounts = accounts - before;
    let seed = rng.seed;
    let recovered = env.vestibule.log_text().matches(RECOVERED).count();
    eprintln!(
        "sign-ups whose client disconnected within {max_delay:?} (CRASH_SEED={seed}): sent {number}, identities {accounts}, of them without \
         `post` {without_post_count}; look-ups that came first {recovered}; each delivered once"
    );
    assert!(
        accounts > 0,
        "Kratos saved no form, so the test proves nothing"
    );
    assert_no_other_alarm(&env).await;
}

async fn disconnect_changes(number: usize) {
    let Some(server) = Server::start() else {
        return;
    };
    let (env, balancer) = start_on(server).await;
    let max_delay = time_to_save(&env, &balancer).await;
    let rng = Rng::new();
    let mut participants: Vec<Participant> =
        (0..number).map(|one| Participant::new(&env, one)).collect();
    for chunk in participants.chunks_mut(CONCURRENCY) {
        let sign_ups = chunk.iter_mut().map(async |participant| {
            let typed = participant.typed.clone().by_password();
            participant.visitor.sign_up(&typed).await;
        });
        join_all(sign_ups).await;
    }
    let recovered_before = env.vestibule.log_text().matches(RECOVERED).count();
    for chunk in participants.chunks(CONCURRENCY) {
        let disconnects = chunk.iter().map(async |participant| {
            let flow = participant.visitor.settings().await;
            let typed = participant.typed.clone().with(COMPANY, "Changed");
            let typed = typed.with(INVITE, participant.invite.as_str()).by_profile();
            // Kratos cancels a settings request when its client disconnects, even after the save.
            let delay = random_delay(&rng, max_delay * 2);
            disconnect(&balancer, &flow, &typed, delay).await;
        });
        join_all(disconnects).await;
    }

    let settled = within(
        TIMEOUT,
        "Vestibule delivers and settles everything",
        async || {
            let all = env.kratos.identities().await;
            let mut saved: Vec<&str> = all
                .iter()
                .filter(|one| one["traits"]["company"] == "Changed")
                .filter_map(|one| one["id"].as_str())
                .collect();
            let received = env.crm.received();
            let mut delivered = delivered_ids(&received, "identity.updated");
            saved.sort_unstable();
            delivered.sort_unstable();
            let all_settled = participants.iter().all(|participant| {
                let is_saved = all
                    .iter()
                    .any(|one| one["traits"]["invite"] == participant.invite.as_str());
                is_settled(&env, &participant.invite, is_saved)
            });
            let without_post_count = without_post(&balancer, "/hooks/settings/post", &saved);
            (saved == delivered && all_settled).then_some((saved.len(), without_post_count))
        },
    );
    let (saved, without_post_count) = settled.await;
    let seed = rng.seed;
    let recovered = env.vestibule.log_text().matches(RECOVERED).count() - recovered_before;
    eprintln!(
        "settings changes whose client disconnected within {:?} (CRASH_SEED={seed}): sent {number}, saved {saved}, of them without \
         `post` {without_post_count}; look-ups that came first {recovered}; each delivered once",
        max_delay * 2
    );
    assert!(
        saved > 0,
        "Kratos saved no form, so the test proves nothing"
    );
    assert_no_other_alarm(&env).await;
}

/// Sends the form, and disconnects this long after Vestibule has accepted it.
async fn disconnect(balancer: &LoadBalancer, flow: &Flow<'_>, typed: &Fields, delay: Duration) {
    let accepted = balancer.pre_answered(typed.text(EMAIL));
    let connection = flow.send_without_reading(typed).await;
    let accepted = bounded("Kratos calls Vestibule", accepted).await;
    accepted.expect("the load balancer runs");
    tokio::time::sleep(delay).await;
    drop(connection);
}

/// Asserts that there is no alarm except for a late look-up. On a busy machine Kratos may answer a look-up too late, which
/// Vestibule reports and repeats.
async fn assert_no_other_alarm(env: &TestEnv) {
    let log_text = env.vestibule.log_text();
    let mut alarms = alarms(&log_text).into_iter();
    let other = alarms.find(|line| !line.contains(LATE_LOOK_UP));
    assert_eq!(other, None);
    assert_no_late_post(env).await;
}

/// The ids of the identities in deliveries of this event.
fn delivered_ids<'r>(received: &'r [Received], event: &str) -> Vec<&'r str> {
    received
        .iter()
        .filter(|call| call.body["type"] == event)
        .filter_map(|call| call.body["data"]["identity"]["id"].as_str())
        .collect()
}

/// Whether Vestibule has confirmed the invite of a saved form once, or released that of any other form once.
fn is_settled(env: &TestEnv, invite: &str, is_saved: bool) -> bool {
    let expected = if is_saved { (1, 0) } else { (0, 1) };
    (confirmations(env, invite), releases(env, invite)) == expected
}

/// The number of these identities without a `post`.
fn without_post(balancer: &LoadBalancer, path: &str, ids: &[&str]) -> usize {
    ids.iter().filter(|id| !balancer.had_post(path, id)).count()
}

fn random_delay(rng: &Rng, max_delay: Duration) -> Duration {
    let limit = u64::try_from(max_delay.as_micros()).expect("a short time");
    Duration::from_micros(rng.below(limit))
}

/// The time that Kratos takes on this machine from the response to `pre` to the end of a sign-up. The sign-ups also prove to
/// Vestibule that this Kratos stores external ids.
async fn time_to_save(env: &TestEnv, balancer: &LoadBalancer) -> Duration {
    let mut shortest = Duration::MAX;
    for _ in 0..4 {
        let typed = company().by_password();
        let accepted = balancer.pre_answered(typed.text(EMAIL));
        let visitor = env.visitor(Client::Api);
        let mut flow = visitor.registration().await;
        let (response, accepted) = join(flow.submit(&typed), async {
            let accepted = bounded("Kratos calls Vestibule", accepted).await;
            accepted.expect("the load balancer runs");
            Instant::now()
        })
        .await;
        assert!(response.is_accepted(), "{response:#?}");
        shortest = shortest.min(accepted.elapsed());
    }
    shortest.max(MIN_MAX_DELAY)
}
