//! Starts Vestibule for one test.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;
use vestibule::app::{App, Overrides};
use vestibule::base::clock::{Clock, ManualClock, Timestamp};
use vestibule::config::{self, Environment};
use vestibule::model::delivery::State;
use vestibule::model::pending::{LookupTimes, PendingSignUp, PendingState};
use vestibule::store::{DeliverySummary, Filter, Store};
use vestibule_testing::http::{client, metric};
use vestibule_testing::payload::Payload;

use super::{FakeKratos, FakeService, bounded, eventually, logs};

/// The hook key that the tests use.
pub const KEY: &str = "canary-key-one-0123456789";
/// A second valid key.
pub const OTHER_KEY: &str = "canary-key-two-0123456789";

const UNFINISHED_LOOKUPS: &str = "SELECT count(*) FROM flows WHERE next_lookup_at IS NOT NULL AND (leased_at IS NOT NULL OR next_lookup_at <= $1)";

const RUNNING_ATTEMPTS: &str =
    "SELECT count(*) FROM deliveries WHERE state = 'pending' AND leased = 1";

/// A running Vestibule with its clock, its folder and an HTTP client.
pub struct TestApp {
    pub app: App,
    pub clock: ManualClock,
    pub http: reqwest::Client,
    pub folder: Arc<TempDir>,
}

/// Collects the settings and the environment of a [`TestApp`].
pub struct Builder {
    yaml: String,
    max_connections: usize,
    /// More keys of `serve.admin`.
    admin: String,
    environment: Vec<(String, String)>,
    store: Option<Arc<dyn Store>>,
    folder: Arc<TempDir>,
    start: Timestamp,
}

/// A response of Vestibule.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|_| panic!("JSON, not {:?} ({})", self.text, self.status))
    }

    /// Returns `(instance_ptr, id, text)` of every message.
    pub fn messages(&self) -> Vec<(String, u64, String)> {
        let body = self.json();
        let mut found = Vec::new();
        for group in body["messages"]
            .as_array()
            .unwrap_or_else(|| panic!("messages in {body}"))
        {
            for message in group["messages"].as_array().expect("messages of the group") {
                assert_eq!(message["type"], "error");
                found.push((
                    group["instance_ptr"]
                        .as_str()
                        .expect("a pointer")
                        .to_owned(),
                    message["id"].as_u64().expect("an id"),
                    message["text"].as_str().expect("a text").to_owned(),
                ));
            }
        }
        assert!(!found.is_empty(), "a refusal has messages: {body}");
        found
    }

    /// Returns whether Kratos would save the identity.
    pub fn is_admitted(&self) -> bool {
        self.status == 204 || self.status == 200 && self.json()["identity"].is_object()
    }

    /// Asserts that Kratos reads this as a refusal with messages, and returns the pointer and the id of each message.
    pub fn refused(&self) -> Vec<(String, u64)> {
        assert!(
            (400..500).contains(&self.status) && self.status != 429,
            "{self:?}"
        );
        assert!(self.headers.get("retry-after").is_none());
        self.messages()
            .into_iter()
            .map(|(pointer, id, _)| (pointer, id))
            .collect()
    }
}

impl TestApp {
    /// Prepares settings from YAML. `${env:…}` names the services.
    pub fn with(yaml: &str) -> Builder {
        logs::start();
        Builder {
            yaml: yaml.to_owned(),
            max_connections: 1000,
            admin: String::new(),
            environment: Vec::new(),
            store: None,
            folder: Arc::new(tempfile::tempdir().expect("a folder")),
            start: "2026-11-23T14:32:53Z".parse().expect("a moment"),
        }
    }

    /// Stops Vestibule. Returns its folder and the time, to start it again.
    pub async fn stop(self) -> (Arc<TempDir>, Timestamp) {
        let now = self.clock.now();
        bounded("Vestibule stops", self.app.stop()).await;
        (self.folder, now)
    }

    /// Calls a hook with this body as Kratos does.
    pub async fn call(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.call_with(
            path,
            body,
            &[
                ("X-Vestibule-Key", KEY),
                ("Ory-Webhook-Trigger-ID", &uuid()),
            ],
        )
        .await
    }

    /// Calls a hook with these headers.
    pub async fn call_with(
        &self,
        path: &str,
        body: impl Into<reqwest::Body>,
        headers: &[(&str, &str)],
    ) -> Reply {
        let mut request = self
            .http
            .post(self.url(path))
            .header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(request.body(body).send().await.expect("an answer")).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.hooks_address)
    }

    pub async fn admin_get(&self, path: &str) -> Reply {
        let url = format!("http://{}{path}", self.app.admin_address);
        reply(self.http.get(url).send().await.expect("an answer")).await
    }

    /// Posts a body to the admin port, as an operator does.
    pub async fn admin_post(&self, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let url = format!("http://{}{path}", self.app.admin_address);
        let request = self
            .http
            .post(url)
            .header("Content-Type", "application/json");
        reply(request.body(body).send().await.expect("an answer")).await
    }

    /// Calls `pre` for a sign-up by password.
    pub async fn pre(&self, payload: &Payload) -> Reply {
        self.call(
            "/hooks/registration/pre?method=password",
            payload.to_string(),
        )
        .await
    }

    /// Calls `post` for a sign-up by password.
    pub async fn post(&self, payload: &Payload) -> Reply {
        self.call(
            "/hooks/registration/post?method=password",
            payload.to_string(),
        )
        .await
    }

    /// Proves the guard: a sign-up without an invite is saved by a Kratos that stores the `external_id` of Vestibule.
    pub async fn prove_guard(&self) {
        let visitor = super::payload()
            .without("/identity/traits/invite")
            .without("/identity/traits/vat_number");
        for method in ["password", "oidc"] {
            let path = |stage: &str| format!("/hooks/registration/{stage}?method={method}");
            let visitor = visitor.clone().with("/flow/id", uuid());
            let reply = self.call(&path("pre"), visitor.to_string()).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            let saved = visitor.saved().guarded().to_string();
            assert_eq!(self.call(&path("post"), saved).await.status, 204);
        }
    }

    /// Calls `pre` for a change of the profile.
    pub async fn settings(&self, payload: &Payload) -> Reply {
        self.call("/hooks/settings/pre?method=profile", payload.to_string())
            .await
    }

    /// Probes again and again until `probe` finds something; see [`eventually`].
    pub async fn eventually<T>(&self, what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
        eventually(what, probe).await
    }

    /// Advances the clock in steps until `probe` finds something. Each step waits for the running attempts and
    /// look-ups, which would otherwise time out without having had any time.
    pub async fn advance_until<T>(
        &self,
        what: &str,
        step: Duration,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        self.eventually(what, async || {
            self.wait_for_lookups().await;
            self.wait_for_attempts().await;
            let found = probe().await;
            if found.is_none() {
                self.clock.advance(step);
            }
            found
        })
        .await
    }

    /// Returns all deliveries of this subscription or other queue, newest first.
    pub async fn deliveries(&self, subscription: &str) -> Vec<DeliverySummary> {
        let filter = Filter {
            subscription: Some(subscription.to_owned()),
            ..Filter::default()
        };
        self.app.store.list(&filter, 100).await.expect("a list")
    }

    /// Waits until the only delivery of this subscription is in this state, and returns it.
    pub async fn wait_for_delivery(&self, subscription: &str, state: State) -> DeliverySummary {
        let what = format!("one delivery of {subscription} is {state}");
        self.eventually(&what, async || {
            let all = self.deliveries(subscription).await;
            assert!(all.len() <= 1, "one of {subscription}");
            all.into_iter().find(|one| one.state == state)
        })
        .await
    }

    /// Waits until no attempt of the only delivery of this subscription is running, and advances the clock to the next one.
    pub async fn advance_to_next_attempt(&self, subscription: &str) {
        let due = self
            .eventually("the delivery waits for its next attempt", async || {
                let one = self.deliveries(subscription).await.pop()?;
                let shown = self
                    .app
                    .store
                    .show(one.id)
                    .await
                    .expect("the store answers")?;
                let again = self.deliveries(subscription).await.pop()?;
                let is_waiting = shown.tries.len() == one.attempts as usize && one.attempts > 0;
                (is_waiting && again == one).then_some(one.next_attempt_at)
            })
            .await;
        let wait = due.map(|due| (due - self.clock.now()).to_std().unwrap_or_default());
        self.clock.advance(wait.unwrap_or_default());
    }

    /// Waits until no flow is due for a look-up and no look-up is running. Works only with Vestibule's own SQLite database.
    pub async fn wait_for_lookups(&self) {
        let mut database = self.database().await;
        self.eventually("no look-up is running", async || {
            // One of several flows can have its next look-up planned while another look-up is still running.
            let unfinished: i64 = sqlx::query_scalar(UNFINISHED_LOOKUPS)
                .bind(self.clock.now().timestamp_millis())
                .fetch_one(&mut database)
                .await
                .expect("a number");
            (unfinished == 0).then_some(())
        })
        .await;
    }

    /// Waits until no attempt of a delivery is running. A running attempt would time out when the clock advances.
    pub async fn wait_for_attempts(&self) {
        let mut database = self.database().await;
        self.eventually("no attempt is running", async || {
            let attempts: i64 = sqlx::query_scalar(RUNNING_ATTEMPTS)
                .fetch_one(&mut database)
                .await
                .expect("a number");
            (attempts == 0).then_some(())
        })
        .await;
    }

    /// Opens a second connection to the SQLite database of Vestibule, for reading.
    /// Returns the texts that a query finds in Vestibule's own SQLite database.
    pub async fn texts(&self, query: &'static str) -> Vec<String> {
        let mut database = self.database().await;
        let rows: Vec<Option<String>> = sqlx::query_scalar(query)
            .fetch_all(&mut database)
            .await
            .expect("rows");
        rows.into_iter().flatten().collect()
    }

    async fn database(&self) -> SqliteConnection {
        let file = self.folder.path().join("vestibule.db");
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        options.connect().await.expect("its own database")
    }

    /// Waits until no write into an identity is due for verification.
    pub async fn wait_for_verifications(&self) {
        self.eventually("no verification is running", async || {
            let next = self
                .app
                .store
                .next_verification()
                .await
                .expect("the store answers");
            let now = self.clock.now();
            // A running verification holds a lease of five minutes.
            let is_idle =
                next.is_none_or(|next| next > now && next - now != chrono::TimeDelta::minutes(5));
            is_idle.then_some(())
        })
        .await;
    }

    /// Waits until the last run of this background job has this outcome.
    pub async fn wait_for_job(&self, job: &str, outcome: &str) -> Value {
        let what = format!("the last run of `{job}` has {outcome}");
        self.eventually(&what, async || {
            let jobs = self.admin_get("/jobs").await.json();
            let status = jobs["jobs"][job].clone();
            (status["last_outcome"] == outcome).then_some(status)
        })
        .await
    }

    /// Waits until an open submission of this flow is recorded.
    pub async fn wait_for_pending_sign_up(&self, payload: &Payload) {
        let flow_id = payload.flow_id();
        self.eventually("the submission is recorded", async || {
            let state = self.app.store.flow(flow_id).await.expect("an answer");
            let is_open = |one: &PendingSignUp| one.state == PendingState::Open;
            state.pending.iter().any(is_open).then_some(())
        })
        .await;
    }

    /// Returns the value of the metric line that starts with `name`.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(&self.admin_get("/metrics").await.text, name)
    }
}

async fn reply(response: reqwest::Response) -> Reply {
    Reply {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        text: response.text().await.expect("a body"),
    }
}

/// Returns a new UUID as text.
pub fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Builder {
    /// Sets `${env:name}` to `value`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets `${env:name}` to the address of `service`.
    pub fn service(self, name: &str, service: &FakeService) -> Self {
        let url = service.url();
        self.env(name, &url)
    }

    /// Sets `${env:name}` to the address of the admin API of `kratos`.
    pub fn kratos(self, name: &str, kratos: &FakeKratos) -> Self {
        let url = kratos.url();
        self.env(name, &url)
    }

    /// Uses this store in place of SQLite.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Permits so many connections to the hooks port.
    pub fn max_connections(mut self, maximum: usize) -> Self {
        self.max_connections = maximum;
        self
    }

    /// Adds these keys to `serve.admin`.
    pub fn admin(mut self, keys: &str) -> Self {
        self.admin = format!(", {keys}");
        self
    }

    /// Starts at a later time in the folder of an app that ran before.
    pub fn in_folder(mut self, folder: &Arc<TempDir>, start: Timestamp) -> Self {
        self.folder = Arc::clone(folder);
        self.start = start;
        self
    }

    pub async fn start(mut self) -> TestApp {
        self.environment
            .push(("VESTIBULE_KEY".to_owned(), KEY.to_owned()));
        let database = self.folder.path().join("vestibule.db");
        let head = format!(
            "serve: {{hooks: {{host: 127.0.0.1, port: 0}}, admin: {{host: 127.0.0.1, port: 0{}}}}}\ndsn: sqlite://{}\n",
            self.admin,
            database.display()
        );
        let environment = Environment::of(self.environment);
        let settings = config::read(
            &format!("{head}{}", self.yaml),
            &self.folder.path().join("vestibule.yaml"),
            &environment,
        )
        .unwrap_or_else(|problems| panic!("{problems}"));
        let (clock, manual_clock) = Clock::manual(self.start);
        let overrides = Overrides {
            clock,
            jitter: Arc::new(|| 0.5),
            store: self.store,
            lookup_times: LookupTimes::default(),
            max_connections: self.max_connections,
        };
        let app = App::start(settings, overrides).await.expect("a start");
        let http = client();
        TestApp {
            app,
            clock: manual_clock,
            http,
            folder: self.folder,
        }
    }
}
