//! Expired flows, and a mix of flow types.

use crate::support::fields::VAT_NUMBER;
use crate::support::visitor::{Page, flow_in};
use crate::support::{Client, TestEnv, company, eventually};

pub async fn visitor_continues_an_expired_flow_in_a_new_flow(client: Client) {
    let env = TestEnv::builder().with_flow_lifespan("5s").start().await;
    let visitor = env.visitor(client);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let id = flow.id.clone();
    let expired = eventually("the flow expires", async || {
        let (status, body) = visitor.fetch(Page::Registration, &id).await;
        (status == 410).then_some(body)
    })
    .await;
    assert_eq!(expired["error"]["id"], "self_service_flow_expired");

    let response = flow.submit(&typed).await;
    let next = if client == Client::BrowserForm {
        assert_eq!(response.status, 303, "{response:#?}");
        response
            .location
            .as_deref()
            .and_then(flow_in)
            .expect("a flow")
    } else {
        assert_eq!(response.status, 410, "{response:#?}");
        response.body["use_flow_id"]
            .as_str()
            .expect("a flow")
            .to_owned()
    };
    assert_ne!(next, id);
    assert!(
        env.checked_vat_numbers().is_empty(),
        "Vestibule checks nothing in an expired flow"
    );

    let mut flow = visitor.reopen(Page::Registration, &next).await;
    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
    assert_eq!(env.checked_vat_numbers(), [typed.text(VAT_NUMBER)]);
}

pub async fn kratos_refuses_an_api_flow_that_a_browser_sends() {
    let env = TestEnv::start().await;
    let visitor = env.visitor(Client::Api);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let response = flow
        .submit_with(&typed, ("Origin", "https://shop.example.com"))
        .await;
    assert_eq!(response.status, 400, "{response:#?}");
    assert!(
        env.checked_vat_numbers().is_empty(),
        "Kratos has called no hook"
    );
    assert!(env.kratos.identities().await.is_empty());

    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
}
