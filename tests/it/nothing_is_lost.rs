//! Every event that `post` has stored is, at any later time, delivered, superseded, pending, or listed and recoverable by
//! `retry`, whatever the receiver answers, however long it takes, and whatever the settings are meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::delivery::State;
use vestibule::store::DeliverySummary;

use super::delivery_order::{all_deliveries, deliver_all, wait_until_idle};
use crate::support::cases::cases;
use crate::support::fake_service::{Behaviour, Received};
use crate::support::{FakeService, TestApp, payload};

/// `NICK` is a trait that some events do not have.
const SETTINGS: &str = r#"
services: {crm: {url: "${env:CRM}"}}
subscriptions:
  newest:
    events: [identity.created, identity.updated]
    retry: {max_elapsed: 1h}
    send: {service: crm, put: /newest, json: {id: "{identity.id}", number: "{identity.traits.number}"}}
  each:
    events: [identity.created, identity.updated, identity.verified]
    retry: {max_elapsed: 1h}
    send: {service: crm, post: /each}
  fragile:
    supersede: false
    events: [identity.created, identity.updated, identity.verified]
    retry: {max_elapsed: 1h}
    send: {service: crm, post: /fragile, json: {number: "{identity.traits.NICK}"}}
  once:
    once: true
    events: [identity.updated, identity.verified]
    send: {service: crm, post: /once}
"#;

const IDENTITIES: usize = 3;

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// Kratos reports an event about an identity. A late one happened before the last one.
    Report {
        identity: usize,
        is_verification: bool,
        is_late: bool,
        has_nick: bool,
    },
    /// The receiver answers with this status from now on.
    Answer { status: u16 },
    /// Time passes.
    Wait { seconds: u64 },
    /// Vestibule is restarted.
    Restart,
    /// An operator retries everything.
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    let report = (0..IDENTITIES, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(identity, is_verification, is_late, has_nick)| Step::Report {
            identity,
            is_verification,
            is_late,
            has_nick,
        },
    );
    prop_oneof![
        6 => report,
        3 => prop::sample::select(vec![200, 503, 410]).prop_map(|status| Step::Answer { status }),
        3 => prop::sample::select(vec![1, 5, 60, 1_800, 7_200]).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Restart),
        1 => Just(Step::Retry),
    ]
}

/// An event that Kratos reported.
#[derive(Clone, Debug)]
struct Reported {
    identity: Uuid,
    event: &'static str,
    number: String,
    /// When Kratos saved the identity, in seconds.
    saved_at: u32,
}

/// What the receiver got: the idempotency key, the path, the number of the event, and its answer.
type Calls = Arc<Mutex<Vec<(String, String, String, u16)>>>;

struct Run {
    app: Option<TestApp>,
    crm: FakeService,
    status: Arc<Mutex<u16>>,
    calls: Calls,
    identities: [Uuid; IDENTITIES],
    reported: Vec<Reported>,
}

impl Run {
    async fn new() -> Self {
        let crm = FakeService::start();
        let (status, calls) = (Arc::new(Mutex::new(200)), Calls::default());
        let answers = (Arc::clone(&status), Arc::clone(&calls));
        crm.set_behaviour(Behaviour::Handles(Arc::new(move |received| {
            let status = *answers.0.lock().expect("a lock");
            let key = received
                .header("Idempotency-Key")
                .expect("a key")
                .to_owned();
            let call = (key, received.target.clone(), number_of(received), status);
            answers.1.lock().expect("a lock").push(call);
            (status, "{}".to_owned(), None)
        })));
        let settings = SETTINGS.replace("NICK", "nick");
        let app = TestApp::with(&settings).service("CRM", &crm).start().await;
        Self {
            app: Some(app),
            crm,
            status,
            calls,
            identities: std::array::from_fn(|_| Uuid::new_v4()),
            reported: Vec::new(),
        }
    }

    fn app(&self) -> &TestApp {
        self.app.as_ref().expect("a running app")
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Report {
                identity,
                is_verification,
                is_late,
                has_nick,
            } => {
                let identity = self.identities[identity];
                self.report(identity, is_verification, is_late, has_nick)
                    .await;
            }
            Step::Answer { status } => *self.status.lock().expect("a lock") = status,
            Step::Wait { seconds } => {
                wait_until_idle(self.app()).await;
                self.app().clock.advance(Duration::from_secs(seconds));
            }
            Step::Restart => self.restart(SETTINGS).await,
            Step::Retry => {
                self.retry(false).await;
            }
        }
        wait_until_idle(self.app()).await;
        self.check().await;
    }

    async fn report(
        &mut self,
        identity: Uuid,
        is_verification: bool,
        is_late: bool,
        has_nick: bool,
    ) {
        let earlier: Vec<&Reported> = self
            .reported
            .iter()
            .filter(|one| one.identity == identity)
            .collect();
        let last = earlier.iter().map(|one| one.saved_at).max();
        let updates = earlier
            .iter()
            .filter(|one| one.event == "identity.updated")
            .count();
        let (event, hook) = match last {
            None => (
                "identity.created",
                "/hooks/registration/post?method=password",
            ),
            Some(_) if is_verification => ("identity.verified", "/hooks/verification/post"),
            Some(_) => ("identity.updated", "/hooks/settings/post?method=profile"),
        };
        let saved_at = match last {
            None => 10,
            // A verification does not save the identity.
            Some(last) if is_verification => last,
            Some(last) if is_late && updates > 0 => last - 5,
            Some(last) => last + 10,
        };
        let number = format!("n{}", self.reported.len());
        let saved = Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(saved_at.into());
        let mut body = payload()
            .changed_from(&json!({"email": "canary@example.org"}))
            .saved_as(identity)
            .with("/identity/updated_at", saved.to_rfc3339())
            .with_trait("number", number.as_str());
        if has_nick {
            body = body.with_trait("nick", number.as_str());
        }
        assert_eq!(self.app().call(hook, body.to_string()).await.status, 204);
        self.reported.push(Reported {
            identity,
            event,
            number,
            saved_at,
        });
    }

    async fn restart(&mut self, settings: &str) {
        let app = self.app.take().expect("a running app");
        let (folder, now): (Arc<TempDir>, Timestamp) = (app.folder.clone(), app.clock.now());
        app.app.stop().await;
        let settings = settings.replace("NICK", "nick");
        let again = TestApp::with(&settings).service("CRM", &self.crm);
        self.app = Some(again.in_folder(&folder, now).start().await);
    }

    async fn retry(&self, out_of_order: bool) -> u64 {
        let body = json!({"all": true, "out_of_order": out_of_order}).to_string();
        let answer = self
            .app()
            .admin_post("/deliveries/retry", body)
            .await
            .json();
        answer["out_of_order"].as_u64().expect("a number")
    }

    /// Every event has its deliveries, and each delivery is in a state from which nothing is lost.
    async fn check(&self) {
        let all = all_deliveries(self.app()).await;
        let mut stored: BTreeMap<(String, Uuid, String), usize> = BTreeMap::new();
        for one in &all {
            let key = (
                one.subscription.clone(),
                one.identity_id,
                one.event.to_string(),
            );
            *stored.entry(key).or_default() += 1;
            match one.state {
                State::Pending => {}
                State::Delivered => assert!(self.has_arrived(one), "{one:?}"),
                State::Abandoned => {
                    let shown = self
                        .app()
                        .app
                        .store
                        .show(one.id)
                        .await
                        .expect("the store answers");
                    assert!(shown.expect("a delivery").action.is_some(), "{one:?}");
                }
                State::Superseded => {
                    let is_newest = |other: &&DeliverySummary| {
                        other.subscription == "newest"
                            && other.identity_id == one.identity_id
                            && other.event == one.event
                            && other.state != State::Superseded
                    };
                    assert!(all.iter().any(|other| is_newest(&other)), "{one:?}");
                }
                State::Discarded => panic!("{one:?}"),
            }
        }
        assert_eq!(stored, self.expected());
    }

    fn has_arrived(&self, delivery: &DeliverySummary) -> bool {
        let calls = self.calls.lock().expect("a lock");
        let key = delivery.id.to_string();
        calls
            .iter()
            .any(|(of, _, _, status)| *of == key && *status == 200)
    }

    /// Returns how many deliveries each subscription must have.
    fn expected(&self) -> BTreeMap<(String, Uuid, String), usize> {
        let mut expected = BTreeMap::new();
        let mut sent_once = BTreeSet::new();
        for one in &self.reported {
            for subscription in ["newest", "each", "fragile", "once"] {
                let is_wanted = match subscription {
                    "newest" => one.event != "identity.verified",
                    "once" => one.event != "identity.created" && sent_once.insert(one.identity),
                    _ => true,
                };
                if is_wanted {
                    let key = (subscription.to_owned(), one.identity, one.event.to_owned());
                    *expected.entry(key).or_default() += 1;
                }
            }
        }
        expected
    }

    /// Corrects the settings and the receiver, and recovers everything.
    async fn finish(mut self) {
        *self.status.lock().expect("a lock") = 200;
        self.restart(&SETTINGS.replace("NICK", "number")).await;
        deliver_all(self.app()).await;
        self.retry(false).await;
        deliver_all(self.app()).await;
        self.check().await;
        self.check_newest();
        let is_abandoned = |one: &&DeliverySummary| one.state == State::Abandoned;
        let left = all_deliveries(self.app())
            .await
            .iter()
            .filter(is_abandoned)
            .count();
        assert_eq!(
            self.retry(false).await,
            left as u64,
            "only what is out of order is left"
        );
        self.retry(true).await;
        deliver_all(self.app()).await;
        self.check().await;
        let all = all_deliveries(self.app()).await;
        assert!(!all.iter().any(|one| is_abandoned(&one)), "{all:?}");
        self.check_numbers();
        self.app.take().expect("a running app").app.stop().await;
    }

    /// The receiver of `newest` ends with the newest data of each identity.
    fn check_newest(&self) {
        let calls = self.calls.lock().expect("a lock");
        for identity in self.identities {
            let of_identity = self
                .reported
                .iter()
                .filter(|one| one.identity == identity && one.event != "identity.verified");
            // Of equal times, the later report is the newer one.
            let Some(newest) = of_identity.max_by_key(|one| one.saved_at) else {
                continue;
            };
            let numbers: Vec<&str> = self
                .reported
                .iter()
                .filter(|one| one.identity == identity)
                .map(|one| one.number.as_str())
                .collect();
            let last = calls.iter().rev().find(|(_, path, number, status)| {
                path == "/newest" && *status == 200 && numbers.contains(&number.as_str())
            });
            let (_, _, number, _) = last.expect("a call");
            assert_eq!(*number, newest.number, "{:?}", self.reported);
        }
    }

    /// Each event has arrived at each subscription for which every event counts.
    fn check_numbers(&self) {
        let calls = self.calls.lock().expect("a lock");
        for path in ["/each", "/fragile"] {
            let arrived: BTreeSet<&str> = calls
                .iter()
                .filter(|(_, of, _, status)| of == path && *status == 200)
                .map(|(_, _, number, _)| number.as_str())
                .collect();
            let reported: BTreeSet<&str> = self
                .reported
                .iter()
                .map(|one| one.number.as_str())
                .collect();
            assert_eq!(arrived, reported, "{path}");
        }
    }
}

fn number_of(call: &Received) -> String {
    let body = call.json();
    let number = if body["data"].is_object() {
        &body["data"]["identity"]["traits"]["number"]
    } else {
        &body["number"]
    };
    number.as_str().expect("a number").to_owned()
}

/// `PROPTEST_CASES=500 cargo test --test it nothing_is_lost` runs more cases.
const CASES: u32 = 15;

#[test]
fn every_stored_event_arrives_or_can_be_recovered() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut runner = TestRunner::new(Config {
        cases: cases(CASES),
        max_shrink_iters: 200,
        max_shrink_time: 60_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("seeds"))),
        source_file: Some(file!()),
        ..Config::default()
    });
    let runs = proptest::collection::vec(step(), 1..24);
    let result = runner.run(&runs, |steps| {
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                run.apply(step).await;
            }
            run.finish().await;
        });
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
