//! What every database must guarantee for deliveries whose request could not be built, and for deliveries that are sent
//! once.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;
use vestibule::model::delivery::subscription::Built;
use vestibule::model::delivery::{
    AbandonReason, Action, Claimed, EvaluationContext, Event, NewDelivery, Outcome, State, Unbuilt,
};
use vestibule::store::{DeliverySummary, Filter, RetryOptions, Store};

use crate::fixtures::{
    DAY, DeliveryStoreExt as _, MINUTE, SECOND, at, delivery, id_of, ids, start, tried,
};

/// Tests a database. `$fresh` is an expression for an empty store and a value that must outlive it, if the database exists.
macro_rules! test_contract {
    ($fresh:expr) => {
        $crate::unbuilt::test_contract!($fresh;
            an_unbuilt_delivery_is_kept_with_its_event,
            a_retried_delivery_is_built_before_it_is_sent,
            a_delivery_that_still_cannot_be_built_is_abandoned_again,
            only_the_lease_holder_stores_what_was_built,
            a_built_delivery_replaces_one_that_could_not_be_built,
            the_key_of_an_unbuilt_delivery_counts_as_missing,
            erasure_deletes_the_event_of_an_unbuilt_delivery,
            a_delivery_is_sent_once_per_subscription_and_identity,
            the_key_outlives_the_delivery_until_erasure,
            parallel_events_are_sent_once,
            an_unbuilt_delivery_uses_the_key_and_can_be_replaced,
        );
    };
    ($fresh:expr; $($test:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((store, _kept)) = $fresh.await {
                    $crate::unbuilt::$test(store).await;
                }
            }
        )+
    };
}
pub(crate) use test_contract;

const REASON: &str = "the request could not be built: no such key `nick` in `identity.traits`";

fn unbuilt(identity: u128) -> NewDelivery {
    NewDelivery {
        action: Ok(Action::Build(Box::new(Unbuilt {
            reason: REASON.to_owned(),
            context: EvaluationContext {
                identity: Some(json!({"traits": {"email": "ada@example.org"}})),
                ..EvaluationContext::default()
            },
        }))),
        ..delivery("crm", identity)
    }
}

fn built(identity: u128) -> Built {
    match delivery("crm", identity).action {
        Ok(Action::Send(request)) => Built {
            request,
            context: None,
        },
        other => panic!("{other:?}"),
    }
}

async fn claim(store: &Arc<dyn Store>) -> Vec<Claimed> {
    store.claim("crm", start(), MINUTE, 10).await.unwrap()
}

async fn retry(store: &Arc<dyn Store>) -> u64 {
    let everything = Filter::default();
    let retried = store.retry(&everything, start(), RetryOptions::of(DAY));
    retried.await.unwrap()
}

async fn listed(store: &Arc<dyn Store>, id: Uuid) -> DeliverySummary {
    store.show(id).await.unwrap().unwrap().listed
}

pub async fn an_unbuilt_delivery_is_kept_with_its_event(store: Arc<dyn Store>) {
    assert_eq!(store.accept(vec![unbuilt(1)]).await.unwrap(), 1);
    assert_eq!(claim(&store).await, []);
    let shown = store.show(id_of("crm", 1)).await.unwrap().unwrap();
    assert_eq!(shown.action, unbuilt(1).action.ok());
    let kept = shown.listed;
    assert_eq!(kept.state, State::Abandoned);
    assert_eq!(kept.reason, Some(AbandonReason::NotBuilt));
    assert_eq!((kept.attempts, kept.settled_at), (0, Some(start())));
    assert_eq!(kept.last_error.as_deref(), Some(REASON));
    assert_eq!(store.backlog().await.unwrap().abandoned, 1);
}

pub async fn a_retried_delivery_is_built_before_it_is_sent(store: Arc<dyn Store>) {
    store.accept(vec![unbuilt(1)]).await.unwrap();
    assert_eq!(retry(&store).await, 1);
    let held = claim(&store).await.remove(0);
    assert_eq!(held.action, unbuilt(1).action.unwrap());
    assert!(
        store
            .keep_built(&held, &Ok(built(1)), start())
            .await
            .unwrap()
    );
    let kept = listed(&store, held.id).await;
    assert_eq!((kept.state, kept.last_error), (State::Pending, None));
    // It is not built again, whatever becomes of the attempt.
    let again = Outcome::RetryAt(start());
    assert!(
        store
            .settle(&held, &tried(503, start()), &again)
            .await
            .unwrap()
    );
    let second = claim(&store).await.remove(0);
    assert_eq!(
        (second.action, second.attempt),
        (Action::Send(built(1).request), 2)
    );
}

pub async fn a_delivery_that_still_cannot_be_built_is_abandoned_again(store: Arc<dyn Store>) {
    store.accept(vec![unbuilt(1)]).await.unwrap();
    for round in 0..2 {
        assert_eq!(retry(&store).await, 1, "{round}");
        let held = claim(&store).await.remove(0);
        let still = Err("`when` failed".to_owned());
        assert!(store.keep_built(&held, &still, at(SECOND)).await.unwrap());
        let kept = listed(&store, held.id).await;
        assert_eq!(kept.state, State::Abandoned);
        assert_eq!(kept.reason, Some(AbandonReason::NotBuilt));
        assert_eq!((kept.attempts, kept.settled_at), (0, Some(at(SECOND))));
        assert_eq!(kept.last_error.as_deref(), Some("`when` failed"));
        assert_eq!(claim(&store).await, []);
    }
}

pub async fn only_the_lease_holder_stores_what_was_built(store: Arc<dyn Store>) {
    store.accept(vec![unbuilt(1)]).await.unwrap();
    retry(&store).await;
    let first = claim(&store).await.remove(0);
    let second = store.claim("crm", at(MINUTE), MINUTE, 1).await.unwrap();
    for result in [Ok(built(1)), Err("no".to_owned())] {
        let kept = store.keep_built(&first, &result, at(MINUTE)).await;
        assert!(!kept.unwrap());
    }
    assert_eq!(listed(&store, first.id).await.state, State::Pending);
    let kept = store
        .keep_built(&second[0], &Ok(built(1)), at(MINUTE))
        .await;
    assert!(kept.unwrap());
}

pub async fn a_built_delivery_replaces_one_that_could_not_be_built(store: Arc<dyn Store>) {
    store.accept(vec![unbuilt(1)]).await.unwrap();
    let mut again = unbuilt(1);
    again.id = Uuid::from_u128(98);
    assert_eq!(store.accept(vec![again]).await.unwrap(), 0);
    let mut better = delivery("crm", 1);
    better.id = Uuid::from_u128(99);
    assert_eq!(store.accept(vec![better]).await.unwrap(), 1);
    let kept = listed(&store, Uuid::from_u128(99)).await;
    assert_eq!(
        (kept.state, kept.reason, kept.last_error),
        (State::Pending, None, None)
    );
    // What was built once is not replaced, also while an operator has it built.
    store.accept(vec![unbuilt(2)]).await.unwrap();
    retry(&store).await;
    assert_eq!(store.accept(vec![delivery("crm", 2)]).await.unwrap(), 0);
}

pub async fn the_key_of_an_unbuilt_delivery_counts_as_missing(store: Arc<dyn Store>) {
    let mut dead_letter = delivery("crm", 3);
    dead_letter.action = Err("nothing to do".to_owned());
    store
        .accept(vec![
            unbuilt(1),
            delivery("crm", 2),
            dead_letter,
            unbuilt(4),
        ])
        .await
        .unwrap();
    let of_fourth = Filter {
        ids: vec![id_of("crm", 4)],
        ..Filter::default()
    };
    assert_eq!(store.discard(&of_fourth, start()).await.unwrap(), 1);
    let key = |identity| ("crm".to_owned(), Uuid::from_u128(identity).to_string());
    let keys: Vec<_> = (1..=4).map(key).collect();
    let existing = store.existing_keys(&keys).await.unwrap();
    // An operator decided about the fourth.
    assert_eq!(existing, HashSet::from([key(2), key(3), key(4)]));
    retry(&store).await;
    let existing = store.existing_keys(&keys[..1]).await.unwrap();
    assert_eq!(existing, HashSet::from([key(1)]), "it is on its way");
}

pub async fn erasure_deletes_the_event_of_an_unbuilt_delivery(store: Arc<dyn Store>) {
    store.accept(vec![unbuilt(1)]).await.unwrap();
    let one = Uuid::from_u128(1);
    assert_eq!(
        store.identities_with_data(Uuid::nil(), 9).await.unwrap(),
        [one]
    );
    assert_eq!(store.forget(one, at(SECOND)).await.unwrap(), 1);
    let shown = store.show(id_of("crm", 1)).await.unwrap().unwrap();
    assert_eq!((shown.action, shown.listed.state), (None, State::Discarded));
    assert_eq!(shown.listed.reason, None);
    assert_eq!(retry(&store).await, 0);
    assert!(
        store
            .identities_with_data(Uuid::nil(), 9)
            .await
            .unwrap()
            .is_empty()
    );
}

/// A delivery that is sent once.
fn once(identity: u128, number: u128, event: Event) -> NewDelivery {
    let mut new = delivery("crm", identity);
    new.id = Uuid::from_u128(number);
    new.event = event;
    new.order.once = true;
    new
}

pub async fn a_delivery_is_sent_once_per_subscription_and_identity(store: Arc<dyn Store>) {
    let mut of_erp = once(1, 4, Event::IdentityVerified);
    of_erp.subscription = "erp".to_owned();
    let together = vec![
        once(1, 1, Event::IdentityVerified),
        once(1, 2, Event::IdentityVerified),
        once(2, 3, Event::IdentityCreated),
        of_erp,
    ];
    assert_eq!(store.accept(together).await.unwrap(), 3);
    for (number, event) in [
        (11, Event::IdentityVerified),
        (12, Event::IdentityUpdated),
        (13, Event::IdentityCreated),
        (14, Event::CredentialsChanged),
    ] {
        let again = vec![once(1, number, event), once(2, number + 10, event)];
        assert_eq!(store.accept(again).await.unwrap(), 0, "{event}");
    }
    assert_eq!(
        ids(&claim(&store).await),
        [Uuid::from_u128(1), Uuid::from_u128(3)]
    );
}

pub async fn the_key_outlives_the_delivery_until_erasure(store: Arc<dyn Store>) {
    store
        .accept(vec![once(1, 1, Event::IdentityVerified)])
        .await
        .unwrap();
    let held = claim(&store).await.remove(0);
    store
        .settle(&held, &tried(204, start()), &Outcome::Delivered)
        .await
        .unwrap();
    assert_eq!(store.delete_settled(at(DAY), 9).await.unwrap(), 1);
    let again = once(1, 2, Event::IdentityVerified);
    assert_eq!(store.accept(vec![again.clone()]).await.unwrap(), 0);
    store.forget(Uuid::from_u128(2), at(DAY)).await.unwrap();
    assert_eq!(store.accept(vec![again.clone()]).await.unwrap(), 0);
    store.forget(Uuid::from_u128(1), at(DAY)).await.unwrap();
    assert_eq!(store.accept(vec![again]).await.unwrap(), 1);
}

pub async fn parallel_events_are_sent_once(store: Arc<dyn Store>) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 1..=16 {
        let store = Arc::clone(&store);
        let event = if caller % 2 == 0 {
            Event::IdentityVerified
        } else {
            Event::IdentityUpdated
        };
        callers.spawn(async move { store.accept(vec![once(1, caller, event)]).await.unwrap() });
    }
    assert_eq!(callers.join_all().await.iter().sum::<usize>(), 1);
    assert_eq!(claim(&store).await.len(), 1);
}

pub async fn an_unbuilt_delivery_uses_the_key_and_can_be_replaced(store: Arc<dyn Store>) {
    let mut first = once(1, 1, Event::IdentityCreated);
    first.action = unbuilt(1).action;
    assert_eq!(store.accept(vec![first.clone()]).await.unwrap(), 1);
    first.id = Uuid::from_u128(2);
    assert_eq!(store.accept(vec![first]).await.unwrap(), 0);
    let second = once(1, 3, Event::IdentityVerified);
    assert_eq!(store.accept(vec![second]).await.unwrap(), 1);
    let held = claim(&store).await;
    assert_eq!(ids(&held), [Uuid::from_u128(3)]);
    assert_eq!(held[0].event, Event::IdentityVerified);
    let third = once(1, 4, Event::IdentityVerified);
    assert_eq!(store.accept(vec![third]).await.unwrap(), 0);
    assert_eq!(claim(&store).await, []);
}
