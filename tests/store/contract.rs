//! What every database must guarantee for deliveries. [`test_contract`] makes a test of each guarantee.

mod maintenance;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use vestibule::base::clock::Clock;
use vestibule::model::decision::{CheckRecord, Decision, DecisionOutcome};
use vestibule::model::delivery::{Claimed, Event, Outcome, State};
use vestibule::store::decisions::{DecisionFilter, FlowIdentity, decision_page};
use vestibule::store::settlement_writer::settlement_writer;
use vestibule::store::{
    Backlog, DeliverySummary, Filter, NextDue, RetryOptions, Settlement, Store,
};
use vestibule_testing::join_all;

use crate::fixtures::{
    DAY, DeliveryStoreExt as _, MINUTE, SECOND, at, decision, delivery, id_of, ids, start, tried,
};

pub use maintenance::*;

/// Tests a database. `$fresh` is an expression for an empty store and a value that must outlive it.
macro_rules! test_contract {
    ($fresh:expr) => {
        $crate::contract::test_contract_if_available!(async { Some($fresh.await) });
    };
}
pub(crate) use test_contract;

/// Tests a database that may be missing: then `$fresh` is `None` and has printed a note.
macro_rules! test_contract_if_available {
    ($fresh:expr) => {
        $crate::contract::test_contract_if_available!($fresh;
            an_accepted_delivery_is_claimed_unchanged,
            accepting_no_deliveries_stores_nothing,
            a_second_delivery_with_the_same_key_is_not_stored,
            concurrent_inserts_of_one_key_store_one_row,
            an_unbuilt_delivery_is_stored_as_abandoned,
            a_built_delivery_replaces_an_unbuilt_one,
            bulk_retry_and_discard_change_each_delivery_once,
            a_leased_delivery_is_not_claimed_until_the_lease_expires,
            concurrent_claims_get_different_deliveries,
            a_failed_delivery_is_due_again_at_its_time,
            a_delivered_delivery_is_kept_and_never_claimed_again,
            only_the_lease_holder_settles_and_only_once,
            a_settlement_that_fails_does_not_block_the_others,
            a_returned_delivery_is_due_immediately_without_an_attempt,
            the_longest_due_delivery_is_claimed_first,
            each_subscription_has_its_own_next_due_time,
            retrying_an_abandoned_delivery_extends_its_end_time,
            retrying_a_pending_delivery_makes_it_due_immediately,
            the_list_is_newest_first_and_can_be_filtered,
            the_backlog_is_counted,
            decisions_are_recorded,
            decisions_are_listed_by_outcome_check_flow_identity_and_time,
            decisions_get_the_identity_of_their_flow,
            existing_keys_are_found_by_subscription_and_key,
            properties_are_overwritten_and_deleted,
            concurrent_inserts_of_one_property_keep_one_value,
            a_lock_has_one_holder_until_it_expires,
            concurrent_acquisitions_of_a_lock_have_one_winner,
            identities_with_data_are_listed_in_order,
            erasure_leaves_no_data_of_an_identity,
            only_settled_deliveries_are_deleted_and_in_steps,
            decisions_are_deleted_in_steps,
            ended_flows_are_deleted_and_open_ones_are_kept,
            ping_fails_after_close,
        );
    };
    ($fresh:expr; $($test:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((store, _kept)) = $fresh.await {
                    vestibule_testing::bounded(stringify!($test), $crate::contract::$test(store)).await;
                }
            }
        )+
    };
}
pub(crate) use test_contract_if_available;

const LEASE: Duration = MINUTE;

async fn claim(store: &Arc<dyn Store>, subscription: &str, since_start: Duration) -> Vec<Claimed> {
    let now = at(since_start);
    store.claim(subscription, now, LEASE, 10).await.unwrap()
}

async fn listed(store: &Arc<dyn Store>, subscription: &str, identity: u128) -> DeliverySummary {
    let filter = Filter {
        ids: vec![id_of(subscription, identity)],
        ..Filter::default()
    };
    store.list(&filter, 10).await.unwrap().pop().unwrap()
}

pub async fn an_accepted_delivery_is_claimed_unchanged(store: Arc<dyn Store>) {
    let new = delivery("crm", 1);
    assert_eq!(store.accept(vec![new.clone()]).await.unwrap(), 1);
    assert_eq!(
        claim(&store, "crm", Duration::ZERO).await,
        [Claimed {
            id: new.id,
            subscription: new.subscription,
            event: new.event,
            identity_id: new.identity_id,
            action: new.action.unwrap(),
            context: None,
            attempt: 1,
            created_at: new.created_at,
            keep_trying_until: new.keep_trying_until,
        }]
    );
}

pub async fn accepting_no_deliveries_stores_nothing(store: Arc<dyn Store>) {
    assert_eq!(store.accept(vec![]).await.unwrap(), 0);
    assert_eq!(store.next_due().await.unwrap(), []);
}

pub async fn a_second_delivery_with_the_same_key_is_not_stored(store: Arc<dyn Store>) {
    let batch = |identities: &[u128]| identities.iter().map(|id| delivery("crm", *id)).collect();
    assert_eq!(store.accept(batch(&[1, 2])).await.unwrap(), 2);
    // Kratos repeats the call: other ids, the same keys.
    let mut again = delivery("crm", 1);
    again.id = Uuid::from_u128(99);
    again.action = Err("of the second yes".to_owned());
    assert_eq!(store.accept(vec![again]).await.unwrap(), 0);
    assert_eq!(listed(&store, "crm", 1).await.state, State::Pending);
    assert_eq!(store.accept(batch(&[2, 3, 3, 4])).await.unwrap(), 2);
    // Another subscription has its own keys.
    assert_eq!(store.accept(vec![delivery("erp", 1)]).await.unwrap(), 1);
    assert_eq!(store.backlog().await.unwrap().pending, 5);
}

pub async fn concurrent_inserts_of_one_key_store_one_row(store: Arc<dyn Store>) {
    let callers = (0..20).map(|caller| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut same = delivery("crm", 1);
            same.id = Uuid::from_u128(caller);
            store.accept(vec![same]).await.unwrap()
        })
    });
    let stored = join_all("each insert returns", callers).await;
    assert_eq!(stored.iter().sum::<usize>(), 1);
    assert_eq!(store.backlog().await.unwrap().pending, 1);
}

pub async fn an_unbuilt_delivery_is_stored_as_abandoned(store: Arc<dyn Store>) {
    let mut broken = delivery("crm", 1);
    broken.action = Err("`when` failed: no such key".to_owned());
    store
        .accept(vec![broken, delivery("crm", 2)])
        .await
        .unwrap();
    assert_eq!(
        ids(&claim(&store, "crm", Duration::ZERO).await),
        [id_of("crm", 2)]
    );
    let kept = listed(&store, "crm", 1).await;
    assert_eq!((kept.state, kept.attempts), (State::Abandoned, 0));
    assert_eq!(kept.settled_at, Some(start()));
    assert_eq!(
        kept.last_error.as_deref(),
        Some("`when` failed: no such key")
    );
    let only_kept = Filter {
        ids: vec![kept.id],
        ..Filter::default()
    };
    assert_eq!(
        store
            .retry(&only_kept, start(), RetryOptions::of(DAY))
            .await
            .unwrap(),
        0
    );
}

pub async fn a_built_delivery_replaces_an_unbuilt_one(store: Arc<dyn Store>) {
    let mut unbuilt = delivery("crm", 1);
    unbuilt.action = Err("no such key".to_owned());
    let mut again = unbuilt.clone();
    again.id = Uuid::from_u128(98);
    let mut built = delivery("crm", 1);
    built.id = Uuid::from_u128(99);
    assert_eq!(store.accept(vec![unbuilt]).await.unwrap(), 1);
    assert_eq!(store.accept(vec![again]).await.unwrap(), 0);
    assert_eq!(store.accept(vec![built.clone()]).await.unwrap(), 1);
    assert_eq!(store.accept(vec![delivery("crm", 1)]).await.unwrap(), 0);
    let held = claim(&store, "crm", Duration::ZERO).await;
    assert_eq!(ids(&held), [built.id]);
    let all = store.list(&Filter::default(), 9).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].last_error.as_deref(), all[0].settled_at),
        (None, None)
    );
}

pub async fn bulk_retry_and_discard_change_each_delivery_once(store: Arc<dyn Store>) {
    let many = (1..=1_203).map(|identity| delivery("crm", identity));
    assert_eq!(store.accept(many.collect()).await.unwrap(), 1_203);
    let everything = Filter::default();
    let retried = store
        .retry(&everything, at(SECOND), RetryOptions::of(DAY))
        .await
        .unwrap();
    assert_eq!(retried, 1_203);
    assert_eq!(store.discard(&everything, at(SECOND)).await.unwrap(), 1_203);
    assert_eq!(store.discard(&everything, at(SECOND)).await.unwrap(), 0);
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
}

pub async fn a_leased_delivery_is_not_claimed_until_the_lease_expires(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    assert_eq!(claim(&store, "crm", Duration::ZERO).await[0].attempt, 1);
    assert_eq!(claim(&store, "crm", 59 * SECOND).await, []);
    let after_a_crash = claim(&store, "crm", LEASE).await;
    assert_eq!(after_a_crash[0].attempt, 2);
}

pub async fn concurrent_claims_get_different_deliveries(store: Arc<dyn Store>) {
    let deliveries: Vec<_> = (0..50).map(|number| delivery("crm", number)).collect();
    store.accept(deliveries).await.unwrap();
    let claimers = (0..10).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { ids(&store.claim("crm", start(), LEASE, 7).await.unwrap()) })
    });
    let mut claimed = join_all("each claim returns", claimers).await.concat();
    claimed.sort();
    claimed.dedup();
    assert_eq!(claimed.len(), 50);
}

pub async fn a_failed_delivery_is_due_again_at_its_time(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = claim(&store, "crm", Duration::ZERO).await.remove(0);
    let again = Outcome::RetryAt(at(5 * SECOND));
    assert!(
        store
            .settle(&held, &tried(503, at(SECOND)), &again)
            .await
            .unwrap()
    );
    let waiting = listed(&store, "crm", 1).await;
    assert_eq!((waiting.state, waiting.attempts), (State::Pending, 1));
    assert_eq!(waiting.next_attempt_at, Some(at(5 * SECOND)));
    assert_eq!(waiting.last_error.as_deref(), Some("status 503"));
    assert_eq!(claim(&store, "crm", 4 * SECOND).await, []);
    let second = claim(&store, "crm", 5 * SECOND).await.remove(0);
    assert_eq!((second.attempt, second.action), (2, held.action));
}

pub async fn a_delivered_delivery_is_kept_and_never_claimed_again(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = claim(&store, "crm", Duration::ZERO).await.remove(0);
    let failed = Outcome::RetryAt(start());
    store
        .settle(&held, &tried(503, start()), &failed)
        .await
        .unwrap();
    let held = claim(&store, "crm", Duration::ZERO).await.remove(0);
    let arrived = tried(204, at(SECOND));
    assert!(
        store
            .settle(&held, &arrived, &Outcome::Delivered)
            .await
            .unwrap()
    );
    let kept = listed(&store, "crm", 1).await;
    assert_eq!((kept.state, kept.attempts), (State::Delivered, 2));
    assert_eq!((kept.last_error, kept.next_attempt_at), (None, None));
    assert_eq!(kept.settled_at, Some(at(SECOND)));
    assert_eq!(claim(&store, "crm", DAY).await, []);
    assert_eq!(
        store
            .retry(&Filter::default(), at(DAY), RetryOptions::of(DAY))
            .await
            .unwrap(),
        0
    );
    // A repeated call of Kratos does not make it pending again.
    assert_eq!(store.accept(vec![delivery("crm", 1)]).await.unwrap(), 0);
}

pub async fn only_the_lease_holder_settles_and_only_once(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let first = claim(&store, "crm", Duration::ZERO).await.remove(0);
    let second = claim(&store, "crm", LEASE).await.remove(0);
    let settle = |held: Claimed, status, outcome| {
        let store = Arc::clone(&store);
        async move {
            let attempt = tried(status, at(LEASE));
            store.settle(&held, &attempt, &outcome).await.unwrap()
        }
    };
    assert!(!settle(first.clone(), 204, Outcome::Delivered).await);
    store.give_back(&[first], at(LEASE)).await.unwrap();
    assert_eq!(claim(&store, "crm", LEASE).await, []);
    let again = Outcome::RetryAt(at(DAY));
    assert!(settle(second.clone(), 503, again).await);
    assert!(!settle(second.clone(), 204, Outcome::Delivered).await);
    store.give_back(&[second], at(LEASE)).await.unwrap();
    let kept = listed(&store, "crm", 1).await;
    assert_eq!((kept.state, kept.attempts), (State::Pending, 2));
    assert_eq!(kept.next_attempt_at, Some(at(DAY)));
}

pub async fn a_settlement_that_fails_does_not_block_the_others(store: Arc<dyn Store>) {
    let three = (1..=3).map(|identity| delivery("crm", identity));
    store.accept(three.collect()).await.unwrap();
    let held = claim(&store, "crm", Duration::ZERO).await;
    let (settlement_writer, writer) = settlement_writer(store.clone(), Clock::system());
    let mut settlements = held
        .iter()
        .map(|one| Settlement::of(one, tried(204, start()), Outcome::Delivered));
    let (first, mut second, third) = (
        settlements.next().unwrap(),
        settlements.next().unwrap(),
        settlements.next().unwrap(),
    );
    // PostgreSQL accepts no text with this character.
    second.record.error = Some("\0".to_owned());
    // All of them wait before the first one is written. The writer ends when each of them has its result.
    let all = async move {
        futures_util::future::join3(
            settlement_writer.write(first),
            settlement_writer.write(second),
            settlement_writer.write(third),
        )
        .await
    };
    let (results, ()) = tokio::join!(all, writer.run());
    assert!(results.0.unwrap());
    assert!(results.2.unwrap());
    assert!(claim(&store, "crm", Duration::ZERO).await.is_empty());
}

pub async fn a_returned_delivery_is_due_immediately_without_an_attempt(store: Arc<dyn Store>) {
    store
        .accept(vec![
            delivery("crm", 1),
            delivery("crm", 2),
            delivery("crm", 3),
        ])
        .await
        .unwrap();
    let held = claim(&store, "crm", Duration::ZERO).await;
    store.give_back(&held[..2], at(SECOND)).await.unwrap();
    store.give_back(&[], at(SECOND)).await.unwrap();
    let again = claim(&store, "crm", SECOND).await;
    assert_eq!(ids(&again), [id_of("crm", 1), id_of("crm", 2)]);
    assert!(again.iter().all(|claimed| claimed.attempt == 1));
}

pub async fn the_longest_due_delivery_is_claimed_first(store: Arc<dyn Store>) {
    let new_due_after = |identity, seconds| {
        let mut new = delivery("crm", identity);
        new.due_at = at(seconds * SECOND);
        new
    };
    store
        .accept(vec![
            new_due_after(1, 3),
            new_due_after(2, 1),
            new_due_after(3, 2),
            new_due_after(4, 9),
        ])
        .await
        .unwrap();
    let claim_ids = async |limit| {
        ids(&store
            .claim("crm", at(5 * SECOND), LEASE, limit)
            .await
            .unwrap())
    };
    assert_eq!(claim_ids(1).await, [id_of("crm", 2)]);
    assert_eq!(claim_ids(1).await, [id_of("crm", 3)]);
    assert_eq!(claim_ids(0).await, [] as [Uuid; 0]);
    assert_eq!(claim_ids(9).await, [id_of("crm", 1)]);
}

pub async fn each_subscription_has_its_own_next_due_time(store: Arc<dyn Store>) {
    let mut later = delivery("erp", 1);
    later.due_at = at(MINUTE);
    let mut latest = delivery("erp", 2);
    latest.due_at = at(DAY);
    store
        .accept(vec![delivery("crm", 1), latest, later, delivery("tax", 1)])
        .await
        .unwrap();
    let held = claim(&store, "tax", Duration::ZERO).await.remove(0);
    store
        .settle(&held, &tried(410, start()), &Outcome::Abandoned)
        .await
        .unwrap();
    let due = |subscription: &str, at| NextDue {
        subscription: subscription.to_owned(),
        at,
    };
    assert_eq!(
        store.next_due().await.unwrap(),
        [due("crm", start()), due("erp", at(MINUTE))]
    );
    assert_eq!(claim(&store, "erp", Duration::ZERO).await, []);
    claim(&store, "crm", SECOND).await;
    assert_eq!(
        store.next_due().await.unwrap(),
        [due("crm", at(SECOND + LEASE)), due("erp", at(MINUTE))]
    );
}

pub async fn retrying_an_abandoned_delivery_extends_its_end_time(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = claim(&store, "crm", DAY).await.remove(0);
    store
        .settle(&held, &tried(500, at(DAY)), &Outcome::Abandoned)
        .await
        .unwrap();
    assert_eq!(listed(&store, "crm", 1).await.settled_at, Some(at(DAY)));
    let now = at(2 * DAY);
    assert_eq!(
        store
            .retry(&Filter::default(), now, RetryOptions::of(3 * DAY))
            .await
            .unwrap(),
        1
    );
    let waiting = listed(&store, "crm", 1).await;
    assert_eq!((waiting.state, waiting.settled_at), (State::Pending, None));
    assert_eq!(waiting.next_attempt_at, Some(now));
    let held = claim(&store, "crm", 2 * DAY).await.remove(0);
    assert_eq!(held.attempt, 2);
    assert_eq!(held.keep_trying_until, at(5 * DAY));
}

pub async fn retrying_a_pending_delivery_makes_it_due_immediately(store: Arc<dyn Store>) {
    store
        .accept(vec![delivery("crm", 1), delivery("crm", 2)])
        .await
        .unwrap();
    let held = claim(&store, "crm", Duration::ZERO).await;
    let again = Outcome::RetryAt(at(DAY));
    store
        .settle(&held[0], &tried(503, start()), &again)
        .await
        .unwrap();
    // The other one is being attempted, and a retry would send it twice.
    let everything = Filter::default();
    assert_eq!(
        store
            .retry(&everything, at(SECOND), RetryOptions::of(DAY))
            .await
            .unwrap(),
        1
    );
    let again = claim(&store, "crm", SECOND).await;
    assert_eq!(ids(&again), [held[0].id]);
    assert_eq!(again[0].keep_trying_until, at(DAY));
    assert!(
        store
            .settle(&held[1], &tried(204, at(SECOND)), &Outcome::Delivered)
            .await
            .unwrap()
    );
}

pub async fn the_list_is_newest_first_and_can_be_filtered(store: Arc<dyn Store>) {
    let mut updated = delivery("crm", 3);
    updated.event = Event::IdentityUpdated;
    store
        .accept(vec![
            delivery("erp", 2),
            delivery("crm", 1),
            updated,
            delivery("tax", 4),
        ])
        .await
        .unwrap();
    let held = claim(&store, "tax", Duration::ZERO).await.remove(0);
    store
        .settle(&held, &tried(204, start()), &Outcome::Delivered)
        .await
        .unwrap();
    let list = async |filter: Filter, limit| {
        let listed = store.list(&filter, limit).await.unwrap();
        listed.into_iter().map(|one| one.id).collect::<Vec<_>>()
    };
    let [one, two, three, four] = [("crm", 1), ("erp", 2), ("crm", 3), ("tax", 4)]
        .map(|(subscription, identity)| id_of(subscription, identity));
    let all = Filter::default;
    assert_eq!(list(all(), 9).await, [four, three, two, one]);
    assert_eq!(list(all(), 2).await, [four, three]);
    let subscription = Some("crm".to_owned());
    let of_one_subscription = Filter {
        subscription: subscription.clone(),
        ..all()
    };
    assert_eq!(list(of_one_subscription.clone(), 9).await, [three, one]);
    let state = Some(State::Delivered);
    assert_eq!(list(Filter { state, ..all() }, 9).await, [four]);
    let ids = vec![two, three, Uuid::from_u128(404)];
    let by_id = Filter { ids, ..all() };
    assert_eq!(list(by_id.clone(), 9).await, [three, two]);
    let both = Filter {
        ids: by_id.ids,
        ..of_one_subscription
    };
    assert_eq!(list(both, 9).await, [three]);
    let exclude_subscriptions = vec!["crm".to_owned(), "tax".to_owned()];
    let of_others = Filter {
        exclude_subscriptions,
        ..all()
    };
    assert_eq!(list(of_others.clone(), 9).await, [two]);
    assert_eq!(store.unfinished(&of_others).await.unwrap(), 1);
    assert_eq!(
        store
            .retry(&of_others, at(SECOND), RetryOptions::of(DAY))
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.discard(&of_others, at(SECOND)).await.unwrap(), 1);
    assert_eq!(store.unfinished(&all()).await.unwrap(), 2);
    let newest = store.list(&all(), 2).await.unwrap();
    assert_eq!(newest[1].event, Event::IdentityUpdated);
    assert_eq!(newest[1].identity_id, Uuid::from_u128(3));
    assert_eq!(newest[1].created_at, start());
}

pub async fn the_backlog_is_counted(store: Arc<dyn Store>) {
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    let mut younger = delivery("crm", 2);
    younger.created_at = at(SECOND);
    let mut broken = delivery("crm", 3);
    broken.action = Err("broken".to_owned());
    store
        .accept(vec![
            younger,
            delivery("crm", 1),
            delivery("erp", 1),
            broken,
        ])
        .await
        .unwrap();
    let held = claim(&store, "erp", Duration::ZERO).await.remove(0);
    store
        .settle(&held, &tried(204, start()), &Outcome::Delivered)
        .await
        .unwrap();
    assert_eq!(
        store.backlog().await.unwrap(),
        Backlog {
            pending: 2,
            abandoned: 1,
            oldest_pending: Some(start()),
        }
    );
}

pub async fn decisions_are_recorded(store: Arc<dyn Store>) {
    store.record(&[]).await.unwrap();
    store.record(&[decision(1), decision(2)]).await.unwrap();
    // A flow has a decision for each submission of its form.
    store.record(&[decision(1)]).await.unwrap();
}

/// A decision with these checks and outcomes.
fn decided(flow: u128, outcome: &'static str, checks: &[(&str, &'static str)]) -> Decision {
    let mut decided = decision(flow);
    let check = decided.checks.remove(0);
    decided.outcome = outcome;
    decided.checks = checks
        .iter()
        .map(|(name, outcome)| CheckRecord {
            check: (*name).into(),
            outcome,
            kind: (*outcome == "unavailable").then_some("timeout"),
            message_id: check.message_id.filter(|_| *outcome == "refused"),
            ..check.clone()
        })
        .collect();
    decided
}

pub async fn decisions_are_listed_by_outcome_check_flow_identity_and_time(store: Arc<dyn Store>) {
    let identity = Uuid::from_u128(71);
    let mut changed = decided(4, "changed", &[("vat", "accepted"), ("vat_b", "skipped")]);
    changed.identity_id = Some(identity);
    changed.at = at(DAY);
    let all = [
        decided(
            1,
            "admitted",
            &[("vat", "not_applicable"), ("invite", "accepted")],
        ),
        decided(
            2,
            "refused",
            &[("vat", "refused"), ("invite", "unavailable")],
        ),
        decided(3, "refused", &[("vatxb", "refused"), ("invite", "refused")]),
        changed,
    ];
    store.record(&all).await.unwrap();
    let check = |name: &str| DecisionFilter {
        check: Some(name.to_owned()),
        ..DecisionFilter::default()
    };
    let with = |outcome, filter: DecisionFilter| DecisionFilter {
        outcome: Some(outcome),
        ..filter
    };
    let any = DecisionFilter::default;
    for (filter, flows) in [
        (any(), vec![4, 3, 2, 1]),
        (with(DecisionOutcome::Refused, any()), vec![3, 2]),
        (with(DecisionOutcome::Admitted, any()), vec![4, 1]),
        (with(DecisionOutcome::Changed, any()), vec![4]),
        (with(DecisionOutcome::Unavailable, any()), vec![2]),
        (check("vat"), vec![4, 2]),
        (check("invite"), vec![3, 2, 1]),
        // `_` is no wildcard, and a skipped check did not run.
        (check("vat_b"), vec![]),
        (check("%"), vec![]),
        (check("no\"such"), vec![]),
        (with(DecisionOutcome::Refused, check("invite")), vec![3]),
        (with(DecisionOutcome::Unavailable, check("invite")), vec![2]),
        (with(DecisionOutcome::Unavailable, check("vat")), vec![]),
        (with(DecisionOutcome::Admitted, check("invite")), vec![1]),
        (
            DecisionFilter {
                flow_id: Some(Uuid::from_u128(2)),
                ..any()
            },
            vec![2],
        ),
        (
            DecisionFilter {
                identity: Some(identity),
                ..any()
            },
            vec![4],
        ),
        (
            DecisionFilter {
                since: Some(at(SECOND)),
                ..any()
            },
            vec![4],
        ),
    ] {
        let listed = store.decisions(&filter, 10).await.unwrap();
        let listed: Vec<u128> = listed.iter().map(|one| one.flow_id.as_u128()).collect();
        assert_eq!(listed, flows, "{filter:?}");
    }
    let page = decision_page(&*store, &any(), 3).await.unwrap();
    assert_eq!(page.decisions.len(), 3);
    let rest = DecisionFilter {
        cursor: page.next_cursor,
        ..any()
    };
    let rest = decision_page(&*store, &rest, 3).await.unwrap();
    assert_eq!((rest.decisions.len(), rest.next_cursor), (1, None));
    let shown = &page.decisions[2];
    assert_eq!(shown.flow_id, Uuid::from_u128(2));
    assert_eq!((shown.at, shown.duration_ms), (start(), 12));
    assert_eq!((&*shown.flow, &*shown.method), ("registration", "password"));
    assert_eq!(shown.checks[0].message_id, Some(4_900_101));
    assert_eq!(shown.checks[1].kind.as_deref(), Some("timeout"));
}

pub async fn decisions_get_the_identity_of_their_flow(store: Arc<dyn Store>) {
    store
        .record(&[decision(1), decision(2), decision(1)])
        .await
        .unwrap();
    let of = |flow: u128, identity: u128| FlowIdentity {
        flow_id: Uuid::from_u128(flow),
        identity_id: Uuid::from_u128(identity),
    };
    let mut matched = store
        .record_identities(&[of(1, 71), of(9, 79)])
        .await
        .unwrap();
    matched.dedup();
    assert_eq!(matched, [Uuid::from_u128(1)]);
    let identities = async |flow: u128| {
        let shown = store
            .decisions_of_flow(Uuid::from_u128(flow))
            .await
            .unwrap();
        shown.iter().map(|one| one.identity_id).collect::<Vec<_>>()
    };
    assert_eq!(identities(1).await, [Some(Uuid::from_u128(71)); 2]);
    assert_eq!(identities(2).await, [None]);
    // Erasure keeps the decision, and not the id of the identity.
    store.forget(Uuid::from_u128(71), start()).await.unwrap();
    assert_eq!(identities(1).await, [None; 2]);
}

pub async fn ping_fails_after_close(store: Arc<dyn Store>) {
    store.ping().await.unwrap();
    store.close().await;
    assert!(store.ping().await.is_err());
    assert!(store.accept(vec![delivery("crm", 1)]).await.is_err());
}
