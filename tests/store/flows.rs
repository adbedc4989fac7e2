//! What every database has to keep about flows: the journal, reservations, and what follows a try.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::delivery::{Outcome, Put, Scene, State, Work};
use vestibule::journal::{Clues, Deferred, Details, End, Entry, PATIENCE};
use vestibule::kratos::Flow;
use vestibule::reservation::{self, Because, Reservation};
use vestibule::store::{Batch, Error, Settlement, Store};

use crate::scenes::{MINUTE, SECOND, at, delivery, id_of, start, tried};

/// Asks a database for every promise. `$fresh` is an expression for an empty one and what must outlive it, if there is one.
macro_rules! ask {
    ($fresh:expr) => {
        $crate::flows::ask!($fresh;
            a_yes_is_kept_as_it_was_until_it_is_closed,
            of_one_flow_the_latest_yes_counts,
            a_yes_is_looked_at_by_one_after_a_minute,
            everybody_is_looked_at_when_asked,
            an_ended_yes_is_looked_at_no_more_and_forgets_who_it_was,
            a_yes_that_was_given_anew_is_not_closed_in_place_of_the_older,
            a_reservation_goes_its_way_once,
            two_for_the_same_check_and_flow_are_not_open_at_once,
            what_is_stored_together_is_stored_together_or_not_at_all,
            only_what_the_journal_leaves_open_expires,
            what_follows_a_try_is_stored_with_it_and_only_if_it_counted,
            tries_are_kept_in_their_order,
        );
    };
    ($fresh:expr; $($promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some((store, _kept)) = $fresh.await {
                    $crate::flows::$promise(store).await;
                }
            }
        )+
    };
}
pub(crate) use ask;

const HOUR: Duration = Duration::from_hours(1);

fn entry(flow: u128) -> Entry {
    Entry {
        flow_id: Uuid::from_u128(flow),
        flow: Flow::Registration,
        method: "password".to_owned(),
        asked_at: start(),
        opened_at: start(),
        expires_at: at(HOUR),
        looks: 0,
        details: Details {
            clues: Clues {
                identifiers: vec!["ada@example.org".to_owned(), "quote\"'\u{e9}".to_owned()],
                external_id: Some("vestibule:1".to_owned()),
                identity_id: None,
            },
            scene: Scene {
                identity: Some(json!({"traits": {"email": "ada@example.org"}})),
                flow: Some(json!({"id": "f"})),
                method: "password".to_owned(),
                now: start(),
                ..Scene::default()
            },
            deferred: vec![Deferred {
                check: "vat".to_owned(),
                request: request("/check"),
                value: Some(json!("DE1")),
            }],
        },
    }
}

fn request(path: &str) -> vestibule::request::Request {
    vestibule::request::Request {
        method: vestibule::request::Method::Post,
        path: path.to_owned(),
        headers: Vec::new(),
        body: None,
    }
}

fn reserved(number: u128, flow: u128, check: &str) -> Reservation {
    Reservation {
        id: Uuid::from_u128(number),
        flow_id: Uuid::from_u128(flow),
        check: check.to_owned(),
        asked: "hash".to_owned(),
        state: reservation::State::Taking,
        details: Some(details(None)),
        because: None,
        created_at: start(),
        expires_at: at(HOUR),
    }
}

fn details(taken: Option<serde_json::Value>) -> reservation::Details {
    reservation::Details {
        take: request("/hold"),
        scene: Scene {
            taken,
            now: start(),
            ..Scene::default()
        },
    }
}

async fn open(store: &Arc<dyn Store>, entries: Vec<Entry>) {
    let batch = Batch {
        opened: entries,
        ..Batch::default()
    };
    store.write(&batch).await.unwrap();
}

async fn known(store: &Arc<dyn Store>, flow: u128) -> Option<Entry> {
    store.flow(Uuid::from_u128(flow)).await.unwrap().entry
}

async fn state_of(
    store: &Arc<dyn Store>,
    flow: u128,
) -> Vec<(reservation::State, Option<Because>)> {
    let state = store.flow(Uuid::from_u128(flow)).await.unwrap();
    let all = state.reservations.iter();
    all.map(|one| (one.state, one.because)).collect()
}

pub async fn a_yes_is_kept_as_it_was_until_it_is_closed(store: Arc<dyn Store>) {
    open(&store, vec![entry(1), entry(2)]).await;
    assert_eq!(known(&store, 1).await, Some(entry(1)));
    let batch = Batch {
        closed: vec![Uuid::from_u128(1), Uuid::from_u128(9)],
        ..Batch::of(vec![delivery("crm", 1)])
    };
    assert_eq!(store.write(&batch).await.unwrap().len(), 1);
    assert_eq!(known(&store, 1).await, None);
    assert_eq!(known(&store, 2).await, Some(entry(2)));
}

pub async fn of_one_flow_the_latest_yes_counts(store: Arc<dyn Store>) {
    let mut second = entry(1);
    second.opened_at = at(SECOND);
    open(&store, vec![entry(1), second.clone()]).await;
    assert_eq!(known(&store, 1).await, Some(second.clone()));
    let mut third = second;
    third.opened_at = at(2 * SECOND);
    third.details = Details::default();
    third.asked_at = at(2 * SECOND);
    open(&store, vec![third.clone()]).await;
    // The account may have come of the first.
    third.asked_at = start();
    assert_eq!(known(&store, 1).await, Some(third));
}

pub async fn a_yes_is_looked_at_by_one_after_a_minute(store: Arc<dyn Store>) {
    assert_eq!(store.next_look().await.unwrap(), None);
    open(&store, (0..20).map(entry).collect()).await;
    assert_eq!(store.next_look().await.unwrap(), Some(at(PATIENCE)));
    let take = async |since, limit| {
        let lease = 5 * MINUTE;
        store.take_entries(at(since), lease, limit).await.unwrap()
    };
    assert_eq!(take(59 * SECOND, 100).await, []);
    let lookers = (0..4).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .take_entries(at(PATIENCE), 5 * MINUTE, 7)
                .await
                .unwrap()
        })
    });
    let mut taken = Vec::new();
    for looker in lookers.collect::<Vec<_>>() {
        taken.extend(looker.await.unwrap());
    }
    taken.extend(take(PATIENCE, 100).await);
    assert!(taken.iter().all(|entry| entry.looks == 1));
    taken.sort_by_key(|entry| entry.flow_id);
    taken.dedup_by_key(|entry| entry.flow_id);
    assert_eq!(taken.len(), 20, "each by one");
    // Whoever looked and died leaves them to others.
    assert_eq!(take(PATIENCE + 5 * MINUTE, 100).await.len(), 20);
    store
        .look_again(Uuid::from_u128(3), at(HOUR))
        .await
        .unwrap();
    assert_eq!(take(PATIENCE + 10 * MINUTE, 100).await.len(), 19);
}

pub async fn everybody_is_looked_at_when_asked(store: Arc<dyn Store>) {
    open(&store, vec![entry(1), entry(2)]).await;
    assert_eq!(store.look_at_all(at(SECOND)).await.unwrap(), 2);
    let taken = store.take_entries(at(SECOND), MINUTE, 10).await.unwrap();
    assert_eq!(taken.len(), 2);
}

pub async fn an_ended_yes_is_looked_at_no_more_and_forgets_who_it_was(store: Arc<dyn Store>) {
    open(&store, vec![entry(1), entry(2)]).await;
    let batch = Batch {
        ended: vec![
            (entry(1).yes(), End::NeverCreated),
            (entry(2).yes(), End::Undecided),
        ],
        ..Batch::default()
    };
    store.write(&batch).await.unwrap();
    assert_eq!(known(&store, 1).await, None);
    assert_eq!(store.next_look().await.unwrap(), None);
    assert_eq!(store.take_entries(at(HOUR), MINUTE, 9).await.unwrap(), []);
}

pub async fn a_yes_that_was_given_anew_is_not_closed_in_place_of_the_older(store: Arc<dyn Store>) {
    let mut anew = entry(1);
    anew.opened_at = at(SECOND);
    open(&store, vec![entry(1)]).await;
    open(&store, vec![anew.clone()]).await;
    let found = Batch {
        found: vec![entry(1).yes()],
        ..Batch::default()
    };
    let ended = Batch {
        ended: vec![(entry(1).yes(), End::NeverCreated)],
        ..Batch::default()
    };
    for older in [found, ended] {
        let error = store.write(&older).await.unwrap_err();
        assert!(matches!(error, Error::Changed), "{error}");
    }
    assert_eq!(known(&store, 1).await, Some(anew.clone()));
    let found = Batch {
        found: vec![anew.yes()],
        ..Batch::default()
    };
    store.write(&found).await.unwrap();
    assert_eq!(known(&store, 1).await, None);
}

pub async fn a_reservation_goes_its_way_once(store: Arc<dyn Store>) {
    let batch = Batch {
        reserved: vec![reserved(1, 1, "invite"), reserved(2, 2, "invite")],
        ..Batch::default()
    };
    store.write(&batch).await.unwrap();
    let one = store.flow(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(one.reservations, [reserved(1, 1, "invite")]);
    let taken = details(Some(json!({"status": 201, "body": {"hold": "\"h\""}})));
    assert!(store.taken(Uuid::from_u128(1), &taken).await.unwrap());
    // Two calls of one form at the same moment are told the same.
    assert!(store.taken(Uuid::from_u128(1), &taken).await.unwrap());
    let kept = store.flow(Uuid::from_u128(1)).await.unwrap().reservations;
    assert_eq!(kept[0].details, Some(taken.clone()));
    // And what one of them takes to be unclear is the other's.
    let unclear = Batch {
        released: vec![(Uuid::from_u128(1), Because::Unclear)],
        ..Batch::default()
    };
    assert!(store.write(&unclear).await.is_err());
    // What is taken cannot be "not taken".
    store.not_taken(Uuid::from_u128(1)).await.unwrap();
    store.not_taken(Uuid::from_u128(2)).await.unwrap();
    assert_eq!(state_of(&store, 2).await, []);

    let confirmed = Batch {
        confirmed: vec![Uuid::from_u128(1)],
        ..Batch::default()
    };
    store.write(&confirmed).await.unwrap();
    assert_eq!(
        state_of(&store, 1).await,
        [(reservation::State::Confirmed, None)]
    );
    assert!(!store.taken(Uuid::from_u128(1), &taken).await.unwrap());
    let released = Batch {
        released: vec![(Uuid::from_u128(1), Because::Expired)],
        ..Batch::default()
    };
    for again in [confirmed, released] {
        let error = store.write(&again).await.unwrap_err();
        assert!(matches!(error, Error::Changed), "{error:?}");
    }
}

pub async fn two_for_the_same_check_and_flow_are_not_open_at_once(store: Arc<dyn Store>) {
    let reserve = |reserved, released| Batch {
        reserved,
        released,
        ..Batch::default()
    };
    store
        .write(&reserve(
            vec![reserved(1, 1, "invite"), reserved(2, 1, "seat")],
            vec![],
        ))
        .await
        .unwrap();
    let second = vec![reserved(3, 1, "invite")];
    assert!(store.write(&reserve(second.clone(), vec![])).await.is_err());
    let changed = vec![(Uuid::from_u128(1), Because::Changed)];
    store.write(&reserve(second, changed)).await.unwrap();
    assert_eq!(
        state_of(&store, 1).await,
        [
            (reservation::State::Released, Some(Because::Changed)),
            (reservation::State::Taking, None),
            (reservation::State::Taking, None),
        ]
    );
}

pub async fn what_is_stored_together_is_stored_together_or_not_at_all(store: Arc<dyn Store>) {
    open(&store, vec![entry(1)]).await;
    let batch = Batch {
        closed: vec![Uuid::from_u128(1)],
        // Nobody has taken this.
        confirmed: vec![Uuid::from_u128(404)],
        ..Batch::of(vec![delivery("crm", 1)])
    };
    assert!(store.write(&batch).await.is_err());
    assert_eq!(known(&store, 1).await, Some(entry(1)));
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn only_what_the_journal_leaves_open_expires(store: Arc<dyn Store>) {
    let batch = Batch {
        reserved: vec![reserved(1, 1, "invite"), reserved(2, 2, "invite")],
        opened: vec![entry(2)],
        ..Batch::default()
    };
    store.write(&batch).await.unwrap();
    assert_eq!(store.expired(at(59 * MINUTE), 10).await.unwrap(), []);
    let expired = store.expired(at(HOUR), 10).await.unwrap();
    assert_eq!(expired, [reserved(1, 1, "invite")]);
}

pub async fn what_follows_a_try_is_stored_with_it_and_only_if_it_counted(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = store
        .claim("crm", start(), MINUTE, 1)
        .await
        .unwrap()
        .remove(0);
    let mut follower = delivery("save:crm", 1);
    follower.work = Ok(Work::Write(vec![Put {
        path: vec!["metadata_admin".to_owned(), "crm".to_owned()],
        value: Some(json!(1)),
    }]));
    let settlement = Settlement {
        followers: vec![follower.clone()],
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    for expected in [1, 0] {
        let settled = store.settle_all(std::slice::from_ref(&settlement)).await;
        assert_eq!(settled.unwrap().len(), expected);
    }
    let held = store.claim("save:crm", start(), MINUTE, 9).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].work, follower.work.unwrap());

    // Somebody whose lease had ended brings forth nothing.
    let late = Settlement {
        followers: vec![delivery("late", 1)],
        ..Settlement::of(&held[0], tried(200, start()), Outcome::Delivered)
    };
    store.give_back(&held, start()).await.unwrap();
    assert_eq!(store.settle_all(&[late]).await.unwrap().len(), 0);
    assert_eq!(store.claim("late", start(), MINUTE, 9).await.unwrap(), []);
}

pub async fn tries_are_kept_in_their_order(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    for (status, outcome) in [
        (503, Outcome::RetryAt(start())),
        (500, Outcome::RetryAt(start())),
        (204, Outcome::Delivered),
    ] {
        let held = store
            .claim("crm", start(), MINUTE, 1)
            .await
            .unwrap()
            .remove(0);
        let mut record = tried(status, start());
        record.ended_at = at(SECOND);
        store.settle(&held, &record, &outcome).await.unwrap();
    }
    let shown = store.show(id_of("crm", 1)).await.unwrap().unwrap();
    assert_eq!(shown.listed.state, State::Delivered);
    assert_eq!(shown.work, None, "its payload is forgotten");
    let tries: Vec<_> = shown
        .tries
        .iter()
        .map(|one| {
            (
                one.attempt,
                one.status,
                one.duration_ms,
                one.error.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        tries,
        [
            (1, Some(503), 1000, Some("status 503")),
            (2, Some(500), 1000, Some("status 500")),
            (3, Some(204), 1000, None),
        ]
    );
    assert_eq!(store.show(Uuid::from_u128(404)).await.unwrap(), None);
}
