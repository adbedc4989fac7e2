//! What every database must guarantee for identities: late refusals, writes, and settings calls that can undo writes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::delivery::{Claimed, FieldWrite, Outcome, State};
use vestibule::model::identity_write::{IdentityWrites, SavedChange, VERIFY_AFTER, Write};
use vestibule::model::late_refusal::{LateRefusal, OnLateRefusal, StoredMessage};
use vestibule::store::late_refusals::VERSION;
use vestibule::store::{LateRefusalFilter, RefusalLift, SettledQuestion, Settlement, Store};

use crate::fixtures::{DAY, DeliveryStoreExt as _, MINUTE, SECOND, at, delivery, start, tried};

/// Tests a database. `$fresh` is an expression for an empty store and a value that must outlive it, if the database exists.
macro_rules! test_contract {
    ($fresh:expr) => {
        $crate::identities::test_contract!($fresh;
            a_late_refusal_is_stored_with_the_settlement_or_not_at_all,
            a_late_refusal_is_in_force_until_it_is_lifted,
            a_deactivation_is_recorded_for_its_check_and_for_repairs,
            the_state_before_a_refusal_is_recorded_once,
            an_outcome_discards_the_questions_of_its_check,
            acceptance_lifts_only_refusals_that_do_not_deactivate,
            a_refusal_in_force_is_replaced_only_by_a_stronger_one,
            late_refusals_are_listed_page_by_page,
            a_refusal_after_a_lift_is_in_force_again,
            erasure_deletes_the_message_and_lifts_nothing,
            lifted_refusals_are_deleted_after_their_retention,
            identity_writes_are_stored_unchanged,
            a_verification_is_leased_to_one_instance,
            a_hook_call_during_a_verification_plans_another_one,
            a_planned_verification_keeps_the_write_that_it_verifies,
            a_verification_records_which_change_it_has_seen,
            the_last_verification_deletes_the_record,
            a_saved_change_is_kept_only_while_a_write_is_verified,
            a_settings_call_is_pending_until_each_pre_has_its_post,
            a_settings_call_without_a_post_expires,
        );
    };
    ($fresh:expr; $($test:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some((store, _kept)) = $fresh.await {
                    vestibule_testing::bounded(stringify!($test), $crate::identities::$test(store)).await;
                }
            }
        )+
    };
}
pub(crate) use test_contract;

fn ada() -> Uuid {
    Uuid::from_u128(1)
}

fn refusal(identity: u128, check: &str) -> LateRefusal {
    LateRefusal {
        identity_id: Uuid::from_u128(identity),
        check: check.to_owned(),
        effect: OnLateRefusal::Deactivate,
        message: Some(StoredMessage {
            id: 4_900_101,
            name: Some("vat_unknown".to_owned()),
            field: Some("traits.vat".to_owned()),
            texts: vec![("de".to_owned(), "quote\"'\u{e9}".to_owned())],
        }),
        refused_at: start(),
        deactivated_at: None,
        was_active: None,
    }
}

async fn claim_one(store: &dyn Store, identity: u128, subscription: &str) -> Claimed {
    store
        .accept(vec![delivery(subscription, identity)])
        .await
        .unwrap();
    let mut held = store.claim(subscription, start(), MINUTE, 1).await.unwrap();
    held.remove(0)
}

/// Settles a deferred check with a refusal.
async fn settle_with_refusal(store: &dyn Store, identity: u128, check: &str) {
    let held = claim_one(store, identity, &format!("deferred-check:{check}")).await;
    let settlement = Settlement {
        late_refusal: Some(refusal(identity, check)),
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    assert_eq!(store.settle_all(&[settlement]).await.unwrap().len(), 1);
}

pub async fn a_late_refusal_is_stored_with_the_settlement_or_not_at_all(store: Arc<dyn Store>) {
    let held = claim_one(&*store, 1, "deferred-check:vat").await;
    store
        .give_back(std::slice::from_ref(&held), start())
        .await
        .unwrap();
    let settlement = Settlement {
        late_refusal: Some(refusal(1, "vat")),
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    assert_eq!(store.settle_all(&[settlement]).await.unwrap().len(), 0);
    assert_eq!(
        store.late_refusals().await.unwrap(),
        [],
        "its lease had ended"
    );
    settle_with_refusal(&*store, 2, "vat").await;
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(2, "vat")]);
}

pub async fn a_late_refusal_is_in_force_until_it_is_lifted(store: Arc<dyn Store>) {
    let mut versions = vec![store.get_property(VERSION).await.unwrap()];
    settle_with_refusal(&*store, 1, "vat").await;
    versions.push(store.get_property(VERSION).await.unwrap());
    settle_with_refusal(&*store, 1, "name").await;
    settle_with_refusal(&*store, 2, "vat").await;
    let moment = at(SECOND);
    for check in ["vat", "name"] {
        store
            .record_deactivation(ada(), Some(check), moment)
            .await
            .unwrap();
    }
    versions.push(store.get_property(VERSION).await.unwrap());
    let deactivated = |check: &str| LateRefusal {
        deactivated_at: Some(moment),
        ..refusal(1, check)
    };
    assert_eq!(
        store.late_refusals_of(ada()).await.unwrap(),
        [deactivated("name"), deactivated("vat")]
    );
    assert_eq!(store.late_refusals().await.unwrap().len(), 3);

    let follows = [delivery("write-back:vat", 1)];
    let lift = async |checks: &[&str]| {
        let checks: Vec<String> = checks.iter().map(|check| (*check).to_owned()).collect();
        store
            .lift_late_refusals(ada(), &checks, at(MINUTE), &follows)
            .await
            .unwrap()
    };
    assert_eq!(lift(&["another"]).await, 0);
    assert_eq!(
        store
            .list(&vestibule::store::Filter::default(), 9)
            .await
            .unwrap()
            .len(),
        3,
        "no follow-up is stored"
    );
    assert_eq!(lift(&["vat"]).await, 1);
    versions.push(store.get_property(VERSION).await.unwrap());
    assert_eq!(
        store
            .claim("write-back:vat", start(), MINUTE, 9)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        store.late_refusals_of(ada()).await.unwrap(),
        [deactivated("name")]
    );
    assert_eq!(lift(&["vat", "name"]).await, 1);
    assert_eq!(lift(&["vat", "name"]).await, 0);
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(2, "vat")]);
    // Every change has a new version, for instances that keep the set in memory.
    versions.dedup();
    assert_eq!(versions.len(), 4);
}

/// Settles another deferred check with a refusal of this effect.
async fn settle_with_refusal_of(
    store: &dyn Store,
    identity: u128,
    check: &str,
    effect: OnLateRefusal,
) {
    let mut question = delivery(&format!("deferred-check:{check}"), identity);
    question.id = Uuid::new_v4();
    question.unique_key = question.id.to_string();
    let subscription = question.subscription.clone();
    store.accept(vec![question]).await.unwrap();
    let held = store
        .claim(&subscription, start(), MINUTE, 1)
        .await
        .unwrap()
        .remove(0);
    let settlement = Settlement {
        late_refusal: Some(LateRefusal {
            effect,
            ..refusal(identity, check)
        }),
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    assert_eq!(store.settle_all(&[settlement]).await.unwrap().len(), 1);
}

pub async fn a_deactivation_is_recorded_for_its_check_and_for_repairs(store: Arc<dyn Store>) {
    for check in ["name", "vat"] {
        settle_with_refusal(&*store, 1, check).await;
    }
    let deactivated_at = async |check: Option<&str>, moment: Timestamp| {
        store
            .record_deactivation(ada(), check, moment)
            .await
            .unwrap();
        let in_force = store.late_refusals_of(ada()).await.unwrap();
        let moments = in_force.iter().map(|one| one.deactivated_at);
        moments.collect::<Vec<_>>()
    };
    let (first, second) = (Some(at(SECOND)), Some(at(MINUTE)));
    assert_eq!(deactivated_at(None, at(SECOND)).await, [None, None]);
    assert_eq!(deactivated_at(Some("vat"), at(SECOND)).await, [None, first]);
    assert_eq!(deactivated_at(None, at(MINUTE)).await, [None, second]);
    assert_eq!(
        deactivated_at(Some("name"), at(MINUTE)).await,
        [second, second]
    );
}

pub async fn the_state_before_a_refusal_is_recorded_once(store: Arc<dyn Store>) {
    let before = async || store.state_before_refusal(ada(), "vat").await.unwrap();
    assert!(!store.record_state_before(ada(), true).await.unwrap());
    assert_eq!(before().await, None);
    settle_with_refusal(&*store, 1, "vat").await;
    assert_eq!(before().await, None);
    for (was_active, expected) in [(false, false), (true, true), (false, true)] {
        assert!(store.record_state_before(ada(), was_active).await.unwrap());
        assert_eq!(before().await, Some(expected));
        let in_force = store.late_refusals_of(ada()).await.unwrap();
        assert_eq!(in_force[0].was_active, Some(expected));
    }
    store
        .lift_late_refusals(ada(), &["vat".to_owned()], at(MINUTE), &[])
        .await
        .unwrap();
    assert!(!store.record_state_before(ada(), false).await.unwrap());
    assert_eq!(before().await, Some(true), "also after the lift");
}

pub async fn an_outcome_discards_the_questions_of_its_check(store: Arc<dyn Store>) {
    let questions = ["deferred-check:vat", "deferred-check:name"];
    let questions = questions.map(|queue| delivery(queue, 1));
    let ids = questions.each_ref().map(|one| one.id);
    store.accept(questions.to_vec()).await.unwrap();
    let queues = async || {
        let mut queues = store.unfinished_queues(ada()).await.unwrap();
        queues.sort();
        queues
    };
    assert_eq!(
        queues().await,
        ["deferred-check:name", "deferred-check:vat"]
    );
    let held = claim_one(&*store, 1, "write-back:vat").await;
    let settlement = Settlement {
        question_settled: Some(SettledQuestion {
            subscription: "deferred-check:vat".to_owned(),
            identity_id: ada(),
            at: at(SECOND),
        }),
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    store.settle_all(&[settlement]).await.unwrap();
    for (id, expected) in ids.into_iter().zip([State::Discarded, State::Pending]) {
        let shown = store.show(id).await.unwrap().unwrap();
        assert_eq!(shown.listed.state, expected);
    }
    assert_eq!(queues().await, ["deferred-check:name"]);
    assert_eq!(
        store.unfinished_queues(Uuid::from_u128(2)).await.unwrap(),
        [""; 0]
    );
}

fn lift_by_acceptance(check: &str) -> RefusalLift {
    let mut write = delivery(&format!("write-back:{check}"), 1);
    write.id = Uuid::new_v4();
    RefusalLift {
        identity_id: ada(),
        check: check.to_owned(),
        at: at(MINUTE),
        write,
    }
}

pub async fn acceptance_lifts_only_refusals_that_do_not_deactivate(store: Arc<dyn Store>) {
    for (check, effect) in [
        ("kept_out", OnLateRefusal::Deactivate),
        ("marked", OnLateRefusal::Mark),
        ("notified", OnLateRefusal::Notify),
    ] {
        settle_with_refusal_of(&*store, 1, check, effect).await;
    }
    store
        .record_deactivation(ada(), Some("kept_out"), at(SECOND))
        .await
        .unwrap();
    let version = store.get_property(VERSION).await.unwrap();
    let checks = ["kept_out", "marked", "notified", "never"];
    for check in checks {
        let held = claim_one(&*store, 1, &format!("accepted:{check}")).await;
        let lift = lift_by_acceptance(check);
        let write = lift.write.id;
        let settlement = Settlement {
            refusal_lift: Some(lift),
            ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
        };
        assert_eq!(store.settle_all(&[settlement]).await.unwrap().len(), 1);
        let is_stored = store.show(write).await.unwrap().is_some();
        assert_eq!(is_stored, check == "marked", "{check}");
    }
    let in_force = store.late_refusals_of(ada()).await.unwrap();
    assert_eq!(in_force.len(), 1);
    assert_eq!(in_force[0].check, "kept_out");
    assert_eq!(in_force[0].deactivated_at, Some(at(SECOND)));
    assert_ne!(store.get_property(VERSION).await.unwrap(), version);
    for (check, expected) in checks.into_iter().zip([false, true, true, false]) {
        let was_lifted = store.late_refusal_was_lifted(ada(), check).await.unwrap();
        assert_eq!(was_lifted, expected, "{check}");
    }
}

pub async fn a_refusal_in_force_is_replaced_only_by_a_stronger_one(store: Arc<dyn Store>) {
    use OnLateRefusal::{Deactivate, Mark, Notify};
    for (effect, expected) in [
        (Notify, Notify),
        (Mark, Mark),
        (Notify, Mark),
        (Deactivate, Deactivate),
        (Mark, Deactivate),
    ] {
        settle_with_refusal_of(&*store, 1, "vat", effect).await;
        let in_force = store.late_refusals_of(ada()).await.unwrap();
        assert_eq!(in_force[0].effect, expected, "{effect:?}");
    }
}

pub async fn late_refusals_are_listed_page_by_page(store: Arc<dyn Store>) {
    for (identity, check) in [(2, "vat"), (1, "vat"), (1, "name"), (3, "name")] {
        settle_with_refusal_of(&*store, identity, check, OnLateRefusal::Mark).await;
    }
    let lifted = ["name".to_owned()];
    let identity = Uuid::from_u128(3);
    store
        .lift_late_refusals(identity, &lifted, at(MINUTE), &[])
        .await
        .unwrap();
    let read = async |filter: LateRefusalFilter, limit| -> Vec<(u128, String)> {
        let page = store.late_refusals_page(&filter, limit).await.unwrap();
        page.into_iter()
            .map(|one| (one.identity_id.as_u128(), one.check))
            .collect()
    };
    let all = [(1, "name"), (1, "vat"), (2, "vat")].map(|(id, check)| (id, check.to_owned()));
    assert_eq!(read(LateRefusalFilter::default(), 9).await, all);
    assert_eq!(read(LateRefusalFilter::default(), 2).await, all[..2]);
    let after = |place: &(u128, String)| LateRefusalFilter {
        after: Some((Uuid::from_u128(place.0), place.1.clone())),
        ..LateRefusalFilter::default()
    };
    assert_eq!(read(after(&all[0]), 9).await, all[1..]);
    assert_eq!(read(after(&all[1]), 9).await, all[2..]);
    assert_eq!(read(after(&all[2]), 9).await, []);
    let narrowed = LateRefusalFilter {
        identity: Some(ada()),
        check: Some("vat".to_owned()),
        after: None,
    };
    assert_eq!(read(narrowed, 9).await, all[1..2]);
}

pub async fn a_refusal_after_a_lift_is_in_force_again(store: Arc<dyn Store>) {
    settle_with_refusal(&*store, 1, "vat").await;
    store
        .record_deactivation(ada(), Some("vat"), at(SECOND))
        .await
        .unwrap();
    store
        .lift_late_refusals(ada(), &["vat".to_owned()], at(MINUTE), &[])
        .await
        .unwrap();
    let mut again = delivery("deferred-check:vat", 1);
    again.id = Uuid::from_u128(77);
    "again".clone_into(&mut again.unique_key);
    store.accept(vec![again]).await.unwrap();
    let held = store
        .claim("deferred-check:vat", start(), MINUTE, 1)
        .await
        .unwrap()
        .remove(0);
    let settlement = Settlement {
        late_refusal: Some(refusal(1, "vat")),
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    store.settle_all(&[settlement]).await.unwrap();
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(1, "vat")]);
}

pub async fn erasure_deletes_the_message_and_lifts_nothing(store: Arc<dyn Store>) {
    settle_with_refusal(&*store, 1, "vat").await;
    write(&*store).await;
    store
        .store_saved_change(ada(), &change(), start())
        .await
        .unwrap();
    store.begin_settings_call(ada(), start()).await.unwrap();
    assert_eq!(
        store.identities_with_data(Uuid::nil(), 9).await.unwrap(),
        [ada()]
    );
    store.forget(ada(), start()).await.unwrap();
    let without = LateRefusal {
        message: None,
        ..refusal(1, "vat")
    };
    assert_eq!(store.late_refusals().await.unwrap(), [without]);
    assert_eq!(store.identity_writes(ada()).await.unwrap(), None);
    assert_eq!(store.settings_pending_since(ada()).await.unwrap(), None);
    assert_eq!(
        store.identities_with_data(Uuid::nil(), 9).await.unwrap(),
        Vec::<Uuid>::new()
    );
}

pub async fn lifted_refusals_are_deleted_after_their_retention(store: Arc<dyn Store>) {
    settle_with_refusal(&*store, 1, "vat").await;
    settle_with_refusal(&*store, 2, "vat").await;
    store
        .lift_late_refusals(ada(), &["vat".to_owned()], at(MINUTE), &[])
        .await
        .unwrap();
    assert_eq!(store.delete_ended(at(MINUTE), 9).await.unwrap(), 0);
    assert_eq!(store.delete_ended(at(DAY), 9).await.unwrap(), 1);
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(2, "vat")]);
}

fn writes() -> IdentityWrites {
    let identity = json!({"metadata_admin": {"quote": "\"'\u{e9}"}});
    let put = |name: &str, value| FieldWrite {
        path: vec!["metadata_admin".to_owned(), name.to_owned()],
        value,
    };
    let puts = [put("crm", Some(json!(7))), put("quote", None)];
    let mut writes = IdentityWrites::new(ada(), start());
    writes.add(Write::new(&identity, &puts, start()));
    writes
}

async fn write(store: &dyn Store) {
    store.store_identity_writes(&writes()).await.unwrap();
}

fn change() -> SavedChange {
    SavedChange {
        saved_at: at(SECOND),
        previous: json!({"traits": {"name": "old"}}),
        identity: json!({"traits": {"name": "new"}}),
    }
}

fn first() -> Timestamp {
    at(VERIFY_AFTER[0])
}

pub async fn identity_writes_are_stored_unchanged(store: Arc<dyn Store>) {
    assert_eq!(store.identity_writes(ada()).await.unwrap(), None);
    write(&*store).await;
    assert_eq!(store.identity_writes(ada()).await.unwrap(), Some(writes()));
    let mut more = writes();
    more.ended(at(SECOND));
    more.add(Write::new(&json!({}), &[], at(MINUTE)));
    store.store_identity_writes(&more).await.unwrap();
    assert_eq!(store.identity_writes(ada()).await.unwrap(), Some(more));
}

pub async fn a_verification_is_leased_to_one_instance(store: Arc<dyn Store>) {
    write(&*store).await;
    assert_eq!(store.next_verification().await.unwrap(), Some(first()));
    let lease = async |now: Timestamp| {
        let until = vestibule::base::clock::saturating_add(now, MINUTE);
        store.lease_identity_writes(now, until, 9).await.unwrap()
    };
    assert_eq!(lease(at(SECOND)).await, [], "not due yet");
    let leased = lease(first()).await;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].writes, writes().writes);
    assert_eq!(lease(first()).await, [], "the verification is leased");
    // The instance with the lease has crashed.
    assert_eq!(lease(at(2 * MINUTE)).await.len(), 1);
    let until = at(3 * MINUTE);
    store
        .reschedule_verification(ada(), (1, None), until, at(DAY))
        .await
        .unwrap();
    let kept = store.identity_writes(ada()).await.unwrap().unwrap();
    assert_eq!((kept.verified, kept.verify_at), (1, at(DAY)));
}

pub async fn a_hook_call_during_a_verification_plans_another_one(store: Arc<dyn Store>) {
    write(&*store).await;
    let until = at(MINUTE);
    let asked = at(10 * SECOND);
    store
        .lease_identity_writes(first(), until, 9)
        .await
        .unwrap();
    store
        .verify_identities(&[ada(), Uuid::from_u128(2)], asked)
        .await
        .unwrap();
    store
        .reschedule_verification(ada(), (1, None), until, at(DAY))
        .await
        .unwrap();
    assert_eq!(store.next_verification().await.unwrap(), Some(asked));
    store.end_verification(ada(), until).await.unwrap();
    assert_eq!(store.next_verification().await.unwrap(), Some(asked));
    // A later time than the planned one changes nothing.
    store.verify_identities(&[ada()], at(DAY)).await.unwrap();
    assert_eq!(store.next_verification().await.unwrap(), Some(asked));
}

pub async fn a_planned_verification_keeps_the_write_that_it_verifies(store: Arc<dyn Store>) {
    store.verify_once(ada(), at(DAY)).await.unwrap();
    let planned = store.identity_writes(ada()).await.unwrap().unwrap();
    assert_eq!((planned.writes, planned.verify_at), (Vec::new(), at(DAY)));
    assert_eq!(planned.written_at, Timestamp::UNIX_EPOCH);
    write(&*store).await;
    for (asked, planned) in [(SECOND, at(SECOND)), (DAY, at(SECOND))] {
        store.verify_once(ada(), at(asked)).await.unwrap();
        let kept = store.identity_writes(ada()).await.unwrap().unwrap();
        assert_eq!((&kept.writes, kept.verify_at), (&writes().writes, planned));
    }
}

pub async fn a_verification_records_which_change_it_has_seen(store: Arc<dyn Store>) {
    write(&*store).await;
    let seen_at = async |seen: Option<Timestamp>| {
        let verified = (1, seen);
        store
            .reschedule_verification(ada(), verified, at(MINUTE), at(DAY))
            .await
            .unwrap();
        let kept = store.identity_writes(ada()).await.unwrap().unwrap();
        kept.seen_at
    };
    assert_eq!(seen_at(None).await, None);
    assert_eq!(seen_at(Some(at(SECOND))).await, Some(at(SECOND)));
    assert_eq!(seen_at(None).await, Some(at(SECOND)));
    // A write that was read before keeps the later value.
    write(&*store).await;
    let kept = store.identity_writes(ada()).await.unwrap().unwrap();
    assert_eq!(kept.seen_at, Some(at(SECOND)));
}

pub async fn the_last_verification_deletes_the_record(store: Arc<dyn Store>) {
    write(&*store).await;
    store
        .store_saved_change(ada(), &change(), at(DAY))
        .await
        .unwrap();
    let until = at(MINUTE);
    store
        .lease_identity_writes(first(), until, 9)
        .await
        .unwrap();
    store.end_verification(ada(), until).await.unwrap();
    assert_eq!(store.next_verification().await.unwrap(), None);
    write(&*store).await;
    assert_eq!(
        store.identity_writes(ada()).await.unwrap(),
        Some(writes()),
        "without saved changes"
    );
}

pub async fn a_saved_change_is_kept_only_while_a_write_is_verified(store: Arc<dyn Store>) {
    store
        .store_saved_change(ada(), &change(), start())
        .await
        .unwrap();
    write(&*store).await;
    let kept = async || store.identity_writes(ada()).await.unwrap().unwrap();
    assert_eq!(kept().await.saved, []);
    let later = SavedChange {
        saved_at: at(2 * SECOND),
        ..change()
    };
    store
        .store_saved_change(ada(), &change(), at(SECOND))
        .await
        .unwrap();
    store
        .store_saved_change(ada(), &later, at(2 * SECOND))
        .await
        .unwrap();
    assert_eq!(kept().await.saved, [change(), later.clone()]);
    assert_eq!(
        kept().await.verify_at,
        at(SECOND),
        "the write is verified immediately"
    );
    let leased = store
        .lease_identity_writes(at(SECOND), at(MINUTE), 9)
        .await
        .unwrap();
    assert_eq!(leased[0].saved, [change(), later]);
}

pub async fn a_settings_call_is_pending_until_each_pre_has_its_post(store: Arc<dyn Store>) {
    let since = async || store.settings_pending_since(ada()).await.unwrap();
    assert_eq!(since().await, None);
    store.end_settings_call(ada()).await.unwrap();
    store.begin_settings_call(ada(), start()).await.unwrap();
    store.begin_settings_call(ada(), at(SECOND)).await.unwrap();
    assert_eq!(since().await, Some(start()), "the first counts");
    store.end_settings_call(ada()).await.unwrap();
    assert_eq!(since().await, Some(start()));
    store.end_settings_call(ada()).await.unwrap();
    assert_eq!(since().await, None);
}

pub async fn a_settings_call_without_a_post_expires(store: Arc<dyn Store>) {
    let since = async || store.settings_pending_since(ada()).await.unwrap();
    store.begin_settings_call(ada(), start()).await.unwrap();
    store
        .begin_settings_call(ada(), at(4 * MINUTE))
        .await
        .unwrap();
    assert_eq!(since().await, Some(start()), "the first call still counts");
    let again = at(5 * MINUTE);
    store.begin_settings_call(ada(), again).await.unwrap();
    assert_eq!(since().await, Some(again));
    store.end_settings_call(ada()).await.unwrap();
    assert_eq!(since().await, None, "the lost ones do not count");
    store.begin_settings_call(ada(), start()).await.unwrap();
    let deleted = store.delete_ended(at(Duration::from_hours(1)), 9).await;
    assert_eq!(deleted.unwrap(), 1);
}
