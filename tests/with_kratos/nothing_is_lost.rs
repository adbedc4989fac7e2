//! Lost `post` calls, sign-ups without an account, and outages of services.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::fields::{EMAIL, INVITE, VAT_NUMBER};
use crate::support::service::{Behaviour, KNOWN_INVITE, Received, UNKNOWN_VAT_NUMBER};
use crate::support::test_env::TestEnvBuilder;
use crate::support::{Client, TestEnv, company, eventually, within};

/// For about every fifth huge form, a later call arrives without a body.
const ROUNDS: usize = 150;

fn builder() -> TestEnvBuilder {
    TestEnv::builder().with_settings("nothing_is_lost.yaml")
}

/// The ids of the identities in the CRM's deliveries of this event, in order.
fn delivered_ids(received: &[Received], event: &str) -> Vec<Value> {
    received
        .iter()
        .filter(|call| call.body["type"] == event)
        .map(|call| call.body["data"]["identity"]["id"].clone())
        .collect()
}

/// Above 64 KiB of input a Jsonnet worker of Kratos breaks, and Kratos calls this hook or the next with an empty body
/// (contract §3.7).
pub async fn vestibule_delivers_an_account_within_seconds_of_an_empty_post() {
    let env = builder().start().await;
    let lost_posts = "vestibule_lost_posts_total{reason=\"unreadable\"}";
    let mut rounds = 0;
    while env.vestibule.metric(lost_posts).await < 0.5 {
        rounds += 1;
        assert!(
            rounds < ROUNDS,
            "every `post` had a body, so the test proves nothing"
        );
        // In parallel, so that a worker breaks between `pre` and `post` of another sign-up.
        let forms = (0..8).map(|number| match number % 2 {
            0 => company().with("transient_payload.note", "x".repeat(100_000)),
            _ => company(),
        });
        let sign_ups = forms.map(async |typed| {
            let visitor = env.visitor(Client::BrowserJson);
            let mut flow = visitor.registration().await;
            flow.submit(&typed.by_password()).await;
        });
        join_all(sign_ups).await;
    }
    eventually("Vestibule delivers every account", async || {
        let mut created: Vec<String> = ids(&env.kratos.identities().await);
        let mut delivered: Vec<String> = delivered_ids(&env.crm.received(), "identity.created")
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect();
        created.sort();
        delivered.sort();
        (created == delivered).then_some(())
    })
    .await;
}

fn ids(identities: &[Value]) -> Vec<String> {
    identities
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect()
}

pub async fn vestibule_delivers_accounts_without_a_post_once() {
    let env = builder().without_post_hooks().start().await;
    let mut created = Vec::new();
    for client in [Client::BrowserForm, Client::BrowserJson, Client::Api] {
        let typed = company().by_password();
        created.push(env.visitor(client).sign_up(&typed).await["id"].clone());
    }
    assert_eq!(env.crm.received().len(), 0);
    let mut delivered = within(
        Duration::from_mins(2),
        "Vestibule delivers every account",
        async || {
            let delivered = delivered_ids(&env.crm.received(), "identity.created");
            (delivered.len() >= created.len()).then_some(delivered)
        },
    )
    .await;
    created.sort_by_key(ToString::to_string);
    delivered.sort_by_key(ToString::to_string);
    assert_eq!(delivered, created, "Vestibule delivers each account once");
}

/// For methods whose hooks contain no identifier, Vestibule sets an `external_id` and finds the account by it.
pub async fn vestibule_finds_an_account_without_a_known_identifier_by_its_external_id() {
    let env = builder()
        .without_post_hooks()
        .reported_as_passkey()
        .start()
        .await;
    let identity = env
        .visitor(Client::Api)
        .sign_up(&company().by_password())
        .await;
    let id = identity["id"].as_str().expect("an id");
    let external_id = env.kratos.identity(id).await["external_id"].clone();
    assert!(
        external_id
            .as_str()
            .is_some_and(|id| id.starts_with("vestibule:"))
    );
    let delivered = within(
        Duration::from_mins(2),
        "Vestibule delivers the account",
        async || {
            let delivered = delivered_ids(&env.crm.received(), "identity.created");
            (!delivered.is_empty()).then_some(delivered)
        },
    )
    .await;
    assert_eq!(delivered, [json!(id)]);
}

pub async fn vestibule_releases_an_invite_if_kratos_creates_no_account() {
    let env = builder().with_flow_lifespan("5s").start().await;
    let first = company().by_password();
    env.visitor(Client::Api).sign_up(&first).await;

    let taken = company()
        .with(EMAIL, first.text(EMAIL))
        .with(INVITE, KNOWN_INVITE)
        .by_password();
    let visitor = env.visitor(Client::BrowserJson);
    let mut flow = visitor.registration().await;
    let response = flow.submit(&taken).await;
    assert!(!response.is_accepted(), "Kratos refuses the taken address");
    let calls = || {
        let received = env.invites.received();
        let line = |call: &Received| format!("{} {}", call.method, call.path);
        received.iter().map(line).collect::<Vec<_>>()
    };
    let hold = format!("POST /invites/{KNOWN_INVITE}/hold");
    assert_eq!(calls(), std::slice::from_ref(&hold));

    within(
        Duration::from_mins(2),
        "Vestibule releases the invite",
        async || (calls().len() > 1).then_some(()),
    )
    .await;
    assert_eq!(calls(), [hold, "DELETE /holds/hold-1".to_owned()]);
    let failed = eventually("Vestibule delivers `registration.failed`", async || {
        let received = env.crm.received();
        received
            .into_iter()
            .find(|call| call.body["type"] == "registration.failed")
    })
    .await;
    let traits = &failed.body["data"]["identity"]["traits"];
    assert_eq!(traits["vat_number"], taken.text(VAT_NUMBER));
    assert_eq!(
        delivered_ids(&env.crm.received(), "identity.created").len(),
        1
    );
}

pub async fn vestibule_refuses_an_account_late_after_an_outage_of_the_register() {
    let env = builder().start().await;
    env.vat_register.set_behaviour(Behaviour::Answers(503));
    let typed = company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER).by_password();
    let identity = env.visitor(Client::BrowserForm).sign_up(&typed).await;
    let id = identity["id"].as_str().expect("an id");
    eventually("Vestibule marks the identity as deferred", async || {
        let now = env.kratos.identity(id).await;
        let mark = &now["metadata_admin"]["vestibule"]["deferred"]["vat_number"];
        mark.is_object().then_some(())
    })
    .await;
    assert_eq!(env.kratos.identity(id).await["state"], "active");

    env.vat_register.set_behaviour(Behaviour::Works);
    let now = eventually("Vestibule deactivates the account", async || {
        let now = env.kratos.identity(id).await;
        (now["state"] == "inactive").then_some(now)
    })
    .await;
    let admin = &now["metadata_admin"]["vestibule"];
    assert_eq!(admin["refused"]["vat_number"]["message_id"], 4_900_101);
    assert_eq!(admin["deferred"], json!({}));
    eventually("Vestibule delivers `check.refused`", async || {
        (delivered_ids(&env.crm.received(), "check.refused") == [json!(id)]).then_some(())
    })
    .await;
}

pub async fn vestibule_writes_the_response_of_the_crm_into_the_identity() {
    let env = builder().start().await;
    let typed = company().with(INVITE, KNOWN_INVITE).by_password();
    let identity = env.visitor(Client::Api).sign_up(&typed).await;
    let id = identity["id"].as_str().expect("an id");
    let now = eventually("Vestibule writes the CRM's id", async || {
        let now = env.kratos.identity(id).await;
        now["metadata_admin"]["crm_id"].is_string().then_some(now)
    })
    .await;
    assert_eq!(now["metadata_admin"], json!({"crm_id": "contact-1"}));
    assert_eq!(now["traits"]["invite"], KNOWN_INVITE);
    let confirmed = eventually("Vestibule confirms the invite", async || {
        let received = env.invites.received();
        received
            .into_iter()
            .find(|call| call.path == "/holds/hold-1/confirm")
    })
    .await;
    assert_eq!(confirmed.body, json!({"account": id}));
}
