//! What Kratos stores of a sign-up, and what Vestibule delivers.

use uuid::Uuid;

use crate::support::fields::{COMPANY, EMAIL, INVITE, VAT_NUMBER};
use crate::support::service::{KNOWN_INVITE, registered_name};
use crate::support::{Client, TestEnv, company};

pub async fn kratos_stores_what_a_check_sets_beside_what_the_visitor_typed(client: Client) {
    let env = TestEnv::start().await;
    let mut visitor = env.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE).by_password();
    let name = registered_name(typed.text(VAT_NUMBER));
    assert_ne!(typed.text(COMPANY), name);

    let seen = visitor.sign_up(&typed).await;

    let stored = env
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

pub async fn vestibule_notifies_the_crm_of_each_account_once(client: Client) {
    let env = TestEnv::start().await;
    let mut visitor = env.visitor(client);
    let typed = company().by_password();

    let identity = visitor.sign_up(&typed).await;

    let contact = env.crm.next().await;
    assert_eq!(contact.path, "/contacts");
    assert_eq!(contact.body["type"], "identity.created");
    let delivered = &contact.body["data"]["identity"];
    assert_eq!(delivered["id"], identity["id"]);
    assert!(
        !delivered["id"]
            .as_str()
            .and_then(|id| Uuid::parse_str(id).ok())
            .expect("an id")
            .is_nil()
    );
    assert_eq!(delivered["traits"]["email"], typed.text(EMAIL));
    assert_eq!(
        delivered["traits"]["company"],
        registered_name(typed.text(VAT_NUMBER))
    );
    assert!(contact.idempotency_key().is_some_and(|key| !key.is_empty()));

    // The next call delivers the next account, so this account was delivered once.
    let other = env.visitor(client).sign_up(&company().by_password()).await;
    let contact = env.crm.next().await;
    assert_eq!(contact.body["data"]["identity"]["id"], other["id"]);
}
