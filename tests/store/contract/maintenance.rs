//! What every database must guarantee for locks, properties, retention and erasure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::kratos::Flow;
use vestibule::model::delivery::{EvaluationContext, Outcome, State, time_ordered_id};
use vestibule::model::pending::{Details, PendingKey, PendingSignUp, PendingState, SubmissionHash};
use vestibule::model::request::{Method, Request};
use vestibule::model::reservation::{self, ReleaseReason, Reservation};
use vestibule::store::{Acceptance, Filter, Release, Store, WriteSet};
use vestibule_testing::join_all;

use super::{claim, listed};
use crate::fixtures::{
    DAY, DeliveryStoreExt as _, MINUTE, SECOND, at, decision, delivery, id_of, ids, start, tried,
};

fn key(subscription: &str, identity: u128) -> (String, String) {
    (
        subscription.to_owned(),
        Uuid::from_u128(identity).to_string(),
    )
}

async fn deliver(store: &Arc<dyn Store>, subscription: &str, at: Timestamp) {
    let held = store
        .claim(subscription, at, MINUTE, 1)
        .await
        .unwrap()
        .remove(0);
    let settled = store
        .settle(&held, &tried(204, at), &Outcome::Delivered)
        .await;
    assert!(settled.unwrap());
}

pub async fn existing_keys_are_found_by_subscription_and_key(store: Arc<dyn Store>) {
    store
        .accept(vec![
            delivery("crm", 1),
            delivery("crm", 2),
            delivery("erp", 3),
        ])
        .await
        .unwrap();
    deliver(&store, "erp", start()).await;
    let keys = [
        key("crm", 1),
        key("erp", 1),
        key("crm", 3),
        key("erp", 3),
        key("erp", 3),
    ];
    assert_eq!(
        store.existing_keys(&keys).await.unwrap(),
        HashSet::from([key("crm", 1), key("erp", 3)])
    );
    assert_eq!(store.existing_keys(&[]).await.unwrap(), HashSet::new());
    let many: Vec<_> = (0..5_000).map(|number| key("crm", number)).collect();
    assert_eq!(store.existing_keys(&many).await.unwrap().len(), 2);
}

pub async fn properties_are_overwritten_and_deleted(store: Arc<dyn Store>) {
    let get_property = async |name| store.get_property(name).await.unwrap();
    assert_eq!(get_property("a").await, None);
    store.set_property("a", Some("one")).await.unwrap();
    store.set_property("b", Some("\"ü'\n")).await.unwrap();
    store.set_property("a", Some("two")).await.unwrap();
    assert_eq!(get_property("a").await.as_deref(), Some("two"));
    assert_eq!(get_property("b").await.as_deref(), Some("\"ü'\n"));
    store.set_property("a", None).await.unwrap();
    store.set_property("never there", None).await.unwrap();
    assert_eq!(get_property("a").await, None);
    assert!(get_property("b").await.is_some());
}

pub async fn concurrent_inserts_of_one_property_keep_one_value(store: Arc<dyn Store>) {
    let callers = (0..10).map(|caller| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let value = caller.to_string();
            store.get_or_insert_property("a", &value).await.unwrap()
        })
    });
    let values = join_all("each insert returns", callers).await;
    let values: HashSet<String> = values.into_iter().collect();
    assert_eq!(values.len(), 1, "{values:?}");
    let stored = store.get_property("a").await.unwrap();
    assert_eq!(stored, values.into_iter().next());
}

pub async fn a_lock_has_one_holder_until_it_expires(store: Arc<dyn Store>) {
    let [one, two] = [1, 2].map(Uuid::from_u128);
    let acquire = async |name, holder, now, until| {
        let (now, until) = (at(now), at(until));
        store.acquire_lock(name, holder, now, until).await.unwrap()
    };
    assert!(acquire("a", one, Duration::ZERO, MINUTE).await);
    assert!(!acquire("a", two, 59 * SECOND, 2 * MINUTE).await);
    assert!(
        acquire("b", two, Duration::ZERO, MINUTE).await,
        "another lock"
    );
    // The holder can extend the lock, and the lock expires without a renewal.
    assert!(acquire("a", one, 59 * SECOND, 2 * MINUTE).await);
    assert!(!acquire("a", two, MINUTE, 2 * MINUTE).await);
    assert!(acquire("a", two, 2 * MINUTE, 3 * MINUTE).await);
    // Only the holder can release it.
    store.release_lock("a", one).await.unwrap();
    assert!(!acquire("a", one, 2 * MINUTE, 3 * MINUTE).await);
    store.release_lock("a", two).await.unwrap();
    assert!(acquire("a", one, 2 * MINUTE, 3 * MINUTE).await);
}

pub async fn concurrent_acquisitions_of_a_lock_have_one_winner(store: Arc<dyn Store>) {
    let callers = (1..=10).map(|caller| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let holder = Uuid::from_u128(caller);
            let acquired = store.acquire_lock("a", holder, start(), at(MINUTE));
            acquired.await.unwrap()
        })
    });
    let acquired = join_all("each acquisition returns", callers).await;
    assert_eq!(acquired.into_iter().filter(|acquired| *acquired).count(), 1);
}

pub async fn identities_with_data_are_listed_in_order(store: Arc<dyn Store>) {
    let mut without_identity = delivery("crm", 9);
    without_identity.identity_id = Uuid::nil();
    let mut unbuilt = delivery("crm", 8);
    unbuilt.action = Err("not built".to_owned());
    store
        .accept(vec![
            delivery("tax", 5),
            delivery("crm", 3),
            delivery("erp", 3),
            delivery("crm", 1),
            without_identity,
            unbuilt,
            delivery("abandoned", 4),
        ])
        .await
        .unwrap();
    deliver(&store, "tax", start()).await;
    let held = claim(&store, "abandoned", Duration::ZERO).await.remove(0);
    store
        .settle(&held, &tried(410, start()), &Outcome::Abandoned)
        .await
        .unwrap();
    let kept = async |after: u128, limit| {
        let kept = store
            .identities_with_data(Uuid::from_u128(after), limit)
            .await;
        let kept = kept.unwrap();
        kept.iter().map(Uuid::as_u128).collect::<Vec<_>>()
    };
    assert_eq!(
        kept(0, 9).await,
        [1, 3, 4],
        "a delivered identity has no data left"
    );
    assert_eq!(kept(0, 2).await, [1, 3]);
    assert_eq!(kept(3, 2).await, [4]);
    assert_eq!(kept(4, 2).await, [] as [u128; 0]);
}

pub async fn erasure_leaves_no_data_of_an_identity(store: Arc<dyn Store>) {
    let mut unbuilt = delivery("unbuilt", 1);
    unbuilt.action = Err("not built".to_owned());
    let mut with_a_context = delivery("pending", 1);
    with_a_context.context = Some(EvaluationContext::default());
    store
        .accept(vec![
            with_a_context,
            delivery("held", 1),
            delivery("abandoned", 1),
            delivery("delivered", 1),
            delivery("pending", 2),
            unbuilt,
        ])
        .await
        .unwrap();
    let held = claim(&store, "held", Duration::ZERO).await.remove(0);
    let failed = claim(&store, "abandoned", Duration::ZERO).await.remove(0);
    store
        .settle(&failed, &tried(410, start()), &Outcome::Abandoned)
        .await
        .unwrap();
    deliver(&store, "delivered", start()).await;

    let one = Uuid::from_u128(1);
    assert_eq!(store.forget(one, at(SECOND)).await.unwrap(), 3);
    assert_eq!(
        store.identities_with_data(Uuid::nil(), 9).await.unwrap(),
        [Uuid::from_u128(2)]
    );
    for (subscription, state) in [
        ("pending", State::Discarded),
        ("held", State::Discarded),
        ("abandoned", State::Discarded),
        ("unbuilt", State::Discarded),
        ("delivered", State::Delivered),
    ] {
        let shown = store.show(id_of(subscription, 1)).await.unwrap().unwrap();
        assert_eq!(shown.listed.state, state, "{subscription}");
        assert_eq!(
            (shown.action, shown.tries),
            (None, Vec::new()),
            "{subscription}"
        );
        let error = shown.listed.last_error;
        let forgotten = Some("the identity was deleted".to_owned());
        assert!(
            error.is_none() || error == forgotten,
            "{subscription}: {error:?}"
        );
    }
    // The lease holder loses the delivery, and no dispatcher can claim it.
    let settled = store
        .settle(&held, &tried(503, at(SECOND)), &Outcome::RetryAt(start()))
        .await;
    assert!(!settled.unwrap());
    for subscription in ["pending", "held", "abandoned"] {
        let others = claim(&store, subscription, DAY).await;
        assert!(
            !ids(&others).contains(&id_of(subscription, 1)),
            "{subscription}"
        );
    }
    assert_eq!(listed(&store, "held", 1).await.state, State::Discarded);
    // Its key stays known, so the delivery is not stored again.
    assert_eq!(store.accept(vec![delivery("pending", 1)]).await.unwrap(), 0);
    assert_eq!(store.forget(one, at(MINUTE)).await.unwrap(), 0);
    assert_eq!(
        listed(&store, "pending", 1).await.settled_at,
        Some(at(SECOND))
    );
}

pub async fn only_settled_deliveries_are_deleted_and_in_steps(store: Arc<dyn Store>) {
    let mut young = delivery("tax", 4);
    young.id = time_ordered_id(at(DAY));
    let mut without_identity = delivery("release", 8);
    without_identity.identity_id = Uuid::nil();
    store
        .accept(vec![
            delivery("crm", 1),
            delivery("crm", 2),
            delivery("crm", 3),
            young.clone(),
            delivery("erp", 5),
            delivery("late", 6),
            delivery("abandoned", 7),
            without_identity,
        ])
        .await
        .unwrap();
    for subscription in ["crm", "crm", "tax"] {
        deliver(&store, subscription, start()).await;
    }
    deliver(&store, "late", at(DAY)).await;
    // An abandoned delivery stays, unless it has no identity whose erasure would delete it.
    for subscription in ["abandoned", "release"] {
        let held = claim(&store, subscription, Duration::ZERO).await.remove(0);
        store
            .settle(&held, &tried(410, start()), &Outcome::Abandoned)
            .await
            .unwrap();
    }
    let third = Filter {
        ids: vec![id_of("crm", 3)],
        ..Filter::default()
    };
    assert_eq!(store.discard(&third, at(SECOND)).await.unwrap(), 1);

    assert_eq!(store.delete_settled(start(), 9).await.unwrap(), 0);
    let before = at(MINUTE);
    assert_eq!(store.delete_settled(before, 2).await.unwrap(), 2);
    assert_eq!(store.delete_settled(before, 2).await.unwrap(), 2);
    assert_eq!(store.delete_settled(before, 2).await.unwrap(), 0);
    for identity in 1..=3 {
        let deleted = store.show(id_of("crm", identity)).await.unwrap();
        assert_eq!(deleted, None, "{identity}");
    }
    let left = store.list(&Filter::default(), 9).await.unwrap();
    let left: HashSet<Uuid> = left.into_iter().map(|one| one.id).collect();
    assert_eq!(
        left,
        HashSet::from([
            young.id,
            id_of("erp", 5),
            id_of("late", 6),
            id_of("abandoned", 7)
        ])
    );
    let attempts = store.show(id_of("late", 6)).await.unwrap().unwrap().tries;
    assert_eq!(attempts.len(), 1, "its attempts stay");
}

pub async fn decisions_are_deleted_in_steps(store: Arc<dyn Store>) {
    let mut decisions = [1, 2, 3, 4].map(decision);
    decisions[3].at = at(DAY);
    for one in decisions {
        store.record(&[one]).await.unwrap();
    }
    assert_eq!(store.delete_decisions(start(), 9).await.unwrap(), 0);
    let before = at(SECOND);
    assert_eq!(store.delete_decisions(before, 2).await.unwrap(), 2);
    assert_eq!(store.delete_decisions(before, 2).await.unwrap(), 1);
    assert_eq!(store.delete_decisions(before, 2).await.unwrap(), 0);
    assert_eq!(store.delete_decisions(at(2 * DAY), 9).await.unwrap(), 1);
}

fn acceptance(flow: u128, expires_at: Timestamp, next_lookup_at: Option<Timestamp>) -> Acceptance {
    Acceptance {
        sign_up: PendingSignUp {
            key: PendingKey {
                flow_id: Uuid::from_u128(flow),
                submission: "trigger".to_owned(),
            },
            flow: Flow::Registration,
            method: "password".to_owned(),
            hash: SubmissionHash::default(),
            guarded: false,
            last_known_absent_at: start(),
            accepted_at: start(),
            expires_at,
            state: PendingState::Open,
            identity_id: None,
            details: Details::default(),
        },
        next_lookup_at,
        must_hold: false,
    }
}

fn reservation_being_taken(id: u128, expires_at: Timestamp) -> Reservation {
    Reservation {
        id: Uuid::from_u128(id),
        flow_id: Uuid::from_u128(id),
        check: "invite".to_owned(),
        request_hash: "a".to_owned(),
        state: reservation::State::Taking,
        details: Some(reservation::Details {
            take: Request {
                method: Method::Post,
                path: "/a".to_owned(),
                headers: Vec::new(),
                body: None,
            },
            context: EvaluationContext::default(),
        }),
        release_reason: None,
        created_at: start(),
        expires_at,
        submission: String::new(),
        in_use_until: start(),
    }
}

pub async fn ended_flows_are_deleted_and_open_ones_are_kept(store: Arc<dyn Store>) {
    let (old, young) = (at(MINUTE), at(DAY));
    store
        .write(&WriteSet {
            accepted: vec![
                acceptance(1, old, None),
                acceptance(2, old, None),
                acceptance(3, old, Some(young)),
                acceptance(4, young, None),
            ],
            reserved: vec![
                reservation_being_taken(11, old),
                reservation_being_taken(12, old),
                reservation_being_taken(13, young),
            ],
            ..WriteSet::default()
        })
        .await
        .unwrap();
    let id = Uuid::from_u128;
    let released = [11, 13].map(|number| Release {
        kept: None,
        id: id(number),
        release_reason: ReleaseReason::Unclear,
        unused_since: start(),
    });
    store
        .write(&WriteSet {
            released: released.to_vec(),
            ..WriteSet::default()
        })
        .await
        .unwrap();
    assert_eq!(store.delete_ended(old, 9).await.unwrap(), 0);
    let before = at(2 * MINUTE);
    assert_eq!(
        store.delete_ended(before, 1).await.unwrap(),
        3,
        "a flow, its submission and a reservation"
    );
    assert_eq!(store.delete_ended(before, 9).await.unwrap(), 2);
    assert_eq!(store.delete_ended(before, 9).await.unwrap(), 0);
    // This flow will be looked up once more.
    assert_eq!(store.flow(id(3)).await.unwrap().pending.len(), 1);
    assert_eq!(store.flow(id(11)).await.unwrap().reservations, []);
    for open in [12, 13] {
        let flow = store.flow(id(open)).await.unwrap();
        assert_eq!(flow.reservations.len(), 1, "{open}");
    }
    assert_eq!(store.delete_ended(at(2 * DAY), 9).await.unwrap(), 3);
}
