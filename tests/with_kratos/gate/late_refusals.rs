//! Vestibule enforces late refusals, and keeps its identity writes whatever visitors and operators change.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::submissions;
use crate::support::fields::{COMPANY, EMAIL, Fields, VAT_NUMBER, company_with_unknown_number};
use crate::support::message::TRY_AGAIN;
use crate::support::postgres::Server;
use crate::support::service::{Behaviour, UNKNOWN_VAT_NUMBER};
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::Visitor;
use crate::support::{Client, TestEnv, company, eventually, within};

const WRITTEN_BACK: &str = "undid a change that the visitor saved";
const TEXT: &str = "This VAT number is not registered.";

fn builder() -> TestEnvBuilder {
    TestEnv::builder()
        .with_settings("nothing_is_lost.yaml")
        .enforcing_late_refusals()
}

/// An account that a visitor created with an unknown number while the register was down.
struct Account {
    visitor: Visitor,
    typed: Fields,
    id: String,
}

async fn sign_up(env: &TestEnv) -> Account {
    env.vat_register.set_behaviour(Behaviour::Answers(503));
    let typed = company().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);
    let mut visitor = env.visitor(Client::Api);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id").to_owned();
    eventually("Vestibule marks the identity as deferred", async || {
        let now = env.kratos.identity(&id).await;
        let mark = &now["metadata_admin"]["vestibule"]["deferred"]["vat_number"];
        mark.is_object().then_some(())
    })
    .await;
    Account { visitor, typed, id }
}

pub fn is_refused(identity: &Value) -> bool {
    let mark = &identity["metadata_admin"]["vestibule"]["refused"]["vat_number"];
    identity["state"] == "inactive" && mark.is_object()
}

async fn wait_until_inactive(env: &TestEnv, id: &str) {
    within(
        Duration::from_mins(2),
        "Vestibule deactivates the account",
        async || is_refused(&env.kratos.identity(id).await).then_some(()),
    )
    .await;
}

pub async fn vestibule_enforces_a_late_refusal_although_the_visitor_saves_in_a_loop() {
    enforce_late_refusals(3).await;
}

pub async fn vestibule_enforces_a_late_refusal_in_forty_rounds() {
    for _ in 0..8 {
        enforce_late_refusals(5).await;
    }
}

async fn enforce_late_refusals(count: usize) {
    let env = builder().start().await;
    let mut accounts = Vec::new();
    for _ in 0..count {
        accounts.push(sign_up(&env).await);
    }
    env.vat_register.set_behaviour(Behaviour::Works);
    let saving = accounts.iter().map(async |account| {
        let mut saved = 0;
        // Until the session ends. Kratos on SQLite refuses some saves because of others.
        while let Some(is_saved) = account
            .visitor
            .save_company(&account.typed, &format!("Name {saved}"))
            .await
        {
            saved += u32::from(is_saved);
        }
        saved
    });
    let saved = within_two_minutes(join_all(saving)).await;
    assert!(saved.iter().all(|saved| *saved > 0), "{saved:?}");
    for account in &accounts {
        wait_until_inactive(&env, &account.id).await;
    }
    // Longer than the delay of the first verification.
    tokio::time::sleep(Duration::from_secs(8)).await;
    for account in &accounts {
        assert!(is_refused(&env.kratos.identity(&account.id).await));
        assert_eq!(env.kratos.active_sessions(&account.id).await, 0);
        assert!(!account.visitor.is_signed_in().await);
        let mut flow = account.visitor.login().await;
        let response = flow.submit(&login(&account.typed)).await;
        assert!(!response.is_accepted(), "{response:#?}");
    }
}

/// While the check of the number is deferred, Vestibule refuses another number that it cannot check.
pub async fn visitor_does_not_evade_a_deferred_check_by_a_change(client: Client) {
    let env = builder().start().await;
    env.vat_register.set_behaviour(Behaviour::Answers(503));
    let typed = company_with_unknown_number();
    let mut visitor = env.visitor(client);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");
    let other = company_with_unknown_number();
    for number in [other.text(VAT_NUMBER), company().text(VAT_NUMBER)] {
        let change = typed.clone().with(VAT_NUMBER, number).by_profile();
        let refused = visitor
            .settings()
            .await
            .submit(&change)
            .await
            .assert_refused();
        assert!(
            refused.iter().any(|(_, id)| *id == TRY_AGAIN),
            "{refused:?}"
        );
    }
    // The visitor can change another field.
    let change = typed.clone().with(COMPANY, "Changed").by_profile();
    visitor
        .settings()
        .await
        .submit(&change)
        .await
        .assert_saved();
    let now = env.kratos.identity(id).await;
    assert_eq!(now["traits"]["vat_number"], typed.text(VAT_NUMBER));
    assert_eq!(now["traits"]["company"], "Changed");

    env.vat_register.set_behaviour(Behaviour::Works);
    wait_until_inactive(&env, id).await;
    let log_text = env.vestibule.log_text();
    assert_eq!(submissions::alarms(&log_text), [""; 0]);
}

async fn within_two_minutes<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(Duration::from_mins(2), work)
        .await
        .expect("the saves end within two minutes")
}

fn login(typed: &Fields) -> Fields {
    Fields::default()
        .with("identifier", typed.text(EMAIL))
        .by_password()
}

/// Kratos refuses the write, because the traits violate the current schema. The account stays active, and the hooks refuse login
/// and recovery.
pub async fn vestibule_blocks_login_and_recovery_of_an_account_that_kratos_cannot_deactivate() {
    let env = builder().start().await;
    let account = sign_up(&env).await;
    env.kratos.forbid_company_names();
    env.vat_register.set_behaviour(Behaviour::Works);
    let refused = "vestibule_identity_writes_total{outcome=\"refused_by_kratos\"}";
    within(
        Duration::from_mins(2),
        "Vestibule raises an alarm",
        async || (env.vestibule.metric(refused).await > 0.5).then_some(()),
    )
    .await;
    eventually("Vestibule deletes the session", async || {
        (!account.visitor.is_signed_in().await).then_some(())
    })
    .await;
    assert_eq!(env.kratos.identity(&account.id).await["state"], "active");
    assert!(
        env.vestibule
            .log_text()
            .contains("ALARM: Kratos refuses to change an identity")
    );

    for client in [Client::Api, Client::BrowserJson, Client::BrowserForm] {
        let visitor = env.visitor(client);
        let mut flow = visitor.login().await;
        let response = flow.submit(&login(&account.typed)).await;
        let texts: Vec<String> = response
            .assert_shown_again()
            .into_iter()
            .map(|one| one.text)
            .collect();
        assert_eq!(texts, [TEXT], "{client}");
        assert!(!response.is_accepted());
    }

    let visitor = env.visitor(Client::Api);
    let mut flow = visitor.recovery().await;
    let by_code = Fields::default().with("method", "code");
    let email = account.typed.text(EMAIL);
    flow.submit(&by_code.clone().with("email", email)).await;
    let code = eventually("Kratos mails a code", async || {
        env.kratos.recovery_code(email).await
    })
    .await;
    let response = flow.submit(&by_code.with("code", code)).await;
    assert!(!response.is_accepted(), "{response:#?}");
    let location = response.location.expect("a new flow");
    let shown = visitor.fetch_json(&location).await;
    assert_eq!(shown["ui"]["messages"][0]["text"], TEXT, "{shown}");
    assert_eq!(env.kratos.active_sessions(&account.id).await, 0);
}

pub async fn operator_activates_a_refused_account_and_it_stays_active() {
    let env = builder().start().await;
    let account = sign_up(&env).await;
    env.vat_register.set_behaviour(Behaviour::Works);
    wait_until_inactive(&env, &account.id).await;
    // After Vestibule has verified its write.
    tokio::time::sleep(Duration::from_secs(1)).await;
    env.kratos.set_state(&account.id, "active").await;
    let visitor = env.visitor(Client::Api);
    let mut flow = visitor.login().await;
    let response = flow.submit(&login(&account.typed)).await;
    assert!(response.is_accepted(), "{response:#?}");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(env.kratos.identity(&account.id).await["state"], "active");
    assert_eq!(env.kratos.active_sessions(&account.id).await, 1);
    let refused = env
        .vestibule
        .metric("vestibule_late_refused_identities")
        .await;
    assert!(refused < 0.5);
}

pub async fn operator_lifts_a_late_refusal() {
    let env = builder().start().await;
    let account = sign_up(&env).await;
    env.vat_register.set_behaviour(Behaviour::Works);
    wait_until_inactive(&env, &account.id).await;
    let output = env
        .vestibule
        .run_command(&["deferred", "lift", &account.id]);
    assert!(
        output.contains("lifted the refusal of `vat_number`"),
        "{output}"
    );
    within(
        Duration::from_secs(90),
        "Kratos activates the account again",
        async || {
            let now = env.kratos.identity(&account.id).await;
            let admin = &now["metadata_admin"]["vestibule"];
            (now["state"] == "active" && admin["refused"] == json!({})).then_some(())
        },
    )
    .await;
    let visitor = env.visitor(Client::Api);
    let mut flow = visitor.login().await;
    assert!(flow.submit(&login(&account.typed)).await.is_accepted());
    eventually("the visitor saves a change", async || {
        can_save(&env, &account).await.then_some(())
    })
    .await;
}

async fn can_save(env: &TestEnv, account: &Account) -> bool {
    let mut visitor = env.visitor(Client::Api);
    visitor.sign_in(&login(&account.typed)).await;
    visitor.save_company(&account.typed, "Lifted").await == Some(true)
}

pub async fn vestibule_loses_no_profile_change_saved_during_an_identity_write() {
    lose_no_change(&builder().start().await, 3, 1).await;
}

/// On PostgreSQL, where Kratos saves several accounts in parallel, with two instances of Vestibule.
pub async fn vestibule_loses_no_profile_change_saved_during_an_identity_write_in_forty_rounds() {
    let Some(server) = Server::start() else {
        return;
    };
    let builder = builder().on_postgres(server).with_extra_instances(1);
    let (env, _balancer) = builder.start_behind_load_balancer().await;
    lose_no_change(&env, 40, 4).await;
}

/// Visitors save their profiles while Vestibule writes the CRM's id into their identities, `concurrency` visitors in parallel.
async fn lose_no_change(env: &TestEnv, count: usize, concurrency: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    let mut accounts = Vec::new();
    for chunk in numbers.chunks(concurrency) {
        let saving = chunk.iter().map(|number| sign_up_and_save(env, *number));
        accounts.extend(join_all(saving).await);
    }
    // Longer than the delay of the first verification.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for (id, name) in accounts {
        within(
            Duration::from_secs(90),
            "Kratos has the CRM's id and the last saved name",
            async || {
                let now = env.kratos.identity(&id).await;
                let crm_id = &now["metadata_admin"]["crm_id"];
                (!crm_id.is_null() && now["traits"]["company"] == name).then_some(())
            },
        )
        .await;
    }
    let written_back = env.vestibule.log_text().matches(WRITTEN_BACK).count();
    eprintln!(
        "profile saves during identity writes: {count} visitors, three saves each, nothing lost; {written_back} changes written back"
    );
}

/// Returns the id of the account and the last saved name.
async fn sign_up_and_save(env: &TestEnv, number: usize) -> (String, String) {
    let typed = company();
    let mut visitor = env.visitor(Client::Api);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id").to_owned();
    let mut name = String::new();
    for round in 0..3 {
        name = format!("Name {number}-{round}");
        // Kratos refuses some saves because of others.
        let mut tries = 0;
        while visitor.save_company(&typed, &name).await != Some(true) {
            tries += 1;
            assert!(tries < 20, "Kratos saves the change within 20 attempts");
        }
    }
    (id, name)
}
