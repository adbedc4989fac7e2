//! What honest visitors and operators do raises no alarm and no refusal.

use futures_util::future::join;

use super::submissions::{
    accounts_with, confirmations, copies, no_alarm, plan, prove_guard, race, releases,
};
use crate::support::fields::INVITE;
use crate::support::load_balancer::LoadBalancer;
use crate::support::message::FORM_USED;
use crate::support::postgres::Server;
use crate::support::service::ONE_USE;
use crate::support::test_env::{KEY, NEXT_KEY};
use crate::support::vestibule::Vestibule;
use crate::support::{Client, TestEnv, company, eventually};

/// Kratos: an account with the same identifier exists already.
const IDENTIFIER_TAKEN: u64 = 4_000_007;

/// The same form twice at the same moment: one of the answers is a sign-up, the other at most a refusal by Kratos, or the
/// message for a form that is used up.
pub async fn a_double_click_makes_one_account(client: Client) {
    let house = plan().open().await;
    prove_guard(&house).await;
    let invite = format!("{ONE_USE}{client}");
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let visitor = house.visitor(client);
    let form = visitor.registration().await;
    let mut forms = copies(&visitor, &form.id, 2).await;
    let answers = race(&mut forms, &[typed.clone(), typed]).await;
    let accepted = answers.iter().filter(|answer| answer.is_accepted()).count();
    assert_eq!(accepted, 1, "{answers:#?}");
    for refused in answers.iter().filter(|answer| !answer.is_accepted()) {
        for (place, id) in refused.errors() {
            assert_eq!(place, "form");
            assert!([IDENTIFIER_TAKEN, FORM_USED].contains(&id), "{refused:#?}");
        }
    }
    confirmed_once(&house, &invite).await;
    no_alarm(&house).await;
}

async fn confirmed_once(house: &TestEnv, invite: &str) {
    eventually("the invite is confirmed", async || {
        (confirmations(house, invite) > 0).then_some(())
    })
    .await;
    assert_eq!(accounts_with(house, invite).await.len(), 1);
    assert_eq!(confirmations(house, invite), 1);
    assert_eq!(releases(house, invite), 0);
}

/// How often the CRM was notified of this account.
fn notified(house: &TestEnv, id: &str) -> usize {
    let received = house.crm.received();
    let of_it = received.iter().filter(|call| {
        call.body["type"] == "identity.created" && call.body["data"]["identity"]["id"] == id
    });
    of_it.count()
}

async fn notified_once(house: &TestEnv, id: &str) {
    eventually("the CRM is notified", async || {
        (notified(house, id) > 0).then_some(())
    })
    .await;
    // What is stored later is delivered later, so nothing else of this account is on its way.
    let mut other = house.visitor(Client::Api);
    let other = other.signs_up(&company().by_password()).await;
    let other = other["id"].as_str().expect("an id");
    eventually("the CRM is notified of a later account", async || {
        (notified(house, other) > 0).then_some(())
    })
    .await;
    assert_eq!(notified(house, id), 1);
}

/// On each instance, before and after a restart, with the trigger id and without it.
pub async fn a_post_that_is_repeated_changes_nothing() {
    let Some(server) = Server::start() else {
        return;
    };
    let plan = plan().on_postgres(server).with_other_instances(1);
    let (mut house, relay) = plan.open_behind_a_relay().await;
    prove_guard(&house).await;
    let invite = format!("{ONE_USE}repeated");
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let identity = house.visitor(Client::Api).signs_up(&typed).await;
    let id = identity["id"].as_str().expect("an id");
    let post = relay.last_post();
    for is_restarted in [false, true] {
        for instance in 0..=1 {
            let repeated = post.clone();
            assert_eq!(relay.repeats(&repeated, instance).await, 204);
            let repeated = repeated.without_trigger_id();
            assert_eq!(relay.repeats(&repeated, instance).await, 204);
        }
        if !is_restarted {
            house.vestibule.restart([NEXT_KEY, KEY]).await;
            house.others[0].restart([NEXT_KEY, KEY]).await;
        }
    }
    notified_once(&house, id).await;
    confirmed_once(&house, &invite).await;
    no_alarm(&house).await;
}

/// The operator restarts Vestibule on other settings while Kratos saves an account: with checks that reserve and defer where
/// there was none, and without the one-identity guard.
pub async fn settings_that_change_between_pre_and_post_change_nothing() {
    const CHECKS_ONLY: &str = "vestibule.yaml";
    const RESERVES: &str = "nothing_is_lost.yaml";
    let (mut house, relay) = plan().on(CHECKS_ONLY).open_behind_a_relay().await;

    let id = saved_while(&mut house, &relay, None, async |vestibule| {
        vestibule.restart_on(RESERVES, [NEXT_KEY, KEY], None).await;
    })
    .await;
    notified_once(&house, &id).await;

    let invite = format!("{ONE_USE}guard");
    let id = saved_while(&mut house, &relay, Some(&invite), async |vestibule| {
        let variable = Some(("EXTERNAL_ID", "never"));
        let keys = [NEXT_KEY, KEY];
        vestibule.restart_on(RESERVES, keys, variable).await;
    })
    .await;
    notified_once(&house, &id).await;
    confirmed_once(&house, &invite).await;
    no_alarm(&house).await;
}

/// Signs a visitor up, and does this between `pre` and `post`; returns the id of the account.
async fn saved_while(
    house: &mut TestEnv,
    relay: &LoadBalancer,
    invite: Option<&str>,
    change: impl AsyncFnOnce(&mut Vestibule),
) -> String {
    let typed = company().by_password();
    let typed = match invite {
        Some(invite) => typed.with(INVITE, invite),
        None => typed,
    };
    let mut visitor = house.visitor(Client::Api);
    let held = relay.held_posts();
    relay.holds_posts();
    let (identity, ()) = join(visitor.signs_up(&typed), async {
        eventually("Kratos has saved the account", async || {
            (relay.held_posts() > held).then_some(())
        })
        .await;
        change(&mut house.vestibule).await;
        relay.lets_posts_go();
    })
    .await;
    identity["id"].as_str().expect("an id").to_owned()
}
