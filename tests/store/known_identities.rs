//! What every database must guarantee for known identities: no change is lost, and none is recorded twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::kratos::Flow;
use vestibule::model::delivery::{Event, NewDelivery, State};
use vestibule::model::known_identity::{IdentityRecord, KnownIdentity};
use vestibule::model::pending::{
    Details, LookupKeys, PendingKey, PendingSignUp, PendingState, SubmissionHash,
};
use vestibule::store::{
    Acceptance, Ending, Error, Filter, PendingEnd, RetryOptions, Settlement, Store, WriteSet,
};

use crate::fixtures::{DAY, MINUTE, SECOND, at, delivery, start, tried};

/// Tests a database. `$fresh` is an expression for an empty store and a value that must outlive it, if the database exists.
macro_rules! test_contract {
    ($fresh:expr) => {
        $crate::known_identities::test_contract!($fresh;
            an_older_report_does_not_replace_a_newer_one,
            the_newest_of_several_reports_in_one_write_is_kept,
            an_identity_that_is_found_stays_as_it_was_reported,
            a_change_is_stored_with_its_delivery_or_not_at_all,
            concurrent_rounds_store_a_change_once,
            concurrent_rounds_store_a_deletion_once,
            an_own_write_does_not_hide_an_earlier_change,
            unseen_identities_are_listed_page_by_page,
            unseen_identities_are_deleted_in_steps,
            a_sample_wraps_around,
            a_settings_change_is_open_until_its_outcome_is_known,
            erasure_keeps_the_deletion_and_the_identity_but_no_fingerprint,
        );
    };
    ($fresh:expr; $($test:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((store, _kept)) = $fresh.await {
                    $crate::known_identities::$test(store).await;
                }
            }
        )+
    };
}
pub(crate) use test_contract;

/// The state of an identity that Kratos saved this long after the start, and that was seen then.
fn known(identity: u128, fingerprint: &str, since_start: Duration) -> KnownIdentity {
    KnownIdentity {
        id: Uuid::from_u128(identity),
        fingerprint: fingerprint.to_owned(),
        updated_at: at(since_start),
        seen_at: at(since_start),
    }
}

fn reported(identity: u128, fingerprint: &str, since_start: Duration) -> IdentityRecord {
    IdentityRecord::Reported(known(identity, fingerprint, since_start))
}

fn found(identity: u128, fingerprint: &str, since_start: Duration) -> IdentityRecord {
    IdentityRecord::Found(known(identity, fingerprint, since_start))
}

fn changed(identity: u128, from: &str, to: &str, since_start: Duration) -> IdentityRecord {
    IdentityRecord::Changed(from.to_owned(), known(identity, to, since_start))
}

/// A write set with these records, and with a delivery that has this number.
fn batch(identities: Vec<IdentityRecord>, deliveries: &[u128]) -> WriteSet {
    let deliveries = deliveries.iter().map(|number| delivery("crm", *number));
    WriteSet {
        identities,
        ..WriteSet::of(deliveries.collect())
    }
}

async fn record(store: &dyn Store, identities: Vec<IdentityRecord>) {
    store.write(&batch(identities, &[])).await.unwrap();
}

/// The known fingerprints of the identities 1 to 9.
async fn fingerprints(store: &dyn Store) -> Vec<(u128, String)> {
    let ids: Vec<Uuid> = (1..=9).map(Uuid::from_u128).collect();
    let known: HashMap<Uuid, String> = store.known_identities(&ids).await.unwrap();
    let mut known: Vec<(u128, String)> = known
        .into_iter()
        .map(|(id, fingerprint)| (id.as_u128(), fingerprint))
        .collect();
    known.sort();
    known
}

async fn fingerprint(store: &dyn Store) -> String {
    let known = fingerprints(store).await;
    assert_eq!(known.len(), 1, "{known:?}");
    known[0].1.clone()
}

pub async fn an_older_report_does_not_replace_a_newer_one(store: Arc<dyn Store>) {
    for (report, since_start, expected) in [
        ("a", MINUTE, "a"),
        ("b", 2 * MINUTE, "b"),
        ("a", MINUTE, "b"),
        // Kratos repeats a call.
        ("b", 2 * MINUTE, "b"),
        ("c", 3 * MINUTE, "c"),
    ] {
        record(&*store, vec![reported(1, report, since_start)]).await;
        assert_eq!(fingerprint(&*store).await, expected);
    }
}

pub async fn the_newest_of_several_reports_in_one_write_is_kept(store: Arc<dyn Store>) {
    let reports = vec![
        reported(2, "old", SECOND),
        reported(1, "newest", MINUTE),
        reported(1, "older", SECOND),
        found(3, "found", SECOND),
        found(3, "found again", SECOND),
        reported(2, "new", MINUTE),
    ];
    record(&*store, reports).await;
    let expected = [(1, "newest"), (2, "new"), (3, "found again")];
    let expected = expected.map(|(id, fingerprint)| (id, fingerprint.to_owned()));
    assert_eq!(fingerprints(&*store).await, expected);
}

pub async fn an_identity_that_is_found_stays_as_it_was_reported(store: Arc<dyn Store>) {
    record(&*store, vec![found(1, "a", SECOND)]).await;
    record(&*store, vec![found(1, "b", MINUTE)]).await;
    assert_eq!(fingerprint(&*store).await, "a");
}

pub async fn a_change_is_stored_with_its_delivery_or_not_at_all(store: Arc<dyn Store>) {
    record(&*store, vec![reported(1, "a", SECOND)]).await;
    let change = |from, to, number| batch(vec![changed(1, from, to, MINUTE)], &[number]);
    assert_eq!(store.write(&change("a", "b", 1)).await.unwrap().len(), 1);
    let refused = store.write(&change("a", "c", 2)).await;
    assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    assert_eq!(fingerprint(&*store).await, "b");
    assert_eq!(store.backlog().await.unwrap().pending, 1);
}

/// Two rounds at once, because the lock of one has expired.
async fn write_concurrently(store: &Arc<dyn Store>, batches: [WriteSet; 8]) -> usize {
    let mut writers = tokio::task::JoinSet::new();
    for batch in batches {
        let store = Arc::clone(store);
        writers.spawn(async move {
            match store.write(&batch).await {
                Ok(new) => new.len(),
                Err(Error::Conflict) => 0,
                Err(error) => panic!("{}", error.error_chain()),
            }
        });
    }
    writers.join_all().await.into_iter().sum()
}

pub async fn concurrent_rounds_store_a_change_once(store: Arc<dyn Store>) {
    record(&*store, vec![reported(1, "a", SECOND)]).await;
    let batches =
        [1, 2, 3, 4, 5, 6, 7, 8].map(|number| batch(vec![changed(1, "a", "b", MINUTE)], &[number]));
    assert_eq!(write_concurrently(&store, batches).await, 1);
    assert_eq!(store.backlog().await.unwrap().pending, 1);
}

pub async fn concurrent_rounds_store_a_deletion_once(store: Arc<dyn Store>) {
    record(&*store, vec![reported(1, "a", SECOND)]).await;
    let deleted = || vec![IdentityRecord::Deleted(Uuid::from_u128(1))];
    let batches = [1, 2, 3, 4, 5, 6, 7, 8].map(|number| batch(deleted(), &[number]));
    assert_eq!(write_concurrently(&store, batches).await, 1);
    assert_eq!(fingerprints(&*store).await, []);
    assert_eq!(store.backlog().await.unwrap().pending, 1);
}

pub async fn an_own_write_does_not_hide_an_earlier_change(store: Arc<dyn Store>) {
    record(&*store, vec![reported(1, "a", SECOND)]).await;
    for (from, to, is_recorded, expected) in [
        ("a", "a+write", true, "a+write"),
        // Somebody changed the identity before the write, and that was not reported.
        ("b", "b+write", false, "a+write"),
    ] {
        let replaced = store.replace_fingerprint(from, &known(1, to, MINUTE)).await;
        assert_eq!(replaced.unwrap(), is_recorded);
        assert_eq!(fingerprint(&*store).await, expected);
    }
    let of_unknown = store.replace_fingerprint("a", &known(2, "b", MINUTE)).await;
    assert!(!of_unknown.unwrap());
}

async fn unseen(store: &dyn Store, before: Timestamp, limit: u32) -> Vec<Vec<u128>> {
    let mut after = (Timestamp::UNIX_EPOCH, Uuid::nil());
    let mut pages = Vec::new();
    loop {
        let page = store.unseen_identities(before, after, limit).await.unwrap();
        let Some(last) = page.last() else {
            return pages;
        };
        after = *last;
        pages.push(page.into_iter().map(|(_, id)| id.as_u128()).collect());
    }
}

pub async fn unseen_identities_are_listed_page_by_page(store: Arc<dyn Store>) {
    let all = [(1, MINUTE), (2, SECOND), (3, SECOND), (4, SECOND), (5, DAY)];
    let all = all.map(|(id, seen)| found(id, "a", seen));
    record(&*store, all.to_vec()).await;
    let before = at(2 * MINUTE);
    assert_eq!(
        unseen(&*store, before, 2).await,
        [vec![2, 3], vec![4, 1]],
        "the longest unseen first"
    );
    assert_eq!(unseen(&*store, at(SECOND), 2).await, [] as [Vec<u128>; 0]);
    // A round sees some of them, and one that is not known.
    let seen = [2, 1, 9].map(Uuid::from_u128);
    store.touch_identities(&seen, before).await.unwrap();
    assert_eq!(unseen(&*store, before, 9).await, [vec![3, 4]]);
    // A clock that is behind changes nothing.
    store.touch_identities(&seen, start()).await.unwrap();
    assert_eq!(unseen(&*store, before, 9).await, [vec![3, 4]]);
    assert_eq!(fingerprints(&*store).await.len(), 5);
}

pub async fn unseen_identities_are_deleted_in_steps(store: Arc<dyn Store>) {
    let all = (1..=5).map(|id| found(id, "a", SECOND));
    record(&*store, all.chain([found(6, "a", DAY)]).collect()).await;
    for expected in [2, 2, 1, 0] {
        let deleted = store.delete_unseen_identities(at(MINUTE), 2).await;
        assert_eq!(deleted.unwrap(), expected);
    }
    assert_eq!(fingerprints(&*store).await.len(), 1);
    let rest = store.delete_unseen_identities(Timestamp::MAX_UTC, 9).await;
    assert_eq!(rest.unwrap(), 1);
}

pub async fn a_sample_wraps_around(store: Arc<dyn Store>) {
    record(&*store, (1..=5).map(|id| found(id, "a", SECOND)).collect()).await;
    for (from, limit, expected) in [
        (1, 2, vec![1, 2]),
        (4, 3, vec![4, 5, 1]),
        (9, 9, vec![1, 2, 3, 4, 5]),
        (3, 9, vec![3, 4, 5, 1, 2]),
    ] {
        let sample = store.sample_identities(Uuid::from_u128(from), limit).await;
        let sample: Vec<u128> = sample.unwrap().iter().map(Uuid::as_u128).collect();
        assert_eq!(sample, expected);
    }
}

pub async fn a_settings_change_is_open_until_its_outcome_is_known(store: Arc<dyn Store>) {
    let id = Uuid::from_u128(1);
    let sign_up = PendingSignUp {
        key: PendingKey {
            flow_id: Uuid::from_u128(7),
            submission: "one".to_owned(),
        },
        flow: Flow::Settings,
        method: "profile".to_owned(),
        hash: SubmissionHash {
            traits: "hash".to_owned(),
            transient_payload: "hash".to_owned(),
        },
        guarded: false,
        last_known_absent_at: start(),
        accepted_at: start(),
        expires_at: at(MINUTE),
        state: PendingState::Open,
        identity_id: None,
        details: Details {
            lookup_keys: LookupKeys {
                identity_id: Some(id),
                ..LookupKeys::default()
            },
            ..Details::default()
        },
    };
    let is_open = async || store.has_open_change(id).await.unwrap();
    assert!(!is_open().await);
    let accepted = WriteSet {
        accepted: vec![Acceptance {
            sign_up: sign_up.clone(),
            next_lookup_at: None,
            must_hold: false,
        }],
        ..WriteSet::default()
    };
    store.write(&accepted).await.unwrap();
    assert!(is_open().await);
    assert!(!store.has_open_change(Uuid::from_u128(2)).await.unwrap());
    let ended = WriteSet {
        ended: vec![Ending::of(&sign_up, PendingEnd::NeverCreated)],
        ..WriteSet::default()
    };
    store.write(&ended).await.unwrap();
    assert!(!is_open().await);
}

fn deletion(subscription: &str) -> NewDelivery {
    NewDelivery {
        event: Event::IdentityDeleted,
        ..delivery(subscription, 1)
    }
}

pub async fn erasure_keeps_the_deletion_and_the_identity_but_no_fingerprint(store: Arc<dyn Store>) {
    let id = Uuid::from_u128(1);
    let pending = WriteSet {
        identities: vec![reported(1, "a", SECOND)],
        ..WriteSet::of(vec![
            deletion("failed"),
            deletion("erp"),
            delivery("crm", 1),
        ])
    };
    store.write(&pending).await.unwrap();
    let held = store.claim("failed", start(), MINUTE, 1).await.unwrap();
    let abandoned = Settlement::of(
        &held[0],
        tried(410, start()),
        vestibule::model::delivery::Outcome::Abandoned,
    );
    store.settle_all(&[abandoned]).await.unwrap();
    assert_eq!(
        store.identities_with_data(Uuid::nil(), 9).await.unwrap(),
        [id]
    );

    assert_eq!(store.forget(id, at(MINUTE)).await.unwrap(), 1);
    assert_eq!(
        store.identities_with_data(Uuid::nil(), 9).await.unwrap(),
        [] as [Uuid; 0]
    );
    assert_eq!(fingerprint(&*store).await, "");
    let listed = store.list(&Filter::default(), 9).await.unwrap();
    let state_of = |subscription: &str| {
        let mut listed = listed.iter();
        let one = listed.find(|one| one.subscription == subscription).unwrap();
        (one.state, one.last_error.as_deref())
    };
    assert_eq!(state_of("erp"), (State::Pending, None));
    assert_eq!(state_of("failed"), (State::Abandoned, None));
    assert_eq!(
        state_of("crm"),
        (State::Discarded, Some("the identity was deleted"))
    );
    let held = store.claim("erp", at(MINUTE), MINUTE, 9).await.unwrap();
    assert_eq!(held.len(), 1);
    let retried = store
        .retry(&Filter::default(), at(MINUTE), RetryOptions::of(DAY))
        .await;
    assert_eq!(retried.unwrap(), 1, "the abandoned one");
}
