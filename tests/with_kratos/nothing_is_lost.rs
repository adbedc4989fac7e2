//! Calls that never come, accounts that were never made, services that are away: in the end everybody knows.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::fields::{EMAIL, INVITE, VAT_NUMBER};
use crate::support::service::{Behaviour, KNOWN_INVITE, Received, UNKNOWN_VAT_NUMBER};
use crate::support::test_env::TestEnvBuilder;
use crate::support::{Client, TestEnv, company, eventually, within};

/// About every fifth huge form has a later call arrive without a body.
const ROUNDS: usize = 150;

fn house() -> TestEnvBuilder {
    TestEnv::plan().on("nothing_is_lost.yaml")
}

/// The identities that the CRM was told of by this event, in order.
fn told(received: &[Received], event: &str) -> Vec<Value> {
    received
        .iter()
        .filter(|call| call.body["type"] == event)
        .map(|call| call.body["data"]["identity"]["id"].clone())
        .collect()
}

/// Above 64 KiB of input Kratos's Jsonnet workers break, and this hook or the next is called with an empty body
/// (contract §3.7).
pub async fn an_account_whose_post_came_empty_is_delivered_within_seconds() {
    let house = house().open().await;
    let unread = "vestibule_lost_posts_total{reason=\"unreadable\"}";
    let mut rounds = 0;
    while house.vestibule.metric(unread).await < 0.5 {
        rounds += 1;
        assert!(
            rounds < ROUNDS,
            "no `post` came without a body, so this shows nothing"
        );
        // Side by side, so that a worker breaks between the two calls of somebody else.
        let forms = (0..8).map(|number| match number % 2 {
            0 => company().with("transient_payload.note", "x".repeat(100_000)),
            _ => company(),
        });
        let sign_ups = forms.map(async |typed| {
            let visitor = house.visitor(Client::BrowserJson);
            let mut flow = visitor.registration().await;
            flow.submit(&typed.by_password()).await;
        });
        join_all(sign_ups).await;
    }
    eventually("every account is delivered", async || {
        let mut made: Vec<String> = ids(&house.kratos.identities().await);
        let mut known: Vec<String> = told(&house.crm.received(), "identity.created")
            .iter()
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect();
        made.sort();
        known.sort();
        (made == known).then_some(())
    })
    .await;
}

fn ids(identities: &[Value]) -> Vec<String> {
    identities
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect()
}

pub async fn accounts_of_which_no_post_tells_are_delivered_once_by_the_journal() {
    let house = house().without_post_hooks().open().await;
    let mut made = Vec::new();
    for client in [Client::BrowserForm, Client::BrowserJson, Client::Api] {
        let typed = company().by_password();
        made.push(house.visitor(client).signs_up(&typed).await["id"].clone());
    }
    assert_eq!(house.crm.received().len(), 0);
    let mut known = within(Duration::from_mins(2), "all are delivered", async || {
        let known = told(&house.crm.received(), "identity.created");
        (known.len() >= made.len()).then_some(known)
    })
    .await;
    made.sort_by_key(ToString::to_string);
    known.sort_by_key(ToString::to_string);
    assert_eq!(known, made, "each once");
}

/// The same for methods whose identifier hooks are not told: the account is given an id of ours, and found by that.
pub async fn an_account_without_a_known_identifier_is_found_by_its_external_id() {
    let house = house().without_post_hooks().disguised().open().await;
    let identity = house
        .visitor(Client::Api)
        .signs_up(&company().by_password())
        .await;
    let id = identity["id"].as_str().expect("an id");
    let external_id = house.kratos.identity(id).await["external_id"].clone();
    assert!(
        external_id
            .as_str()
            .is_some_and(|id| id.starts_with("vestibule:"))
    );
    let known = within(Duration::from_mins(2), "it is delivered", async || {
        let known = told(&house.crm.received(), "identity.created");
        (!known.is_empty()).then_some(known)
    })
    .await;
    assert_eq!(known, [json!(id)]);
}

pub async fn an_invite_is_released_when_kratos_made_no_account_after_all() {
    let house = house().expiring_after("5s").open().await;
    let first = company().by_password();
    house.visitor(Client::Api).signs_up(&first).await;

    let taken = company()
        .with(EMAIL, first.text(EMAIL))
        .with(INVITE, KNOWN_INVITE)
        .by_password();
    let visitor = house.visitor(Client::BrowserJson);
    let mut flow = visitor.registration().await;
    let answer = flow.submit(&taken).await;
    assert!(!answer.is_accepted(), "the address is taken");
    let calls = || {
        let received = house.invites.received();
        let line = |call: &Received| format!("{} {}", call.method, call.path);
        received.iter().map(line).collect::<Vec<_>>()
    };
    let hold = format!("POST /invites/{KNOWN_INVITE}/hold");
    assert_eq!(calls(), std::slice::from_ref(&hold));

    within(Duration::from_mins(2), "it is released", async || {
        (calls().len() > 1).then_some(())
    })
    .await;
    assert_eq!(calls(), [hold, "DELETE /holds/hold-1".to_owned()]);
    let failed = eventually("it is told", async || {
        let received = house.crm.received();
        received
            .into_iter()
            .find(|call| call.body["type"] == "registration.failed")
    })
    .await;
    let traits = &failed.body["data"]["identity"]["traits"];
    assert_eq!(traits["vat_number"], taken.text(VAT_NUMBER));
    assert_eq!(told(&house.crm.received(), "identity.created").len(), 1);
}

pub async fn an_account_is_made_while_the_register_is_away_and_refused_later() {
    let house = house().open().await;
    house.vat_register.does(Behaviour::Answers(503));
    let typed = company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER).by_password();
    let identity = house.visitor(Client::BrowserForm).signs_up(&typed).await;
    let id = identity["id"].as_str().expect("an id");
    eventually("it is noted that it was not checked", async || {
        let now = house.kratos.identity(id).await;
        let note = &now["metadata_admin"]["vestibule"]["deferred"]["vat_number"];
        note.is_object().then_some(())
    })
    .await;
    assert_eq!(house.kratos.identity(id).await["state"], "active");

    house.vat_register.does(Behaviour::Works);
    let now = eventually("the account is inactive", async || {
        let now = house.kratos.identity(id).await;
        (now["state"] == "inactive").then_some(now)
    })
    .await;
    let admin = &now["metadata_admin"]["vestibule"];
    assert_eq!(admin["refused"]["vat_number"]["message_id"], 4_900_101);
    assert_eq!(admin["deferred"], json!({}));
    eventually("somebody is told", async || {
        (told(&house.crm.received(), "check.refused") == [json!(id)]).then_some(())
    })
    .await;
}

pub async fn what_the_crm_answers_is_written_into_the_identity() {
    let house = house().open().await;
    let typed = company().with(INVITE, KNOWN_INVITE).by_password();
    let identity = house.visitor(Client::Api).signs_up(&typed).await;
    let id = identity["id"].as_str().expect("an id");
    let now = eventually("it is written", async || {
        let now = house.kratos.identity(id).await;
        now["metadata_admin"]["crm_id"].is_string().then_some(now)
    })
    .await;
    assert_eq!(now["metadata_admin"], json!({"crm_id": "contact-1"}));
    assert_eq!(now["traits"]["invite"], KNOWN_INVITE);
    let confirmed = eventually("the invite is confirmed", async || {
        let received = house.invites.received();
        received
            .into_iter()
            .find(|call| call.path == "/holds/hold-1/confirm")
    })
    .await;
    assert_eq!(confirmed.body, json!({"account": id}));
}
