//! A browser whose cookies can be copied, for sign-ups with an `OpenID` provider.

use std::sync::Arc;
use std::time::Duration;

use reqwest::cookie::{CookieStore as _, Jar};
use reqwest::header::{ACCEPT, LOCATION};
use serde_json::Value;
use url::Url;

use super::fields::{EMAIL, Fields};
use super::visitor::flow_in;

pub struct Browser {
    http: reqwest::Client,
    jar: Arc<Jar>,
    kratos: Url,
}

/// The form of a registration.
pub struct Form {
    action: String,
    csrf_token: String,
}

impl Browser {
    pub fn new(kratos: &str) -> Self {
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
    pub fn copied(&self) -> Self {
        let jar = Jar::default();
        let cookies = self.jar.cookies(&self.kratos).expect("cookies");
        for cookie in cookies.to_str().expect("a text").split("; ") {
            jar.add_cookie_str(&format!("{cookie}; Path=/"), &self.kratos);
        }
        Self::with(self.kratos.clone(), jar)
    }

    /// Opens the registration.
    pub async fn registration(&self) -> Form {
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

    /// Sends the form by the button of the provider, which knows the address; returns where the provider is.
    pub async fn chooses_provider(&self, form: &Form, typed: &Fields) -> String {
        let mut fields = vec![
            ("csrf_token", form.csrf_token.as_str()),
            ("provider", "directory"),
        ];
        let texts = typed
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        fields.extend(texts.filter(|(name, _)| *name != EMAIL));
        let request = self.http.post(&form.action).header(ACCEPT, "text/html");
        let answer = request.form(&fields).send().await.expect("an answer");
        place(&answer)
    }

    /// Opens a page that leads to another one; returns where that is.
    pub async fn follows(&self, url: &str) -> String {
        place(&self.opens(url).await)
    }

    pub async fn opens(&self, url: &str) -> reqwest::Response {
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
