//! The VAT register is down, fails or hangs.

use std::time::{Duration, Instant};

use crate::support::fields::VAT_NUMBER;
use crate::support::message::TRY_AGAIN;
use crate::support::service::Behaviour;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

pub async fn vestibule_calls_a_service_again_in_the_same_flow_after_an_outage(client: Client) {
    let env = TestEnv::start().await;
    let visitor = env.visitor(client);
    let typed = company().by_password();
    let mut flow = visitor.registration().await;

    env.vat_register.go_down().await;
    assert_eq!(
        flow.submit(&typed).await.assert_refused(),
        [at(VAT_NUMBER, TRY_AGAIN)]
    );

    env.vat_register.come_up().await;
    env.vat_register.set_behaviour(Behaviour::Answers(503));
    assert_eq!(
        flow.submit(&typed).await.assert_refused(),
        [at(VAT_NUMBER, TRY_AGAIN)]
    );
    assert!(env.kratos.identities().await.is_empty());

    env.vat_register.set_behaviour(Behaviour::Works);
    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
}

pub async fn vestibule_answers_within_its_deadline_although_a_service_hangs(client: Client) {
    let env = TestEnv::builder().with_deadline("1s").start().await;
    let visitor = env.visitor(client);
    let typed = company().by_password();
    let mut flow = visitor.registration().await;

    env.vat_register.set_behaviour(Behaviour::Hangs);
    let start = Instant::now();
    let response = flow.submit(&typed).await;
    let took = start.elapsed();
    assert_eq!(response.assert_refused(), [at(VAT_NUMBER, TRY_AGAIN)]);
    assert!(
        took >= Duration::from_millis(900),
        "Vestibule waits for the register until its deadline: {took:?}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");

    env.vat_register.set_behaviour(Behaviour::Works);
    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
}
