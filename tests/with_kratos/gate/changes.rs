//! Reservations for a change in settings.

use super::submissions::{assert_no_alarm, builder, confirmations, releases};
use crate::support::fields::{EMAIL, INVITE};
use crate::support::service::ONE_USE_PREFIX;
use crate::support::{Client, company, eventually};

/// Vestibule accepts the change and reserves the invite. Kratos refuses the change, because the address is taken.
pub async fn vestibule_releases_the_invite_of_a_change_that_kratos_refuses(client: Client) {
    let env = builder().start().await;
    let invite = format!("{ONE_USE_PREFIX}{client}");
    let taken = company();
    env.visitor(Client::Api)
        .sign_up(&taken.clone().by_password())
        .await;
    let typed = company();
    let mut visitor = env.visitor(client);
    let identity = visitor.sign_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");

    let change = typed.with(INVITE, invite.as_str()).by_profile();
    let refused = change.clone().with(EMAIL, taken.text(EMAIL));
    let mut flow = visitor.settings().await;
    let response = flow.submit(&refused).await;
    assert!(!response.assert_refused().is_empty());
    eventually("Vestibule releases the invite", async || {
        (releases(&env, &invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(&env, &invite), 0);
    assert!(env.kratos.identity(id).await["traits"]["invite"].is_null());

    // With another address Kratos saves the change, and Vestibule reserves the invite again.
    flow.submit(&change).await.assert_saved();
    eventually("Vestibule confirms the invite", async || {
        (confirmations(&env, &invite) > 0).then_some(())
    })
    .await;
    let stored = env.kratos.identity(id).await;
    assert_eq!(stored["traits"]["invite"], invite);
    assert_eq!(confirmations(&env, &invite), 1);
    assert_eq!(releases(&env, &invite), 1);
    assert_no_alarm(&env).await;
}
