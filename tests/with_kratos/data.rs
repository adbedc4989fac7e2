//! What is stored of a sign-up, and who learns of it.

use uuid::Uuid;

use crate::support::fields::{COMPANY, EMAIL, INVITE, VAT_NUMBER};
use crate::support::service::{KNOWN_INVITE, registered_name};
use crate::support::{Client, TestEnv, company};

pub async fn what_the_register_knows_is_stored_beside_what_the_person_typed(client: Client) {
    let house = TestEnv::open().await;
    let mut visitor = house.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE).by_password();
    let name = registered_name(typed.text(VAT_NUMBER));
    assert_ne!(typed.text(COMPANY), name);

    let seen = visitor.signs_up(&typed).await;

    let stored = house
        .kratos
        .identity(seen["id"].as_str().expect("an id"))
        .await;
    assert_eq!(stored["metadata_public"]["company"], name.as_str());
    assert_eq!(stored["traits"]["company"], name.as_str());
    assert_eq!(stored["traits"]["email"], typed.text(EMAIL));
    assert_eq!(stored["traits"]["vat_number"], typed.text(VAT_NUMBER));
    assert_eq!(stored["traits"]["invite"], KNOWN_INVITE);
    assert_eq!(stored["state"], "active");
}

pub async fn the_crm_learns_of_the_account_that_kratos_made(client: Client) {
    let house = TestEnv::open().await;
    let mut visitor = house.visitor(client);
    let typed = company().by_password();

    let identity = visitor.signs_up(&typed).await;

    let contact = house.crm.next().await;
    assert_eq!(contact.path, "/contacts");
    assert_eq!(contact.body["type"], "identity.created");
    let told = &contact.body["data"]["identity"];
    assert_eq!(told["id"], identity["id"]);
    assert!(
        !told["id"]
            .as_str()
            .and_then(|id| Uuid::parse_str(id).ok())
            .expect("an id")
            .is_nil()
    );
    assert_eq!(told["traits"]["email"], typed.text(EMAIL));
    assert_eq!(
        told["traits"]["company"],
        registered_name(typed.text(VAT_NUMBER))
    );
    assert!(contact.idempotency_key.is_some_and(|key| !key.is_empty()));

    // The next account's delivery is the next call: there was no second one for this account.
    let other = house
        .visitor(client)
        .signs_up(&company().by_password())
        .await;
    let contact = house.crm.next().await;
    assert_eq!(contact.body["data"]["identity"]["id"], other["id"]);
}
