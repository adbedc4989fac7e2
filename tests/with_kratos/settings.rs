//! A visitor changes an account.

use serde_json::json;
use vestibule::kratos::snippet::ExtraEvent;

use crate::support::fields::{COMPANY, EMAIL, Fields, INVITE, VAT_NUMBER};
use crate::support::message::VAT_UNKNOWN;
use crate::support::service::{KNOWN_INVITE, UNKNOWN_VAT_NUMBER};
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

pub async fn vestibule_refuses_a_bad_change_and_delivers_a_good_one(client: Client) {
    let env = TestEnv::start().await;
    let mut visitor = env.visitor(client);
    let typed = company();
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    assert_eq!(env.crm.next().await.body["type"], "identity.created");

    let mut flow = visitor.settings().await;
    let changed = typed.by_profile();
    for _ in 0..2 {
        let response = flow
            .submit(&changed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER))
            .await;
        assert_eq!(
            response.assert_refused(),
            [at(VAT_NUMBER, VAT_UNKNOWN)],
            "Kratos shows the message once, beside the field"
        );
    }
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["vat_number"], changed.text(VAT_NUMBER));

    let another = company();
    let changed = changed.with(VAT_NUMBER, another.text(VAT_NUMBER));
    flow.submit(&changed).await.assert_saved();
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["vat_number"], another.text(VAT_NUMBER));

    let contact = env.crm.next().await;
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

pub async fn vestibule_does_not_check_an_unchanged_field_again(client: Client) {
    let env = TestEnv::start().await;
    let mut visitor = env.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE);
    visitor.sign_up(&typed.clone().by_password()).await;
    assert_eq!(env.checked_vat_numbers(), [typed.text(VAT_NUMBER)]);
    let invites = env.invites.received().len();

    let mut flow = visitor.settings().await;
    flow.submit(&typed.clone().with(COMPANY, "By another name").by_profile())
        .await
        .assert_saved();

    assert_eq!(env.checked_vat_numbers(), [typed.text(VAT_NUMBER)]);
    assert_eq!(env.invites.received().len(), invites);
    let stored = &env.kratos.identities().await[0];
    assert_eq!(stored["traits"]["company"], "By another name");
    assert_eq!(stored["traits"]["email"], typed.text(EMAIL));
}

pub async fn vestibule_delivers_password_changes_and_verified_addresses(client: Client) {
    let env = TestEnv::builder()
        .with_extra_events(&ExtraEvent::ALL)
        .start()
        .await;
    let mut visitor = env.visitor(client);
    let typed = company();
    let address = typed.text(EMAIL);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    assert_eq!(env.crm.next().await.body["type"], "identity.created");

    let mut flow = visitor.settings().await;
    let password = Fields::default()
        .with("method", "password")
        .with("password", "another-long-Pa55phrase");
    flow.submit(&password).await.assert_saved();
    let delivered = env.crm.next().await.body;
    assert_eq!(delivered["type"], "credentials.changed");
    assert_eq!(delivered["data"]["identity"]["id"], identity["id"]);
    assert_eq!(delivered["data"]["identity"]["traits"]["email"], address);

    // Kratos mailed the first code after the registration. This is the second.
    let mut flow = visitor.verification().await;
    let by_code = Fields::default().with("method", "code");
    flow.submit(&by_code.clone().with("email", address)).await;
    let code = env.kratos.mailed_code(address, 1).await;
    flow.submit(&by_code.with("code", code)).await;
    let delivered = env.crm.next().await.body;
    assert_eq!(delivered["type"], "identity.verified");
    assert_eq!(delivered["data"]["identity"]["id"], identity["id"]);
    let verified = &delivered["data"]["identity"]["verifiable_addresses"][0];
    assert_eq!(verified["value"], address);
    assert_eq!(verified["verified"], true);
}

/// Kratos replaces `metadata_public` as a whole, also with an empty one.
pub async fn vestibule_removes_what_a_check_set_when_the_visitor_empties_the_field(client: Client) {
    let env = TestEnv::builder()
        .with_settings("what_was_set.yaml")
        .start()
        .await;
    let mut visitor = env.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    let stored = env.kratos.identity(id).await;
    assert_eq!(
        stored["metadata_public"],
        json!({"invited": {"by": "code"}})
    );

    let mut flow = visitor.settings().await;
    flow.submit(&typed.clone().with(COMPANY, "By another name").by_profile())
        .await
        .assert_saved();
    let stored = env.kratos.identity(id).await;
    assert_eq!(
        stored["metadata_public"],
        json!({"invited": {"by": "code"}})
    );

    let mut flow = visitor.settings().await;
    flow.submit(&typed.with(INVITE, " ").by_profile())
        .await
        .assert_saved();
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["metadata_public"], json!({}));
    assert_eq!(
        stored["traits"]["invite"], " ",
        "Vestibule never removes traits"
    );
}
