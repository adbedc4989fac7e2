//! What every database has to keep about identities: late refusals, writes into them, and the settings calls that can undo these.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vestibule::clock::Timestamp;
use vestibule::delivery::{Claimed, Outcome, Put};
use vestibule::identity_write::{IdentityWrites, SavedChange, VERIFY_AFTER, Write};
use vestibule::late_refusal::{LateRefusal, StoredMessage};
use vestibule::store::late_refusals::VERSION;
use vestibule::store::{Settlement, Store};

use crate::scenes::{DAY, MINUTE, SECOND, at, delivery, start, tried};

/// Asks a database for every promise. `$fresh` is an expression for an empty one and what must outlive it, if there is one.
macro_rules! ask {
    ($fresh:expr) => {
        $crate::identities::ask!($fresh;
            a_late_refusal_is_stored_with_the_answer_or_not_at_all,
            a_late_refusal_is_in_force_until_it_is_lifted,
            a_refusal_after_a_lift_is_in_force_again,
            erasure_takes_the_message_and_lifts_nothing,
            lifted_refusals_are_deleted_after_a_while,
            writes_are_kept_as_they_were,
            a_verification_is_leased_to_one,
            a_hook_call_during_a_verification_asks_for_another,
            the_last_verification_leaves_nothing,
            a_saved_change_is_kept_only_while_a_write_is_verified,
            a_settings_call_is_pending_until_each_pre_has_its_post,
            a_settings_call_without_a_post_is_forgotten,
        );
    };
    ($fresh:expr; $($promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                if let Some((store, _kept)) = $fresh.await {
                    $crate::identities::$promise(store).await;
                }
            }
        )+
    };
}
pub(crate) use ask;

fn ada() -> Uuid {
    Uuid::from_u128(1)
}

fn refusal(identity: u128, check: &str) -> LateRefusal {
    LateRefusal {
        identity_id: Uuid::from_u128(identity),
        check: check.to_owned(),
        message: Some(StoredMessage {
            id: 4_900_101,
            name: Some("vat_unknown".to_owned()),
            field: Some("traits.vat".to_owned()),
            texts: vec![("de".to_owned(), "quote\"'\u{e9}".to_owned())],
        }),
        refused_at: start(),
        deactivated_at: None,
    }
}

async fn held(store: &dyn Store, identity: u128, plan: &str) -> Claimed {
    store.accept(vec![delivery(plan, identity)]).await.unwrap();
    let mut held = store.claim(plan, start(), MINUTE, 1).await.unwrap();
    held.remove(0)
}

/// The question's answer refuses.
async fn refuse(store: &dyn Store, identity: u128, check: &str) {
    let held = held(store, identity, &format!("check:{check}")).await;
    let settlement = Settlement {
        late_refusal: Some(refusal(identity, check)),
        ..Settlement::of(&held, tried(200, start()), Outcome::Delivered)
    };
    assert_eq!(store.settle_all(&[settlement]).await.unwrap().len(), 1);
}

pub async fn a_late_refusal_is_stored_with_the_answer_or_not_at_all(store: Arc<dyn Store>) {
    let held = held(&*store, 1, "check:vat").await;
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
    refuse(&*store, 2, "vat").await;
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(2, "vat")]);
}

pub async fn a_late_refusal_is_in_force_until_it_is_lifted(store: Arc<dyn Store>) {
    let mut versions = vec![store.fact(VERSION).await.unwrap()];
    refuse(&*store, 1, "vat").await;
    versions.push(store.fact(VERSION).await.unwrap());
    refuse(&*store, 1, "name").await;
    refuse(&*store, 2, "vat").await;
    let moment = at(SECOND);
    store.record_deactivation(ada(), moment).await.unwrap();
    versions.push(store.fact(VERSION).await.unwrap());
    let deactivated = |check: &str| LateRefusal {
        deactivated_at: Some(moment),
        ..refusal(1, check)
    };
    assert_eq!(
        store.late_refusals_of(ada()).await.unwrap(),
        [deactivated("name"), deactivated("vat")]
    );
    assert_eq!(store.late_refusals().await.unwrap().len(), 3);

    let follows = [delivery("save:vat", 1)];
    let lift = async |check| {
        store
            .lift_late_refusals(ada(), check, at(MINUTE), &follows)
            .await
            .unwrap()
    };
    assert_eq!(lift(Some("another")).await, 0);
    assert_eq!(
        store
            .list(&vestibule::store::Filter::default(), 9)
            .await
            .unwrap()
            .len(),
        3,
        "nothing follows"
    );
    assert_eq!(lift(Some("vat")).await, 1);
    versions.push(store.fact(VERSION).await.unwrap());
    assert_eq!(
        store
            .claim("save:vat", start(), MINUTE, 9)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        store.late_refusals_of(ada()).await.unwrap(),
        [deactivated("name")]
    );
    assert_eq!(lift(None).await, 1);
    assert_eq!(lift(None).await, 0);
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(2, "vat")]);
    // Every change is seen by whoever keeps the set in memory.
    versions.dedup();
    assert_eq!(versions.len(), 4);
}

pub async fn a_refusal_after_a_lift_is_in_force_again(store: Arc<dyn Store>) {
    refuse(&*store, 1, "vat").await;
    store.record_deactivation(ada(), at(SECOND)).await.unwrap();
    store
        .lift_late_refusals(ada(), None, at(MINUTE), &[])
        .await
        .unwrap();
    let mut again = delivery("check:vat", 1);
    again.id = Uuid::from_u128(77);
    "again".clone_into(&mut again.unique_key);
    store.accept(vec![again]).await.unwrap();
    let held = store
        .claim("check:vat", start(), MINUTE, 1)
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

pub async fn erasure_takes_the_message_and_lifts_nothing(store: Arc<dyn Store>) {
    refuse(&*store, 1, "vat").await;
    write(&*store).await;
    store
        .store_saved_change(ada(), &change(), start())
        .await
        .unwrap();
    store.begin_settings_call(ada(), start()).await.unwrap();
    assert_eq!(
        store.identities_kept(Uuid::nil(), 9).await.unwrap(),
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
        store.identities_kept(Uuid::nil(), 9).await.unwrap(),
        Vec::<Uuid>::new()
    );
}

pub async fn lifted_refusals_are_deleted_after_a_while(store: Arc<dyn Store>) {
    refuse(&*store, 1, "vat").await;
    refuse(&*store, 2, "vat").await;
    store
        .lift_late_refusals(ada(), None, at(MINUTE), &[])
        .await
        .unwrap();
    assert_eq!(store.delete_ended(at(MINUTE), 9).await.unwrap(), 0);
    assert_eq!(store.delete_ended(at(DAY), 9).await.unwrap(), 1);
    assert_eq!(store.late_refusals().await.unwrap(), [refusal(2, "vat")]);
}

fn writes() -> IdentityWrites {
    let identity = json!({"metadata_admin": {"quote": "\"'\u{e9}"}});
    let put = |name: &str, value| Put {
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

pub async fn writes_are_kept_as_they_were(store: Arc<dyn Store>) {
    assert_eq!(store.identity_writes(ada()).await.unwrap(), None);
    write(&*store).await;
    assert_eq!(store.identity_writes(ada()).await.unwrap(), Some(writes()));
    let mut more = writes();
    more.ended(at(SECOND));
    more.add(Write::new(&json!({}), &[], at(MINUTE)));
    store.store_identity_writes(&more).await.unwrap();
    assert_eq!(store.identity_writes(ada()).await.unwrap(), Some(more));
}

pub async fn a_verification_is_leased_to_one(store: Arc<dyn Store>) {
    write(&*store).await;
    assert_eq!(store.next_verification().await.unwrap(), Some(first()));
    let lease = async |now: Timestamp| {
        let until = vestibule::clock::later(now, MINUTE);
        store.lease_identity_writes(now, until, 9).await.unwrap()
    };
    assert_eq!(lease(at(SECOND)).await, [], "not due yet");
    let leased = lease(first()).await;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].writes, writes().writes);
    assert_eq!(lease(first()).await, [], "somebody has it");
    // Whoever had it has died.
    assert_eq!(lease(at(2 * MINUTE)).await.len(), 1);
    let until = at(3 * MINUTE);
    store
        .reschedule_verification(ada(), 1, until, at(DAY))
        .await
        .unwrap();
    let kept = store.identity_writes(ada()).await.unwrap().unwrap();
    assert_eq!((kept.verified, kept.verify_at), (1, at(DAY)));
}

pub async fn a_hook_call_during_a_verification_asks_for_another(store: Arc<dyn Store>) {
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
        .reschedule_verification(ada(), 1, until, at(DAY))
        .await
        .unwrap();
    assert_eq!(store.next_verification().await.unwrap(), Some(asked));
    store.end_verification(ada(), until).await.unwrap();
    assert_eq!(store.next_verification().await.unwrap(), Some(asked));
    // A later moment than the planned one is none.
    store.verify_identities(&[ada()], at(DAY)).await.unwrap();
    assert_eq!(store.next_verification().await.unwrap(), Some(asked));
}

pub async fn the_last_verification_leaves_nothing(store: Arc<dyn Store>) {
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
        "without changes"
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
    assert_eq!(kept().await.verify_at, at(SECOND), "it is verified at once");
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

pub async fn a_settings_call_without_a_post_is_forgotten(store: Arc<dyn Store>) {
    let since = async || store.settings_pending_since(ada()).await.unwrap();
    store.begin_settings_call(ada(), start()).await.unwrap();
    store
        .begin_settings_call(ada(), at(4 * MINUTE))
        .await
        .unwrap();
    assert_eq!(since().await, Some(start()), "writes have had their time");
    let again = at(5 * MINUTE);
    store.begin_settings_call(ada(), again).await.unwrap();
    assert_eq!(since().await, Some(again));
    store.end_settings_call(ada()).await.unwrap();
    assert_eq!(since().await, None, "the lost ones do not count");
    store.begin_settings_call(ada(), start()).await.unwrap();
    let deleted = store.delete_ended(at(Duration::from_hours(1)), 9).await;
    assert_eq!(deleted.unwrap(), 1);
}
