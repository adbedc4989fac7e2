//! Somebody who has an account changes it.

use serde_json::json;
use vestibule::kratos::snippet::ExtraEvent;

use crate::support::fields::{COMPANY, EMAIL, Fields, INVITE, VAT_NUMBER};
use crate::support::message::VAT_UNKNOWN;
use crate::support::service::{KNOWN_INVITE, UNKNOWN_VAT_NUMBER};
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

pub async fn a_bad_change_is_refused_and_a_good_one_delivered(client: Client) {
    let house = TestEnv::open().await;
    let mut visitor = house.visitor(client);
    let typed = company();
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    assert_eq!(house.crm.next().await.body["type"], "identity.created");

    let mut flow = visitor.settings().await;
    let changed = typed.by_profile();
    for _ in 0..2 {
        let answer = flow
            .submit(&changed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER))
            .await;
        assert_eq!(
            answer.refused(),
            [at(VAT_NUMBER, VAT_UNKNOWN)],
            "beside the field, and no pile"
        );
    }
    let stored = house.kratos.identity(id).await;
    assert_eq!(stored["traits"]["vat_number"], changed.text(VAT_NUMBER));

    let another = company();
    let changed = changed.with(VAT_NUMBER, another.text(VAT_NUMBER));
    flow.submit(&changed).await.saved();
    let stored = house.kratos.identity(id).await;
    assert_eq!(stored["traits"]["vat_number"], another.text(VAT_NUMBER));

    let contact = house.crm.next().await;
    assert_eq!(contact.body["type"], "identity.updated");
    let data = &contact.body["data"];
    assert_eq!(data["identity"]["id"], id);
    assert_eq!(
        data["identity"]["traits"]["vat_number"],
        another.text(VAT_NUMBER)
    );
    assert_eq!(
        data["previous"]["traits"]["vat_number"],
        identity["traits"]["vat_number"]
    );
}

pub async fn an_unchanged_field_is_not_asked_about_again(client: Client) {
    let house = TestEnv::open().await;
    let mut visitor = house.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE);
    visitor.signs_up(&typed.clone().by_password()).await;
    assert_eq!(house.vat_numbers_asked(), [typed.text(VAT_NUMBER)]);
    let invites = house.invites.received().len();

    let mut flow = visitor.settings().await;
    flow.submit(&typed.clone().with(COMPANY, "By another name").by_profile())
        .await
        .saved();

    assert_eq!(house.vat_numbers_asked(), [typed.text(VAT_NUMBER)]);
    assert_eq!(house.invites.received().len(), invites);
    let stored = &house.kratos.identities().await[0];
    assert_eq!(stored["traits"]["company"], "By another name");
    assert_eq!(stored["traits"]["email"], typed.text(EMAIL));
}

pub async fn other_changes_and_a_proved_address_are_told_of(client: Client) {
    let house = TestEnv::plan().telling_of(&ExtraEvent::ALL).open().await;
    let mut visitor = house.visitor(client);
    let typed = company();
    let address = typed.text(EMAIL);
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    assert_eq!(house.crm.next().await.body["type"], "identity.created");

    let mut flow = visitor.settings().await;
    let password = Fields::default()
        .with("method", "password")
        .with("password", "another-long-Pa55phrase");
    flow.submit(&password).await.saved();
    let told = house.crm.next().await.body;
    assert_eq!(told["type"], "credentials.changed");
    assert_eq!(told["data"]["identity"]["id"], identity["id"]);
    assert_eq!(told["data"]["identity"]["traits"]["email"], address);

    // The first code came with the registration, this is another one.
    let mut flow = visitor.verification().await;
    let by_code = Fields::default().with("method", "code");
    flow.submit(&by_code.clone().with("email", address)).await;
    let code = house.kratos.code_mailed_to(address, 1).await;
    flow.submit(&by_code.with("code", code)).await;
    let told = house.crm.next().await.body;
    assert_eq!(told["type"], "identity.verified");
    assert_eq!(told["data"]["identity"]["id"], identity["id"]);
    let verified = &told["data"]["identity"]["verifiable_addresses"][0];
    assert_eq!(verified["value"], address);
    assert_eq!(verified["verified"], true);
}

/// Kratos replaces `metadata_public` as a whole, also with one that is empty.
pub async fn what_a_check_had_set_is_removed_with_the_field(client: Client) {
    let house = TestEnv::plan().on("what_was_set.yaml").open().await;
    let mut visitor = house.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE);
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    let stored = house.kratos.identity(id).await;
    assert_eq!(
        stored["metadata_public"],
        json!({"invited": {"by": "code"}})
    );

    let mut flow = visitor.settings().await;
    flow.submit(&typed.clone().with(COMPANY, "By another name").by_profile())
        .await
        .saved();
    let stored = house.kratos.identity(id).await;
    assert_eq!(
        stored["metadata_public"],
        json!({"invited": {"by": "code"}})
    );

    let mut flow = visitor.settings().await;
    flow.submit(&typed.with(INVITE, " ").by_profile())
        .await
        .saved();
    let stored = house.kratos.identity(id).await;
    assert_eq!(stored["metadata_public"], json!({}));
    assert_eq!(stored["traits"]["invite"], " ", "traits are never removed");
}
