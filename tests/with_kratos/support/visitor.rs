//! A visitor with a client, and the forms that Kratos shows.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use reqwest::header::{ACCEPT, LOCATION};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use url::Url;
use vestibule_testing::http::client_builder;

use super::fields::Fields;
use super::kratos::RETURN_TO;

/// The kind of client of a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A browser that posts forms.
    BrowserForm,
    /// A browser whose page sends JSON.
    BrowserJson,
    /// A native app.
    Api,
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Client::BrowserForm => "browser_form",
            Client::BrowserJson => "browser_json",
            Client::Api => "api",
        })
    }
}

/// A visitor with cookies or a session token.
pub struct Visitor {
    pub client: Client,
    pub http: reqwest::Client,
    kratos: String,
    language: &'static str,
    query: Option<&'static str>,
    headers: &'static [(&'static str, &'static str)],
    token: Option<String>,
}

/// The page of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Registration,
    Settings,
    Verification,
    Login,
    Recovery,
}

/// An open form.
pub struct Flow<'a> {
    visitor: &'a Visitor,
    page: Page,
    pub id: String,
    /// The flow as Kratos shows it.
    pub shown: Value,
}

/// The response to a form.
#[derive(Debug)]
pub struct FormResponse {
    client: Client,
    pub status: u16,
    pub location: Option<String>,
    pub has_session_cookie: bool,
    pub body: Value,
    /// The form, if Kratos shows it again.
    shown: Option<Value>,
}

/// An error message on a form: its field (`form`, or a node's name), its id and its text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub field: String,
    pub id: u64,
    pub text: String,
}

impl Page {
    fn path(self) -> &'static str {
        match self {
            Page::Registration => "/self-service/registration",
            Page::Settings => "/self-service/settings",
            Page::Verification => "/self-service/verification",
            Page::Login => "/self-service/login",
            Page::Recovery => "/self-service/recovery",
        }
    }
}

impl Visitor {
    /// A new visitor without an account.
    pub fn new(kratos: &str, client: Client) -> Self {
        let http = client_builder(Duration::from_mins(1))
            .cookie_store(client != Client::Api)
            .build()
            .expect("the HTTP client builds");
        Self {
            client,
            http,
            kratos: kratos.to_owned(),
            language: "en",
            query: None,
            headers: &[],
            token: None,
        }
    }

    /// Sets the language of requests.
    #[must_use]
    pub fn with_language(mut self, language: &'static str) -> Self {
        self.language = language;
        self
    }

    /// Opens pages with further parameters, as a link does.
    #[must_use]
    pub fn with_query(mut self, query: Option<&'static str>) -> Self {
        self.query = query;
        self
    }

    /// Sends headers with each request, as proxies add them.
    #[must_use]
    pub fn with_headers(mut self, headers: &'static [(&'static str, &'static str)]) -> Self {
        self.headers = headers;
        self
    }

    /// Opens the registration page.
    pub async fn registration(&self) -> Flow<'_> {
        self.open(Page::Registration).await
    }

    /// Opens the settings page.
    pub async fn settings(&self) -> Flow<'_> {
        self.open(Page::Settings).await
    }

    /// Opens the verification page.
    pub async fn verification(&self) -> Flow<'_> {
        self.open(Page::Verification).await
    }

    /// Opens the login page.
    pub async fn login(&self) -> Flow<'_> {
        self.open(Page::Login).await
    }

    /// Opens the recovery page.
    pub async fn recovery(&self) -> Flow<'_> {
        self.open(Page::Recovery).await
    }

    /// Sends a company name with an API flow. Returns whether Kratos saved it, or `None` if the session has ended.
    pub async fn save_company(&self, typed: &Fields, name: &str) -> Option<bool> {
        let url = format!("{}/self-service/settings/api", self.kratos);
        let response = self.send(self.http.get(url)).await;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => return None,
            _ => return Some(false),
        }
        let shown: Value = response.json().await.expect("JSON");
        let action = shown["ui"]["action"].as_str().expect("an action");
        let form = typed.clone().by_profile().with("traits.company", name);
        let request = self.http.post(action).json(&form.nested());
        Some(self.send(request).await.status() == 200)
    }

    /// Fetches a URL of Kratos as JSON.
    pub async fn fetch_json(&self, location: &str) -> Value {
        let response = self.with_token(self.http.get(location)).send().await;
        let response = response.expect("a response");
        response.json().await.expect("JSON")
    }

    /// Whether the visitor is signed in.
    pub async fn is_signed_in(&self) -> bool {
        let url = format!("{}/sessions/whoami", self.kratos);
        self.send(self.http.get(url)).await.status() == 200
    }

    /// Tries to open a page. Returns the status and the body, which is JSON or nothing.
    pub async fn try_open(&self, page: Page) -> (u16, Value) {
        let response = self.send(self.http.get(self.url_of(page))).await;
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    fn url_of(&self, page: Page) -> String {
        let kind = if self.client == Client::Api {
            "api"
        } else {
            "browser"
        };
        format!(
            "{}{}/{kind}?return_to={RETURN_TO}&{}",
            self.kratos,
            page.path(),
            self.query.unwrap_or_default()
        )
    }

    async fn open(&self, page: Page) -> Flow<'_> {
        let url = self.url_of(page);
        let mut response = self.send(self.http.get(&url)).await;
        for _ in 0..5 {
            // While another request writes, Kratos on SQLite can answer 500. To a request with a session, it answers 401
            // for every error with which it cannot read the session. The visitor reloads the page.
            if !matches!(response.status().as_u16(), 401 | 500) {
                break;
            }
            response = self.send(self.http.get(&url)).await;
        }
        let id = if self.client == Client::BrowserForm {
            assert_eq!(response.status(), 303, "Kratos shows the form");
            flow_in(&location(&response).expect("a redirect")).expect("a flow")
        } else {
            assert_eq!(response.status(), 200, "Kratos shows the form");
            let shown: Value = response.json().await.expect("JSON");
            shown["id"].as_str().expect("an id").to_owned()
        };
        self.reopen(page, &id).await
    }

    /// Opens an existing flow.
    pub async fn reopen(&self, page: Page, id: &str) -> Flow<'_> {
        let (status, shown) = self.fetch(page, id).await;
        assert_eq!(status, 200, "{shown}");
        Flow {
            visitor: self,
            page,
            id: id.to_owned(),
            shown,
        }
    }

    /// Fetches a flow. Returns the status and the body.
    pub async fn fetch(&self, page: Page, id: &str) -> (u16, Value) {
        let url = format!("{}{}/flows?id={id}", self.kratos, page.path());
        let request = self.http.get(url).header(ACCEPT, "application/json");
        let response = self.with_token(request).send().await.expect("a response");
        (
            response.status().as_u16(),
            response.json().await.expect("JSON"),
        )
    }

    /// Signs up and keeps the session. Returns the identity.
    pub async fn sign_up(&mut self, fields: &Fields) -> Value {
        let mut flow = self.registration().await;
        let response = flow.submit(fields).await;
        let identity = flow.assert_signed_up(&response).await;
        self.token = response.body["session_token"].as_str().map(str::to_owned);
        identity
    }

    /// Signs in and keeps the session.
    pub async fn sign_in(&mut self, fields: &Fields) {
        let mut flow = self.login().await;
        let response = flow.submit(fields).await;
        assert!(response.is_accepted(), "{response:#?}");
        self.token = response.body["session_token"].as_str().map(str::to_owned);
    }

    /// The session of the visitor. Panics if there is none.
    async fn session(&self, token: Option<&str>) -> Value {
        let mut request = self.http.get(format!("{}/sessions/whoami", self.kratos));
        if let Some(token) = token {
            request = request.header("X-Session-Token", token);
        }
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 200, "the visitor is signed in");
        response.json().await.expect("JSON")
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        let accept = match self.client {
            Client::BrowserForm => "text/html",
            Client::BrowserJson | Client::Api => "application/json",
        };
        let mut request = request
            .header(ACCEPT, accept)
            .header("Accept-Language", self.language);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        self.with_token(request).send().await.expect("a response")
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header("X-Session-Token", token),
            None => request,
        }
    }
}

impl Flow<'_> {
    /// Sends the form with these fields and its hidden ones.
    pub async fn submit(&mut self, fields: &Fields) -> FormResponse {
        let request = self.request(fields);
        self.send(request).await
    }

    /// Sends the form of an API client on a new connection, without waiting for the response.
    pub async fn send_without_reading(&self, fields: &Fields) -> TcpStream {
        let mut all = self.hidden();
        all.0.extend(fields.0.clone());
        let body = all.nested().to_string();
        let action = self.shown["ui"]["action"].as_str().expect("an action");
        let url = Url::parse(action).expect("a URL");
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let target = &url[url::Position::BeforePath..];
        let token = self.visitor.token.as_ref();
        let token = token.map_or(String::new(), |token| {
            format!("X-Session-Token: {token}\r\n")
        });
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nContent-Type: application/json\r\n{token}\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let mut connection = TcpStream::connect(host).await.expect("a connection");
        let sent = connection.write_all((head + &body).as_bytes()).await;
        sent.expect("the request is sent");
        connection
    }

    /// As [`Flow::submit`], with an extra header.
    pub async fn submit_with(&mut self, fields: &Fields, header: (&str, &str)) -> FormResponse {
        let request = self.request(fields).header(header.0, header.1);
        self.send(request).await
    }

    /// Asserts that Kratos created an account and signed the visitor in. Returns the identity in the session.
    pub async fn assert_signed_up(&self, response: &FormResponse) -> Value {
        match response.client {
            Client::BrowserForm => {
                assert_eq!(response.status, 303, "{response:#?}");
                assert_eq!(
                    response.location.as_deref(),
                    Some(RETURN_TO),
                    "{response:#?}"
                );
                assert!(response.has_session_cookie, "{response:#?}");
            }
            Client::BrowserJson => {
                assert_eq!(response.status, 200, "{response:#?}");
                assert!(response.body["session"]["id"].is_string(), "{response:#?}");
                assert!(response.has_session_cookie, "{response:#?}");
            }
            Client::Api => {
                assert_eq!(response.status, 200, "{response:#?}");
                assert!(response.body["session_token"].is_string(), "{response:#?}");
            }
        }
        let session = self
            .visitor
            .session(response.body["session_token"].as_str())
            .await;
        let identity = session["identity"].clone();
        if response.client != Client::BrowserForm {
            assert_eq!(response.body["identity"]["id"], identity["id"]);
        }
        identity
    }

    fn request(&self, fields: &Fields) -> RequestBuilder {
        let mut all = self.hidden();
        all.0.extend(fields.0.clone());
        let action = self.shown["ui"]["action"].as_str().expect("an action");
        let request = self.visitor.http.post(action);
        match self.visitor.client {
            Client::BrowserForm => {
                let texts = all
                    .0
                    .iter()
                    .filter_map(|(name, value)| Some((name, value.as_str()?)));
                request.form(&texts.collect::<Vec<_>>())
            }
            Client::BrowserJson | Client::Api => request.json(&all.nested()),
        }
    }

    async fn send(&mut self, request: RequestBuilder) -> FormResponse {
        let response = self.visitor.send(request).await;
        let status = response.status().as_u16();
        let location = location(&response);
        let has_session_cookie = response
            .cookies()
            .any(|cookie| cookie.name() == "ory_kratos_session");
        let body: Value =
            serde_json::from_slice(&response.bytes().await.expect("a body")).unwrap_or_default();
        let same = location
            .as_deref()
            .and_then(flow_in)
            .is_some_and(|id| id == self.id);
        let shown = if same {
            Some(self.visitor.fetch(self.page, &self.id).await.1)
        } else {
            body["ui"].is_object().then(|| body.clone())
        };
        if let Some(shown) = &shown {
            self.shown = shown.clone();
        }
        FormResponse {
            client: self.visitor.client,
            status,
            location,
            has_session_cookie,
            body,
            shown,
        }
    }

    /// The hidden fields of the form.
    fn hidden(&self) -> Fields {
        let mut fields = Fields::default();
        for node in self.shown["ui"]["nodes"].as_array().expect("nodes") {
            let input = &node["attributes"];
            let value = &input["value"];
            if input["type"] == "hidden" && !value.is_null() && value != "" {
                fields = fields.with(input["name"].as_str().expect("a name"), value.clone());
            }
        }
        fields
    }

    /// The lifespan of the flow.
    pub fn lifespan(&self) -> TimeDelta {
        let time = |name: &str| {
            let text = self.shown[name].as_str().expect("an RFC 3339 time");
            DateTime::parse_from_rfc3339(text).expect("an RFC 3339 time")
        };
        time("expires_at") - time("issued_at")
    }

    /// Whether a field is hidden on the form.
    pub fn is_hidden(&self, name: &str) -> bool {
        let mut nodes = self.shown["ui"]["nodes"].as_array().expect("nodes").iter();
        nodes.any(|node| {
            node["attributes"]["name"] == name && node["attributes"]["type"] == "hidden"
        })
    }
}

impl FormResponse {
    /// Asserts that Kratos shows the form again. Returns its error messages, sorted by field.
    pub fn assert_shown_again(&self) -> Vec<Message> {
        let expected: &[u16] = match self.client {
            Client::BrowserForm => &[302, 303],
            Client::BrowserJson | Client::Api => &[400],
        };
        assert!(expected.contains(&self.status), "{self:#?}");
        messages(
            self.shown
                .as_ref()
                .unwrap_or_else(|| panic!("Kratos shows the form again: {self:#?}")),
        )
    }

    /// Asserts that Kratos shows the form again with errors. Returns their fields and ids.
    pub fn assert_refused(&self) -> Vec<(String, u64)> {
        let messages = self.assert_shown_again();
        assert!(!messages.is_empty(), "a refusal has messages: {self:#?}");
        messages
            .into_iter()
            .map(|message| (message.field, message.id))
            .collect()
    }

    /// Whether Kratos shows the form again.
    pub fn is_shown_again(&self) -> bool {
        let shown = self.shown.as_ref();
        shown.is_some_and(|shown| shown["ui"]["nodes"].is_array())
    }

    /// The fields and ids of the errors, if Kratos shows the form again. Kratos shows no form to a browser that has been signed in
    /// meanwhile.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let form = self
            .shown
            .as_ref()
            .filter(|shown| shown["ui"]["nodes"].is_array());
        let errors = form.map(messages).unwrap_or_default().into_iter();
        errors.map(|error| (error.field, error.id)).collect()
    }

    /// Asserts that Kratos saved a change.
    pub fn assert_saved(&self) {
        let expected = if self.client == Client::BrowserForm {
            303
        } else {
            200
        };
        assert_eq!(self.status, expected, "{self:#?}");
        if let Some(shown) = &self.shown {
            assert_eq!(messages(shown), [], "{self:#?}");
            assert_eq!(shown["state"], "success", "{self:#?}");
        } else {
            assert_eq!(self.location.as_deref(), Some(RETURN_TO), "{self:#?}");
        }
    }

    /// Whether Kratos created an account and a session.
    pub fn is_accepted(&self) -> bool {
        self.has_session_cookie || self.body["session_token"].is_string()
    }
}

/// The field and the id of an expected message.
pub fn at(field: &str, id: u64) -> (String, u64) {
    (field.to_owned(), id)
}

fn messages(shown: &Value) -> Vec<Message> {
    let form = &shown["ui"]["messages"];
    let mut found = Vec::new();
    let mut take = |field: &str, messages: &Value| {
        for message in messages.as_array().into_iter().flatten() {
            if message["type"] == "error" {
                found.push(Message {
                    field: field.to_owned(),
                    id: message["id"].as_u64().expect("an id"),
                    text: message["text"].as_str().expect("a text").to_owned(),
                });
            }
        }
    };
    take("form", form);
    for node in shown["ui"]["nodes"].as_array().expect("nodes") {
        take(
            node["attributes"]["name"].as_str().unwrap_or("?"),
            &node["messages"],
        );
    }
    found.sort();
    found
}

fn location(response: &Response) -> Option<String> {
    Some(response.headers().get(LOCATION)?.to_str().ok()?.to_owned())
}

/// The flow id in a redirect target.
pub fn flow_in(location: &str) -> Option<String> {
    let url = Url::parse(location).ok()?;
    url.query_pairs()
        .find(|(name, _)| name == "flow")
        .map(|(_, id)| id.into_owned())
}
