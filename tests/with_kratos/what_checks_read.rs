//! What a check reads decides whether it runs again, and `accept` admits nobody because of the value they chose.

use serde_json::json;

use crate::support::fields::{COMPANY, EMAIL, INVITE, VAT_NUMBER};
use crate::support::message::{INVITE_UNKNOWN, VAT_UNKNOWN};
use crate::support::service::{Behaviour, KNOWN_INVITE, UNKNOWN_VAT_NUMBER, registered_name};
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

const SETTINGS: &str = "what_checks_read.yaml";
const NOT_VALID: u64 = 4_900_002;

pub async fn a_bad_number_is_asked_about_when_only_the_kind_changes(client: Client) {
    let house = TestEnv::plan().on(SETTINGS).open().await;
    let mut visitor = house.visitor(client);
    let good = company();
    let private = good
        .clone()
        .with(COMPANY, "Private person")
        .with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);
    let identity = visitor.signs_up(&private.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    assert!(house.vat_numbers_asked().is_empty());

    let mut flow = visitor.settings().await;
    let becomes_a_company = private.clone().with(COMPANY, "Muster AG").by_profile();
    let answer = flow.submit(&becomes_a_company).await;
    assert_eq!(answer.refused(), [at(VAT_NUMBER, VAT_UNKNOWN)]);
    let stored = house.kratos.identity(id).await;
    assert_eq!(stored["traits"]["company"], "Private person");

    let corrected = becomes_a_company.with(VAT_NUMBER, good.text(VAT_NUMBER));
    flow.submit(&corrected).await.saved();
    let stored = house.kratos.identity(id).await;
    let name = registered_name(good.text(VAT_NUMBER));
    assert_eq!(stored["metadata_public"], json!({ "company": name }));

    // Private again: nothing is asked, and what the check had set goes.
    let asked = house.vat_numbers_asked().len();
    let mut flow = visitor.settings().await;
    flow.submit(&corrected.with(COMPANY, "Private person"))
        .await
        .saved();
    assert_eq!(house.vat_numbers_asked().len(), asked);
    let stored = house.kratos.identity(id).await;
    assert_eq!(stored["metadata_public"], json!({}));
    assert_eq!(stored["traits"]["vat_number"], good.text(VAT_NUMBER));
}

pub async fn a_check_without_a_field_runs_in_settings_if_a_trait_that_it_reads_changes(
    client: Client,
) {
    let house = TestEnv::plan().on(SETTINGS).open().await;
    let mut visitor = house.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE);
    visitor.signs_up(&typed.clone().by_password()).await;
    assert_eq!(house.invites.received().len(), 1);

    let mut flow = visitor.settings().await;
    flow.submit(&typed.clone().with(COMPANY, "By another name").by_profile())
        .await
        .saved();
    assert_eq!(house.invites.received().len(), 1);

    let mut flow = visitor.settings().await;
    let answer = flow
        .submit(&typed.with(INVITE, "MADE-UP").by_profile())
        .await;
    assert_eq!(answer.refused(), [at("form", INVITE_UNKNOWN)]);
}

pub async fn a_valid_address_that_the_service_rejects_is_not_admitted(client: Client) {
    let house = TestEnv::plan().on(SETTINGS).open().await;
    let visitor = house.visitor(client);
    let typed = company().by_password();
    let odd = typed.clone().with(EMAIL, "a/b@example.org");
    let mut flow = visitor.registration().await;
    for status in [400, 403] {
        house.crm.does(Behaviour::Answers(status));
        let answer = flow.submit(&odd).await;
        assert_eq!(answer.refused(), [at(EMAIL, NOT_VALID)], "{status}");
        assert!(house.kratos.identities().await.is_empty());
    }
    // `accept` is for a service that is down.
    house.crm.does(Behaviour::Answers(503));
    let answer = flow.submit(&typed).await;
    flow.signed_up(&answer).await;
}
