//! Decisions are written to the database and never delay a response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use vestibule::store::decision_log::{OnLoss, recorder};
use vestibule::store::{Store, sqlite};
use vestibule_testing::bounded;

use crate::fixtures::{TempFolder, decision};

fn loss_counter() -> (OnLoss, Arc<AtomicU64>) {
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    let on_loss = Arc::new(move |number| {
        count.fetch_add(number, Ordering::Relaxed);
    });
    (on_loss, lost)
}

async fn count_recorded(temp: &TempFolder) -> i64 {
    let options = SqliteConnectOptions::new().filename(temp.database());
    let mut connection = options.connect().await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM decisions")
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn decisions_recorded_before_the_stop_are_written() {
    let temp = TempFolder::new();
    let store = Arc::new(sqlite::open(&temp.database()).await.unwrap());
    let (on_loss, lost) = loss_counter();
    let (recorder, mut writer) = recorder(store, on_loss);
    for number in 0..1000 {
        recorder.record(decision(number));
    }
    bounded("the writer finishes", writer.finish()).await;
    assert_eq!(count_recorded(&temp).await, 1000);
    assert_eq!(lost.load(Ordering::Relaxed), 0);
    recorder.record(decision(1000));
    assert_eq!(lost.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn decisions_that_cannot_be_written_are_counted_as_lost_without_a_delay() {
    let temp = TempFolder::new();
    let store = Arc::new(sqlite::open(&temp.database()).await.unwrap());
    let (on_loss, lost) = loss_counter();
    let (recorder, mut writer) = recorder(store.clone(), on_loss);
    for number in 0..5000 {
        recorder.record(decision(number));
    }
    assert_eq!(lost.load(Ordering::Relaxed), 904);
    store.close().await;
    bounded("the writer finishes", writer.finish()).await;
    assert_eq!(lost.load(Ordering::Relaxed), 5000);
}
