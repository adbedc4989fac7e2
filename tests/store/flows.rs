//! What every database must guarantee for flows: submissions, reservations, and follow-ups of an attempt.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::kratos::Flow;
use vestibule::model::delivery::{Action, EvaluationContext, FieldWrite, Outcome, State};
use vestibule::model::pending::{
    AttributedSubmission, Deferred, Details, FlowRecord, LookupKeys, LookupKind, PendingKey,
    PendingSignUp, PendingState, SubmissionHash,
};
use vestibule::model::reservation::{self, ReleaseReason, Reservation};
use vestibule::store::{
    Acceptance, Closing, Ending, Error, PendingEnd, Release, Settlement, Store, WriteSet,
};

use vestibule::base::clock::Timestamp;
use vestibule_testing::join_all;

use crate::fixtures::{DeliveryStoreExt as _, MINUTE, SECOND, at, delivery, id_of, start, tried};

/// Tests a database. `$fresh` is an expression for an empty store and a value that must outlive it, if the database exists.
macro_rules! test_contract {
    ($fresh:expr) => {
        $crate::flows::test_contract!($fresh;
            a_submission_is_kept_unchanged_until_its_flow_is_closed,
            each_submission_of_a_flow_is_kept_and_a_retried_call_is_one_submission,
            a_closed_flow_rejects_acceptances_that_must_hold,
            recording_an_acceptance_and_closing_the_flow_exclude_each_other,
            a_flow_is_looked_up_by_one_instance,
            recent_sign_ups_can_be_looked_up_immediately,
            a_flow_becomes_urgent_once_a_minute_at_most,
            a_leased_flow_that_becomes_urgent_is_looked_up_again_afterwards,
            an_outcome_is_stored_once_and_only_for_the_version_that_was_read,
            a_newer_submission_keeps_its_own_look_up,
            a_reservation_in_use_is_not_released,
            only_one_submission_takes_over_a_reservation,
            a_reservation_changes_its_state_only_once,
            a_released_reservation_is_taken_again_once,
            a_closed_flow_keeps_no_details_of_its_released_reservations,
            a_flow_with_a_planned_look_up_keeps_its_reservations,
            erasure_deletes_the_details_of_the_reservations_of_an_identity,
            a_settings_change_is_found_by_its_identity_and_traits,
            the_submissions_of_an_identity_are_listed_with_their_reservations,
            an_attributed_submission_is_not_recorded_again,
            a_flow_is_found_by_the_external_id_of_a_later_submission,
            a_delivery_is_pending_until_it_is_delivered,
            one_check_cannot_reserve_twice_for_one_flow,
            a_write_set_is_stored_completely_or_not_at_all,
            a_reservation_is_unused_only_if_no_submission_can_need_it,
            follow_up_deliveries_are_stored_only_with_a_valid_settlement,
            attempts_are_kept_in_order,
        );
    };
    ($fresh:expr; $($test:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((store, _kept)) = $fresh.await {
                    vestibule_testing::bounded(stringify!($test), $crate::flows::$test(store)).await;
                }
            }
        )+
    };
}
pub(crate) use test_contract;

const HOUR: Duration = Duration::from_hours(1);

fn key(flow: u128, submission: &str) -> PendingKey {
    PendingKey {
        flow_id: Uuid::from_u128(flow),
        submission: submission.to_owned(),
    }
}

fn sign_up(flow: u128) -> PendingSignUp {
    PendingSignUp {
        key: key(flow, "trigger-1"),
        flow: Flow::Registration,
        method: "password".to_owned(),
        hash: SubmissionHash {
            traits: "traits".to_owned(),
            transient_payload: "payload".to_owned(),
        },
        guarded: true,
        last_known_absent_at: start(),
        accepted_at: start(),
        expires_at: at(HOUR),
        state: PendingState::Open,
        identity_id: None,
        details: Details {
            lookup_keys: LookupKeys {
                identifiers: vec!["ada@example.org".to_owned(), "quote\"'\u{e9}".to_owned()],
                external_id: Some("vestibule:1".to_owned()),
                identity_id: None,
            },
            context: EvaluationContext {
                identity: Some(json!({"traits": {"email": "ada@example.org"}})),
                flow: Some(json!({"id": "f"})),
                method: "password".to_owned(),
                now: start(),
                ..EvaluationContext::default()
            },
            deferred: vec![Deferred {
                check: "vat".to_owned(),
                request: request("/check"),
                value: Some(json!("DE1")),
            }],
            reservations: vec![Uuid::from_u128(77)],
            no_longer_deferred: Vec::new(),
            no_longer_refused: Vec::new(),
        },
    }
}

fn acceptance(sign_up: PendingSignUp) -> Acceptance {
    Acceptance {
        next_lookup_at: Some(sign_up.accepted_at + FIRST_LOOK_UP),
        sign_up,
        must_hold: false,
    }
}

const FIRST_LOOK_UP: Duration = Duration::from_secs(5);

fn request(path: &str) -> vestibule::model::request::Request {
    vestibule::model::request::Request {
        method: vestibule::model::request::Method::Post,
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
        request_hash: "hash".to_owned(),
        state: reservation::State::Taking,
        details: Some(details(None)),
        release_reason: None,
        created_at: start(),
        expires_at: at(HOUR),
        submission: "trigger-1".to_owned(),
        in_use_until: at(5 * SECOND),
    }
}

fn released(number: u128, reason: ReleaseReason, unused_since: Timestamp) -> Release {
    Release {
        id: Uuid::from_u128(number),
        release_reason: reason,
        unused_since,
        kept: None,
    }
}

fn details(taken: Option<serde_json::Value>) -> reservation::Details {
    reservation::Details {
        take: request("/hold"),
        context: EvaluationContext {
            taken,
            now: start(),
            ..EvaluationContext::default()
        },
    }
}

async fn accept(store: &Arc<dyn Store>, sign_ups: Vec<PendingSignUp>) {
    let batch = WriteSet {
        accepted: sign_ups.into_iter().map(acceptance).collect(),
        ..WriteSet::default()
    };
    store.write(&batch).await.unwrap();
}

async fn pending(store: &Arc<dyn Store>, flow: u128) -> Vec<PendingSignUp> {
    store.flow(Uuid::from_u128(flow)).await.unwrap().pending
}

async fn record(store: &Arc<dyn Store>, flow: u128) -> Option<FlowRecord> {
    let records = store.flow_records(&[Uuid::from_u128(flow)]).await;
    records.unwrap().pop()
}

fn closing(flow: u128, identity: u128) -> Closing {
    Closing {
        flow_id: Uuid::from_u128(flow),
        flow: Flow::Registration,
        identity_id: Uuid::from_u128(identity),
        expires_at: at(HOUR),
        at: at(SECOND),
    }
}

async fn reservation_states(
    store: &Arc<dyn Store>,
    flow: u128,
) -> Vec<(reservation::State, Option<ReleaseReason>)> {
    let state = store.flow(Uuid::from_u128(flow)).await.unwrap();
    let all = state.reservations.iter();
    all.map(|one| (one.state, one.release_reason)).collect()
}

pub async fn a_submission_is_kept_unchanged_until_its_flow_is_closed(store: Arc<dyn Store>) {
    accept(&store, vec![sign_up(1), sign_up(2)]).await;
    assert_eq!(pending(&store, 1).await, [sign_up(1)]);
    let batch = WriteSet {
        // The second flow has no submission, because its `pre` was lost.
        closed: vec![closing(1, 71), closing(9, 79)],
        ..WriteSet::of(vec![delivery("crm", 1)])
    };
    assert_eq!(store.write(&batch).await.unwrap().len(), 1);
    assert_eq!(pending(&store, 1).await, []);
    assert_eq!(pending(&store, 2).await, [sign_up(2)]);
    for (flow, identity) in [(1, Some(71)), (9, Some(79)), (2, None)] {
        let record = record(&store, flow).await.unwrap();
        assert_eq!(record.identity_id, identity.map(Uuid::from_u128));
    }
    assert_eq!(record(&store, 404).await, None);
    // A repeated `post` is accepted, one of another identity is not.
    let again = |identity| WriteSet {
        closed: vec![closing(1, identity)],
        ..WriteSet::default()
    };
    store.write(&again(71)).await.unwrap();
    let error = store.write(&again(72)).await.unwrap_err();
    assert!(matches!(error, Error::Conflict), "{error}");
}

pub async fn each_submission_of_a_flow_is_kept_and_a_retried_call_is_one_submission(
    store: Arc<dyn Store>,
) {
    let mut second = sign_up(1);
    second.key = key(1, "trigger-2");
    second.accepted_at = at(SECOND);
    accept(&store, vec![sign_up(1), second.clone()]).await;
    assert_eq!(pending(&store, 1).await, [sign_up(1), second.clone()]);
    assert_eq!(record(&store, 1).await.unwrap().submissions, 2);
    let mut retried = second;
    retried.accepted_at = at(2 * SECOND);
    retried.details = Details::default();
    accept(&store, vec![retried.clone()]).await;
    assert_eq!(pending(&store, 1).await, [sign_up(1), retried]);
    let record = record(&store, 1).await.unwrap();
    assert_eq!((record.submissions, record.newest_at), (2, at(2 * SECOND)));
}

pub async fn a_closed_flow_rejects_acceptances_that_must_hold(store: Arc<dyn Store>) {
    let close = WriteSet {
        closed: vec![closing(1, 71)],
        ..WriteSet::default()
    };
    store.write(&close).await.unwrap();
    let must_hold = WriteSet {
        accepted: vec![Acceptance {
            must_hold: true,
            ..acceptance(sign_up(1))
        }],
        ..WriteSet::of(vec![delivery("crm", 1)])
    };
    let error = store.write(&must_hold).await.unwrap_err();
    assert!(matches!(error, Error::Conflict), "{error}");
    assert_eq!(pending(&store, 1).await, []);
    assert_eq!(store.backlog().await.unwrap().pending, 0);
    // An acceptance that need not hold neither fails nor opens the flow again, and leaves nothing behind.
    accept(&store, vec![sign_up(1)]).await;
    assert_eq!(pending(&store, 1).await, []);
    let record = record(&store, 1).await.unwrap();
    assert_eq!(record.identity_id, Some(Uuid::from_u128(71)));
    assert_eq!(store.next_lookup().await.unwrap(), None);
}

pub async fn recording_an_acceptance_and_closing_the_flow_exclude_each_other(
    store: Arc<dyn Store>,
) {
    for flow in 1..=12_u128 {
        let accepting = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let batch = WriteSet {
                    accepted: vec![Acceptance {
                        must_hold: true,
                        ..acceptance(sign_up(flow))
                    }],
                    ..WriteSet::default()
                };
                store.write(&batch).await.is_ok()
            })
        };
        let batch = WriteSet {
            closed: vec![closing(flow, 70 + flow)],
            ..WriteSet::default()
        };
        store.write(&batch).await.unwrap();
        accepting.await.unwrap();
        // In either order: the flow is closed and has no pending submission.
        let record = record(&store, flow).await.unwrap();
        assert_eq!(record.identity_id, Some(Uuid::from_u128(70 + flow)));
        assert_eq!(pending(&store, flow).await, []);
    }
    assert_eq!(store.next_lookup().await.unwrap(), None);
}

pub async fn a_flow_is_looked_up_by_one_instance(store: Arc<dyn Store>) {
    assert_eq!(store.next_lookup().await.unwrap(), None);
    accept(&store, (0..20).map(sign_up).collect()).await;
    assert_eq!(store.next_lookup().await.unwrap(), Some(at(FIRST_LOOK_UP)));
    let lease = async |since, limit| {
        let lease = 5 * MINUTE;
        store
            .lease_flows(LookupKind::Planned, at(since), lease, limit)
            .await
            .unwrap()
    };
    assert_eq!(lease(4 * SECOND, 100).await, []);
    let instances = (0..4).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .lease_flows(LookupKind::Planned, at(FIRST_LOOK_UP), 5 * MINUTE, 7)
                .await
                .unwrap()
        })
    });
    let mut leased = join_all("each lease returns", instances).await.concat();
    leased.extend(lease(FIRST_LOOK_UP, 100).await);
    assert!(leased.iter().all(|record| record.lookups == 1));
    leased.sort_by_key(|record| record.flow_id);
    leased.dedup_by_key(|record| record.flow_id);
    assert_eq!(leased.len(), 20, "each flow once");
    // Another instance takes over the flows of a crashed one.
    let again = lease(FIRST_LOOK_UP + 5 * MINUTE, 100).await;
    assert_eq!(again.len(), 20);
    for (record, then) in [(&again[3], Some(at(HOUR))), (&again[4], None)] {
        store.reschedule_lookup(record, then).await.unwrap();
    }
    assert_eq!(lease(FIRST_LOOK_UP + 10 * MINUTE, 100).await.len(), 18);
}

pub async fn recent_sign_ups_can_be_looked_up_immediately(store: Arc<dyn Store>) {
    let mut of_settings = sign_up(3);
    of_settings.flow = Flow::Settings;
    accept(&store, vec![sign_up(1), sign_up(2), of_settings]).await;
    let now = |since| store.look_up_all_now(at(SECOND), since);
    assert_eq!(now(at(SECOND)).await.unwrap(), 0, "the sign-ups are older");
    assert_eq!(now(start()).await.unwrap(), 2);
    let leased = store
        .lease_flows(LookupKind::Urgent, at(SECOND), MINUTE, 10)
        .await
        .unwrap();
    assert_eq!(leased.len(), 2);
}

pub async fn a_flow_becomes_urgent_once_a_minute_at_most(store: Arc<dyn Store>) {
    let mut sign_up = sign_up(1);
    let planned = at(9 * MINUTE);
    sign_up.accepted_at = start();
    store
        .write(&WriteSet {
            accepted: vec![Acceptance {
                sign_up,
                next_lookup_at: Some(planned),
                must_hold: false,
            }],
            ..WriteSet::default()
        })
        .await
        .unwrap();
    let mut looked_up_at = Vec::new();
    // An unreadable `post` arrives every second, for five minutes.
    for second in 1..300 {
        let now = at(second * SECOND);
        store.look_up_all_now(now, start()).await.unwrap();
        let planned_ones = store.lease_flows(LookupKind::Planned, now, MINUTE, 9).await;
        assert_eq!(planned_ones.unwrap(), []);
        let urgent = store.lease_flows(LookupKind::Urgent, now, MINUTE, 9).await;
        for record in urgent.unwrap() {
            looked_up_at.push(second);
            let leased = store.lease_flows(LookupKind::Urgent, now, MINUTE, 9).await;
            assert_eq!(leased.unwrap(), [], "it is leased");
            let done = store.reschedule_lookup(&record, Some(planned)).await;
            done.unwrap();
        }
    }
    assert_eq!(looked_up_at, [1, 61, 121, 181, 241]);
}

pub async fn a_leased_flow_that_becomes_urgent_is_looked_up_again_afterwards(
    store: Arc<dyn Store>,
) {
    accept(&store, vec![sign_up(1)]).await;
    let now = at(FIRST_LOOK_UP);
    let leased = store
        .lease_flows(LookupKind::Planned, now, 5 * MINUTE, 9)
        .await;
    let leased = leased.unwrap().remove(0);
    let meanwhile = at(FIRST_LOOK_UP + SECOND);
    assert_eq!(store.look_up_all_now(meanwhile, start()).await.unwrap(), 1);
    for kind in [LookupKind::Planned, LookupKind::Urgent] {
        let twice = store.lease_flows(kind, meanwhile, MINUTE, 9).await;
        assert_eq!(twice.unwrap(), [], "another instance is looking it up");
    }
    store
        .reschedule_lookup(&leased, Some(at(HOUR)))
        .await
        .unwrap();
    assert_eq!(store.next_lookup().await.unwrap(), Some(meanwhile));
    let urgent = store
        .lease_flows(LookupKind::Urgent, meanwhile, MINUTE, 9)
        .await;
    let urgent = urgent.unwrap().remove(0);
    store
        .reschedule_lookup(&urgent, Some(at(HOUR)))
        .await
        .unwrap();
    assert_eq!(store.next_lookup().await.unwrap(), Some(at(HOUR)));
}

pub async fn an_outcome_is_stored_once_and_only_for_the_version_that_was_read(
    store: Arc<dyn Store>,
) {
    let mut newer = sign_up(1);
    newer.accepted_at = at(SECOND);
    accept(&store, vec![sign_up(1), sign_up(2)]).await;
    accept(&store, vec![newer.clone()]).await;
    let end = |sign_up: &PendingSignUp, end| WriteSet {
        ended: vec![Ending::of(sign_up, end)],
        ..WriteSet::default()
    };
    let attributed = PendingEnd::Attributed(Uuid::from_u128(71));
    for outcome in [PendingEnd::NeverCreated, PendingEnd::Undecided, attributed] {
        let error = store.write(&end(&sign_up(1), outcome)).await.unwrap_err();
        assert!(matches!(error, Error::Conflict), "{error}");
    }
    assert_eq!(pending(&store, 1).await, std::slice::from_ref(&newer));
    // A sign-up without an account can still turn out to have one.
    store
        .write(&end(&newer, PendingEnd::NeverCreated))
        .await
        .unwrap();
    let kept = pending(&store, 1).await.remove(0);
    assert_eq!(kept.state, PendingState::NeverCreated);
    assert_eq!(kept.details, newer.details);
    store.write(&end(&newer, attributed)).await.unwrap();
    let kept = pending(&store, 1).await.remove(0);
    assert_eq!(kept.state, PendingState::Attributed);
    assert_eq!(kept.identity_id, Some(Uuid::from_u128(71)));
    assert_eq!(
        kept.details,
        Details::default(),
        "the personal data is deleted"
    );
    for outcome in [PendingEnd::NeverCreated, attributed] {
        assert!(store.write(&end(&newer, outcome)).await.is_err());
    }
}

pub async fn a_newer_submission_keeps_its_own_look_up(store: Arc<dyn Store>) {
    accept(&store, vec![sign_up(1)]).await;
    let leased = store
        .lease_flows(LookupKind::Planned, at(MINUTE), MINUTE, 9)
        .await
        .unwrap();
    let mut newer = sign_up(1);
    newer.key = key(1, "trigger-2");
    newer.accepted_at = at(MINUTE);
    accept(&store, vec![newer]).await;
    store.reschedule_lookup(&leased[0], None).await.unwrap();
    let expected = at(MINUTE + FIRST_LOOK_UP);
    assert_eq!(store.next_lookup().await.unwrap(), Some(expected));
}

pub async fn a_reservation_in_use_is_not_released(store: Arc<dyn Store>) {
    let reserve = WriteSet {
        reserved: vec![reserved(1, 1, "invite")],
        ..WriteSet::default()
    };
    store.write(&reserve).await.unwrap();
    let release = |since| WriteSet {
        released: vec![released(1, ReleaseReason::Changed, since)],
        ..WriteSet::default()
    };
    assert!(store.write(&release(at(4 * SECOND))).await.is_err());
    let id = Uuid::from_u128(1);
    assert!(store.share_reservation(id, at(9 * SECOND)).await.unwrap());
    assert!(store.write(&release(at(8 * SECOND))).await.is_err());
    // A submission with a reservation is accepted only while it is reserved.
    let accept = WriteSet {
        used: vec![(id, at(20 * SECOND))],
        ..WriteSet::default()
    };
    assert!(store.write(&accept).await.is_err(), "not reserved yet");
    store
        .mark_reserved(id, &details(Some(json!({}))))
        .await
        .unwrap();
    store.write(&accept).await.unwrap();
    assert!(store.write(&release(at(19 * SECOND))).await.is_err());
    store.write(&release(at(20 * SECOND))).await.unwrap();
    assert!(store.write(&accept).await.is_err());
    assert!(!store.share_reservation(id, at(HOUR)).await.unwrap());
}

pub async fn only_one_submission_takes_over_a_reservation(store: Arc<dyn Store>) {
    let reserve = WriteSet {
        reserved: vec![reserved(1, 1, "invite")],
        ..WriteSet::default()
    };
    store.write(&reserve).await.unwrap();
    let read = reserved(1, 1, "invite");
    let take_over = async |submission: &str, now| {
        let until = now + 5 * SECOND;
        let former = taken_over_reservation(&read, if submission == "trigger-2" { 10 } else { 11 });
        let done = store.take_over_reservation(&read, Some(&former), submission, now, until);
        done.await.unwrap()
    };
    assert!(
        !take_over("trigger-2", at(4 * SECOND)).await,
        "the reservation is in use"
    );
    assert!(take_over("trigger-2", at(5 * SECOND)).await);
    assert!(
        !take_over("trigger-3", at(30 * SECOND)).await,
        "the reservation changed"
    );
    let now = store.flow(Uuid::from_u128(1)).await.unwrap().reservations;
    assert_eq!(now[0].submission, "trigger-2");
    assert_eq!(now[0].in_use_until, at(10 * SECOND));
    // The details for taking the reservation again are kept for the first submission, once.
    assert_eq!(now[1..], [taken_over_reservation(&read, 10)]);
}

/// What is kept for the submission whose reservation was taken over.
fn taken_over_reservation(read: &Reservation, number: u128) -> Reservation {
    Reservation {
        id: Uuid::from_u128(number),
        state: reservation::State::Released,
        release_reason: Some(ReleaseReason::TakenOver),
        ..read.clone()
    }
}

pub async fn a_reservation_changes_its_state_only_once(store: Arc<dyn Store>) {
    let batch = WriteSet {
        reserved: vec![reserved(1, 1, "invite"), reserved(2, 2, "invite")],
        ..WriteSet::default()
    };
    store.write(&batch).await.unwrap();
    let one = store.flow(Uuid::from_u128(1)).await.unwrap();
    assert_eq!(one.reservations, [reserved(1, 1, "invite")]);
    let taken = details(Some(json!({"status": 201, "body": {"hold": "\"h\""}})));
    assert!(
        store
            .mark_reserved(Uuid::from_u128(1), &taken)
            .await
            .unwrap()
    );
    // Two parallel calls of one form get the same result.
    assert!(
        store
            .mark_reserved(Uuid::from_u128(1), &taken)
            .await
            .unwrap()
    );
    let kept = store.flow(Uuid::from_u128(1)).await.unwrap().reservations;
    assert_eq!(kept[0].details, Some(taken.clone()));
    // The reservation is taken for one call, so the other one cannot release it as unclear.
    let unclear = WriteSet {
        released: vec![released(1, ReleaseReason::Unclear, at(HOUR))],
        ..WriteSet::default()
    };
    assert!(store.write(&unclear).await.is_err());
    // A reservation that was taken cannot be cancelled.
    store.cancel_reservation(Uuid::from_u128(1)).await.unwrap();
    store.cancel_reservation(Uuid::from_u128(2)).await.unwrap();
    assert_eq!(reservation_states(&store, 2).await, []);

    let confirmed = WriteSet {
        confirmed: vec![Uuid::from_u128(1)],
        ..WriteSet::default()
    };
    store.write(&confirmed).await.unwrap();
    assert_eq!(
        reservation_states(&store, 1).await,
        [(reservation::State::Confirmed, None)]
    );
    assert!(
        !store
            .mark_reserved(Uuid::from_u128(1), &taken)
            .await
            .unwrap()
    );
    let released = WriteSet {
        released: vec![released(1, ReleaseReason::Expired, at(HOUR))],
        ..WriteSet::default()
    };
    for again in [confirmed, released] {
        let error = store.write(&again).await.unwrap_err();
        assert!(matches!(error, Error::Conflict), "{error:?}");
    }
}

/// A released reservation with its details.
async fn release_keeping_details(store: &Arc<dyn Store>, number: u128, flow: u128) {
    let reserve = WriteSet {
        reserved: vec![reserved(number, flow, "invite")],
        ..WriteSet::default()
    };
    store.write(&reserve).await.unwrap();
    let release = WriteSet {
        released: vec![Release {
            kept: Some(details(None)),
            ..released(number, ReleaseReason::NeverCreated, at(HOUR))
        }],
        ..WriteSet::default()
    };
    store.write(&release).await.unwrap();
    assert_eq!(kept_details(store, flow).await, [Some(details(None))]);
}

async fn kept_details(store: &Arc<dyn Store>, flow: u128) -> Vec<Option<reservation::Details>> {
    let state = store.flow(Uuid::from_u128(flow)).await.unwrap();
    state
        .reservations
        .into_iter()
        .map(|one| one.details)
        .collect()
}

pub async fn a_released_reservation_is_taken_again_once(store: Arc<dyn Store>) {
    release_keeping_details(&store, 1, 1).await;
    let again = WriteSet {
        taken_again: vec![Uuid::from_u128(1)],
        closed: vec![closing(1, 71)],
        ..WriteSet::default()
    };
    store.write(&again).await.unwrap();
    assert_eq!(kept_details(&store, 1).await, [None]);
    let error = store.write(&again).await.unwrap_err();
    assert!(matches!(error, Error::Conflict), "{error:?}");
}

pub async fn a_closed_flow_keeps_no_details_of_its_released_reservations(store: Arc<dyn Store>) {
    release_keeping_details(&store, 1, 1).await;
    release_keeping_details(&store, 2, 2).await;
    let close = WriteSet {
        closed: vec![closing(1, 71)],
        ..WriteSet::default()
    };
    store.write(&close).await.unwrap();
    assert_eq!(kept_details(&store, 1).await, [None]);
    assert_eq!(kept_details(&store, 2).await, [Some(details(None))]);
}

pub async fn a_flow_with_a_planned_look_up_keeps_its_reservations(store: Arc<dyn Store>) {
    release_keeping_details(&store, 1, 1).await;
    accept(&store, vec![sign_up(1)]).await;
    store.delete_ended(at(9 * HOUR), 9).await.unwrap();
    assert_eq!(kept_details(&store, 1).await.len(), 1);
    let record = record(&store, 1).await.unwrap();
    store.reschedule_lookup(&record, None).await.unwrap();
    store.delete_ended(at(9 * HOUR), 9).await.unwrap();
    assert_eq!(kept_details(&store, 1).await, []);
}

/// A change in settings of this identity.
fn change(flow: u128, identity: u128) -> PendingSignUp {
    let mut change = sign_up(flow);
    change.flow = Flow::Settings;
    change.guarded = false;
    change.details.lookup_keys.identity_id = Some(Uuid::from_u128(identity));
    change
}

pub async fn erasure_deletes_the_details_of_the_reservations_of_an_identity(store: Arc<dyn Store>) {
    for flow in 1..=3 {
        release_keeping_details(&store, flow, flow).await;
    }
    // A sign-up that became the identity, a change of it, and a change of another identity.
    accept(&store, vec![sign_up(1), change(2, 71), change(3, 72)]).await;
    let attributed = WriteSet {
        ended: vec![Ending::of(
            &sign_up(1),
            PendingEnd::Attributed(Uuid::from_u128(71)),
        )],
        ..WriteSet::default()
    };
    store.write(&attributed).await.unwrap();
    store.forget(Uuid::from_u128(71), start()).await.unwrap();
    for (flow, expected) in [(1, None), (2, None), (3, Some(details(None)))] {
        assert_eq!(kept_details(&store, flow).await, [expected], "{flow}");
    }
    assert_eq!(pending(&store, 2).await[0].details, Details::default());
    assert_eq!(pending(&store, 3).await, [change(3, 72)]);
}

/// Attributes a submission to an identity.
async fn attribute(store: &Arc<dyn Store>, one: &PendingSignUp, identity: u128) {
    let end = PendingEnd::Attributed(Uuid::from_u128(identity));
    let attributed = WriteSet {
        ended: vec![Ending::of(one, end)],
        ..WriteSet::default()
    };
    store.write(&attributed).await.unwrap();
}

pub async fn the_submissions_of_an_identity_are_listed_with_their_reservations(
    store: Arc<dyn Store>,
) {
    let all = [change(1, 71), change(2, 71), change(3, 71), change(4, 72)];
    accept(&store, all.to_vec()).await;
    // Confirmed, not taken again, and taken again.
    for flow in [1, 4] {
        let reservation = Reservation {
            submission: "trigger-1".to_owned(),
            state: reservation::State::Taken,
            ..reserved(flow, flow, "invite")
        };
        let confirm = WriteSet {
            reserved: vec![reservation],
            ..WriteSet::default()
        };
        store.write(&confirm).await.unwrap();
        let confirm = WriteSet {
            confirmed: vec![Uuid::from_u128(flow)],
            ..WriteSet::default()
        };
        store.write(&confirm).await.unwrap();
    }
    for (flow, kept) in [(2, Some(details(None))), (3, None)] {
        let reservation = Reservation {
            submission: "trigger-1".to_owned(),
            state: reservation::State::Released,
            release_reason: Some(ReleaseReason::NeverCreated),
            details: kept,
            ..reserved(flow, flow, "invite")
        };
        let reserve = WriteSet {
            reserved: vec![reservation],
            ..WriteSet::default()
        };
        store.write(&reserve).await.unwrap();
    }
    for one in &all[..3] {
        attribute(&store, one, 71).await;
    }
    let mut attributed = store.attributed_to(Uuid::from_u128(71)).await.unwrap();
    attributed.sort_by_key(|one| one.key.flow_id);
    let invite = Some(("invite".to_owned(), "hash".to_owned()));
    let expected = [(1, invite.clone()), (2, None), (3, invite)].map(|(flow, reserved)| {
        AttributedSubmission {
            key: key(flow, "trigger-1"),
            flow: Flow::Settings,
            traits_hash: "traits".to_owned(),
            accepted_at: start(),
            reserved,
        }
    });
    assert_eq!(attributed, expected);
    let other = store.attributed_to(Uuid::from_u128(72)).await.unwrap();
    assert_eq!(other, []);
}

pub async fn an_attributed_submission_is_not_recorded_again(store: Arc<dyn Store>) {
    accept(&store, vec![sign_up(1)]).await;
    attribute(&store, &sign_up(1), 71).await;
    let mut again = sign_up(1);
    again.accepted_at = at(SECOND);
    accept(&store, vec![again]).await;
    let pending = pending(&store, 1).await;
    assert_eq!(pending[0].state, PendingState::Attributed);
    assert_eq!(pending[0].details, Details::default());
}

pub async fn a_flow_is_found_by_the_external_id_of_a_later_submission(store: Arc<dyn Store>) {
    let mut first = sign_up(1);
    first.guarded = false;
    first.details.lookup_keys.external_id = Some("crm-7".to_owned());
    let mut second = sign_up(1);
    second.key = key(1, "trigger-2");
    let mut third = first.clone();
    third.key = key(1, "trigger-3");
    for one in [first, second, third] {
        accept(&store, vec![one]).await;
    }
    let flow = store.open_flow("vestibule:1").await.unwrap();
    assert_eq!(flow, Some(Uuid::from_u128(1)));
    assert_eq!(store.open_flow("crm-7").await.unwrap(), None);
}

pub async fn a_settings_change_is_found_by_its_identity_and_traits(store: Arc<dyn Store>) {
    accept(&store, vec![sign_up(1), change(2, 71), change(3, 72)]).await;
    let found = async |identity: u128, hash: &str| {
        let flows = store.flows_of_change(Uuid::from_u128(identity), hash).await;
        let flows = flows.unwrap().into_iter().map(|id| id.as_u128());
        flows.collect::<Vec<_>>()
    };
    assert_eq!(found(71, "traits").await, [2]);
    assert_eq!(found(71, "others").await, [0; 0]);
    assert_eq!(found(70, "traits").await, [0; 0]);
    let attributed = WriteSet {
        ended: vec![Ending::of(
            &change(2, 71),
            PendingEnd::Attributed(Uuid::from_u128(71)),
        )],
        ..WriteSet::default()
    };
    store.write(&attributed).await.unwrap();
    assert_eq!(found(71, "traits").await, [0; 0]);
}

pub async fn a_delivery_is_pending_until_it_is_delivered(store: Arc<dyn Store>) {
    let one = delivery("release:invite", 1);
    let key = one.unique_key.clone();
    assert!(!store.is_pending("release:invite", &key).await.unwrap());
    store.accept(vec![one]).await.unwrap();
    assert!(store.is_pending("release:invite", &key).await.unwrap());
    assert!(!store.is_pending("confirm:invite", &key).await.unwrap());
    let held = store
        .claim("release:invite", start(), MINUTE, 1)
        .await
        .unwrap();
    assert!(store.is_pending("release:invite", &key).await.unwrap());
    let record = tried(204, start());
    store
        .settle(&held[0], &record, &Outcome::Delivered)
        .await
        .unwrap();
    assert!(!store.is_pending("release:invite", &key).await.unwrap());
}

pub async fn one_check_cannot_reserve_twice_for_one_flow(store: Arc<dyn Store>) {
    let reserve = |reserved, released| WriteSet {
        reserved,
        released,
        ..WriteSet::default()
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
    let changed = vec![released(1, ReleaseReason::Changed, at(HOUR))];
    store.write(&reserve(second, changed)).await.unwrap();
    assert_eq!(
        reservation_states(&store, 1).await,
        [
            (reservation::State::Released, Some(ReleaseReason::Changed)),
            (reservation::State::Taking, None),
            (reservation::State::Taking, None),
        ]
    );
}

pub async fn a_write_set_is_stored_completely_or_not_at_all(store: Arc<dyn Store>) {
    accept(&store, vec![sign_up(1)]).await;
    let batch = WriteSet {
        closed: vec![closing(1, 71)],
        // This reservation does not exist.
        confirmed: vec![Uuid::from_u128(404)],
        ..WriteSet::of(vec![delivery("crm", 1)])
    };
    assert!(store.write(&batch).await.is_err());
    assert_eq!(pending(&store, 1).await, [sign_up(1)]);
    assert_eq!(store.backlog().await.unwrap().pending, 0);
}

pub async fn a_reservation_is_unused_only_if_no_submission_can_need_it(store: Arc<dyn Store>) {
    let mut looked_up = sign_up(2);
    looked_up.expires_at = at(HOUR);
    let batch = WriteSet {
        reserved: (1..=4).map(|flow| reserved(flow, flow, "invite")).collect(),
        accepted: vec![
            acceptance(looked_up),
            // Identities cannot be looked up here, so the time decides.
            Acceptance {
                next_lookup_at: None,
                ..acceptance(sign_up(3))
            },
        ],
        closed: vec![closing(4, 74)],
        ..WriteSet::default()
    };
    store.write(&batch).await.unwrap();
    let unused = async |now, expired_at| {
        let unused = store.unused_reservations(now, expired_at, 10).await;
        let ids = unused.unwrap().into_iter().map(|one| one.id.as_u128());
        let mut ids: Vec<u128> = ids.collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(
        unused(at(4 * SECOND), start()).await,
        [0; 0],
        "the reservation is in use"
    );
    assert_eq!(unused(at(5 * SECOND), start()).await, [4], "closed");
    assert_eq!(unused(at(2 * HOUR), at(59 * MINUTE)).await, [4]);
    assert_eq!(unused(at(2 * HOUR), at(HOUR)).await, [1, 3, 4]);
}

pub async fn follow_up_deliveries_are_stored_only_with_a_valid_settlement(store: Arc<dyn Store>) {
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = store
        .claim("crm", start(), MINUTE, 1)
        .await
        .unwrap()
        .remove(0);
    let mut follow_up = delivery("write-back:crm", 1);
    follow_up.action = Ok(Action::PatchIdentity(vec![FieldWrite {
        path: vec!["metadata_admin".to_owned(), "crm".to_owned()],
        value: Some(json!(1)),
    }]));
    let settlement = Settlement {
        follow_up_deliveries: vec![follow_up.clone()],
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    for expected in [1, 0] {
        let settled = store.settle_all(std::slice::from_ref(&settlement)).await;
        assert_eq!(settled.unwrap().len(), expected);
    }
    let held = store
        .claim("write-back:crm", start(), MINUTE, 9)
        .await
        .unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].action, follow_up.action.unwrap());

    // A settlement after the end of the lease stores no follow-up.
    let late = Settlement {
        follow_up_deliveries: vec![delivery("late", 1)],
        ..Settlement::of(&held[0], tried(200, start()), Outcome::Delivered)
    };
    store.give_back(&held, start()).await.unwrap();
    assert_eq!(store.settle_all(&[late]).await.unwrap().len(), 0);
    assert_eq!(store.claim("late", start(), MINUTE, 9).await.unwrap(), []);
}

pub async fn attempts_are_kept_in_order(store: Arc<dyn Store>) {
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
    assert_eq!(shown.action, None, "the payload is erased");
    let attempts: Vec<_> = shown
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
        attempts,
        [
            (1, Some(503), 1000, Some("status 503")),
            (2, Some(500), 1000, Some("status 500")),
            (3, Some(204), 1000, None),
        ]
    );
    assert_eq!(store.show(Uuid::from_u128(404)).await.unwrap(), None);
}
