//! What a check reserves for a change in settings.

use super::submissions::{confirmations, no_alarm, plan, releases};
use crate::support::fields::{EMAIL, INVITE};
use crate::support::service::ONE_USE;
use crate::support::{Client, company, eventually};

/// Vestibule accepts the change and reserves the invite; Kratos refuses it, because the address is taken.
pub async fn an_invite_of_a_change_that_kratos_refuses_is_released(client: Client) {
    let house = plan().open().await;
    let invite = format!("{ONE_USE}{client}");
    let taken = company();
    house
        .visitor(Client::Api)
        .signs_up(&taken.clone().by_password())
        .await;
    let typed = company();
    let mut visitor = house.visitor(client);
    let identity = visitor.signs_up(&typed.clone().by_password()).await;
    let id = identity["id"].as_str().expect("an id");

    let change = typed.with(INVITE, invite.as_str()).by_profile();
    let refused = change.clone().with(EMAIL, taken.text(EMAIL));
    let mut flow = visitor.settings().await;
    let answer = flow.submit(&refused).await;
    assert!(!answer.refused().is_empty());
    eventually("the invite is released", async || {
        (releases(&house, &invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(&house, &invite), 0);
    assert!(house.kratos.identity(id).await["traits"]["invite"].is_null());

    // Without the address that is taken it is saved, and the invite is reserved anew.
    flow.submit(&change).await.saved();
    eventually("the invite is confirmed", async || {
        (confirmations(&house, &invite) > 0).then_some(())
    })
    .await;
    let stored = house.kratos.identity(id).await;
    assert_eq!(stored["traits"]["invite"], invite);
    assert_eq!(confirmations(&house, &invite), 1);
    assert_eq!(releases(&house, &invite), 1);
    no_alarm(&house).await;
}
