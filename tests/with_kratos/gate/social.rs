//! Sign-ups with an `OpenID` provider: the callbacks of one form race.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::cookie::{CookieStore as _, Jar};
use reqwest::header::{ACCEPT, LOCATION};
use serde_json::Value;
use url::Url;

use super::submissions::{accounts_with, confirmations, no_alarm, plan, releases};
use crate::support::fields::{COMPANY, INVITE, VAT_NUMBER};
use crate::support::provider::Provider;
use crate::support::service::ONE_USE;
use crate::support::visitor::flow_in;
use crate::support::{House, company, eventually};

/// How many callbacks of one form race.
const RACERS: usize = 6;
const ROUNDS: usize = 3;
/// Where browsers go after a sign-up.
const SIGNED_UP: &str = "http://127.0.0.1:4455/";

/// A browser whose cookies can be copied.
struct Browser {
    http: reqwest::Client,
    jar: Arc<Jar>,
    kratos: Url,
}

/// The form of a registration.
struct Form {
    action: String,
    csrf_token: String,
}

pub async fn one_invite_serves_one_account_of_parallel_callbacks() {
    let provider = Provider::start();
    let house = plan().with_provider(&provider).open().await;
    // Shows Vestibule that this Kratos stores external ids also for this method.
    let first = format!("{ONE_USE}first");
    assert_eq!(race(&house, &first, 1).await, 1);
    for round in 0..ROUNDS {
        let invite = format!("{ONE_USE}social-{round}");
        assert_eq!(race(&house, &invite, RACERS).await, 1, "round {round}");
    }
    no_alarm(&house).await;
}

/// Sends the form so many times, each time to another person at the provider, and lets all callbacks arrive at the same
/// moment. Returns the number of accounts.
async fn race(house: &House, invite: &str, racers: usize) -> usize {
    let browser = Browser::new(&house.kratos.public);
    let form = browser.registration().await;
    let mut callbacks = Vec::new();
    for _ in 0..racers {
        let copy = browser.copied();
        let at_provider = copy.chooses_provider(&form, invite).await;
        let callback = copy.follows(&at_provider).await;
        callbacks.push((copy, callback));
    }
    let called = callbacks
        .iter()
        .map(|(copy, callback)| copy.opens(callback));
    let answers = join_all(called).await;
    // The others get the form again, with a message, or the error page of Kratos.
    let signed_up = |answer: &&reqwest::Response| {
        let location = answer.headers().get(LOCATION);
        location.is_some_and(|location| location == SIGNED_UP)
    };
    let signed_up = answers.iter().filter(signed_up).count();
    let made = accounts_with(house, invite).await;
    for one in &made {
        let external_id = one["external_id"].as_str().unwrap_or_default();
        assert!(external_id.starts_with("vestibule:"), "{one}");
    }
    eventually("the invite is confirmed", async || {
        (confirmations(house, invite) > 0).then_some(())
    })
    .await;
    assert_eq!(confirmations(house, invite), 1);
    assert_eq!(releases(house, invite), 0);
    assert_eq!(signed_up, made.len(), "{answers:#?}");
    made.len()
}

impl Browser {
    fn new(kratos: &str) -> Self {
        Self::with(Url::parse(kratos).expect("a URL"), Jar::default())
    }

    fn with(kratos: Url, jar: Jar) -> Self {
        let jar = Arc::new(jar);
        let http = reqwest::Client::builder()
            .no_proxy()
            .cookie_provider(Arc::clone(&jar))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .expect("a client");
        Self { http, jar, kratos }
    }

    /// The same browser, as a thief of its cookies has it.
    fn copied(&self) -> Self {
        let jar = Jar::default();
        let cookies = self.jar.cookies(&self.kratos).expect("cookies");
        for cookie in cookies.to_str().expect("a text").split("; ") {
            jar.add_cookie_str(&format!("{cookie}; Path=/"), &self.kratos);
        }
        Self::with(self.kratos.clone(), jar)
    }

    /// Opens the registration.
    async fn registration(&self) -> Form {
        let path = "/self-service/registration";
        let shown_at = self.follows(&self.at(&format!("{path}/browser"))).await;
        let id = flow_in(&shown_at).expect("a flow");
        let url = self.at(&format!("{path}/flows?id={id}"));
        let request = self.http.get(url).header(ACCEPT, "application/json");
        let shown: Value = request
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        let nodes = shown["ui"]["nodes"].as_array().expect("nodes");
        let token = nodes
            .iter()
            .find(|node| node["attributes"]["name"] == "csrf_token")
            .expect("a token");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Form {
            action: text(&shown["ui"]["action"]),
            csrf_token: text(&token["attributes"]["value"]),
        }
    }

    /// Sends the form by the button of the provider; returns where the provider is.
    async fn chooses_provider(&self, form: &Form, invite: &str) -> String {
        let typed = company();
        let fields = [
            ("csrf_token", form.csrf_token.as_str()),
            ("provider", "directory"),
            (COMPANY, typed.text(COMPANY)),
            (VAT_NUMBER, typed.text(VAT_NUMBER)),
            (INVITE, invite),
        ];
        let request = self.http.post(&form.action).header(ACCEPT, "text/html");
        let answer = request.form(&fields).send().await.expect("an answer");
        place(&answer)
    }

    /// Opens a page that leads to another one; returns where that is.
    async fn follows(&self, url: &str) -> String {
        place(&self.opens(url).await)
    }

    async fn opens(&self, url: &str) -> reqwest::Response {
        let request = self.http.get(url).header(ACCEPT, "text/html");
        request.send().await.expect("an answer")
    }

    fn at(&self, path: &str) -> String {
        self.kratos.join(path).expect("a URL").into()
    }
}

fn place(answer: &reqwest::Response) -> String {
    let location = answer.headers().get(LOCATION);
    let location = location.unwrap_or_else(|| panic!("a place to go to: {answer:?}"));
    location.to_str().expect("a text").to_owned()
}
