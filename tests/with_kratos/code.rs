//! A visitor signs up with a code that Kratos mails.

use crate::support::fields::{EMAIL, VAT_NUMBER};
use crate::support::message::VAT_UNKNOWN;
use crate::support::service::UNKNOWN_VAT_NUMBER;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company};

/// Vestibule refuses after Kratos has used up the code. `resend=code` requests a new code (contract §2.5).
pub async fn visitor_corrects_a_refused_sign_up_by_code(client: Client) {
    let env = TestEnv::start().await;
    let visitor = env.visitor(client);
    let typed = company().by_code();
    let unknown = typed.clone().with(VAT_NUMBER, UNKNOWN_VAT_NUMBER);

    let mut flow = visitor.registration().await;
    assert_eq!(
        flow.submit(&unknown).await.assert_shown_again(),
        [],
        "Kratos asks for a code"
    );
    assert!(
        env.checked_vat_numbers().is_empty(),
        "Kratos has called no hook"
    );
    let code = env.kratos.mailed_code(typed.text(EMAIL), 0).await;
    let response = flow.submit(&unknown.with("code", code)).await;
    assert!(flow.is_hidden(VAT_NUMBER));
    assert_eq!(
        response.assert_refused(),
        [at("form", VAT_UNKNOWN), at(VAT_NUMBER, VAT_UNKNOWN)]
    );

    assert_eq!(
        flow.submit(&typed.clone().with("resend", "code"))
            .await
            .assert_shown_again(),
        [],
        "Kratos mails a new code"
    );
    let code = env.kratos.mailed_code(typed.text(EMAIL), 1).await;
    let response = flow.submit(&typed.clone().with("code", code)).await;
    let identity = flow.assert_signed_up(&response).await;
    assert_eq!(identity["traits"]["vat_number"], typed.text(VAT_NUMBER));
}
