//! Reconciliation with a real Kratos: missing and deleted identities.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::service::Behaviour;
use crate::support::{Client, TestEnv, company, eventually};

/// More than a page.
const IMPORTED: usize = 130;

pub async fn vestibule_delivers_imported_accounts_once_and_erases_deleted_ones() {
    let env = TestEnv::start().await;
    let signed_up = env
        .visitor(Client::Api)
        .sign_up(&company().by_password())
        .await;
    let delivered = env.crm.next().await;
    assert_eq!(delivered.body["data"]["identity"]["id"], signed_up["id"]);
    let created: Vec<Value> = (0..IMPORTED)
        .map(|_| json!({"schema_id": "company", "traits": company().nested()["traits"]}))
        .collect();
    env.kratos.import(&created).await;

    // Reconciliation ignores new identities, because their hooks may not have arrived yet.
    let found = eventually("reconciliation finds the imported identities", async || {
        let found = env.vestibule.run_command(&["reconcile", "--dry-run"]);
        found
            .contains(&format!("Would store {IMPORTED} deliveries"))
            .then_some(found)
    })
    .await;
    assert!(!found.contains('@'), "{found}");
    assert!(
        !found.contains(signed_up["id"].as_str().expect("an id")),
        "a hook has reported this identity: {found}"
    );

    let output = env.vestibule.run_command(&["reconcile"]);
    assert!(
        output.starts_with(&format!(
            "Checked {} identities. Stored {IMPORTED} deliveries",
            IMPORTED + 1
        )),
        "{output}"
    );
    // The running program claims them within a minute, or immediately when another delivery is stored.
    env.visitor(Client::Api)
        .sign_up(&company().by_password())
        .await;
    let mut emails = BTreeSet::new();
    for _ in 0..=IMPORTED {
        let contact = env.crm.next().await.body;
        assert_eq!(contact["type"], "identity.created");
        let identity = &contact["data"]["identity"];
        assert_eq!(identity["metadata_admin"], Value::Null);
        assert_eq!(identity["credentials"], Value::Null);
        let email = identity["traits"]["email"].as_str().expect("an address");
        emails.insert(email.to_owned());
    }
    assert_eq!(
        emails.len(),
        IMPORTED + 1,
        "Vestibule delivers each identity once"
    );
    for identity in &created {
        let email = identity["traits"]["email"].as_str().expect("an address");
        assert!(emails.contains(email));
    }
    let output = env.vestibule.run_command(&["reconcile"]);
    assert!(output.contains("Nothing was missing."), "{output}");

    // Kratos deletes an identity while its delivery is pending.
    env.crm.set_behaviour(Behaviour::Answers(503));
    let deleted = env
        .visitor(Client::Api)
        .sign_up(&company().by_password())
        .await;
    let id = deleted["id"].as_str().expect("an id");
    env.crm.next().await;
    env.kratos.delete(id).await;
    let output = env.vestibule.run_command(&["reconcile"]);
    assert!(
        output.contains("Erased the data of 1 identity deleted in Kratos (1 delivery)."),
        "{output}"
    );
    let listed = env
        .vestibule
        .run_command(&["deliveries", "list", "--limit", "1", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(
        (&listed[0]["identity_id"], &listed[0]["state"]),
        (&json!(id), &json!("discarded"))
    );
    let output = env.vestibule.run_command(&["reconcile"]);
    assert!(!output.contains("Forgot"), "{output}");
    let received = env.crm.received();
    let of_others = received
        .iter()
        .filter(|one| one.body["data"]["identity"]["id"] != deleted["id"]);
    assert_eq!(
        of_others.count(),
        IMPORTED + 2,
        "Vestibule delivers no identity twice"
    );
}
