//! The VAT register has a bad day.

use std::time::{Duration, Instant};

use crate::support::fields::VAT_NUMBER;
use crate::support::message::TRY_AGAIN;
use crate::support::service::Behaviour;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

pub async fn a_service_that_is_down_is_asked_again_in_the_same_flow(client: Client) {
    let house = TestEnv::open().await;
    let visitor = house.visitor(client);
    let typed = company().by_password();
    let mut flow = visitor.registration().await;

    house.vat_register.goes_down().await;
    assert_eq!(
        flow.submit(&typed).await.refused(),
        [at(VAT_NUMBER, TRY_AGAIN)]
    );

    house.vat_register.comes_up().await;
    house.vat_register.does(Behaviour::Answers(503));
    assert_eq!(
        flow.submit(&typed).await.refused(),
        [at(VAT_NUMBER, TRY_AGAIN)]
    );
    assert!(house.kratos.identities().await.is_empty());

    house.vat_register.does(Behaviour::Works);
    let answer = flow.submit(&typed).await;
    flow.signed_up(&answer).await;
}

pub async fn a_service_that_hangs_is_not_waited_for(client: Client) {
    let house = TestEnv::plan().answering_within("1s").open().await;
    let visitor = house.visitor(client);
    let typed = company().by_password();
    let mut flow = visitor.registration().await;

    house.vat_register.does(Behaviour::Hangs);
    let start = Instant::now();
    let answer = flow.submit(&typed).await;
    let took = start.elapsed();
    assert_eq!(answer.refused(), [at(VAT_NUMBER, TRY_AGAIN)]);
    assert!(
        took >= Duration::from_millis(900),
        "the register had its time: {took:?}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");

    house.vat_register.does(Behaviour::Works);
    let answer = flow.submit(&typed).await;
    flow.signed_up(&answer).await;
}
