//! Random sequences of what visitors and operators do with two identities. Every state that lasts is
//! delivered, no state is delivered twice, and each deletion is delivered once.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use vestibule::base::clock::Clock;

use super::command::reconciler_with;
use super::*;
use crate::support::cases::cases;
use crate::support::fake_service::Received;
use crate::support::payload::Payload;

const TRACKING: &str = r#"
services: {crm: {url: "${env:CRM}"}, erp: {url: "${env:ERP}"}}
kratos: {admin_url: "${env:KRATOS}"}
reconcile: {every: 30d}
subscriptions:
  contact: {events: [identity.updated], send: {service: crm, post: /contacts}}
  erasure: {events: [identity.deleted], send: {service: erp, post: /erasures}}
"#;

/// One event.
#[derive(Clone, Debug)]
enum Event {
    /// An operator changes an identity through the admin API.
    Operator { identity: usize },
    /// A visitor saves a change. Its `post` arrives now, later, or never.
    Save { identity: usize, post: Post },
    /// One of the late `post` calls arrives.
    Late { number: usize },
    /// A visitor changes the password.
    Password { identity: usize },
    /// An operator deletes an identity.
    Delete { identity: usize },
    /// Reconciliation runs.
    Round,
    /// Time passes.
    Wait { seconds: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Post {
    Now,
    Late,
    Lost,
}

fn event() -> impl Strategy<Value = Event> {
    let post = prop_oneof![3 => Just(Post::Now), 1 => Just(Post::Late), 1 => Just(Post::Lost)];
    prop_oneof![
        3 => (0..2usize).prop_map(|identity| Event::Operator { identity }),
        4 => (0..2usize, post).prop_map(|(identity, post)| Event::Save { identity, post }),
        1 => (0..4usize).prop_map(|number| Event::Late { number }),
        1 => (0..2usize).prop_map(|identity| Event::Password { identity }),
        1 => (0..2usize).prop_map(|identity| Event::Delete { identity }),
        4 => Just(Event::Round),
        3 => prop_oneof![1..15u64, Just(70), Just(700)].prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// One run with two identities of its own.
struct Run<'env> {
    env: &'env TestEnv,
    app: &'env TestApp,
    ids: [Uuid; 2],
    is_deleted: [bool; 2],
    is_changed: [bool; 2],
    changes: usize,
    late: Vec<Payload>,
}

impl Run<'_> {
    async fn apply(&mut self, event: Event) {
        match event {
            Event::Operator { identity } if !self.is_deleted[identity] => {
                self.change(identity);
            }
            Event::Save { identity, post } if !self.is_deleted[identity] => {
                self.save(identity, post).await;
            }
            Event::Late { number } if number < self.late.len() => {
                let post = self.late.remove(number);
                self.post("profile", &post).await;
            }
            Event::Password { identity } if !self.is_deleted[identity] => {
                let identity = self.env.kratos.identity(self.ids[identity]);
                self.post("password", &self.report(&identity, &identity))
                    .await;
            }
            Event::Delete { identity } if !self.is_deleted[identity] => {
                self.env.kratos.remove_identity(self.ids[identity]);
                self.is_deleted[identity] = true;
            }
            Event::Round => self.round().await,
            Event::Wait { seconds } => self.wait(seconds).await,
            _ => {}
        }
        self.app.wait_for_attempts().await;
    }

    /// Gives the identity a new address.
    fn change(&mut self, identity: usize) {
        let id = self.ids[identity];
        self.changes += 1;
        let email = format!("canary-{}-{id}@example.org", self.changes);
        let kratos = &self.env.kratos;
        kratos.set_value(id, "/traits/email", email.into());
        // No two changes of an identity have the same time, as in Kratos.
        let change = i64::try_from(self.changes).expect("few changes");
        let now = self.app.clock.now() + TimeDelta::milliseconds(change);
        kratos.set_value(id, "/updated_at", json!(now));
        self.is_changed[identity] = true;
    }

    async fn save(&mut self, identity: usize, post: Post) {
        let previous = self.env.kratos.identity(self.ids[identity]);
        self.change(identity);
        let saved = self.env.kratos.identity(self.ids[identity]);
        let report = self.report(&saved, &previous);
        let before = report
            .clone()
            .with("/identity/updated_at", previous["updated_at"].clone());
        assert_eq!(self.app.settings(&before).await.status, 204);
        match post {
            Post::Now => self.post("profile", &report).await,
            Post::Late => self.late.push(report),
            Post::Lost => {}
        }
    }

    fn report(&self, identity: &Value, previous: &Value) -> Payload {
        let now = self.app.clock.now();
        payload()
            .changed_from(&previous["traits"])
            .with("/flow/issued_at", json!(now))
            .with("/flow/expires_at", json!(now + TimeDelta::hours(1)))
            .with("/identity/id", identity["id"].clone())
            .with("/identity/traits", identity["traits"].clone())
            .with("/identity/updated_at", identity["updated_at"].clone())
    }

    async fn post(&self, method: &str, report: &Payload) {
        let path = format!("/hooks/settings/post?method={method}");
        assert_eq!(self.app.call(&path, report.to_string()).await.status, 204);
    }

    async fn round(&self) {
        let (clock, _) = Clock::manual(self.app.clock.now());
        let reconciler = reconciler_with(TRACKING, clock, self.env, self.app, false);
        reconciler.round(&()).await.expect("a round");
    }

    async fn wait(&self, seconds: u64) {
        self.app.clock.advance(Duration::from_secs(seconds));
        self.app.wait_for_lookups().await;
        self.app.wait_for_attempts().await;
    }

    /// The addresses of an identity that the CRM got, in order.
    fn delivered(&self, identity: usize) -> Vec<String> {
        let received = distinct(self.env.crm.received());
        let bodies = received.iter().map(Received::json);
        let own = bodies.map(|body| body["data"]["identity"].clone());
        let id = json!(self.ids[identity]);
        let own = own.filter(|identity| identity["id"] == id);
        own.map(|identity| {
            identity["traits"]["email"]
                .as_str()
                .expect("a text")
                .to_owned()
        })
        .collect()
    }

    fn deletions(&self, identity: usize) -> usize {
        let received = distinct(self.env.erp.received());
        let id = json!(self.ids[identity]);
        let own = received
            .iter()
            .filter(|call| call.json()["data"]["identity"]["id"] == id);
        own.count()
    }

    async fn finish(mut self) {
        for report in std::mem::take(&mut self.late) {
            self.post("profile", &report).await;
        }
        // The outcome of every accepted change becomes known.
        for seconds in [10, 60, 120, 600, 3600] {
            self.wait(seconds).await;
        }
        self.round().await;
        self.app
            .advance_until("nothing is pending", Duration::from_secs(1), async || {
                let all = list_deliveries(self.app).await;
                let is_settled = all.iter().all(|one| one.state != State::Pending);
                is_settled.then_some(())
            })
            .await;
        for identity in 0..2 {
            let delivered = self.delivered(identity);
            let distinct: BTreeSet<&String> = delivered.iter().collect();
            assert_eq!(distinct.len(), delivered.len(), "each once: {delivered:?}");
            let deletions = usize::from(self.is_deleted[identity]);
            assert_eq!(self.deletions(identity), deletions);
            if !self.is_deleted[identity] {
                let state = self.env.kratos.identity(self.ids[identity]);
                let email = state["traits"]["email"]
                    .as_str()
                    .expect("a text")
                    .to_owned();
                assert_eq!(
                    delivered.contains(&email),
                    self.is_changed[identity],
                    "{email}"
                );
                self.env.kratos.remove_identity(self.ids[identity]);
            }
        }
    }
}

/// Leaves out repeated attempts, as a receiver does: an attempt is repeated if the clock advanced while it ran.
fn distinct(mut received: Vec<Received>) -> Vec<Received> {
    let mut ids = BTreeSet::new();
    received.retain(|call| {
        let id = call.header("webhook-id").expect("an id of the delivery");
        ids.insert(id.to_owned())
    });
    received
}

async fn run(env: &TestEnv, app: &TestApp, events: Vec<Event>) {
    // The identities of the run before are reported as deleted, and these are known.
    let ids = [Uuid::new_v4(), Uuid::new_v4()];
    for id in ids {
        env.kratos
            .add_identity_with_id(id, app.clock.now() - TimeDelta::hours(1));
    }
    let mut run = Run {
        env,
        app,
        ids,
        is_deleted: [false; 2],
        is_changed: [false; 2],
        changes: 0,
        late: Vec::new(),
    };
    run.round().await;
    for event in events {
        run.apply(event).await;
    }
    run.finish().await;
}

/// `PROPTEST_CASES=2000 cargo test --test it reconcile::model` runs more cases.
const CASES: u32 = 20;

#[test]
fn every_lasting_state_is_delivered_once_and_every_deletion_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (env, app) = runtime.block_on(async {
        let env = TestEnv::new();
        let app = env.start_with(TRACKING).await;
        (env, app)
    });
    let mut runner = TestRunner::new(Config {
        cases: cases(CASES),
        max_shrink_iters: 100,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    });
    let runs = proptest::collection::vec(event(), 1..16);
    let result = runner.run(&runs, |events| {
        runtime.block_on(run(&env, &app, events));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
