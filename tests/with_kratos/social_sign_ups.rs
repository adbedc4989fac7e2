//! Social sign-ups: of a person who has an account already, and from a native app.

use std::time::Duration;

use reqwest::header::{ACCEPT, LOCATION};
use serde_json::{Value, json};
use url::Url;

use crate::gate::submissions::{self, assert_no_alarm, confirmations, releases};
use crate::support::browser::Browser;
use crate::support::fields::{COMPANY, EMAIL, Fields, INVITE, VAT_NUMBER};
use crate::support::kratos::RETURN_TO;
use crate::support::provider::Provider;
use crate::support::service::ONE_USE_PREFIX;
use crate::support::visitor::flow_in;
use crate::support::{Client, TestEnv, company, within};

/// The message of Kratos that offers to link a social identity to an account.
const LINK_OFFERED: u64 = 1_010_016;
const REQUIRED: u64 = 4_900_003;
/// Where Kratos sends browsers after a sign-up.
const SIGNED_UP: &str = "http://127.0.0.1:4455/";

fn target(response: &reqwest::Response) -> String {
    let location = response.headers().get(LOCATION);
    let location = location.unwrap_or_else(|| panic!("Kratos redirects: {response:?}"));
    location.to_str().expect("a text").to_owned()
}

/// Signs up at the provider, and returns where Kratos sends the browser then.
async fn sign_up_at_provider(browser: &Browser, typed: &Fields) -> String {
    let form = browser.registration().await;
    let at_provider = browser.choose_provider(&form, typed).await;
    let callback = browser.redirect_target(&at_provider).await;
    target(&browser.open(&callback).await)
}

async fn released(env: &TestEnv, invite: &str) {
    within(
        Duration::from_mins(2),
        "Vestibule releases the invite",
        async || (releases(env, invite) > 0).then_some(()),
    )
    .await;
    assert_eq!(releases(env, invite), 1);
    assert_eq!(confirmations(env, invite), 0);
}

/// Kratos offers to link the social identity to the account. Vestibule has accepted the sign-up, and releases what it reserved.
pub async fn kratos_offers_to_link_a_social_sign_up_to_an_existing_account() {
    let provider = Provider::start();
    // The reservation is released when the form has expired.
    let env = submissions::builder()
        .with_provider(&provider)
        .with_flow_lifespan("20s")
        .start()
        .await;
    let invite = |name: &str| format!("{ONE_USE_PREFIX}linked-{name}");
    let typed = company().with(INVITE, invite("first"));
    let identity = env
        .visitor(Client::BrowserJson)
        .sign_up(&typed.clone().by_password())
        .await;
    provider.sign_in_as(typed.text(EMAIL));

    let browser = Browser::new(&env.kratos.public);
    let again = company().with(INVITE, invite("second"));
    let shown_at = sign_up_at_provider(&browser, &again).await;
    assert!(shown_at.contains("/login"), "{shown_at}");
    let login = browser
        .flow("login", &flow_in(&shown_at).expect("a flow"))
        .await;
    let ids: Vec<u64> = login["ui"]["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|message| message["id"].as_u64())
        .collect();
    assert!(ids.contains(&LINK_OFFERED), "{login:#}");
    assert_eq!(
        env.kratos.identities().await.len(),
        1,
        "Kratos creates no second account"
    );
    assert_eq!(confirmations(&env, &invite("second")), 0);

    // The owner proves the account with its password. Kratos keeps the account's own traits.
    let password = [
        ("method", "password"),
        ("identifier", typed.text(EMAIL)),
        ("password", "a-long-Pa55phrase-of-ours"),
    ];
    let linked = browser.submit(&login, &password).await;
    assert_eq!(target(&linked), SIGNED_UP, "{linked:?}");
    let stored = env.kratos.identities().await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["id"], identity["id"]);
    assert_eq!(stored[0]["traits"]["invite"], invite("first"));
    assert_eq!(stored[0]["traits"]["vat_number"], typed.text(VAT_NUMBER));

    // A linked person who signs up again is signed in, and no check runs.
    let asked = env.checked_vat_numbers().len();
    let browser = Browser::new(&env.kratos.public);
    let third = company().with(INVITE, invite("third"));
    assert_eq!(sign_up_at_provider(&browser, &third).await, SIGNED_UP);
    assert_eq!(env.checked_vat_numbers().len(), asked);
    let paths: Vec<String> = env
        .invites
        .received()
        .into_iter()
        .map(|call| call.path)
        .collect();
    assert!(
        !paths.iter().any(|path| path.contains(&invite("third"))),
        "{paths:?}"
    );
    assert_eq!(env.kratos.identities().await.len(), 1);

    // Nothing stays reserved: another person can use the invite of the sign-up that came to nothing.
    released(&env, &invite("second")).await;
    provider.sign_in_as_anyone();
    let browser = Browser::new(&env.kratos.public);
    let other = company().with(INVITE, invite("second"));
    assert_eq!(sign_up_at_provider(&browser, &other).await, SIGNED_UP);
    assert_no_alarm(&env).await;
}

/// Only the address is required by the schema, so Kratos calls Vestibule with what the provider knows.
fn address_only(schema: &mut Value) {
    schema["properties"]["traits"]["required"] = json!(["email"]);
}

/// What a native app sees of a social sign-up.
#[derive(Debug)]
struct NativeResult {
    /// Where Kratos sends the system browser after the callback.
    location: String,
    /// The status and the body of the registration flow afterwards.
    status: u16,
    flow: Value,
    session: Value,
}

impl NativeResult {
    /// Returns the ids of the messages on this field.
    fn messages(&self, field: &str) -> Vec<u64> {
        let nodes = self.flow["ui"]["nodes"].as_array().into_iter().flatten();
        let of_field = nodes.filter(|node| node["attributes"]["name"] == field);
        let messages = of_field.flat_map(|node| node["messages"].as_array().into_iter().flatten());
        messages
            .filter_map(|message| message["id"].as_u64())
            .collect()
    }
}

/// A native app with its own HTTP client. The system browser has no cookie of the app.
struct NativeApp {
    http: reqwest::Client,
    kratos: String,
    flow: Value,
}

impl NativeApp {
    async fn open(env: &TestEnv) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("the HTTP client builds");
        let kratos = env.kratos.public.clone();
        let url = format!(
            "{kratos}/self-service/registration/api?return_session_token_exchange_code=true&return_to={RETURN_TO}"
        );
        let flow = json_of(http.get(url)).await.1;
        Self { http, kratos, flow }
    }

    /// Sends the form, and opens the provider in the system browser.
    async fn sign_up(&self, traits: Value, transient_payload: Value) -> NativeResult {
        let action = self.flow["ui"]["action"].as_str().expect("an action");
        let body = json!({"method": "oidc", "provider": "directory", "traits": traits, "transient_payload": transient_payload});
        let (status, moved) = json_of(self.http.post(action).json(&body)).await;
        assert_eq!(status, 422, "{moved}");
        let at_provider = moved["redirect_browser_to"].as_str().expect("a URL");
        let open = async |url: &str| {
            let response = self.http.get(url).send().await.expect("a response");
            target(&response)
        };
        let callback = open(at_provider).await;
        let location = open(&callback).await;
        let id = self.flow["id"].as_str().expect("an id");
        let url = format!("{}/self-service/registration/flows?id={id}", self.kratos);
        let (status, flow) = json_of(self.http.get(url)).await;
        let session = self.session(&location).await;
        NativeResult {
            location,
            status,
            flow,
            session,
        }
    }

    /// Exchanges the code in the location for a session. Null without a code.
    async fn session(&self, location: &str) -> Value {
        let location = Url::parse(location).expect("a URL");
        let Some((_, code)) = location.query_pairs().find(|(name, _)| name == "code") else {
            return Value::Null;
        };
        let init = self.flow["session_token_exchange_code"]
            .as_str()
            .expect("a code");
        let url = format!(
            "{}/sessions/token-exchange?init_code={init}&return_to_code={code}",
            self.kratos
        );
        let (status, session) = json_of(self.http.get(url)).await;
        assert_eq!(status, 200, "{session}");
        session
    }
}

async fn json_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    let request = request.header(ACCEPT, "application/json");
    let response = request.send().await.expect("a response");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"))
}

/// Kratos keeps the fields of a social sign-up in a cookie, which the system browser of a native app does not have. So Vestibule
/// sees only what the provider knows, and the app finds the message in its flow. The transient payload is kept in the flow.
pub async fn native_app_reads_the_message_about_a_field_that_kratos_dropped() {
    let provider = Provider::start();
    let env = TestEnv::builder()
        .with_settings("checked_fields.yaml")
        .with_schema(address_only)
        .with_provider(&provider)
        .start()
        .await;
    let app = NativeApp::open(&env).await;
    for traits in [json!({}), json!({"company": "Private person"})] {
        let result = app.sign_up(traits, json!({})).await;
        assert_eq!(result.location, RETURN_TO, "no code: {result:#?}");
        assert_eq!(result.status, 200);
        assert_eq!(result.messages(COMPANY), [REQUIRED], "{result:#?}");
        assert!(env.kratos.identities().await.is_empty());
    }
    let result = app
        .sign_up(json!({}), json!({"company": "Private person"}))
        .await;
    assert!(result.session["session_token"].is_string(), "{result:#?}");
    let stored = env.kratos.identities().await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0]["traits"]["company"], "Private person");
}
