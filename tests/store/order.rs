//! What every database must guarantee for the order of deliveries about one identity: one at a time, in order, and
//! superseded by newer ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;
use vestibule::model::delivery::{Claimed, DeliveryOrder, Event, NewDelivery, Outcome, State};
use vestibule::store::{Filter, RetryOptions, Store};

use crate::fixtures::{
    DAY, DeliveryStoreExt as _, MINUTE, SECOND, at, delivery, ids, start, tried,
};

/// Tests a database. `$fresh` is an expression for an empty store and a value that must outlive it, if the database exists.
macro_rules! test_contract {
    ($fresh:expr) => {
        $crate::order::test_contract!($fresh;
            deliveries_about_an_identity_go_one_at_a_time_in_order,
            equal_times_are_ordered_by_id,
            deliveries_without_order_go_together,
            a_failed_delivery_is_repeated_before_later_ones,
            an_abandoned_delivery_does_not_block_later_ones,
            whatever_ends_a_delivery_resumes_the_next_one,
            a_deletion_that_waits_is_delivered_after_the_erasure,
            an_earlier_delivery_that_arrives_late_waits_only_for_the_one_in_flight,
            a_delivery_whose_lease_has_expired_goes_on_first,
            blocked_deliveries_do_not_hide_due_ones,
            a_pending_update_is_superseded_by_a_newer_one,
            an_update_in_flight_is_superseded_only_if_it_fails,
            an_update_that_arrives_late_is_superseded,
            only_marked_updates_supersede_and_are_superseded,
            a_superseded_delivery_resumes_what_waited_for_it,
            a_superseded_delivery_is_final,
            a_delivery_older_than_a_delivered_one_is_not_retried,
            parallel_instances_keep_the_order,
        );
    };
    ($fresh:expr; $($test:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((store, _kept)) = $fresh.await {
                    $crate::order::$test(store).await;
                }
            }
        )+
    };
}
pub(crate) use test_contract;

const LEASE: Duration = MINUTE;

/// The delivery of event `number` about an identity, which Kratos saved this many seconds after the start.
fn event(identity: u128, number: u128, saved_at: u32) -> NewDelivery {
    NewDelivery {
        id: Uuid::from_u128(number),
        event: Event::IdentityUpdated,
        unique_key: number.to_string(),
        order: DeliveryOrder {
            updated_at: Some(at(saved_at * SECOND)),
            ..DeliveryOrder::default()
        },
        ..delivery("crm", identity)
    }
}

/// The same, if only the newest event counts.
fn update(identity: u128, number: u128, saved_at: u32) -> NewDelivery {
    let mut new = event(identity, number, saved_at);
    new.order.supersedes = true;
    new
}

async fn claim(store: &Arc<dyn Store>, since_start: Duration) -> Vec<Claimed> {
    let now = at(since_start);
    store.claim("crm", now, LEASE, 10).await.unwrap()
}

/// Claims, and returns the numbers of the events.
async fn claimed(store: &Arc<dyn Store>, since_start: Duration) -> Vec<u128> {
    numbers(&claim(store, since_start).await)
}

fn numbers(held: &[Claimed]) -> Vec<u128> {
    ids(held).iter().map(Uuid::as_u128).collect()
}

async fn settle(store: &Arc<dyn Store>, held: &Claimed, outcome: Outcome) {
    let status = if outcome == Outcome::Delivered {
        204
    } else {
        503
    };
    let settled = store.settle(held, &tried(status, start()), &outcome).await;
    assert!(settled.unwrap(), "{}", held.id);
}

async fn states(store: &Arc<dyn Store>) -> Vec<(u128, State)> {
    let mut all = store.list(&Filter::default(), 100).await.unwrap();
    all.sort_by_key(|one| one.id);
    all.iter()
        .map(|one| (one.id.as_u128(), one.state))
        .collect()
}

fn only(number: u128) -> Filter {
    Filter {
        ids: vec![Uuid::from_u128(number)],
        ..Filter::default()
    }
}

pub async fn deliveries_about_an_identity_go_one_at_a_time_in_order(store: Arc<dyn Store>) {
    // Their ids are in another order than their times.
    let batch = vec![
        event(1, 13, 1),
        event(1, 12, 2),
        event(1, 11, 3),
        event(2, 20, 9),
    ];
    assert_eq!(store.accept(batch).await.unwrap(), 4);
    let mut other = event(1, 30, 4);
    other.subscription = "erp".into();
    store.accept(vec![other]).await.unwrap();

    let held = claim(&store, Duration::ZERO).await;
    assert_eq!(numbers(&held), [13, 20]);
    assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0]);
    // Another subscription has its own order.
    let of_erp = store.claim("erp", start(), LEASE, 10).await.unwrap();
    assert_eq!(numbers(&of_erp), [30]);
    settle(&store, &held[0], Outcome::Delivered).await;
    let second = claim(&store, Duration::ZERO).await;
    assert_eq!(numbers(&second), [12]);
    settle(&store, &second[0], Outcome::Delivered).await;
    assert_eq!(claimed(&store, Duration::ZERO).await, [11]);
}

pub async fn equal_times_are_ordered_by_id(store: Arc<dyn Store>) {
    // A verification does not change `updated_at`. Kratos's times have microseconds.
    let mut verified = event(1, 7, 5);
    verified.event = Event::IdentityVerified;
    let mut later = event(1, 3, 5);
    later.order.updated_at = later
        .order
        .updated_at
        .map(|at| at + chrono::TimeDelta::microseconds(1));
    store
        .accept(vec![later, verified, event(1, 6, 5)])
        .await
        .unwrap();
    for expected in [6, 7, 3] {
        let held = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&held), [expected]);
        settle(&store, &held[0], Outcome::Delivered).await;
    }
}

pub async fn deliveries_without_order_go_together(store: Arc<dyn Store>) {
    let mut without_identity: Vec<NewDelivery> =
        (1..=3).map(|number| event(0, number, 1)).collect();
    for new in &mut without_identity {
        new.order = DeliveryOrder::default();
    }
    store.accept(without_identity).await.unwrap();
    // They do not wait for ordered ones of the same identity either.
    store
        .accept(vec![event(0, 4, 1), event(0, 5, 2)])
        .await
        .unwrap();
    assert_eq!(claimed(&store, Duration::ZERO).await, [1, 2, 3, 4]);
}

pub async fn a_failed_delivery_is_repeated_before_later_ones(store: Arc<dyn Store>) {
    store
        .accept(vec![event(1, 1, 1), event(1, 2, 2), event(1, 3, 3)])
        .await
        .unwrap();
    let first = claim(&store, Duration::ZERO).await.remove(0);
    settle(&store, &first, Outcome::RetryAt(at(MINUTE))).await;
    assert_eq!(claimed(&store, 59 * SECOND).await, [0; 0]);
    let due = store.next_due().await.unwrap();
    assert_eq!(due[0].at, at(MINUTE), "{due:?}");
    let waiting = store.list(&only(2), 1).await.unwrap().remove(0);
    assert_eq!(
        (waiting.state, waiting.next_attempt_at),
        (State::Pending, None)
    );
    for expected in [1, 2, 3] {
        let held = claim(&store, MINUTE).await;
        assert_eq!(numbers(&held), [expected]);
        settle(&store, &held[0], Outcome::Delivered).await;
    }
}

pub async fn an_abandoned_delivery_does_not_block_later_ones(store: Arc<dyn Store>) {
    let mut unbuilt = event(1, 1, 1);
    unbuilt.action = Err("no such key".to_owned());
    store
        .accept(vec![unbuilt, event(1, 2, 2), event(1, 3, 3)])
        .await
        .unwrap();
    let second = claim(&store, Duration::ZERO).await.remove(0);
    assert_eq!(second.id, Uuid::from_u128(2));
    settle(&store, &second, Outcome::Abandoned).await;
    assert_eq!(claimed(&store, Duration::ZERO).await, [3]);
}

pub async fn whatever_ends_a_delivery_resumes_the_next_one(store: Arc<dyn Store>) {
    for (identity, end) in [
        (1, "delivered"),
        (2, "abandoned"),
        (3, "discarded"),
        (4, "returned"),
        (5, "erased"),
    ] {
        let [first, second] = [identity * 10, identity * 10 + 1];
        store
            .accept(vec![event(identity, first, 1), event(identity, second, 2)])
            .await
            .unwrap();
        let held = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&held), [first], "{end}");
        // The second is found to be blocked.
        assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0], "{end}");
        match end {
            "delivered" => settle(&store, &held[0], Outcome::Delivered).await,
            "abandoned" => settle(&store, &held[0], Outcome::Abandoned).await,
            "discarded" => {
                store.give_back(&held, at(MINUTE)).await.unwrap();
                assert_eq!(store.discard(&only(first), start()).await.unwrap(), 1);
            }
            "returned" => {
                store.give_back(&held, at(DAY)).await.unwrap();
                assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0], "{end}");
                let again = claim(&store, DAY).await.remove(0);
                settle(&store, &again, Outcome::Delivered).await;
            }
            _ => {
                store
                    .forget(Uuid::from_u128(identity), start())
                    .await
                    .unwrap();
                assert_eq!(claimed(&store, DAY).await, [0; 0], "{end}");
                continue;
            }
        }
        let next = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&next), [second], "{end}");
        settle(&store, &next[0], Outcome::Delivered).await;
    }
}

/// Erasure discards what the deletion waits for, and keeps the deletion.
pub async fn a_deletion_that_waits_is_delivered_after_the_erasure(store: Arc<dyn Store>) {
    for (identity, is_in_flight) in [(1, true), (2, false)] {
        let mut deleted = event(identity, identity * 10 + 1, 2);
        deleted.event = Event::IdentityDeleted;
        let updated = event(identity, identity * 10, 1);
        store.accept(vec![updated, deleted]).await.unwrap();
        let held = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&held), [identity * 10]);
        assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0]);
        if !is_in_flight {
            settle(&store, &held[0], Outcome::RetryAt(at(DAY))).await;
            assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0]);
        }
        let forgotten = store.forget(Uuid::from_u128(identity), start()).await;
        assert_eq!(forgotten.unwrap(), 1);
        let deletion = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&deletion), [identity * 10 + 1], "{is_in_flight}");
        settle(&store, &deletion[0], Outcome::Delivered).await;
    }
}

pub async fn an_earlier_delivery_that_arrives_late_waits_only_for_the_one_in_flight(
    store: Arc<dyn Store>,
) {
    store
        .accept(vec![event(1, 5, 5), event(1, 6, 6)])
        .await
        .unwrap();
    let fifth = claim(&store, Duration::ZERO).await.remove(0);
    store.accept(vec![event(1, 9, 4)]).await.unwrap();
    assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0]);
    settle(&store, &fifth, Outcome::RetryAt(start())).await;
    for expected in [9, 5, 6] {
        let held = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&held), [expected]);
        settle(&store, &held[0], Outcome::Delivered).await;
    }
}

pub async fn a_delivery_whose_lease_has_expired_goes_on_first(store: Arc<dyn Store>) {
    store.accept(vec![event(1, 5, 5)]).await.unwrap();
    assert_eq!(claimed(&store, Duration::ZERO).await, [5]);
    // The dispatcher is gone, and an earlier delivery arrives late.
    store.accept(vec![event(1, 6, 4)]).await.unwrap();
    assert_eq!(claimed(&store, 59 * SECOND).await, [0; 0]);
    let again = claim(&store, LEASE).await.remove(0);
    assert_eq!((again.id, again.attempt), (Uuid::from_u128(5), 2));
    settle(&store, &again, Outcome::RetryAt(at(LEASE))).await;
    assert_eq!(claimed(&store, LEASE).await, [6]);
}

pub async fn blocked_deliveries_do_not_hide_due_ones(store: Arc<dyn Store>) {
    // The first fails for a day. Its successors are due before the deliveries of other identities.
    let mut all: Vec<NewDelivery> = (1..=700).map(|number| event(1, number, 1)).collect();
    all.extend((1..=20).map(|identity| NewDelivery {
        due_at: at(SECOND),
        ..event(1_000 + identity, 10_000 + identity, 1)
    }));
    store.accept(all).await.unwrap();
    let first = claim(&store, Duration::ZERO).await;
    assert_eq!(numbers(&first), [1]);
    settle(&store, &first[0], Outcome::RetryAt(at(DAY))).await;
    let mut found = Vec::new();
    for _ in 0..20 {
        let held = claim(&store, MINUTE).await;
        found.extend(numbers(&held));
        if found.len() == 20 {
            break;
        }
    }
    found.sort_unstable();
    assert_eq!(found, (10_001..=10_020).collect::<Vec<u128>>());
    let due = store.next_due().await.unwrap();
    assert!(due.iter().all(|one| one.at > at(MINUTE)), "{due:?}");
}

pub async fn a_pending_update_is_superseded_by_a_newer_one(store: Arc<dyn Store>) {
    store
        .accept(vec![update(1, 1, 1), update(2, 9, 1)])
        .await
        .unwrap();
    store.accept(vec![update(1, 2, 2)]).await.unwrap();
    store
        .accept(vec![update(1, 4, 4), update(1, 3, 3)])
        .await
        .unwrap();
    assert_eq!(
        states(&store).await,
        [
            (1, State::Superseded),
            (2, State::Superseded),
            (3, State::Superseded),
            (4, State::Pending),
            (9, State::Pending),
        ]
    );
    assert_eq!(claimed(&store, Duration::ZERO).await, [4, 9]);
    let superseded = store.show(Uuid::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(superseded.action, None, "its payload is erased");
    assert_eq!(superseded.listed.settled_at, Some(start()));
}

pub async fn an_update_in_flight_is_superseded_only_if_it_fails(store: Arc<dyn Store>) {
    for (identity, outcome, expected) in [
        (1, Outcome::Delivered, State::Delivered),
        (2, Outcome::Abandoned, State::Abandoned),
        (3, Outcome::RetryAt(at(DAY)), State::Superseded),
    ] {
        let [first, second] = [identity * 10, identity * 10 + 1];
        store
            .accept(vec![update(identity, first, 1)])
            .await
            .unwrap();
        let held = claim(&store, Duration::ZERO).await.remove(0);
        store
            .accept(vec![update(identity, second, 2)])
            .await
            .unwrap();
        let listed = store.list(&only(first), 1).await.unwrap().remove(0);
        assert_eq!(listed.state, State::Pending);
        settle(&store, &held, outcome).await;
        let listed = store.list(&only(first), 1).await.unwrap().remove(0);
        assert_eq!(listed.state, expected);
        let next = claim(&store, Duration::ZERO).await.remove(0);
        assert_eq!(next.id, Uuid::from_u128(second));
        settle(&store, &next, Outcome::Delivered).await;
    }
}

pub async fn an_update_that_arrives_late_is_superseded(store: Arc<dyn Store>) {
    // The newer one is pending, in flight, delivered, abandoned.
    store.accept(vec![update(1, 12, 2)]).await.unwrap();
    store.accept(vec![update(1, 11, 1)]).await.unwrap();
    let held = claim(&store, Duration::ZERO).await.remove(0);
    store.accept(vec![update(1, 10, 0)]).await.unwrap();
    settle(&store, &held, Outcome::Delivered).await;
    assert_eq!(store.accept(vec![update(1, 13, 1)]).await.unwrap(), 1);
    store.accept(vec![update(2, 22, 2)]).await.unwrap();
    let held = claim(&store, Duration::ZERO).await.remove(0);
    settle(&store, &held, Outcome::Abandoned).await;
    store.accept(vec![update(2, 21, 1)]).await.unwrap();
    assert_eq!(
        states(&store).await,
        [
            (10, State::Superseded),
            (11, State::Superseded),
            (12, State::Delivered),
            (13, State::Superseded),
            // Nothing newer has arrived or will arrive by itself.
            (21, State::Pending),
            (22, State::Abandoned),
        ]
    );
}

pub async fn only_marked_updates_supersede_and_are_superseded(store: Arc<dyn Store>) {
    let mut created = event(1, 1, 1);
    created.event = Event::IdentityCreated;
    let mut of_erp = update(1, 7, 7);
    of_erp.subscription = "erp".into();
    store
        .accept(vec![created, event(1, 2, 2), update(1, 3, 3)])
        .await
        .unwrap();
    store
        .accept(vec![event(1, 4, 4), update(2, 5, 5), of_erp])
        .await
        .unwrap();
    assert!(
        states(&store)
            .await
            .iter()
            .all(|(_, state)| *state == State::Pending)
    );
    store.accept(vec![update(1, 6, 6)]).await.unwrap();
    let superseded: Vec<u128> = states(&store)
        .await
        .into_iter()
        .filter(|(_, state)| *state == State::Superseded)
        .map(|(number, _)| number)
        .collect();
    assert_eq!(superseded, [3]);
    for expected in [vec![1, 5], vec![2], vec![4], vec![6]] {
        let held = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&held), expected);
        for one in &held {
            settle(&store, one, Outcome::Delivered).await;
        }
    }
}

pub async fn a_superseded_delivery_resumes_what_waited_for_it(store: Arc<dyn Store>) {
    store
        .accept(vec![update(1, 1, 1), event(1, 2, 2)])
        .await
        .unwrap();
    let first = claim(&store, Duration::ZERO).await.remove(0);
    settle(&store, &first, Outcome::RetryAt(at(DAY))).await;
    assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0]);
    store.accept(vec![update(1, 3, 3)]).await.unwrap();
    for expected in [2, 3] {
        let held = claim(&store, Duration::ZERO).await;
        assert_eq!(numbers(&held), [expected]);
        settle(&store, &held[0], Outcome::Delivered).await;
    }
}

pub async fn a_superseded_delivery_is_final(store: Arc<dyn Store>) {
    store.accept(vec![update(1, 1, 1)]).await.unwrap();
    store.accept(vec![update(1, 2, 2)]).await.unwrap();
    let retried = store.retry(&only(1), start(), RetryOptions::of(DAY)).await;
    assert_eq!(retried.unwrap(), 0);
    assert_eq!(store.discard(&only(1), start()).await.unwrap(), 0);
    let superseded = Filter {
        state: Some(State::Superseded),
        ..Filter::default()
    };
    assert_eq!(store.list(&superseded, 9).await.unwrap().len(), 1);
    assert_eq!(store.backlog().await.unwrap().pending, 1);
    // A repeated call of Kratos does not make it pending again.
    assert_eq!(store.accept(vec![update(1, 1, 1)]).await.unwrap(), 0);
}

pub async fn a_delivery_older_than_a_delivered_one_is_not_retried(store: Arc<dyn Store>) {
    let all = [
        event(1, 1, 1),
        event(1, 2, 2),
        event(1, 3, 3),
        event(2, 4, 1),
    ];
    store.accept(all.to_vec()).await.unwrap();
    for (number, outcome) in [
        (1, Outcome::Abandoned),
        (2, Outcome::Delivered),
        (3, Outcome::Abandoned),
        (4, Outcome::Abandoned),
    ] {
        let held = claim(&store, Duration::ZERO).await;
        for one in held {
            let outcome = if one.id == Uuid::from_u128(number) {
                outcome.clone()
            } else {
                Outcome::Abandoned
            };
            settle(&store, &one, outcome).await;
        }
    }
    let in_order = RetryOptions::of(DAY);
    let everything = Filter::default();
    assert_eq!(store.out_of_order(&everything).await.unwrap(), 1);
    assert_eq!(store.out_of_order(&only(1)).await.unwrap(), 1);
    assert_eq!(store.out_of_order(&only(3)).await.unwrap(), 0);
    assert_eq!(store.retry(&only(1), start(), in_order).await.unwrap(), 0);
    assert_eq!(
        store.retry(&everything, start(), in_order).await.unwrap(),
        2
    );
    assert_eq!(claimed(&store, Duration::ZERO).await, [3, 4]);
    let out_of_order = RetryOptions {
        out_of_order: true,
        ..in_order
    };
    assert_eq!(
        store.retry(&only(1), start(), out_of_order).await.unwrap(),
        1
    );
    // One at a time all the same.
    assert_eq!(claimed(&store, Duration::ZERO).await, [0; 0]);
}

/// What parallel dispatchers know about their deliveries.
#[derive(Default)]
struct Observed {
    in_flight: HashMap<Uuid, Uuid>,
    /// The newest event about each identity that has ended.
    newest: HashMap<Uuid, Uuid>,
}

pub async fn parallel_instances_keep_the_order(store: Arc<dyn Store>) {
    const IDENTITIES: u128 = 5;
    const EVENTS: u128 = 24;
    let observed = Arc::new(Mutex::new(Observed::default()));
    let mut tasks = tokio::task::JoinSet::new();
    for identity in 1..=IDENTITIES {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for number in 1..=EVENTS {
                let new = event(
                    identity,
                    identity * 1_000 + number,
                    u32::try_from(number).unwrap(),
                );
                assert_eq!(store.accept(vec![new]).await.unwrap(), 1);
            }
        });
    }
    for instance in 0..4_u32 {
        let (store, observed) = (Arc::clone(&store), Arc::clone(&observed));
        tasks.spawn(async move { run_instance(instance, &store, &observed).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let all = store.list(&Filter::default(), 1_000).await.unwrap();
    assert_eq!(all.len() as u128, IDENTITIES * EVENTS);
    assert!(all.iter().all(|one| one.state != State::Pending));
}

/// Claims and settles until nothing has been pending for a while.
async fn run_instance(instance: u32, store: &Arc<dyn Store>, observed: &Mutex<Observed>) {
    let mut turn = instance;
    let mut idle = 0;
    while idle < 50 {
        let held = store.claim("crm", start(), LEASE, 3).await.unwrap();
        let is_idle = held.is_empty() && store.backlog().await.unwrap().pending == 0;
        idle = if is_idle { idle + 1 } else { 0 };
        for one in &held {
            let mut known = observed.lock().unwrap();
            let other = known.in_flight.insert(one.identity_id, one.id);
            assert_eq!(other, None, "one at a time");
            let newest = known.newest.get(&one.identity_id);
            assert!(newest.is_none_or(|newest| *newest < one.id), "in order");
        }
        for one in held {
            tokio::task::yield_now().await;
            turn += 1;
            let outcome = match turn % 5 {
                0 => Some(Outcome::RetryAt(start())),
                1 => None,
                2 => Some(Outcome::Abandoned),
                _ => Some(Outcome::Delivered),
            };
            {
                // The lease lasts until the result is stored.
                let mut known = observed.lock().unwrap();
                known.in_flight.remove(&one.identity_id);
                if matches!(outcome, Some(Outcome::Delivered | Outcome::Abandoned)) {
                    known.newest.insert(one.identity_id, one.id);
                }
            }
            match outcome {
                Some(outcome) => settle(store, &one, outcome).await,
                None => store.give_back(&[one], start()).await.unwrap(),
            }
        }
    }
}
