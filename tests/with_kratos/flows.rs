//! What Kratos itself refuses, and how it goes on.

use crate::support::fields::VAT_NUMBER;
use crate::support::visitor::{Page, flow_in};
use crate::support::{Client, TestEnv, company, eventually};

pub async fn an_expired_flow_goes_on_in_a_new_one(client: Client) {
    let house = TestEnv::plan().expiring_after("5s").open().await;
    let visitor = house.visitor(client);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let id = flow.id.clone();
    let gone = eventually("the flow expires", async || {
        let (status, said) = visitor.fetch(Page::Registration, &id).await;
        (status == 410).then_some(said)
    })
    .await;
    assert_eq!(gone["error"]["id"], "self_service_flow_expired");

    let answer = flow.submit(&typed).await;
    let next = if client == Client::BrowserForm {
        assert_eq!(answer.status, 303, "{answer:#?}");
        answer
            .location
            .as_deref()
            .and_then(flow_in)
            .expect("a flow")
    } else {
        assert_eq!(answer.status, 410, "{answer:#?}");
        answer.body["use_flow_id"]
            .as_str()
            .expect("a flow")
            .to_owned()
    };
    assert_ne!(next, id);
    assert!(
        house.vat_numbers_asked().is_empty(),
        "nothing was checked in a dead flow"
    );

    let mut flow = visitor.again(Page::Registration, &next).await;
    let answer = flow.submit(&typed).await;
    flow.signed_up(&answer).await;
    assert_eq!(house.vat_numbers_asked(), [typed.text(VAT_NUMBER)]);
}

pub async fn an_api_flow_sent_by_a_browser_is_refused_by_kratos() {
    let house = TestEnv::open().await;
    let visitor = house.visitor(Client::Api);
    let typed = company().by_password();

    let mut flow = visitor.registration().await;
    let answer = flow
        .submit_with(&typed, ("Origin", "https://shop.example.com"))
        .await;
    assert_eq!(answer.status, 400, "{answer:#?}");
    assert!(house.vat_numbers_asked().is_empty(), "no hook was called");
    assert!(house.kratos.identities().await.is_empty());

    let answer = flow.submit(&typed).await;
    flow.signed_up(&answer).await;
}
