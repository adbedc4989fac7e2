//! Decisions are written to the database and never delay a response.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use vestibule::base::clock::{Clock, ManualClock};
use vestibule::model::decision::KeptDecisions;
use vestibule::store::decision_log::{DecisionLog, OnLoss, Writer, recorder as new_recorder};
use vestibule::store::decisions::FlowIdentity;
use vestibule::store::{DecisionStore, Store, sqlite};
use vestibule_testing::bounded;

use crate::fixtures::{SECOND, TempFolder, decision, start};

fn loss_counter() -> (OnLoss, Arc<AtomicU64>) {
    let lost = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lost);
    let on_loss = Arc::new(move |number| {
        count.fetch_add(number, Ordering::Relaxed);
    });
    (on_loss, lost)
}

/// A queue at a time that stands still.
fn recorder(store: Arc<dyn DecisionStore>, on_loss: OnLoss) -> (DecisionLog, Writer) {
    let (clock, _) = Clock::manual(start());
    new_recorder(store, clock, KeptDecisions::All, on_loss)
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

/// Lets the writer receive what is queued, and then lets the second of gathering pass.
async fn gather(writer: &mut Writer, manual: &ManualClock) {
    let mut waiting = Box::pin(writer.wait());
    assert!(!is_ready(&mut waiting).await);
    manual.advance(SECOND);
    assert!(bounded("the writer has gathered", waiting).await);
}

async fn is_ready<T>(work: &mut (impl Future<Output = T> + Unpin)) -> bool {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *work).poll(context).is_ready())).await
}

#[tokio::test]
async fn decisions_of_a_second_are_stored_together() {
    let temp = TempFolder::new();
    let store = Arc::new(sqlite::open(&temp.database()).await.unwrap());
    let (clock, manual) = Clock::manual(start());
    let (on_loss, _) = loss_counter();
    let (recorder, mut writer) = new_recorder(store, clock, KeptDecisions::All, on_loss);
    recorder.record(decision(1));
    let mut waiting = Box::pin(writer.wait());
    assert!(!is_ready(&mut waiting).await);
    recorder.record(decision(2));
    assert!(!is_ready(&mut waiting).await);
    manual.advance(SECOND);
    assert!(bounded("the writer has gathered", waiting).await);
    writer.write().await;
    assert_eq!(count_recorded(&temp).await, 2);
}

#[tokio::test]
async fn only_refusals_are_kept_if_the_settings_say_so() {
    let temp = TempFolder::new();
    let store = Arc::new(sqlite::open(&temp.database()).await.unwrap());
    let (clock, _) = Clock::manual(start());
    let (on_loss, lost) = loss_counter();
    let (recorder, mut writer) = new_recorder(store, clock, KeptDecisions::Refused, on_loss);
    for outcome in ["admitted", "refused", "changed"] {
        let mut decided = decision(1);
        decided.outcome = outcome;
        recorder.record(decided);
    }
    bounded("the writer finishes", writer.finish()).await;
    assert_eq!(count_recorded(&temp).await, 1);
    assert_eq!(lost.load(Ordering::Relaxed), 0);
}

/// The `post` can reach another instance than the `pre`, so the identity can come before the decision.
#[tokio::test]
async fn an_identity_that_comes_before_its_decision_is_recorded_with_the_next_write() {
    let temp = TempFolder::new();
    let store = Arc::new(sqlite::open(&temp.database()).await.unwrap());
    let (clock, manual) = Clock::manual(start());
    let (on_loss, _) = loss_counter();
    let (recorder, mut writer) = new_recorder(store.clone(), clock, KeptDecisions::All, on_loss);
    let (flow_id, identity_id) = (decision(1).flow_id, decision(71).flow_id);
    recorder.record_identity(FlowIdentity {
        flow_id,
        identity_id,
    });
    gather(&mut writer, &manual).await;
    writer.write().await;
    store.record(&[decision(1)]).await.unwrap();
    // No other decision comes, and the identity is tried again all the same.
    gather(&mut writer, &manual).await;
    writer.write().await;
    let stored = store.decisions_of_flow(flow_id).await.unwrap();
    assert_eq!(stored[0].identity_id, Some(identity_id));
}
