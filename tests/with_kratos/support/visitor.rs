//! Somebody with a client, and the forms that Kratos shows them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use reqwest::header::{ACCEPT, LOCATION};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use url::Url;

use super::fields::Fields;
use super::kratos::RETURN_TO;

/// How somebody talks to Kratos.
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

/// Somebody with cookies or a token.
pub struct Visitor {
    pub client: Client,
    pub http: reqwest::Client,
    kratos: String,
    language: &'static str,
    token: Option<String>,
}

/// Where the form is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    Registration,
    Settings,
    Verification,
    Login,
    Recovery,
}

/// A form that somebody has before them.
pub struct Flow<'a> {
    visitor: &'a Visitor,
    page: Page,
    pub id: String,
    /// As Kratos shows it.
    pub shown: Value,
}

/// What came of sending a form.
#[derive(Debug)]
pub struct Answer {
    client: Client,
    pub status: u16,
    pub location: Option<String>,
    pub has_session_cookie: bool,
    pub body: Value,
    /// The form, if it is shown again.
    shown: Option<Value>,
}

/// An error message on a form: where (`form`, or a node's name), which, and its words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub place: String,
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
    /// Somebody whom Kratos does not know yet.
    pub fn new(kratos: &str, client: Client) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .cookie_store(client != Client::Api)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .expect("a client");
        Self {
            client,
            http,
            kratos: kratos.to_owned(),
            language: "en",
            token: None,
        }
    }

    /// The same, reading another language.
    #[must_use]
    pub fn reading(mut self, language: &'static str) -> Self {
        self.language = language;
        self
    }

    /// Opens the registration.
    pub async fn registration(&self) -> Flow<'_> {
        self.open(Page::Registration).await
    }

    /// Opens the settings page of the account.
    pub async fn settings(&self) -> Flow<'_> {
        self.open(Page::Settings).await
    }

    /// Opens the page on which an address is proved.
    pub async fn verification(&self) -> Flow<'_> {
        self.open(Page::Verification).await
    }

    /// Opens the page on which people sign in.
    pub async fn login(&self) -> Flow<'_> {
        self.open(Page::Login).await
    }

    /// Opens the page on which people get back into their account.
    pub async fn recovery(&self) -> Flow<'_> {
        self.open(Page::Recovery).await
    }

    /// Sends another company name by an API flow: whether it was saved; `None` if the person is not signed in any more.
    pub async fn saves_company(&self, typed: &Fields, name: &str) -> Option<bool> {
        let url = format!("{}/self-service/settings/api", self.kratos);
        let answer = self.send(self.http.get(url)).await;
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => return None,
            _ => return Some(false),
        }
        let shown: Value = answer.json().await.expect("JSON");
        let action = shown["ui"]["action"].as_str().expect("an action");
        let form = typed.clone().by_profile().with("traits.company", name);
        let request = self.http.post(action).json(&form.nested());
        Some(self.send(request).await.status() == 200)
    }

    /// What Kratos says at this place.
    pub async fn look_at(&self, location: &str) -> Value {
        let answer = self.with_token(self.http.get(location)).send().await;
        let answer = answer.expect("an answer");
        answer.json().await.expect("JSON")
    }

    /// Whether the person is signed in.
    pub async fn is_signed_in(&self) -> bool {
        let url = format!("{}/sessions/whoami", self.kratos);
        self.send(self.http.get(url)).await.status() == 200
    }

    async fn open(&self, page: Page) -> Flow<'_> {
        let kind = if self.client == Client::Api {
            "api"
        } else {
            "browser"
        };
        let url = format!(
            "{}{}/{kind}?return_to={RETURN_TO}",
            self.kratos,
            page.path()
        );
        let answer = self.send(self.http.get(url)).await;
        let id = if self.client == Client::BrowserForm {
            assert_eq!(answer.status(), 303, "the form is shown");
            flow_in(&location(&answer).expect("a place")).expect("a flow")
        } else {
            assert_eq!(answer.status(), 200, "the form is shown");
            let shown: Value = answer.json().await.expect("JSON");
            shown["id"].as_str().expect("an id").to_owned()
        };
        self.again(page, &id).await
    }

    /// Takes up a flow that exists.
    pub async fn again(&self, page: Page, id: &str) -> Flow<'_> {
        let (status, shown) = self.fetch(page, id).await;
        assert_eq!(status, 200, "{shown}");
        Flow {
            visitor: self,
            page,
            id: id.to_owned(),
            shown,
        }
    }

    /// What Kratos says of a flow.
    pub async fn fetch(&self, page: Page, id: &str) -> (u16, Value) {
        let url = format!("{}{}/flows?id={id}", self.kratos, page.path());
        let request = self.http.get(url).header(ACCEPT, "application/json");
        let answer = self.with_token(request).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Registers and stays signed in.
    pub async fn signs_up(&mut self, fields: &Fields) -> Value {
        let mut flow = self.registration().await;
        let answer = flow.submit(fields).await;
        let identity = flow.signed_up(&answer).await;
        self.token = answer.body["session_token"].as_str().map(str::to_owned);
        identity
    }

    /// Signs in and stays signed in.
    pub async fn signs_in(&mut self, fields: &Fields) {
        let mut flow = self.login().await;
        let answer = flow.submit(fields).await;
        assert!(answer.is_accepted(), "{answer:#?}");
        self.token = answer.body["session_token"].as_str().map(str::to_owned);
    }

    /// Who Kratos says is signed in.
    async fn session(&self, token: Option<&str>) -> Value {
        let mut request = self.http.get(format!("{}/sessions/whoami", self.kratos));
        if let Some(token) = token {
            request = request.header("X-Session-Token", token);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "signed in");
        answer.json().await.expect("JSON")
    }

    async fn send(&self, request: RequestBuilder) -> Response {
        let accept = match self.client {
            Client::BrowserForm => "text/html",
            Client::BrowserJson | Client::Api => "application/json",
        };
        let request = request
            .header(ACCEPT, accept)
            .header("Accept-Language", self.language);
        self.with_token(request).send().await.expect("an answer")
    }

    fn with_token(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header("X-Session-Token", token),
            None => request,
        }
    }
}

impl Flow<'_> {
    /// Fills in the form, with what it holds hidden, and sends it.
    pub async fn submit(&mut self, fields: &Fields) -> Answer {
        let request = self.request(fields);
        self.send(request).await
    }

    /// Sends the form of an API client on a connection of its own, and does not wait for an answer.
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
        sent.expect("it is sent");
        connection
    }

    /// As [`Flow::submit`], with a header that this kind of client does not send.
    pub async fn submit_with(&mut self, fields: &Fields, header: (&str, &str)) -> Answer {
        let request = self.request(fields).header(header.0, header.1);
        self.send(request).await
    }

    /// Asserts that an account was made and its owner is signed in; returns the account as they see it.
    pub async fn signed_up(&self, answer: &Answer) -> Value {
        match answer.client {
            Client::BrowserForm => {
                assert_eq!(answer.status, 303, "{answer:#?}");
                assert_eq!(answer.location.as_deref(), Some(RETURN_TO), "{answer:#?}");
                assert!(answer.has_session_cookie, "{answer:#?}");
            }
            Client::BrowserJson => {
                assert_eq!(answer.status, 200, "{answer:#?}");
                assert!(answer.body["session"]["id"].is_string(), "{answer:#?}");
                assert!(answer.has_session_cookie, "{answer:#?}");
            }
            Client::Api => {
                assert_eq!(answer.status, 200, "{answer:#?}");
                assert!(answer.body["session_token"].is_string(), "{answer:#?}");
            }
        }
        let session = self
            .visitor
            .session(answer.body["session_token"].as_str())
            .await;
        let identity = session["identity"].clone();
        if answer.client != Client::BrowserForm {
            assert_eq!(answer.body["identity"]["id"], identity["id"]);
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

    async fn send(&mut self, request: RequestBuilder) -> Answer {
        let answer = self.visitor.send(request).await;
        let status = answer.status().as_u16();
        let location = location(&answer);
        let has_session_cookie = answer
            .cookies()
            .any(|cookie| cookie.name() == "ory_kratos_session");
        let body: Value =
            serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default();
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
        Answer {
            client: self.visitor.client,
            status,
            location,
            has_session_cookie,
            body,
            shown,
        }
    }

    /// What the form carries along unseen.
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

    /// How long Kratos gives somebody for this form.
    pub fn lifespan(&self) -> TimeDelta {
        let moment = |name: &str| {
            let text = self.shown[name].as_str().expect("a moment");
            DateTime::parse_from_rfc3339(text).expect("a moment")
        };
        moment("expires_at") - moment("issued_at")
    }

    /// Whether a field is on the form but out of sight.
    pub fn hides(&self, name: &str) -> bool {
        let mut nodes = self.shown["ui"]["nodes"].as_array().expect("nodes").iter();
        nodes.any(|node| {
            node["attributes"]["name"] == name && node["attributes"]["type"] == "hidden"
        })
    }
}

impl Answer {
    /// Asserts that the form is shown again; returns its error messages, sorted by place.
    pub fn shown_again(&self) -> Vec<Message> {
        let expected: &[u16] = match self.client {
            Client::BrowserForm => &[302, 303],
            Client::BrowserJson | Client::Api => &[400],
        };
        assert!(expected.contains(&self.status), "{self:#?}");
        messages(
            self.shown
                .as_ref()
                .unwrap_or_else(|| panic!("the form again: {self:#?}")),
        )
    }

    /// Asserts that the form is shown again with errors; returns where and which.
    pub fn refused(&self) -> Vec<(String, u64)> {
        let messages = self.shown_again();
        assert!(!messages.is_empty(), "a refusal has words: {self:#?}");
        messages
            .into_iter()
            .map(|message| (message.place, message.id))
            .collect()
    }

    /// Whether the form is shown again.
    pub fn is_shown_again(&self) -> bool {
        let shown = self.shown.as_ref();
        shown.is_some_and(|shown| shown["ui"]["nodes"].is_array())
    }

    /// Where the form has errors and which, if it is shown again. Kratos does not show a form any more to a browser that was
    /// signed in meanwhile.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let form = self
            .shown
            .as_ref()
            .filter(|shown| shown["ui"]["nodes"].is_array());
        let errors = form.map(messages).unwrap_or_default().into_iter();
        errors.map(|error| (error.place, error.id)).collect()
    }

    /// Asserts that a change was saved.
    pub fn saved(&self) {
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

    /// Whether an account was made of it.
    pub fn is_accepted(&self) -> bool {
        self.has_session_cookie || self.body["session_token"].is_string()
    }
}

/// A message's place and number, to be compared.
pub fn at(place: &str, id: u64) -> (String, u64) {
    (place.to_owned(), id)
}

fn messages(shown: &Value) -> Vec<Message> {
    let form = &shown["ui"]["messages"];
    let mut found = Vec::new();
    let mut take = |place: &str, messages: &Value| {
        for message in messages.as_array().into_iter().flatten() {
            if message["type"] == "error" {
                found.push(Message {
                    place: place.to_owned(),
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

fn location(answer: &Response) -> Option<String> {
    Some(answer.headers().get(LOCATION)?.to_str().ok()?.to_owned())
}

/// The flow that a place to go to names.
pub fn flow_in(location: &str) -> Option<String> {
    let url = Url::parse(location).ok()?;
    url.query_pairs()
        .find(|(name, _)| name == "flow")
        .map(|(_, id)| id.into_owned())
}
