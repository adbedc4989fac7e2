//! Random sequences of everything that three visitors, two forms and two invites can do, compared with a simple model of
//! invites and accounts.

use std::collections::HashSet;
use std::time::Duration;

use chrono::TimeDelta;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use serde_json::json;
use uuid::Uuid;
use vestibule::base::clock::Timestamp;

use crate::support::app::{KEY, uuid};
use crate::support::cases::cases;
use crate::support::fake_invites::FakeInvites;
use crate::support::payload::Payload;
use crate::support::{FakeKratos, TestApp, payload};

const SETTINGS: &str = r#"
kratos: {admin_url: "${env:KRATOS}", use_external_id: MODE}
checks:
  invite:
    field: traits.invite
    reserve:
      take: {post: "${env:INVITES}/invites/{value}/hold"}
      confirm: {post: "${env:INVITES}/holds/{taken.body.hold_id}/confirm"}
      release: {delete: "${env:INVITES}/holds/{taken.body.hold_id}"}
    refuse: [{when: 404}, {when: 409}]
subscriptions:
  crm: {events: [identity.created], send: {post: "${env:INVITES}/crm"}}
"#;

/// How long Kratos takes to save an accepted sign-up in this model. Without the guard, nothing is guaranteed for longer.
const SAVED_WITHIN_UNGUARDED: TimeDelta = TimeDelta::seconds(8);
const SAVED_WITHIN_GUARDED: TimeDelta = TimeDelta::minutes(9);

/// One event.
#[derive(Clone, Debug)]
enum Event {
    /// A visitor submits one of the two forms with one of the two invites.
    Submit {
        form: usize,
        visitor: usize,
        invite: usize,
    },
    /// A visitor submits one of the forms with an unknown invite.
    UnknownInvite { form: usize },
    /// Kratos repeats a call whose response was lost.
    Repeat { submission: usize },
    /// Kratos saves an accepted submission, or refuses it. Its `post` arrives or is lost.
    Save { submission: usize, post: bool },
    /// A `post` arrives again, as after a restart of Kratos.
    PostAgain { account: usize },
    /// Time passes.
    Wait { seconds: u64 },
    /// Vestibule is restarted.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..2usize, 0..3usize, 0..2usize)
            .prop_map(|(form, visitor, invite)| Event::Submit { form, visitor, invite }),
        1 => (0..2usize).prop_map(|form| Event::UnknownInvite { form }),
        1 => (0..8usize).prop_map(|submission| Event::Repeat { submission }),
        5 => (0..8usize, any::<bool>())
            .prop_map(|(submission, post)| Event::Save { submission, post }),
        1 => (0..4usize).prop_map(|account| Event::PostAgain { account }),
        3 => prop_oneof![1..4u64, Just(11), Just(40)].prop_map(|seconds| Event::Wait { seconds }),
        1 => Just(Event::Restart),
    ]
}

/// A submission that Kratos has sent to `pre`.
struct Submission {
    payload: Payload,
    trigger: String,
    form: usize,
    invite: usize,
    at: Timestamp,
    is_admitted: bool,
}

struct Account {
    post: Payload,
    invite: usize,
}

/// Vestibule and its fake services, shared by all runs.
struct TestEnv {
    app: Option<TestApp>,
    kratos: FakeKratos,
    invites: FakeInvites,
    yaml: String,
    is_guarded: bool,
    runs: usize,
}

impl TestEnv {
    async fn new(is_guarded: bool) -> Self {
        let (kratos, invites) = (FakeKratos::start(), FakeInvites::with_uses(1));
        let yaml = SETTINGS.replace("MODE", if is_guarded { "auto" } else { "never" });
        let app = TestApp::with(&yaml)
            .kratos("KRATOS", &kratos)
            .env("INVITES", &invites.url())
            .start()
            .await;
        if is_guarded {
            app.prove_guard().await;
        }
        Self {
            app: Some(app),
            kratos,
            invites,
            yaml,
            is_guarded,
            runs: 0,
        }
    }

    fn app(&self) -> &TestApp {
        self.app.as_ref().expect("Vestibule runs")
    }

    async fn restart(&mut self) {
        let app = self.app.take().expect("Vestibule runs");
        let (folder, now) = app.stop().await;
        let app = TestApp::with(&self.yaml)
            .kratos("KRATOS", &self.kratos)
            .env("INVITES", &self.invites.url())
            .in_folder(&folder, now)
            .start()
            .await;
        self.app = Some(app);
    }

    async fn wait(&self, duration: Duration) {
        self.app().clock.advance(duration);
        self.app().wait_for_lookups().await;
    }

    async fn pre(&self, submission: &Submission) -> bool {
        let headers = [
            ("X-Vestibule-Key", KEY),
            ("Ory-Webhook-Trigger-ID", submission.trigger.as_str()),
        ];
        let path = "/hooks/registration/pre?method=password";
        let body = submission.payload.to_string();
        self.app()
            .call_with(path, body, &headers)
            .await
            .is_admitted()
    }
}

/// One run: its events, and what must be true after each of them.
struct Run<'env> {
    env: &'env mut TestEnv,
    forms: [Uuid; 2],
    number: usize,
    submissions: Vec<Submission>,
    accounts: Vec<Account>,
    addresses: HashSet<String>,
    /// The forms with an account, and those of them for which Vestibule got a `post`.
    closed: HashSet<usize>,
    known_closed: HashSet<usize>,
}

impl<'env> Run<'env> {
    fn new(env: &'env mut TestEnv) -> Self {
        env.runs += 1;
        let number = env.runs;
        Self {
            env,
            forms: [Uuid::new_v4(), Uuid::new_v4()],
            number,
            submissions: Vec::new(),
            accounts: Vec::new(),
            addresses: HashSet::new(),
            closed: HashSet::new(),
            known_closed: HashSet::new(),
        }
    }

    fn invite(&self, invite: usize) -> String {
        format!("invite-{}-{}-{invite}", self.env.is_guarded, self.number)
    }

    fn payload(&self, form: usize, email: &str, invite: &str) -> Payload {
        let now = self.env.app().clock.now();
        payload()
            .with("/flow/id", self.forms[form].to_string())
            .with("/flow/issued_at", json!(now))
            .with("/flow/expires_at", json!(now + TimeDelta::hours(1)))
            .with("/identity/state_changed_at", json!(now))
            .with_trait("email", email)
            .with_trait("invite", invite)
            .with(
                "/identity/verifiable_addresses",
                json!([{"value": email, "via": "email"}]),
            )
    }

    async fn apply(&mut self, event: Event) {
        match event {
            Event::Submit {
                form,
                visitor,
                invite,
            } => self.submit(form, visitor, invite).await,
            Event::UnknownInvite { form } => {
                let garbage = self.payload(form, "garbage@example.org", "garbage");
                assert!(!self.env.app().pre(&garbage).await.is_admitted());
            }
            Event::Repeat { submission } => {
                let Some(one) = self.submissions.get(submission) else {
                    return;
                };
                // The flow may be closed since. A repeated call never admits what was refused.
                let again = self.env.pre(one).await;
                assert!(!again || one.is_admitted, "a refused call is admitted");
            }
            Event::Save { submission, post } => self.save(submission, post).await,
            Event::PostAgain { account } => {
                if let Some(account) = self.accounts.get(account) {
                    let status = self.env.app().post(&account.post).await.status;
                    assert_eq!(status, 204);
                }
            }
            Event::Wait { seconds } => self.env.wait(Duration::from_secs(seconds)).await,
            Event::Restart => self.env.restart().await,
        }
        for invite in 0..2 {
            let accounts = self.accounts_with(invite);
            assert!(accounts <= 1, "{accounts} accounts with one invite");
        }
    }

    async fn submit(&mut self, form: usize, visitor: usize, invite: usize) {
        let email = format!(
            "{}-{}-{visitor}@example.org",
            self.number, self.env.is_guarded
        );
        let mut submission = Submission {
            payload: self.payload(form, &email, &self.invite(invite)),
            trigger: uuid(),
            form,
            invite,
            at: self.env.app().clock.now(),
            is_admitted: false,
        };
        submission.is_admitted = self.env.pre(&submission).await;
        if self.known_closed.contains(&form) {
            assert!(!submission.is_admitted, "the form is used up");
        }
        let is_first = self.submissions.iter().all(|one| one.invite != invite);
        if is_first && !self.closed.contains(&form) {
            assert!(submission.is_admitted, "no other submission has the invite");
        }
        self.submissions.push(submission);
    }

    async fn save(&mut self, submission: usize, post: bool) {
        let Some(one) = self.submissions.get(submission) else {
            return;
        };
        let now = self.env.app().clock.now();
        let within = if self.env.is_guarded {
            SAVED_WITHIN_GUARDED
        } else {
            SAVED_WITHIN_UNGUARDED
        };
        let email = one.payload.0["identity"]["traits"]["email"]
            .as_str()
            .expect("a text")
            .to_owned();
        let is_unique = !self.addresses.contains(&email);
        let is_only = !self.env.is_guarded || !self.closed.contains(&one.form);
        if !one.is_admitted || now - one.at > within || !is_unique || !is_only {
            return; // Kratos refuses it, or it was saved already.
        }
        let created_at = now.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let id = self.env.kratos.add_identity(&email, &created_at);
        let mut saved = one.payload.clone().saved_as(id);
        let traits = saved.0["identity"]["traits"].clone();
        self.env.kratos.set_value(id, "/traits", traits);
        if self.env.is_guarded {
            saved = saved.guarded();
            let external_id = saved.0["identity"]["external_id"].clone();
            self.env.kratos.set_value(id, "/external_id", external_id);
        }
        let (form, invite) = (one.form, one.invite);
        self.addresses.insert(email);
        if post {
            assert_eq!(self.env.app().post(&saved).await.status, 204);
        }
        if self.env.is_guarded {
            self.closed.insert(form);
            if post {
                self.known_closed.insert(form);
            }
        }
        self.accounts.push(Account {
            post: saved,
            invite,
        });
    }

    fn accounts_with(&self, invite: usize) -> usize {
        let with = self.accounts.iter().filter(|one| one.invite == invite);
        with.count()
    }

    /// Lets all deliveries finish: each account has its invite, and no other invite is held.
    async fn finish(self) {
        let app = self.env.app();
        for seconds in [6, 25, 90, 600, 4000] {
            self.env.wait(Duration::from_secs(seconds)).await;
        }
        app.eventually(
            "each account has its invite, and no other invite is held",
            async || {
                app.wait_for_attempts().await;
                app.clock.advance(Duration::from_secs(1));
                let backlog = app.app.store.backlog().await.expect("an answer");
                let is_right = (0..2).all(|invite| {
                    let accounts = self.accounts_with(invite);
                    let invite = self.invite(invite);
                    self.env.invites.held_and_confirmed_of(&invite) == (accounts, accounts)
                });
                (is_right && backlog.pending == 0).then_some(())
            },
        )
        .await;
        let backlog = app.app.store.backlog().await.expect("an answer");
        assert_eq!(backlog.abandoned, 0, "a run leaves no dead letter");
    }
}

fn run_model(is_guarded: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let env = runtime.block_on(TestEnv::new(is_guarded));
    let env = tokio::sync::Mutex::new(env);
    let mut runner = TestRunner::new(Config {
        cases: cases(CASES),
        max_shrink_iters: 200,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("seeds"))),
        source_file: Some(file!()),
        ..Config::default()
    });
    let runs = proptest::collection::vec(event(), 1..16);
    let result = runner.run(&runs, |events| {
        runtime.block_on(async {
            let mut env = env.lock().await;
            let mut run = Run::new(&mut env);
            for event in events {
                run.apply(event).await;
            }
            run.finish().await;
        });
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// `PROPTEST_CASES=2000 cargo test --test it gate_model` runs more cases.
const CASES: u32 = 60;

#[test]
fn with_the_guard_no_invite_serves_two_accounts_and_none_is_lost() {
    run_model(true);
}

#[test]
fn without_the_guard_no_invite_serves_two_accounts_and_none_is_lost() {
    run_model(false);
}
