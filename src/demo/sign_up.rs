//! Runs sign-ups of the page, from the form to the deliveries. The demo replaces Kratos; all other parts are real.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::call::{Call, Sender};
use super::fake_kratos::{Account, Flow, Method, SignUpInput};
use super::services::RequestLog;
use super::walkthrough::{meaning, say};
use crate::base::clock::{Clock, Timestamp};
use crate::base::telemetry::Trace;
use crate::kratos::reply::PlacedMessages;
use crate::kratos::{Flow as Kind, Stage};
use crate::model::delivery::Event;
use crate::store::{DeliveryStore, DeliverySummary, Filter};

/// The maximum number of sign-ups, and of accounts.
const MAX_ENTRIES: usize = 100;

/// The result of a sign-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Saved.
    Saved,
    /// Not saved. Kratos shows the form again.
    Refused,
    /// Vestibule accepted the sign-up, but Kratos has an account with this address.
    Taken,
    /// Not saved. Kratos shows its error page.
    Failed,
}

/// The data of a sign-up so far.
#[derive(Clone, Debug, Serialize)]
pub struct SignUp {
    id: Uuid,
    flow: &'static str,
    began_at: Timestamp,
    #[serde(skip)]
    trace: Trace,
    pre: Option<Call>,
    end: Option<End>,
    form: Value,
    account: Option<Value>,
    post: Option<Call>,
    /// Whether all calls have been made.
    over: bool,
}

/// All sign-ups of the page, and their accounts.
pub struct SignUps {
    latest: Mutex<VecDeque<SignUp>>,
    accounts: Mutex<VecDeque<Account>>,
    sender: Sender,
    request_log: Arc<RequestLog>,
    store: Arc<dyn DeliveryStore>,
    clock: Clock,
}

impl SignUps {
    /// Creates an empty list.
    pub fn new(
        sender: Sender,
        request_log: Arc<RequestLog>,
        store: Arc<dyn DeliveryStore>,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            latest: Mutex::default(),
            accounts: Mutex::default(),
            sender,
            request_log,
            store,
            clock,
        })
    }

    /// Returns the saved accounts, the latest first.
    pub fn accounts(&self) -> Vec<Value> {
        lock(&self.accounts)
            .iter()
            .rev()
            .map(|account| json!({"id": account.id(), "traits": account.as_json()["traits"]}))
            .collect()
    }

    /// Begins a sign-up. `Err` is the error with which Kratos itself would reject the form.
    pub fn begin(self: &Arc<Self>, input: SignUpInput) -> Result<Uuid, String> {
        if let Some(problem) = input.traits.schema_error() {
            return Err(problem);
        }
        let now = self.clock.now();
        let before = match input.changes {
            None => None,
            Some(id) => Some(self.account(id).ok_or("there is no account with this id")?),
        };
        let account = match &before {
            Some(before) => before.changed(&input.traits),
            None => Account::new(&input.traits, input.method, now),
        };
        let flow = Flow::of(&input, before, now);
        let sign_up = SignUp {
            id: Uuid::new_v4(),
            flow: flow.kind.as_str(),
            began_at: now,
            trace: Trace::begin(),
            pre: None,
            end: None,
            form: json!(flow.form),
            account: None,
            post: None,
            over: false,
        };
        let (id, trace) = (sign_up.id, sign_up.trace);
        let mut latest = lock(&self.latest);
        latest.push_back(sign_up);
        if latest.len() > MAX_ENTRIES {
            latest.pop_front();
        }
        drop(latest);
        let all = Arc::clone(self);
        tokio::spawn(async move { all.run(id, trace, flow, account, input).await });
        Ok(id)
    }

    async fn run(
        &self,
        id: Uuid,
        trace: Trace,
        mut flow: Flow,
        mut account: Account,
        input: SignUpInput,
    ) {
        let ctx = flow.ctx(&account, &input);
        let mut pre =
            self.sender
                .prepare(flow.kind, Stage::Pre, flow.method(), &ctx, &trace.child());
        self.change(id, |one| one.pre = Some(pre.clone()));
        let answer = self.sender.answer(&pre).await;
        pre.answer = Some(answer.clone());
        let end = self.apply(answer.status, &answer.body, &mut flow, &mut account);
        say(&format!(
            "page          {} of {}: {} ({} ms)",
            if flow.kind == Kind::Registration {
                "sign-up"
            } else {
                "change"
            },
            account.email(),
            meaning(Stage::Pre, answer.status),
            answer.duration_ms,
        ));
        self.change(id, |one| {
            one.pre = Some(pre);
            one.end = Some(end);
            one.form = if end == End::Taken && flow.method() == Method::Oidc.as_str() {
                // Kratos continues with a login, to link the two accounts.
                Value::Null
            } else {
                json!(flow.form)
            };
            one.over = end != End::Saved;
            if end == End::Saved {
                one.account = Some(account.as_json().clone());
            }
        });
        if end != End::Saved {
            return;
        }
        let ctx = flow.ctx(&account, &input);
        let mut post =
            self.sender
                .prepare(flow.kind, Stage::Post, flow.method(), &ctx, &trace.child());
        self.change(id, |one| one.post = Some(post.clone()));
        post.answer = Some(self.sender.answer(&post).await);
        self.change(id, |one| {
            one.post = Some(post);
            one.over = true;
        });
    }

    /// Applies a response to `pre`.
    fn apply(
        &self,
        status: Option<u16>,
        body: &Value,
        flow: &mut Flow,
        account: &mut Account,
    ) -> End {
        match status {
            Some(200) => match body["identity"].as_object() {
                Some(changes) => account.take(changes),
                None => return End::Failed,
            },
            Some(204) => {}
            Some(400..=499) => {
                let Ok(placed) =
                    serde_json::from_value::<Vec<PlacedMessages>>(body["messages"].clone())
                else {
                    return End::Failed;
                };
                flow.form.take(&placed);
                return End::Refused;
            }
            _ => return End::Failed,
        }
        let mut accounts = lock(&self.accounts);
        let taken = accounts
            .iter()
            .any(|other| other.id() != account.id() && other.email() == account.email());
        if taken {
            flow.form.show_taken();
            return End::Taken;
        }
        account.save(self.clock.now());
        accounts.retain(|other| other.id() != account.id());
        accounts.push_back(account.clone());
        if accounts.len() > MAX_ENTRIES {
            accounts.pop_front();
        }
        End::Saved
    }

    /// Returns all data of a sign-up: its calls, the requests of its trace, the deliveries of its account.
    pub async fn view(&self, id: Uuid) -> Option<Value> {
        let sign_up = lock(&self.latest).iter().find(|one| one.id == id)?.clone();
        let trace = sign_up.trace.to_string();
        let questions = self
            .request_log
            .find(|exchange| exchange.trace().as_ref() == Some(&trace));
        let mut deliveries = Vec::new();
        if let Some(account) = &sign_up.account {
            for delivery in self.deliveries(&sign_up, &account["id"]).await {
                let id = delivery.id.to_string();
                let tries = self
                    .request_log
                    .find(|exchange| exchange.header("idempotency-key") == Some(&id));
                let mut listed = json!(delivery);
                listed["tries"] = json!(tries);
                deliveries.push(listed);
            }
        }
        let mut view = json!(sign_up);
        view["questions"] = json!(questions);
        view["deliveries"] = deliveries.into();
        Some(view)
    }

    async fn deliveries(&self, of: &SignUp, account: &Value) -> Vec<DeliverySummary> {
        let event = if of.flow == Kind::Registration.as_str() {
            Event::IdentityCreated
        } else {
            Event::IdentityUpdated
        };
        let listed = self.store.list(&Filter::default(), 1000).await;
        let mut listed = listed.unwrap_or_else(|error| {
            tracing::warn!(error = error.error_chain(), "Could not list deliveries");
            Vec::new()
        });
        listed.retain(|delivery| {
            json!(delivery.identity_id) == *account
                && delivery.event == event
                && delivery.created_at >= of.began_at
        });
        listed
    }

    fn account(&self, id: Uuid) -> Option<Account> {
        let accounts = lock(&self.accounts);
        accounts.iter().find(|account| account.id() == id).cloned()
    }

    fn change(&self, id: Uuid, change: impl FnOnce(&mut SignUp)) {
        if let Some(one) = lock(&self.latest).iter_mut().find(|one| one.id == id) {
            change(one);
        }
        self.request_log.touch();
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
