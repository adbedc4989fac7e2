//! What the connections to a file guarantee.

use futures_util::FutureExt as _;
use sqlx::SqlitePool;
use uuid::Uuid;

use super::*;
use crate::base::clock::Timestamp;
use crate::model::delivery::{DeliveryOrder, Event, NewDelivery};
use crate::store::adapter::{Sql, query};
use crate::store::{Backlog, DeliveryStore as _, Store as _, WriteSet};

async fn fresh(folder: &tempfile::TempDir) -> Database {
    open(&folder.path().join("vestibule.db")).await.unwrap()
}

/// The connection for writes, and those that only read.
fn connections(store: &Database) -> (&SqlitePool, &SqlitePool) {
    match &store.pool.connections {
        Connections::Sqlite {
            writer, readers, ..
        } => (writer, readers),
        Connections::Postgres { .. } => unreachable!("a file"),
    }
}

fn delivery(number: u128, reason: String) -> NewDelivery {
    NewDelivery {
        id: Uuid::from_u128(number),
        subscription: "crm".to_owned(),
        event: Event::IdentityCreated,
        unique_key: number.to_string(),
        identity_id: Uuid::from_u128(number),
        action: Err(reason),
        order: DeliveryOrder::default(),
        context: None,
        created_at: Timestamp::UNIX_EPOCH,
        due_at: Timestamp::UNIX_EPOCH,
        keep_trying_until: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_committed_write_is_synced_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(&folder).await;
    let (writer, _) = connections(&store);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(writer)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
    for (statement, expected) in [
        ("PRAGMA synchronous", 2),
        ("PRAGMA foreign_keys", 1),
        ("PRAGMA busy_timeout", 5000),
        ("PRAGMA secure_delete", 1),
    ] {
        let value: i64 = sqlx::query_scalar(statement)
            .fetch_one(writer)
            .await
            .unwrap();
        assert_eq!(value, expected, "{statement}");
    }
}

#[tokio::test]
async fn readers_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(&folder).await;
    let (_, readers) = connections(&store);
    let written = sqlx::query("DELETE FROM deliveries").execute(readers);
    assert!(written.await.is_err());
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_leaves_no_partial_write() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(&folder).await;
    let (writer, _) = connections(&store);
    let pages = async |statement: &'static str| {
        let pages: i64 = sqlx::query_scalar(statement)
            .fetch_one(writer)
            .await
            .unwrap();
        pages
    };
    pages("PRAGMA max_page_count = 20").await;
    let large = (0..100).map(|number| delivery(number, "x".repeat(4000)));
    let large = WriteSet::of(large.collect());
    let error = store.write(&large).await.unwrap_err();
    assert!(
        error.error_chain().contains("full"),
        "{}",
        error.error_chain()
    );
    assert_eq!(store.backlog().await.unwrap(), Backlog::default());
    pages("PRAGMA max_page_count = 100000").await;
    let small = WriteSet::of(vec![delivery(1, "x".to_owned())]);
    assert_eq!(store.write(&small).await.unwrap().len(), 1);
}

/// Fails like SQLite on a full or broken disk. SQLite has then rolled back already, so there is nothing to roll
/// back.
#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_does_not_affect_the_next() {
    static ROLLBACK: Sql = Sql::new("ROLLBACK");
    let folder = tempfile::tempdir().unwrap();
    let store = fresh(&folder).await;
    let rolled_back = store.pool.transaction(|on| {
        async move {
            query(&ROLLBACK).execute(on).await?;
            Ok(())
        }
        .boxed()
    });
    assert!(rolled_back.await.is_err());
    store.ping().await.unwrap();
}
