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

/// A registration form.
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
            .expect("the HTTP client builds");
        Self { http, jar, kratos }
    }

    /// A second browser with a copy of the cookies.
    pub fn with_copied_cookies(&self) -> Self {
        let jar = Jar::default();
        let cookies = self.jar.cookies(&self.kratos).expect("cookies");
        for cookie in cookies.to_str().expect("a text").split("; ") {
            jar.add_cookie_str(&format!("{cookie}; Path=/"), &self.kratos);
        }
        Self::with(self.kratos.clone(), jar)
    }

    /// Opens the registration form.
    pub async fn registration(&self) -> Form {
        self.form("registration", "").await
    }

    /// Opens the form of `registration` or `login` with these parameters.
    pub async fn form(&self, page: &str, query: &str) -> Form {
        let path = format!("/self-service/{page}");
        let shown_at = self
            .redirect_target(&self.at(&format!("{path}/browser?{query}")))
            .await;
        let id = flow_in(&shown_at).expect("a flow");
        let url = self.at(&format!("{path}/flows?id={id}"));
        let request = self.http.get(url).header(ACCEPT, "application/json");
        let shown: Value = request
            .send()
            .await
            .expect("a response")
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

    /// Sends the form with the button of the provider, and without the address, which the provider knows. Returns the URL of the
    /// provider.
    pub async fn choose_provider(&self, form: &Form, typed: &Fields) -> String {
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
        let response = request.form(&fields).send().await.expect("a response");
        location(&response)
    }

    /// Opens a page that redirects. Returns the target.
    pub async fn redirect_target(&self, url: &str) -> String {
        location(&self.open(url).await)
    }

    pub async fn open(&self, url: &str) -> reqwest::Response {
        let request = self.http.get(url).header(ACCEPT, "text/html");
        request.send().await.expect("a response")
    }

    fn at(&self, path: &str) -> String {
        self.kratos.join(path).expect("a URL").into()
    }
}

fn location(response: &reqwest::Response) -> String {
    let target = response.headers().get(LOCATION);
    let target = target.unwrap_or_else(|| panic!("Kratos redirects: {response:?}"));
    target.to_str().expect("a text").to_owned()
}
