//! Conditions, absent fields, immutable values, and entries of lists.

use serde_json::{Value, json};

use crate::support::fields::{COMPANY, EMAIL, INVITE};
use crate::support::message::INVITE_UNKNOWN;
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

const SETTINGS: &str = "checked_fields.yaml";
const REQUIRED: u64 = 4_900_003;
const IMMUTABLE: u64 = 4_900_005;
const NOT_LASTING: u64 = 4_900_104;

fn builder() -> TestEnvBuilder {
    TestEnv::builder().with_settings(SETTINGS)
}

pub async fn visitor_signs_up_without_a_field_that_only_others_must_fill_in(client: Client) {
    let env = builder().start().await;
    let visitor = env.visitor(client);
    let firm = company().with(COMPANY, "Muster AG").by_password();
    let mut flow = visitor.registration().await;
    for absent in [
        firm.clone(),
        firm.clone().with(INVITE, ""),
        firm.clone().with(INVITE, "  "),
    ] {
        let response = flow.submit(&absent).await;
        assert_eq!(response.assert_refused(), [at(INVITE, REQUIRED)]);
    }
    let response = flow.submit(&firm.clone().with(INVITE, "MADE-UP")).await;
    assert_eq!(response.assert_refused(), [at(INVITE, INVITE_UNKNOWN)]);
    assert!(env.kratos.identities().await.is_empty());
    let response = flow.submit(&firm.with(INVITE, "OURS")).await;
    flow.assert_signed_up(&response).await;

    let private = company().with(COMPANY, "Private person");
    let mut visitor = env.visitor(client);
    visitor.sign_up(&private.by_password()).await;
    let made_up = company()
        .with(COMPANY, "Private person")
        .with(INVITE, "MADE-UP");
    let mut visitor = env.visitor(client);
    visitor.sign_up(&made_up.by_password()).await;
}

pub async fn vestibule_requires_an_absent_field_once_the_condition_holds(client: Client) {
    let env = builder().start().await;
    let mut visitor = env.visitor(client);
    let private = company().with(COMPANY, "Private person");
    let identity = visitor.sign_up(&private.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");

    let mut flow = visitor.settings().await;
    let firm = private.clone().with(COMPANY, "Muster AG").by_profile();
    for absent in [firm.clone(), firm.clone().with(INVITE, "")] {
        let response = flow.submit(&absent).await;
        assert_eq!(response.assert_refused(), [at(INVITE, REQUIRED)]);
    }
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["company"], "Private person");

    // Another change of a private person needs no invite.
    let renamed = private.with(COMPANY, "Another person").by_profile();
    flow.submit(&renamed).await.assert_saved();
    let mut flow = visitor.settings().await;
    flow.submit(&firm.with(INVITE, "OURS")).await.assert_saved();
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["company"], "Muster AG");
    assert_eq!(stored["traits"]["invite"], "OURS");
}

pub async fn visitor_can_neither_change_nor_remove_an_immutable_value(client: Client) {
    let env = builder().start().await;
    let mut visitor = env.visitor(client);
    let typed = company().with(COMPANY, "Private person");
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");

    // The first value can be chosen in settings too.
    let mut flow = visitor.settings().await;
    let with_invite = typed.clone().with(INVITE, "OURS").by_profile();
    flow.submit(&with_invite).await.assert_saved();

    let mut flow = visitor.settings().await;
    let others: [Value; 4] = [json!("THEIRS"), json!("ours"), json!(""), json!(" ")];
    for other in others {
        let changed = with_invite.clone().with(INVITE, other.clone());
        let response = flow.submit(&changed).await;
        assert_eq!(
            response.assert_refused(),
            [at(INVITE, IMMUTABLE)],
            "{other}"
        );
    }
    let response = flow.submit(&typed.clone().by_profile()).await;
    assert_eq!(
        response.assert_refused(),
        [at(INVITE, IMMUTABLE)],
        "left out"
    );
    if client != Client::BrowserForm {
        // Kratos itself refuses a null where its schema expects a text.
        let null = with_invite.clone().with(INVITE, Value::Null);
        let response = flow.submit(&null).await;
        assert!(!response.assert_refused().is_empty());
    }
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["invite"], "OURS");

    let mut flow = visitor.settings().await;
    let renamed = with_invite.with(COMPANY, "Another person");
    flow.submit(&renamed).await.assert_saved();
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["invite"], "OURS");
    assert_eq!(stored["traits"]["company"], "Another person");
}

/// A schema with a list, and with a user name that can be null.
fn with_a_list(schema: &mut Value) {
    let traits = &mut schema["properties"]["traits"]["properties"];
    traits["emails"] = json!({
        "type": "array", "title": "E-mails", "items": {"type": "string", "maxLength": 320}, "maxItems": 5,
    });
    traits["invite"]["type"] = json!(["string", "null"]);
}

pub async fn vestibule_checks_and_changes_an_entry_of_a_list(client: Client) {
    let env = builder().with_schema(with_a_list).start().await;
    let visitor = env.visitor(client);
    let typed = company().with(COMPANY, "Private person").by_password();
    let with_list = |emails: Value| typed.clone().with("traits.emails", emails);
    let mut flow = visitor.registration().await;
    let nodes = flow.shown["ui"]["nodes"].as_array().expect("nodes").len();
    let bad = with_list(json!(["A@Mailinator.com", "b@example.org"]));
    let response = flow.submit(&bad).await;
    assert_eq!(
        response.assert_refused(),
        [at("traits.emails", NOT_LASTING)]
    );
    let shown = flow.shown["ui"]["nodes"].as_array().expect("nodes");
    assert_eq!(
        shown.len(),
        nodes,
        "Kratos adds no input for an entry: {shown:#?}"
    );

    let good = with_list(json!(["A@Example.org", "b@Mailinator.com"]));
    let response = flow.submit(&good).await;
    let identity = flow.assert_signed_up(&response).await;
    let stored = env
        .kratos
        .identity(identity["id"].as_str().expect("an id"))
        .await;
    assert_eq!(
        stored["traits"]["emails"],
        json!(["a@example.org", "b@Mailinator.com"])
    );
    assert_eq!(stored["traits"]["email"], typed.text(EMAIL));
}

pub async fn visitor_cannot_replace_an_immutable_value_by_null(client: Client) {
    let env = builder().with_schema(with_a_list).start().await;
    let mut visitor = env.visitor(client);
    let typed = company()
        .with(COMPANY, "Private person")
        .with(INVITE, "OURS");
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let mut flow = visitor.settings().await;
    let null = typed.with(INVITE, Value::Null).by_profile();
    let response = flow.submit(&null).await;
    assert_eq!(response.assert_refused(), [at(INVITE, IMMUTABLE)]);
    let stored = env
        .kratos
        .identity(identity["id"].as_str().expect("an id"))
        .await;
    assert_eq!(stored["traits"]["invite"], "OURS");
}
