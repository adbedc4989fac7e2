//! Accounts that no hook told of, and accounts that are gone, in a real Kratos.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::service::Behaviour;
use crate::support::{Client, TestEnv, company, eventually};

/// More than a page.
const IMPORTED: usize = 130;

pub async fn imported_accounts_are_delivered_once_and_deleted_ones_forgotten() {
    let house = TestEnv::open().await;
    let signed_up = house
        .visitor(Client::Api)
        .signs_up(&company().by_password())
        .await;
    let told = house.crm.next().await;
    assert_eq!(told.body["data"]["identity"]["id"], signed_up["id"]);
    let made: Vec<Value> = (0..IMPORTED)
        .map(|_| json!({"schema_id": "company", "traits": company().nested()["traits"]}))
        .collect();
    house.kratos.import(&made).await;

    // Whoever was made just now is left to a hook that may be on its way.
    let found = eventually("they are found", async || {
        let found = house.vestibule.runs(&["reconcile", "--dry-run"]);
        found
            .contains(&format!("Would store {IMPORTED} deliveries"))
            .then_some(found)
    })
    .await;
    assert!(!found.contains('@'), "{found}");
    assert!(
        !found.contains(signed_up["id"].as_str().expect("an id")),
        "the hook told of it: {found}"
    );

    let said = house.vestibule.runs(&["reconcile"]);
    assert!(
        said.starts_with(&format!(
            "Examined {} identities. Stored {IMPORTED} deliveries",
            IMPORTED + 1
        )),
        "{said}"
    );
    // The running program takes them up within a minute, or at once when something else is stored.
    house
        .visitor(Client::Api)
        .signs_up(&company().by_password())
        .await;
    let mut emails = BTreeSet::new();
    for _ in 0..=IMPORTED {
        let contact = house.crm.next().await.body;
        assert_eq!(contact["type"], "identity.created");
        let identity = &contact["data"]["identity"];
        assert_eq!(identity["metadata_admin"], Value::Null);
        assert_eq!(identity["credentials"], Value::Null);
        let email = identity["traits"]["email"].as_str().expect("an address");
        emails.insert(email.to_owned());
    }
    assert_eq!(emails.len(), IMPORTED + 1, "each once");
    for identity in &made {
        let email = identity["traits"]["email"].as_str().expect("an address");
        assert!(emails.contains(email));
    }
    let said = house.vestibule.runs(&["reconcile"]);
    assert!(said.contains("Nothing was missing."), "{said}");

    // One is deleted while its delivery waits.
    house.crm.does(Behaviour::Answers(503));
    let gone = house
        .visitor(Client::Api)
        .signs_up(&company().by_password())
        .await;
    let id = gone["id"].as_str().expect("an id");
    house.crm.next().await;
    house.kratos.delete(id).await;
    let said = house.vestibule.runs(&["reconcile"]);
    assert!(
        said.contains("Erased the data of 1 identity deleted in Kratos (1 delivery)."),
        "{said}"
    );
    let listed = house
        .vestibule
        .runs(&["deliveries", "list", "--limit", "1", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(
        (&listed[0]["identity_id"], &listed[0]["state"]),
        (&json!(id), &json!("discarded"))
    );
    let said = house.vestibule.runs(&["reconcile"]);
    assert!(!said.contains("Forgot"), "{said}");
    let told = house.crm.received();
    let of_others = told
        .iter()
        .filter(|one| one.body["data"]["identity"]["id"] != gone["id"]);
    assert_eq!(of_others.count(), IMPORTED + 2, "nobody was told of twice");
}
