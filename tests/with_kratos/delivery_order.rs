//! The order of deliveries about one account.

use crate::support::fields::COMPANY;
use crate::support::service::Behaviour;
use crate::support::{Client, TestEnv, company, eventually};

/// Returns the companies that the CRM has accepted at this path, in order.
fn accepted(env: &TestEnv, path: &str) -> Vec<String> {
    let answered = env.crm.answered();
    let accepted = answered
        .iter()
        .filter(|(call, status)| call.path == path && *status < 300);
    let company =
        |call: &crate::support::service::Received| call.body["company"].as_str().map(str::to_owned);
    accepted.filter_map(|(call, _)| company(call)).collect()
}

/// The visitor changes the company while the CRM fails, and once more after that.
pub async fn vestibule_brings_the_newest_change_last_after_an_outage_of_the_crm(client: Client) {
    let env = TestEnv::builder()
        .with_settings("delivery_order.yaml")
        .start()
        .await;
    let mut visitor = env.visitor(client);
    let typed = company();
    visitor.sign_up(&typed.clone().by_password()).await;
    let created = env.crm.next().await;
    assert!(created.body["invite"].is_null(), "an absent trait is null");
    eventually("the CRM has the account", async || {
        (accepted(&env, "/newest").len() == 1).then_some(())
    })
    .await;

    env.crm.set_behaviour(Behaviour::Answers(503));
    let change = async |visitor: &mut crate::support::visitor::Visitor, name: &str| {
        let mut flow = visitor.settings().await;
        let changed = typed.clone().with(COMPANY, name).by_profile();
        flow.submit(&changed).await.assert_saved();
    };
    change(&mut visitor, "Second").await;
    for path in ["/newest", "/each"] {
        eventually("the CRM has refused the change", async || {
            let received = env.crm.received();
            let is_refused = |call: &&crate::support::service::Received| {
                call.path == path && call.body["company"] == "Second"
            };
            received.iter().find(is_refused).map(drop)
        })
        .await;
    }
    change(&mut visitor, "Third").await;
    env.crm.set_behaviour(Behaviour::Works);
    change(&mut visitor, "Fourth").await;

    eventually("the CRM has the newest change", async || {
        let last = accepted(&env, "/newest").last().cloned();
        (last.as_deref() == Some("Fourth")).then_some(())
    })
    .await;
    eventually("the CRM has each change", async || {
        (accepted(&env, "/each").len() == 3).then_some(())
    })
    .await;
    assert_eq!(accepted(&env, "/each"), ["Second", "Third", "Fourth"]);
    let newest = accepted(&env, "/newest");
    assert!(!newest.contains(&"Second".to_owned()), "{newest:?}");
    assert_eq!(newest.last().map(String::as_str), Some("Fourth"));
}
