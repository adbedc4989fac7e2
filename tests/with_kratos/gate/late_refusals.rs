//! An account that was refused after it was created is kept out, and writes into identities last, beside whatever people and
//! operators do.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::fields::{COMPANY, EMAIL, Fields, VAT_NUMBER, company_without_number};
use crate::support::message::TRY_AGAIN;
use crate::support::postgres::Server;
use crate::support::service::{Behaviour, UNKNOWN_VAT_NUMBER};
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::Visitor;
use crate::support::{Client, TestEnv, company, eventually, within};

const WRITTEN_BACK: &str = "undid a change that the visitor saved";
const TEXT: &str = "This VAT number is not registered.";

fn house() -> TestEnvBuilder {
    TestEnv::plan()
        .on("nothing_is_lost.yaml")
        .keeping_people_out()
}

/// A person who signed up with a bad number while the register was away.
struct Person {
    visitor: Visitor,
    typed: Fields,
    id: String,
}

async fn signs_up(house: &TestEnv) -> Person {
    house.vat_register.does(Behaviour::Answers(503));
    let typed = company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);
    let mut visitor = house.visitor(Client::Api);
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id").to_owned();
    eventually("it is noted that it was not checked", async || {
        let now = house.kratos.identity(&id).await;
        let note = &now["metadata_admin"]["vestibule"]["deferred"]["vat_number"];
        note.is_object().then_some(())
    })
    .await;
    Person { visitor, typed, id }
}

pub fn is_refused(identity: &Value) -> bool {
    let mark = &identity["metadata_admin"]["vestibule"]["refused"]["vat_number"];
    identity["state"] == "inactive" && mark.is_object()
}

async fn becomes_inactive(house: &TestEnv, id: &str) {
    within(Duration::from_mins(2), "it is inactive", async || {
        is_refused(&house.kratos.identity(id).await).then_some(())
    })
    .await;
}

pub async fn a_late_refusal_lasts_although_the_person_saves_in_a_loop() {
    lasts(3).await;
}

pub async fn a_late_refusal_lasts_in_forty_rounds() {
    for _ in 0..8 {
        lasts(5).await;
    }
}

async fn lasts(people: usize) {
    let house = house().open().await;
    let mut persons = Vec::new();
    for _ in 0..people {
        persons.push(signs_up(&house).await);
    }
    house.vat_register.does(Behaviour::Works);
    let saving = persons.iter().map(async |person| {
        let mut saved = 0;
        // Until their session ends. A Kratos in memory refuses some saves because of others.
        while let Some(is_saved) = person
            .visitor
            .saves_company(&person.typed, &format!("Name {saved}"))
            .await
        {
            saved += u32::from(is_saved);
        }
        saved
    });
    let saved = within_two_minutes(join_all(saving)).await;
    assert!(saved.iter().all(|saved| *saved > 0), "{saved:?}");
    for person in &persons {
        becomes_inactive(&house, &person.id).await;
    }
    // Longer than until the first verification.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for person in &persons {
        assert!(is_refused(&house.kratos.identity(&person.id).await));
        assert_eq!(house.kratos.active_sessions(&person.id).await, 0);
        assert!(!person.visitor.is_signed_in().await);
        let mut flow = person.visitor.login().await;
        let answer = flow.submit(&login(&person.typed)).await;
        assert!(!answer.is_accepted(), "{answer:#?}");
    }
}

/// While the number is not checked, another one is saved only if it is checked.
pub async fn a_deferral_is_not_evaded_by_a_change(client: Client) {
    let house = house().open().await;
    house.vat_register.does(Behaviour::Answers(503));
    let typed = company_without_number();
    let mut visitor = house.visitor(client);
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    let other = company_without_number();
    for number in [other.text(VAT_NUMBER), company().text(VAT_NUMBER)] {
        let change = typed.clone().with(VAT_NUMBER, number).by_profile();
        let refused = visitor.settings().await.submit(&change).await.refused();
        assert!(
            refused.iter().any(|(_, id)| *id == TRY_AGAIN),
            "{refused:?}"
        );
    }
    // Another field may change.
    let change = typed.clone().with(COMPANY, "Changed").by_profile();
    visitor.settings().await.submit(&change).await.saved();
    let now = house.kratos.identity(id).await;
    assert_eq!(now["traits"]["vat_number"], typed.text(VAT_NUMBER));
    assert_eq!(now["traits"]["company"], "Changed");

    house.vat_register.does(Behaviour::Works);
    becomes_inactive(&house, id).await;
    let said = house.vestibule.said();
    let alarm = said.lines().find(|line| line.contains("ALARM"));
    assert_eq!(alarm, None);
}

async fn within_two_minutes<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(2), work)
        .await
        .expect("it ends within two minutes")
}

fn login(typed: &Fields) -> Fields {
    Fields::default()
        .with("identifier", typed.text(EMAIL))
        .by_password()
}

/// Kratos refuses the write, because the traits violate the schema of today. The account stays active, and hooks keep its
/// owner out.
pub async fn whoever_kratos_cannot_deactivate_is_kept_out_of_login_and_recovery() {
    let house = house().open().await;
    let person = signs_up(&house).await;
    house.kratos.forbids_company_names();
    house.vat_register.does(Behaviour::Works);
    let refused = "vestibule_identity_writes_total{outcome=\"refused_by_kratos\"}";
    within(Duration::from_mins(2), "there is an alarm", async || {
        (house.vestibule.metric(refused).await > 0.5).then_some(())
    })
    .await;
    eventually("the session is deleted", async || {
        (!person.visitor.is_signed_in().await).then_some(())
    })
    .await;
    assert_eq!(house.kratos.identity(&person.id).await["state"], "active");
    assert!(
        house
            .vestibule
            .said()
            .contains("ALARM: Kratos refuses to change an identity")
    );

    for client in [Client::Api, Client::BrowserJson, Client::BrowserForm] {
        let visitor = house.visitor(client);
        let mut flow = visitor.login().await;
        let answer = flow.submit(&login(&person.typed)).await;
        let texts: Vec<String> = answer
            .shown_again()
            .into_iter()
            .map(|one| one.text)
            .collect();
        assert_eq!(texts, [TEXT], "{client}");
        assert!(!answer.is_accepted());
    }

    let visitor = house.visitor(Client::Api);
    let mut flow = visitor.recovery().await;
    let by_code = Fields::default().with("method", "code");
    let email = person.typed.text(EMAIL);
    flow.submit(&by_code.clone().with("email", email)).await;
    let code = eventually("a code is mailed", async || {
        house.kratos.recovery_code(email).await
    })
    .await;
    let answer = flow.submit(&by_code.with("code", code)).await;
    assert!(!answer.is_accepted(), "{answer:#?}");
    let location = answer.location.expect("a new flow");
    let shown = visitor.look_at(&location).await;
    assert_eq!(shown["ui"]["messages"][0]["text"], TEXT, "{shown}");
    assert_eq!(house.kratos.active_sessions(&person.id).await, 0);
}

pub async fn an_operator_who_activates_an_account_is_left_alone() {
    let house = house().open().await;
    let person = signs_up(&house).await;
    house.vat_register.does(Behaviour::Works);
    becomes_inactive(&house, &person.id).await;
    // After Vestibule has looked at what it wrote.
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.kratos.set_state(&person.id, "active").await;
    let visitor = house.visitor(Client::Api);
    let mut flow = visitor.login().await;
    let answer = flow.submit(&login(&person.typed)).await;
    assert!(answer.is_accepted(), "{answer:#?}");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(house.kratos.identity(&person.id).await["state"], "active");
    assert_eq!(house.kratos.active_sessions(&person.id).await, 1);
    let refused = house
        .vestibule
        .metric("vestibule_late_refused_identities")
        .await;
    assert!(refused < 0.5);
}

pub async fn a_refusal_is_lifted_by_hand() {
    let house = house().open().await;
    let person = signs_up(&house).await;
    house.vat_register.does(Behaviour::Works);
    becomes_inactive(&house, &person.id).await;
    let said = house.vestibule.runs(&["deferred", "lift", &person.id]);
    assert!(
        said.contains("lifted the refusal of `vat_number`"),
        "{said}"
    );
    within(Duration::from_secs(90), "it is active again", async || {
        let now = house.kratos.identity(&person.id).await;
        let admin = &now["metadata_admin"]["vestibule"];
        (now["state"] == "active" && admin["refused"] == json!({})).then_some(())
    })
    .await;
    let visitor = house.visitor(Client::Api);
    let mut flow = visitor.login().await;
    assert!(flow.submit(&login(&person.typed)).await.is_accepted());
    eventually("the person saves", async || {
        visitor_saves(&house, &person).await.then_some(())
    })
    .await;
}

async fn visitor_saves(house: &TestEnv, person: &Person) -> bool {
    let mut visitor = house.visitor(Client::Api);
    visitor.signs_in(&login(&person.typed)).await;
    visitor.saves_company(&person.typed, "Lifted").await == Some(true)
}

pub async fn a_profile_save_beside_a_write_loses_nothing() {
    loses_nothing(&house().open().await, 3, 1).await;
}

/// On PostgreSQL, where Kratos saves several accounts at a time, with two instances of Vestibule.
pub async fn a_profile_save_beside_a_write_loses_nothing_in_forty_rounds() {
    let Some(server) = Server::start() else {
        return;
    };
    let plan = house().on_postgres(server).with_other_instances(1);
    let (house, _relay) = plan.open_behind_a_relay().await;
    loses_nothing(&house, 40, 4).await;
}

/// People who save their profile while the CRM's id is being written into their identity; so many of them at a time.
async fn loses_nothing(house: &TestEnv, people: usize, at_once: usize) {
    let numbers: Vec<usize> = (0..people).collect();
    let mut persons = Vec::new();
    for some in numbers.chunks(at_once) {
        let saving = some.iter().map(|number| signs_up_and_saves(house, *number));
        persons.extend(join_all(saving).await);
    }
    // Longer than until the first verification.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for (id, name) in persons {
        within(Duration::from_secs(90), "nothing is lost", async || {
            let now = house.kratos.identity(&id).await;
            let crm_id = &now["metadata_admin"]["crm_id"];
            (!crm_id.is_null() && now["traits"]["company"] == name).then_some(())
        })
        .await;
    }
    let undone = house.vestibule.said().matches(WRITTEN_BACK).count();
    eprintln!(
        "profile saves beside a write: {people} people, three saves each, nothing lost; {undone} changes written back"
    );
}

/// Returns the id of the account, and the name that was saved last.
async fn signs_up_and_saves(house: &TestEnv, number: usize) -> (String, String) {
    let typed = company();
    let mut visitor = house.visitor(Client::Api);
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id").to_owned();
    let mut name = String::new();
    for round in 0..3 {
        name = format!("Name {number}-{round}");
        // Kratos refuses some saves because of others.
        let mut tries = 0;
        while visitor.saves_company(&typed, &name).await != Some(true) {
            tries += 1;
            assert!(tries < 20, "it is saved in the end");
        }
    }
    (id, name)
}
