//! Parallel calls share a transaction, and a failing call does not fail the others.

use std::sync::Arc;

use uuid::Uuid;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::model::delivery::NewDelivery;
use vestibule::store::outbox::outbox;
use vestibule::store::{Filter, Store, sqlite};
use vestibule_testing::{bounded, join_all};

use crate::fixtures::{DeliveryStoreExt as _, TempFolder, delivery};

async fn count_stored(store: &Arc<dyn Store>) -> usize {
    store.list(&Filter::default(), 10_000).await.unwrap().len()
}

async fn temp_store() -> (TempFolder, Arc<dyn Store>) {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    (temp, Arc::new(store))
}

#[tokio::test]
async fn each_caller_gets_the_number_of_its_own_new_deliveries() {
    let (_temp, store) = temp_store().await;
    let (outbox, writer) = outbox(store.clone(), Arc::new(Metrics::new()), Clock::system());
    // The writer has not started, so all calls are written together.
    let calls = [
        vec![delivery("crm", 1), delivery("erp", 1)],
        vec![],
        vec![delivery("crm", 2)],
        vec![
            NewDelivery {
                id: Uuid::from_u128(77),
                ..delivery("crm", 1)
            },
            delivery("crm", 3),
        ],
    ];
    let calls_in_flight = calls.map(|call| {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.accept(call).await })
    });
    tokio::task::yield_now().await;
    let writing = tokio::spawn(writer.run());
    let results = join_all("each call has its result", calls_in_flight).await;
    let results: Vec<usize> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, [2, 0, 1, 1]);
    assert_eq!(count_stored(&store).await, 4);
    drop(outbox);
    bounded("the writer ends", writing).await.unwrap();
}

#[tokio::test]
async fn a_call_that_the_database_rejects_fails_alone() {
    let (_temp, store) = temp_store().await;
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    let (outbox, writer) = outbox(store.clone(), Arc::new(Metrics::new()), Clock::system());
    // Another delivery with an existing id.
    let conflicting = NewDelivery {
        unique_key: "another".to_owned(),
        ..delivery("crm", 1)
    };
    let calls = [
        vec![delivery("crm", 2)],
        vec![conflicting],
        vec![delivery("crm", 3)],
    ];
    let calls_in_flight = calls.map(|call| {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.accept(call).await })
    });
    tokio::task::yield_now().await;
    tokio::spawn(writer.run());
    let results = join_all("each call has its result", calls_in_flight).await;
    let results: Vec<_> = results.into_iter().map(Result::ok).collect();
    assert_eq!(results, [Some(1), None, Some(1)]);
    assert_eq!(count_stored(&store).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_parallel_calls_are_all_stored() {
    let (_temp, store) = temp_store().await;
    let (outbox, writer) = outbox(store.clone(), Arc::new(Metrics::new()), Clock::system());
    tokio::spawn(writer.run());
    let calls_in_flight = (0..1000).map(|identity| {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.accept(vec![delivery("crm", identity)]).await })
    });
    for stored in join_all("each call has its result", calls_in_flight).await {
        assert_eq!(stored.unwrap(), 1);
    }
    assert_eq!(count_stored(&store).await, 1000);
}

#[tokio::test]
async fn accept_fails_without_a_writer() {
    let (_temp, store) = temp_store().await;
    let (outbox, writer) = outbox(store, Arc::new(Metrics::new()), Clock::system());
    drop(writer);
    let accepted = bounded("the call ends", outbox.accept(vec![delivery("crm", 1)]));
    assert!(accepted.await.is_err());
}
