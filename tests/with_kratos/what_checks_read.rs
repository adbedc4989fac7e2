//! Vestibule runs a check again if something that the check reads changes. `accept` admits no visitor because of a chosen value.

use serde_json::json;

use crate::support::fields::{COMPANY, EMAIL, INVITE, VAT_NUMBER};
use crate::support::message::{INVITE_UNKNOWN, VAT_UNKNOWN};
use crate::support::service::{Behaviour, KNOWN_INVITE, UNKNOWN_VAT_NUMBER, registered_name};
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

const SETTINGS: &str = "what_checks_read.yaml";
const NOT_VALID: u64 = 4_900_002;

pub async fn vestibule_checks_an_unchanged_field_once_its_when_condition_becomes_true(
    client: Client,
) {
    let env = TestEnv::builder().with_settings(SETTINGS).start().await;
    let mut visitor = env.visitor(client);
    let good = company();
    let private = good
        .clone()
        .with(COMPANY, "Private person")
        .with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);
    let identity = visitor.sign_up(&private.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    assert!(env.checked_vat_numbers().is_empty());

    let mut flow = visitor.settings().await;
    let becomes_a_company = private.clone().with(COMPANY, "Muster AG").by_profile();
    let response = flow.submit(&becomes_a_company).await;
    assert_eq!(response.assert_refused(), [at(VAT_NUMBER, VAT_UNKNOWN)]);
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["company"], "Private person");

    let corrected = becomes_a_company.with(VAT_NUMBER, good.text(VAT_NUMBER));
    flow.submit(&corrected).await.assert_saved();
    let stored = env.kratos.identity(id).await;
    let name = registered_name(good.text(VAT_NUMBER));
    assert_eq!(stored["metadata_public"], json!({ "company": name }));

    // Private again: Vestibule calls no service and removes what the check set.
    let asked = env.checked_vat_numbers().len();
    let mut flow = visitor.settings().await;
    flow.submit(&corrected.with(COMPANY, "Private person"))
        .await
        .assert_saved();
    assert_eq!(env.checked_vat_numbers().len(), asked);
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["metadata_public"], json!({}));
    assert_eq!(stored["traits"]["vat_number"], good.text(VAT_NUMBER));
}

pub async fn vestibule_runs_a_check_without_a_field_if_a_trait_that_it_reads_changes(
    client: Client,
) {
    let env = TestEnv::builder().with_settings(SETTINGS).start().await;
    let mut visitor = env.visitor(client);
    let typed = company().with(INVITE, KNOWN_INVITE);
    visitor.sign_up(&typed.clone().by_password()).await;
    assert_eq!(env.invites.received().len(), 1);

    let mut flow = visitor.settings().await;
    flow.submit(&typed.clone().with(COMPANY, "By another name").by_profile())
        .await
        .assert_saved();
    assert_eq!(env.invites.received().len(), 1);

    let mut flow = visitor.settings().await;
    let response = flow
        .submit(&typed.with(INVITE, "MADE-UP").by_profile())
        .await;
    assert_eq!(response.assert_refused(), [at("form", INVITE_UNKNOWN)]);
}

pub async fn vestibule_refuses_a_valid_address_that_the_service_rejects(client: Client) {
    let env = TestEnv::builder().with_settings(SETTINGS).start().await;
    let visitor = env.visitor(client);
    let typed = company().by_password();
    let odd = typed.clone().with(EMAIL, "a/b@example.org");
    let mut flow = visitor.registration().await;
    for status in [400, 403] {
        env.crm.set_behaviour(Behaviour::Answers(status));
        let response = flow.submit(&odd).await;
        assert_eq!(
            response.assert_refused(),
            [at(EMAIL, NOT_VALID)],
            "{status}"
        );
        assert!(env.kratos.identities().await.is_empty());
    }
    // `accept` applies to a service that is down.
    env.crm.set_behaviour(Behaviour::Answers(503));
    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
}
