//! Turns, facts, what is known, what is forgotten and what is deleted.

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

use super::{claim, listed};
use crate::scenes::{DAY, MINUTE, SECOND, at, decision, delivery, id_of, ids, start, tried};

fn key(plan: &str, identity: u128) -> (String, String) {
    (plan.to_owned(), Uuid::from_u128(identity).to_string())
}

async fn deliver(store: &Arc<dyn Store>, plan: &str, at: Timestamp) {
    let held = store.claim(plan, at, MINUTE, 1).await.unwrap().remove(0);
    let settled = store
        .settle(&held, &tried(204, at), &Outcome::Delivered)
        .await;
    assert!(settled.unwrap());
}

pub async fn what_is_known_is_told_by_plan_and_key(store: Arc<dyn Store>) {
    store
        .accept(vec![
            delivery("crm", 1),
            delivery("crm", 2),
            delivery("erp", 3),
        ])
        .await
        .unwrap();
    deliver(&store, "erp", start()).await;
    let asked = [
        key("crm", 1),
        key("erp", 1),
        key("crm", 3),
        key("erp", 3),
        key("erp", 3),
    ];
    assert_eq!(
        store.existing_keys(&asked).await.unwrap(),
        HashSet::from([key("crm", 1), key("erp", 3)])
    );
    assert_eq!(store.existing_keys(&[]).await.unwrap(), HashSet::new());
    let many: Vec<_> = (0..5_000).map(|number| key("crm", number)).collect();
    assert_eq!(store.existing_keys(&many).await.unwrap().len(), 2);
}

pub async fn facts_are_written_over_and_struck_out(store: Arc<dyn Store>) {
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

pub async fn of_many_first_facts_one_stays(store: Arc<dyn Store>) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..10 {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            store
                .get_or_insert_property("a", &caller.to_string())
                .await
                .unwrap()
        });
    }
    let told: HashSet<String> = callers.join_all().await.into_iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let there = store.get_property("a").await.unwrap();
    assert_eq!(there, told.into_iter().next());
}

pub async fn a_turn_is_one_holders_until_it_ends(store: Arc<dyn Store>) {
    let [one, two] = [1, 2].map(Uuid::from_u128);
    let take = async |name, holder, now, until| {
        let (now, until) = (at(now), at(until));
        store.acquire_lock(name, holder, now, until).await.unwrap()
    };
    assert!(take("a", one, Duration::ZERO, MINUTE).await);
    assert!(!take("a", two, 59 * SECOND, 2 * MINUTE).await);
    assert!(
        take("b", two, Duration::ZERO, MINUTE).await,
        "that is another"
    );
    // It may be held for longer, and ends by itself.
    assert!(take("a", one, 59 * SECOND, 2 * MINUTE).await);
    assert!(!take("a", two, MINUTE, 2 * MINUTE).await);
    assert!(take("a", two, 2 * MINUTE, 3 * MINUTE).await);
    // Only its holder ends it.
    store.release_lock("a", one).await.unwrap();
    assert!(!take("a", one, 2 * MINUTE, 3 * MINUTE).await);
    store.release_lock("a", two).await.unwrap();
    assert!(take("a", one, 2 * MINUTE, 3 * MINUTE).await);
}

pub async fn of_many_who_want_a_turn_one_gets_it(store: Arc<dyn Store>) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 1..=10 {
        let store = Arc::clone(&store);
        let holder = Uuid::from_u128(caller);
        callers.spawn(async move {
            store
                .acquire_lock("a", holder, start(), at(MINUTE))
                .await
                .unwrap()
        });
    }
    let taken = callers.join_all().await;
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
}

pub async fn those_of_whom_something_is_kept_are_listed_in_order(store: Arc<dyn Store>) {
    let mut about_nobody = delivery("crm", 9);
    about_nobody.identity_id = Uuid::nil();
    let mut unbuilt = delivery("crm", 8);
    unbuilt.action = Err("not built".to_owned());
    store
        .accept(vec![
            delivery("tax", 5),
            delivery("crm", 3),
            delivery("erp", 3),
            delivery("crm", 1),
            about_nobody,
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
        "nothing is kept of who was delivered"
    );
    assert_eq!(kept(0, 2).await, [1, 3]);
    assert_eq!(kept(3, 2).await, [4]);
    assert_eq!(kept(4, 2).await, [] as [u128; 0]);
}

pub async fn nothing_is_left_of_whoever_is_forgotten(store: Arc<dyn Store>) {
    let mut unbuilt = delivery("unbuilt", 1);
    unbuilt.action = Err("not built".to_owned());
    let mut with_a_scene = delivery("pending", 1);
    with_a_scene.context = Some(EvaluationContext::default());
    store
        .accept(vec![
            with_a_scene,
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
    for (plan, state) in [
        ("pending", State::Discarded),
        ("held", State::Discarded),
        ("abandoned", State::Discarded),
        ("unbuilt", State::Discarded),
        ("delivered", State::Delivered),
    ] {
        let shown = store.show(id_of(plan, 1)).await.unwrap().unwrap();
        assert_eq!(shown.listed.state, state, "{plan}");
        assert_eq!((shown.action, shown.tries), (None, Vec::new()), "{plan}");
        let error = shown.listed.last_error;
        let forgotten = Some("the identity was deleted".to_owned());
        assert!(error.is_none() || error == forgotten, "{plan}: {error:?}");
    }
    // Who holds one has it no more, and nobody gets it.
    let settled = store
        .settle(&held, &tried(503, at(SECOND)), &Outcome::RetryAt(start()))
        .await;
    assert!(!settled.unwrap());
    for plan in ["pending", "held", "abandoned"] {
        let others = claim(&store, plan, DAY).await;
        assert!(!ids(&others).contains(&id_of(plan, 1)), "{plan}");
    }
    assert_eq!(listed(&store, "held", 1).await.state, State::Discarded);
    // It stays known, so that it does not come again.
    assert_eq!(store.accept(vec![delivery("pending", 1)]).await.unwrap(), 0);
    assert_eq!(store.forget(one, at(MINUTE)).await.unwrap(), 0);
    assert_eq!(
        listed(&store, "pending", 1).await.settled_at,
        Some(at(SECOND))
    );
}

pub async fn what_is_settled_is_deleted_in_steps_and_nothing_else(store: Arc<dyn Store>) {
    let mut young = delivery("tax", 4);
    young.id = time_ordered_id(at(DAY));
    let mut about_nobody = delivery("release", 8);
    about_nobody.identity_id = Uuid::nil();
    store
        .accept(vec![
            delivery("crm", 1),
            delivery("crm", 2),
            delivery("crm", 3),
            young.clone(),
            delivery("erp", 5),
            delivery("late", 6),
            delivery("abandoned", 7),
            about_nobody,
        ])
        .await
        .unwrap();
    for plan in ["crm", "crm", "tax"] {
        deliver(&store, plan, start()).await;
    }
    deliver(&store, "late", at(DAY)).await;
    // What is abandoned stays, unless it is about nobody with whom it could be forgotten.
    for plan in ["abandoned", "release"] {
        let held = claim(&store, plan, Duration::ZERO).await.remove(0);
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
        let gone = store.show(id_of("crm", identity)).await.unwrap();
        assert_eq!(gone, None, "{identity}");
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
    let tries = store.show(id_of("late", 6)).await.unwrap().unwrap().tries;
    assert_eq!(tries.len(), 1, "its attempts stay");
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

fn accepted(flow: u128, expires_at: Timestamp, look_at: Option<Timestamp>) -> Acceptance {
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
        look_at,
        must_hold: false,
    }
}

fn taking(id: u128, expires_at: Timestamp) -> Reservation {
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

pub async fn what_has_ended_is_deleted_and_what_is_open_stays(store: Arc<dyn Store>) {
    let (old, young) = (at(MINUTE), at(DAY));
    store
        .write(&WriteSet {
            accepted: vec![
                accepted(1, old, None),
                accepted(2, old, None),
                accepted(3, old, Some(young)),
                accepted(4, young, None),
            ],
            reserved: vec![taking(11, old), taking(12, old), taking(13, young)],
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
    // It will be looked up once more.
    assert_eq!(store.flow(id(3)).await.unwrap().pending.len(), 1);
    assert_eq!(store.flow(id(11)).await.unwrap().reservations, []);
    for open in [12, 13] {
        let flow = store.flow(id(open)).await.unwrap();
        assert_eq!(flow.reservations.len(), 1, "{open}");
    }
    assert_eq!(store.delete_ended(at(2 * DAY), 9).await.unwrap(), 3);
}
