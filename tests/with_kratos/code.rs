//! Somebody signs up with a code that is mailed to them.

use crate::support::fields::{EMAIL, VAT_NUMBER};
use crate::support::message::VAT_UNKNOWN;
use crate::support::service::UNKNOWN_VAT_NUMBER;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

/// A refusal comes after the code was used up; `resend=code` brings a new one (contract §2.5).
pub async fn a_sign_up_by_code_is_refused_and_corrected(client: Client) {
    let house = TestEnv::open().await;
    let visitor = house.visitor(client);
    let typed = company().by_code();
    let unknown = typed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);

    let mut flow = visitor.registration().await;
    assert_eq!(
        flow.submit(&unknown).await.shown_again(),
        [],
        "a code is asked for"
    );
    assert!(house.vat_numbers_asked().is_empty(), "no hook yet");
    let code = house.kratos.code_mailed_to(typed.text(EMAIL), 0).await;
    let answer = flow.submit(&unknown.with("code", code)).await;
    assert!(flow.hides(VAT_NUMBER));
    assert_eq!(
        answer.refused(),
        [at("form", VAT_UNKNOWN), at(VAT_NUMBER, VAT_UNKNOWN)]
    );

    assert_eq!(
        flow.submit(&typed.clone().with("resend", "code"))
            .await
            .shown_again(),
        [],
        "a new code"
    );
    let code = house.kratos.code_mailed_to(typed.text(EMAIL), 1).await;
    let answer = flow.submit(&typed.clone().with("code", code)).await;
    let identity = flow.signed_up(&answer).await;
    assert_eq!(identity["traits"]["vat_number"], typed.text(VAT_NUMBER));
}
