//! How the command line shows and retries deliveries that are superseded, out of order, or not built.

use serde_json::json;
use uuid::Uuid;
use vestibule::cli::deliveries;
use vestibule::model::delivery::{
    Action, DeliveryOrder, EvaluationContext, Event, NewDelivery, Outcome, Unbuilt,
};
use vestibule::store::admin::RetryWindows;
use vestibule::store::{Database, DeliveryStore, Filter, sqlite};

use crate::fixtures::{
    DeliveryStoreExt as _, MINUTE, SECOND, TempFolder, at, delivery, start, tried,
};

/// The delivery of event `number` about one identity.
fn event(number: u32, supersedes: bool) -> NewDelivery {
    NewDelivery {
        id: Uuid::from_u128(number.into()),
        event: Event::IdentityUpdated,
        unique_key: number.to_string(),
        order: DeliveryOrder {
            updated_at: Some(at(number * SECOND)),
            supersedes,
            once: false,
        },
        ..delivery("crm", 1)
    }
}

/// A database with one abandoned event and a newer one that was delivered.
async fn out_of_order(temp: &TempFolder) -> Database {
    let store = sqlite::open(&temp.database()).await.unwrap();
    for (number, status, outcome) in [(1, 410, Outcome::Abandoned), (2, 204, Outcome::Delivered)] {
        store.accept(vec![event(number, false)]).await.unwrap();
        let held = store.claim("crm", start(), MINUTE, 1).await.unwrap();
        store
            .settle(&held[0], &tried(status, start()), &outcome)
            .await
            .unwrap();
    }
    store
}

async fn retry(store: &Database, filter: &Filter, out_of_order: bool) -> (bool, String) {
    let windows = RetryWindows::default().out_of_order(out_of_order);
    let mut out = Vec::new();
    let done = deliveries::retry(store, filter, at(MINUTE), &windows, &mut out)
        .await
        .unwrap();
    (done, String::from_utf8(out).unwrap())
}

async fn show(store: &Database, number: u128, payload: bool) -> String {
    let mut out = Vec::new();
    let id = Uuid::from_u128(number);
    deliveries::show(store, id, payload, false, &mut out)
        .await
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn a_retry_says_what_is_out_of_order() {
    let temp = TempFolder::new();
    let store = out_of_order(&temp).await;
    let (done, output) = retry(&store, &Filter::default(), false).await;
    assert!(done);
    assert_eq!(
        output,
        "0 deliveries are due now.\n1 delivery was not retried, because newer ones of the same identities have been delivered. \
         `--out-of-order` retries them.\n"
    );
    let first = Filter {
        ids: vec![Uuid::from_u128(1)],
        ..Filter::default()
    };
    let (done, output) = retry(&store, &first, false).await;
    assert!(!done);
    assert!(
        output.starts_with("0 deliveries are due now.\n"),
        "{output}"
    );
    assert!(
        output.contains("was not retried: a newer delivery"),
        "{output}"
    );
    let (done, output) = retry(&store, &first, true).await;
    assert_eq!((done, output.as_str()), (true, "1 delivery is due now.\n"));
}

#[tokio::test]
async fn a_superseded_delivery_is_shown_and_not_changed() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    for number in [1, 2] {
        store.accept(vec![event(number, true)]).await.unwrap();
    }
    let shown = show(&store, 1, true).await;
    assert!(shown.contains("state               superseded"), "{shown}");
    assert!(
        shown.contains("payloads are erased when a delivery is superseded"),
        "{shown}"
    );
    let mut out = Vec::new();
    deliveries::list(&store, &Filter::default(), 9, false, &mut out)
        .await
        .unwrap();
    let listed = String::from_utf8(out).unwrap();
    assert!(listed.contains(" superseded "), "{listed}");
    let first = Filter {
        ids: vec![Uuid::from_u128(1)],
        ..Filter::default()
    };
    let (done, output) = retry(&store, &first, true).await;
    assert!(!done);
    assert!(
        output.contains("it is superseded by a newer delivery"),
        "{output}"
    );
}

#[tokio::test]
async fn an_unbuilt_delivery_is_shown_with_its_reason_and_its_event() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    let unbuilt = NewDelivery {
        action: Ok(Action::Build(Box::new(Unbuilt {
            reason: "no such key `nick` in `identity.traits`".to_owned(),
            context: EvaluationContext {
                identity: Some(json!({"traits": {"email": "ada@example.org"}})),
                ..EvaluationContext::default()
            },
        }))),
        ..event(1, false)
    };
    store.accept(vec![unbuilt]).await.unwrap();
    let shown = show(&store, 1, false).await;
    assert!(shown.contains("reason              not_built"), "{shown}");
    assert!(shown.contains("no such key `nick`"), "{shown}");
    assert!(!shown.contains("ada@example.org"), "{shown}");
    let shown = show(&store, 1, true).await;
    assert!(shown.contains("ada@example.org"), "{shown}");
}
