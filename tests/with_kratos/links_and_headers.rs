//! The link of an invitation, the provider, the visitor's address and listed headers reach a check. An old template is reported.

use serde_json::{Value, json};

use crate::support::browser::{Browser, Form};
use crate::support::fields::COMPANY;
use crate::support::message::INVITE_UNKNOWN;
use crate::support::provider::Provider;
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::at;
use crate::support::{Client, TestEnv, company, eventually};

const LINK: &str = "utm=a&invite=FRIENDS%20%26%20FAMILY";
const INVITATION: &str = "FRIENDS & FAMILY";
const NOT_POSSIBLE: u64 = 4_900_004;
const VERSION_1: &str = include_str!("../fixtures/kratos/version-1.jsonnet");

fn builder() -> TestEnvBuilder {
    TestEnv::builder()
        .with_settings("links_and_headers.yaml")
        .with_headers(&["X-Forwarded-For", "X-Tenant"])
}

/// What the check sent of the newest sign-up.
fn asked(env: &TestEnv) -> Value {
    let asked = env.invites.received().pop();
    asked.expect("the check asked").body
}

pub async fn the_invite_of_a_link_reaches_a_check_in_one_step(client: Client) {
    let env = builder().start().await;
    let typed = company().by_password();
    for link in [
        None,
        Some("invite=made-up"),
        Some("Invite=FRIENDS%20%26%20FAMILY"),
    ] {
        let visitor = env.visitor(client).with_query(link);
        let response = visitor.registration().await.submit(&typed).await;
        assert_eq!(
            response.assert_refused(),
            [at("form", INVITE_UNKNOWN)],
            "{link:?}"
        );
    }
    assert!(env.kratos.identities().await.is_empty());

    let visitor = env.visitor(client).with_query(Some(LINK));
    let mut flow = visitor.registration().await;
    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
    assert_eq!(asked(&env)["invite"], INVITATION);
    let delivered = env.crm.next().await.body;
    assert_eq!(delivered["invite"], INVITATION);
    assert_eq!(delivered["provider"], Value::Null);
}

pub async fn the_invite_of_a_link_reaches_a_check_in_two_steps(client: Client) {
    let env = builder().in_two_steps().start().await;
    let typed = company();
    let visitor = env.visitor(client);
    let mut flow = visitor.registration().await;
    flow.submit(&typed.clone().by_profile())
        .await
        .assert_shown_again();
    let response = flow.submit(&typed.clone().by_password()).await;
    assert_eq!(response.assert_refused(), [at("form", INVITE_UNKNOWN)]);

    let visitor = env.visitor(client).with_query(Some(LINK));
    let mut flow = visitor.registration().await;
    flow.submit(&typed.clone().by_profile())
        .await
        .assert_shown_again();
    let response = flow.submit(&typed.by_password()).await;
    flow.assert_signed_up(&response).await;
    assert_eq!(asked(&env)["invite"], INVITATION);
    assert_eq!(env.crm.next().await.body["invite"], INVITATION);
}

/// A social sign-up begins with the form of a registration. With the form of a login too, if the account at the provider is new
/// to Kratos: the registration then has the URL of the login.
pub async fn the_invite_of_a_link_and_the_provider_reach_a_check_of_a_social_sign_up() {
    let provider = Provider::start();
    let env = builder().with_provider(&provider).start().await;
    for (round, page) in ["registration", "login"].into_iter().enumerate() {
        for (link, accepted) in [("", 0), (LINK, 1)] {
            let browser = Browser::new(&env.kratos.public);
            let form = browser.form(page, link).await;
            sign_up_at_provider(&browser, &form).await;
            let identities = env.kratos.identities().await;
            assert_eq!(identities.len(), round + accepted, "{page} {link}");
        }
        let (context, delivered) = (asked(&env), env.crm.next().await.body);
        for seen in [context, delivered] {
            assert_eq!(seen["invite"], INVITATION, "{page}");
            assert_eq!(seen["provider"], "directory", "{page}");
        }
    }
}

/// Sends the form, and follows the provider's redirects.
async fn sign_up_at_provider(browser: &Browser, form: &Form) {
    let at_provider = browser.choose_provider(form, &company()).await;
    let callback = browser.redirect_target(&at_provider).await;
    browser.open(&callback).await;
}

pub async fn the_address_and_listed_headers_reach_a_check(client: Client) {
    let env = builder().start().await;
    let headers = |headers: &'static [(&'static str, &'static str)]| {
        env.visitor(client)
            .with_query(Some(LINK))
            .with_headers(headers)
    };
    for (sent, ip, tenant) in [
        (&[][..], Value::Null, Value::Null),
        (
            &[("X-Forwarded-For", "192.0.2.1")],
            Value::Null,
            Value::Null,
        ),
        (
            &[("X-Forwarded-For", "forged, 203.0.113.7, 192.0.2.1")],
            json!("203.0.113.7"),
            Value::Null,
        ),
        (
            &[
                ("X-Forwarded-For", "forged"),
                ("X-Forwarded-For", "[2001:db8::7]:1"),
                ("x-forwarded-for", "192.0.2.1"),
            ],
            json!("2001:db8::7"),
            Value::Null,
        ),
        (
            &[
                ("X-Forwarded-For", "203.0.113.7,192.0.2.1"),
                ("x-tenant", "acme"),
                ("X-Unlisted", "x"),
            ],
            json!("203.0.113.7"),
            json!("acme"),
        ),
    ] {
        let mut visitor = headers(sent);
        visitor.sign_up(&company().by_password()).await;
        let context = asked(&env);
        assert_eq!(
            (&context["ip"], &context["tenant"]),
            (&ip, &tenant),
            "{sent:?}"
        );
        let names = context["headers"].as_array().expect("names");
        assert!(names.contains(&json!("Accept-Language")), "{names:?}");
        assert!(!names.contains(&json!("X-Unlisted")), "{names:?}");
        assert_eq!(env.crm.next().await.body["ip"], ip, "{sent:?}");
    }
}

pub async fn the_state_before_a_change_reaches_a_delivery(client: Client) {
    let env = builder().start().await;
    let mut visitor = env.visitor(client).with_query(Some(LINK));
    let typed = company();
    visitor.sign_up(&typed.clone().by_password()).await;
    assert_eq!(env.crm.next().await.body["state_before"], Value::Null);
    for name in ["Another name", "A third name"] {
        let mut flow = visitor.settings().await;
        flow.submit(&typed.clone().with(COMPANY, name).by_profile())
            .await
            .assert_saved();
        let delivered = env.crm.next().await.body;
        assert_eq!(delivered["state_before"], "active");
        assert_eq!(delivered["invite"], Value::Null);
    }
}

pub async fn an_old_template_is_refused_until_it_is_replaced(client: Client) {
    let env = builder().start().await;
    let current = env.kratos.replace_template(VERSION_1);
    let visitor = env.visitor(client).with_query(Some(LINK));
    let typed = company().by_password();
    let mut flow = visitor.registration().await;
    let response = flow.submit(&typed).await;
    assert_eq!(response.assert_refused(), [at("form", NOT_POSSIBLE)]);
    assert!(env.kratos.identities().await.is_empty());
    eventually("Vestibule names the template", async || {
        let template = "the template of `selfservice.flows.registration.after.password.hooks`";
        env.vestibule.log_text().contains(template).then_some(())
    })
    .await;

    env.kratos.replace_template(&current);
    let response = flow.submit(&typed).await;
    flow.assert_signed_up(&response).await;
}
