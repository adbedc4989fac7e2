//! Honest visitors and operators cause no alarm and no refusal.

use futures_util::future::join;

use super::submissions::{
    accounts_with, assert_no_alarm, builder, confirmations, copies, prove_guard, race, releases,
};
use crate::support::fields::INVITE;
use crate::support::load_balancer::LoadBalancer;
use crate::support::message::FORM_USED;
use crate::support::postgres::Server;
use crate::support::service::ONE_USE_PREFIX;
use crate::support::test_env::{KEY, NEXT_KEY};
use crate::support::vestibule::Vestibule;
use crate::support::{Client, TestEnv, company, eventually};

/// Kratos's message: an account with the same identifier exists.
const IDENTIFIER_TAKEN: u64 = 4_000_007;

/// The visitor sends a form twice at the same moment. One response is a sign-up. The other is at most a refusal by Kratos, or the
/// message for a used form.
pub async fn visitor_gets_one_account_after_a_double_click(client: Client) {
    let env = builder().start().await;
    prove_guard(&env).await;
    let invite = format!("{ONE_USE_PREFIX}{client}");
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let visitor = env.visitor(client);
    let form = visitor.registration().await;
    let mut forms = copies(&visitor, &form.id, 2).await;
    let responses = race(&mut forms, &[typed.clone(), typed]).await;
    let accepted = responses
        .iter()
        .filter(|response| response.is_accepted())
        .count();
    assert_eq!(accepted, 1, "{responses:#?}");
    for refused in responses.iter().filter(|response| !response.is_accepted()) {
        for (field, id) in refused.errors() {
            assert_eq!(field, "form");
            assert!([IDENTIFIER_TAKEN, FORM_USED].contains(&id), "{refused:#?}");
        }
    }
    assert_confirmed_once(&env, &invite).await;
    assert_no_alarm(&env).await;
}

async fn assert_confirmed_once(env: &TestEnv, invite: &str) {
    eventually("Vestibule confirms the invite", async || {
        (confirmations(env, invite) > 0).then_some(())
    })
    .await;
    assert_eq!(accounts_with(env, invite).await.len(), 1);
    assert_eq!(confirmations(env, invite), 1);
    assert_eq!(releases(env, invite), 0);
}

/// How often Vestibule notified the CRM of this account.
fn notifications(env: &TestEnv, id: &str) -> usize {
    let received = env.crm.received();
    let matching = received.iter().filter(|call| {
        call.body["type"] == "identity.created" && call.body["data"]["identity"]["id"] == id
    });
    matching.count()
}

async fn assert_notified_once(env: &TestEnv, id: &str) {
    eventually("Vestibule notifies the CRM", async || {
        (notifications(env, id) > 0).then_some(())
    })
    .await;
    // Vestibule delivers in the order of storage, so no other delivery of this account is pending.
    let mut other = env.visitor(Client::Api);
    let other = other.sign_up(&company().by_password()).await;
    let other = other["id"].as_str().expect("an id");
    eventually(
        "Vestibule notifies the CRM of a later account",
        async || (notifications(env, other) > 0).then_some(()),
    )
    .await;
    assert_eq!(notifications(env, id), 1);
}

/// Repeats a `post` on each instance, before and after a restart, with the trigger id and without it.
pub async fn vestibule_ignores_a_repeated_post() {
    let Some(server) = Server::start() else {
        return;
    };
    let builder = builder().on_postgres(server).with_extra_instances(1);
    let (mut env, balancer) = builder.start_behind_load_balancer().await;
    prove_guard(&env).await;
    let invite = format!("{ONE_USE_PREFIX}repeated");
    let typed = company().with(INVITE, invite.as_str()).by_password();
    let identity = env.visitor(Client::Api).sign_up(&typed).await;
    let id = identity["id"].as_str().expect("an id");
    let post = balancer.last_post();
    for is_restarted in [false, true] {
        for instance in 0..=1 {
            let repeated = post.clone();
            assert_eq!(balancer.repeat(&repeated, instance).await, 204);
            let repeated = repeated.without_trigger_id();
            assert_eq!(balancer.repeat(&repeated, instance).await, 204);
        }
        if !is_restarted {
            env.vestibule.restart([NEXT_KEY, KEY]).await;
            env.extra_instances[0].restart([NEXT_KEY, KEY]).await;
        }
    }
    assert_notified_once(&env, id).await;
    assert_confirmed_once(&env, &invite).await;
    assert_no_alarm(&env).await;
}

/// The operator restarts Vestibule with other settings while Kratos saves an account: first with checks that reserve and defer,
/// then without the one-identity guard.
pub async fn operator_changes_settings_between_pre_and_post_without_a_loss() {
    const CHECKS_ONLY: &str = "vestibule.yaml";
    const RESERVES: &str = "nothing_is_lost.yaml";
    let (mut env, balancer) = builder()
        .with_settings(CHECKS_ONLY)
        .start_behind_load_balancer()
        .await;

    let id = sign_up_during(&mut env, &balancer, None, async |vestibule| {
        vestibule
            .restart_with_settings(RESERVES, [NEXT_KEY, KEY], None)
            .await;
    })
    .await;
    assert_notified_once(&env, &id).await;

    let invite = format!("{ONE_USE_PREFIX}guard");
    let id = sign_up_during(&mut env, &balancer, Some(&invite), async |vestibule| {
        let variable = Some(("EXTERNAL_ID", "never"));
        let keys = [NEXT_KEY, KEY];
        vestibule
            .restart_with_settings(RESERVES, keys, variable)
            .await;
    })
    .await;
    assert_notified_once(&env, &id).await;
    assert_confirmed_once(&env, &invite).await;
    assert_no_alarm(&env).await;
}

/// Signs a visitor up and runs `change` between `pre` and `post`. Returns the id of the account.
async fn sign_up_during(
    env: &mut TestEnv,
    balancer: &LoadBalancer,
    invite: Option<&str>,
    change: impl AsyncFnOnce(&mut Vestibule),
) -> String {
    let typed = company().by_password();
    let typed = match invite {
        Some(invite) => typed.with(INVITE, invite),
        None => typed,
    };
    let mut visitor = env.visitor(Client::Api);
    let held_before = balancer.held_post_count();
    balancer.hold_posts();
    let (identity, ()) = join(visitor.sign_up(&typed), async {
        eventually("Kratos saves the account", async || {
            (balancer.held_post_count() > held_before).then_some(())
        })
        .await;
        change(&mut env.vestibule).await;
        balancer.release_posts();
    })
    .await;
    identity["id"].as_str().expect("an id").to_owned()
}
