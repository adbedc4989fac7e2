//! `vestibule deliveries`, from the operator's side.

use vestibule::cli::deliveries;
use vestibule::delivery::Outcome;
use vestibule::store::sqlite::Sqlite;
use vestibule::store::{Filter, Store};

use crate::scenes::{DAY, Home, MINUTE, SECOND, at, delivery, start, tried};

/// A delivery that waits for its second try, and one that was abandoned.
async fn two_that_failed(home: &Home) -> Sqlite {
    let store = Sqlite::open(&home.database()).await.unwrap();
    let (waiting, lost) = (delivery("crm_contact", 1), delivery("erp", 2));
    store.accept(vec![waiting, lost]).await.unwrap();
    for (plan, status, outcome) in [
        ("crm_contact", 503, Outcome::RetryAt(at(5 * SECOND))),
        ("erp", 410, Outcome::Abandoned),
    ] {
        let held = store.claim(plan, start(), MINUTE, 1).await.unwrap();
        let attempt = tried(status, start());
        store.settle(&held[0], &attempt, &outcome).await.unwrap();
    }
    store
}

async fn printed(store: &Sqlite, filter: &Filter, json: bool) -> String {
    let mut out = Vec::new();
    deliveries::list(store, filter, 100, json, &mut out)
        .await
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn deliveries_are_listed_for_people() {
    let home = Home::new();
    let store = two_that_failed(&home).await;
    insta::assert_snapshot!(printed(&store, &Filter::default(), false).await);
}

#[tokio::test]
async fn deliveries_are_listed_for_programs() {
    let home = Home::new();
    let store = two_that_failed(&home).await;
    insta::assert_snapshot!(printed(&store, &Filter::default(), true).await);
}

#[tokio::test]
async fn an_empty_list_says_so() {
    let home = Home::new();
    let store = two_that_failed(&home).await;
    let plan = Some("tax".to_owned());
    let none = Filter {
        plan,
        ..Filter::default()
    };
    assert_eq!(printed(&store, &none, false).await, "No deliveries.\n");
    assert_eq!(printed(&store, &none, true).await, "[]\n");
}

#[tokio::test]
async fn a_retry_tells_how_many_are_due() {
    let home = Home::new();
    let store = two_that_failed(&home).await;
    let mut out = Vec::new();
    let erp = Filter {
        plan: Some("erp".to_owned()),
        ..Filter::default()
    };
    for filter in [erp, Filter::default()] {
        deliveries::retry(&store, &filter, start(), DAY, &mut out)
            .await
            .unwrap();
    }
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "1 delivery is due now.\n2 deliveries are due now.\n"
    );
}
