//! The contract on a real PostgreSQL server.

use std::sync::{Arc, OnceLock};

use vestibule::base::clock::Clock;
use vestibule::store::{Database, DeliveryStore, Error, Store, postgres};
use vestibule_testing::postgres::Server;
use vestibule_testing::{eventually, join_all};

use crate::contract;
use crate::fixtures::{DeliveryStoreExt as _, MINUTE, at, delivery, start};

/// The server for this run of the tests.
static SERVER: OnceLock<Option<Server>> = OnceLock::new();

contract::test_contract_if_available!(fresh());
crate::flows::test_contract!(fresh());
crate::known_identities::test_contract!(fresh());
crate::identities::test_contract!(fresh());
crate::order::test_contract!(fresh());
crate::unbuilt::test_contract!(fresh());

/// Returns the address of an empty database.
async fn database() -> Option<String> {
    let server = || SERVER.get_or_init(Server::start).as_ref();
    let server = tokio::task::spawn_blocking(server).await.unwrap()?;
    Some(server.database().await)
}

async fn open(url: &str) -> Result<Database, Error> {
    postgres::open(url, Clock::system()).await
}

async fn fresh() -> Option<(Arc<dyn Store>, ())> {
    let store = open(&database().await?).await.unwrap();
    Some((Arc::new(store), ()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_can_start_in_parallel_on_an_empty_database() {
    let Some(url) = database().await else { return };
    let starting = (0..6).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { open(&url).await.unwrap() })
    });
    let stores = join_all("each instance starts", starting).await;
    // Another instance claims what the first one accepted.
    let accepted = stores[0].accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = stores[5].claim("crm", start(), MINUTE, 10).await.unwrap();
    assert_eq!((accepted, held.len()), (1, 1));
    assert!(
        stores[1]
            .claim("crm", start(), MINUTE, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_claim_in_parallel_share_the_deliveries() {
    let Some(url) = database().await else { return };
    let one = open(&url).await.unwrap();
    let other = open(&url).await.unwrap();
    let all: Vec<_> = (1..=200)
        .map(|identity| delivery("crm", identity))
        .collect();
    one.accept(all).await.unwrap();
    let claim = async |store: &Database| {
        let mut ids = Vec::new();
        eventually("everything is claimed", async || {
            let held = store.claim("crm", at(MINUTE), MINUTE, 7).await.unwrap();
            ids.extend(held.iter().map(|held| held.id));
            held.is_empty().then_some(())
        })
        .await;
        ids
    };
    let (mut ours, theirs) = tokio::join!(claim(&one), claim(&other));
    ours.extend(theirs);
    ours.sort();
    ours.dedup();
    assert_eq!(ours.len(), 200, "each once");
}

#[tokio::test]
async fn a_connection_error_does_not_hold_the_password() {
    let error = open("postgres://vestibule:hush-hush@127.0.0.1:1/vestibule")
        .await
        .unwrap_err();
    assert!(
        !error.error_chain().contains("hush-hush"),
        "{}",
        error.error_chain()
    );
}
