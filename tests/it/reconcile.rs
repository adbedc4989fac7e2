//! Reconciliation delivers accounts that no hook reported, and erases data of deleted identities.

mod command;
mod known_identities;
mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::delivery::State;
use vestibule::store::{DeliverySummary, Filter};

use crate::support::fake_service::Behaviour;
use crate::support::{FakeKratos, FakeService, TestApp, eventually, payload};

const SETTINGS: &str = r#"
services: {crm: {url: "${env:CRM}"}, erp: {url: "${env:ERP}"}}
kratos: {admin_url: "${env:KRATOS}"}
reconcile: {every: 1h}
retention: {deliveries: 2d}
subscriptions:
  contact: {events: [identity.created], retry: {max_elapsed: 30d}, send: {service: crm, post: /contacts}}
"#;
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A Kratos, and the services that get its accounts.
struct TestEnv {
    kratos: FakeKratos,
    crm: FakeService,
    erp: FakeService,
    /// The number of calls for which the clock has advanced.
    counted_calls: AtomicUsize,
}

impl TestEnv {
    fn new() -> Self {
        Self {
            kratos: FakeKratos::start(),
            crm: FakeService::start(),
            erp: FakeService::start(),
            counted_calls: AtomicUsize::new(0),
        }
    }

    fn builder(&self, yaml: &str) -> crate::support::app::Builder {
        TestApp::with(yaml)
            .service("KRATOS", &self.kratos.service)
            .service("CRM", &self.crm)
            .service("ERP", &self.erp)
    }

    /// Starts with the settings above, and waits for the first round.
    async fn start(&self) -> TestApp {
        self.start_with(SETTINGS).await
    }

    async fn start_with(&self, yaml: &str) -> TestApp {
        let app = self.builder(yaml).start().await;
        wait_for_first_round(self, &app).await;
        app
    }

    /// The number of calls to Kratos.
    fn kratos_calls(&self) -> usize {
        self.kratos.service.received().len()
    }

    /// Waits while `is_running` returns true, and advances the clock for each call by the interval that follows it. The
    /// interval counts from before the call, so no running request times out.
    async fn advance_while(&self, app: &TestApp, mut is_running: impl AsyncFnMut() -> bool) {
        app.eventually("the round goes on", async || {
            if !is_running().await {
                return Some(());
            }
            let calls = self.kratos.service.received();
            for call in &calls[self.counted_calls.load(Ordering::SeqCst)..] {
                let is_a_page = call.target.contains("page_size");
                let identities = if is_a_page { 100 } else { 1 };
                app.clock.advance(identities * Duration::from_millis(2));
            }
            self.counted_calls.store(calls.len(), Ordering::SeqCst);
            None
        })
        .await;
    }

    /// Waits until Kratos got this number of calls and the round has stopped.
    async fn wait_until_stopped_after(&self, app: &TestApp, calls: usize) {
        self.advance_while(app, async || self.kratos_calls() < calls)
            .await;
        assert_eq!(self.kratos_calls(), calls);
        wait_until_unlocked(app).await;
        wait_until_planned(app).await;
    }
}

async fn last_round(app: &TestApp) -> Option<String> {
    let value = app.app.store.get_property("reconcile:last_round").await;
    value.expect("a database")
}

/// Waits until no round holds the lock. A lock without a duration blocks no round.
async fn wait_until_unlocked(app: &TestApp) {
    let (store, now) = (&app.app.store, app.clock.now());
    app.eventually("no round holds the lock", async || {
        let lock = store.acquire_lock("reconcile", Uuid::nil(), now, now).await;
        lock.expect("a database").then_some(())
    })
    .await;
}

/// Waits until the next round is planned. If the clock advanced before, the round would be planned later than the test
/// expects.
async fn wait_until_planned(app: &TestApp) {
    app.eventually("the next round is planned", async || {
        let jobs = app.admin_get("/jobs").await.json();
        let next = jobs["jobs"]["reconciliation"]["next_run_at"].as_str()?;
        let next: Timestamp = next.parse().expect("a moment");
        (next > app.clock.now()).then_some(())
    })
    .await;
}

/// Waits until the first round is done.
async fn wait_for_first_round(env: &TestEnv, app: &TestApp) {
    env.advance_while(app, async || last_round(app).await.is_none())
        .await;
    wait_until_unlocked(app).await;
}

/// Runs the next round, an hour later.
async fn run_next_round(env: &TestEnv, app: &TestApp) {
    let before = last_round(app).await;
    app.clock.advance(HOUR);
    env.advance_while(app, async || last_round(app).await == before)
        .await;
    wait_until_unlocked(app).await;
}

async fn list_deliveries(app: &TestApp) -> Vec<DeliverySummary> {
    let all = app.app.store.list(&Filter::default(), 1000).await;
    all.expect("a list")
}

/// Waits until no delivery is pending, and returns all of them.
async fn wait_until_settled(app: &TestApp) -> Vec<DeliverySummary> {
    app.eventually("no delivery is pending", async || {
        let all = list_deliveries(app).await;
        let is_settled = all.iter().all(|one| one.state != State::Pending);
        is_settled.then_some(all)
    })
    .await
}

/// The identities that a service got, one per call.
fn delivered_identities(service: &FakeService) -> Vec<Uuid> {
    let received = service.received();
    let ids = received.iter().map(|one| {
        let body = one.json();
        let id = body["data"]["identity"]["id"].as_str().expect("an id");
        id.parse().expect("a UUID")
    });
    ids.collect()
}

fn ids(numbers: impl IntoIterator<Item = u128>) -> BTreeSet<Uuid> {
    numbers.into_iter().map(Uuid::from_u128).collect()
}

async fn outcome_count(app: &TestApp, reason: &str) -> u64 {
    let name = format!("vestibule_reconciled_total{{outcome=\"{reason}\"}}");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let count = app.metric(&name).await as u64;
    count
}

fn a_minute_later(app: &TestApp) -> Timestamp {
    app.clock.now() + TimeDelta::minutes(1)
}

#[tokio::test]
async fn missed_accounts_are_delivered_once_each() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.kratos.add_identities(250, a_minute_later(&app));
    // A hook reports one of them.
    let from_a_hook = payload().saved_as(Uuid::from_u128(7));
    assert_eq!(app.post(&from_a_hook).await.status, 204);
    wait_until_settled(&app).await;

    run_next_round(&env, &app).await;
    let all = wait_until_settled(&app).await;
    assert!(all.iter().all(|one| one.state == State::Delivered));
    let delivered = delivered_identities(&env.crm);
    assert_eq!(delivered.len(), 250, "each once");
    assert_eq!(BTreeSet::from_iter(delivered), ids(1..=250));
    assert_eq!(outcome_count(&app, "checked").await, 250);
    assert_eq!(outcome_count(&app, "stored").await, 249);

    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await.len(), 250);
    assert_eq!(env.crm.received().len(), 250);
    assert_eq!(outcome_count(&app, "stored").await, 249);
    assert_eq!(env.kratos.requested_pages(), [0, 0, 101, 201, 0, 101, 201]);
}

#[tokio::test]
async fn a_missed_account_is_delivered_with_the_same_body_as_from_a_hook() {
    let env = TestEnv::new();
    let app = env.start().await;
    let (id, at) = (Uuid::from_u128(1), a_minute_later(&app));
    env.kratos.add_identity_with_id(id, at);
    run_next_round(&env, &app).await;
    let address = format!("canary-{id}@example.org");
    let event = env.crm.next_call().await.json();
    assert_eq!(event["type"], "identity.created");
    assert_eq!(
        event["data"]["identity"],
        json!({
            "id": id, "schema_id": "default", "state": "active", "created_at": at, "updated_at": at,
            "traits": {"email": address}, "metadata_public": {},
            "verifiable_addresses": [{"value": address, "via": "email", "verified": false, "status": "pending"}],
            "recovery_addresses": [],
        })
    );
}

#[tokio::test]
async fn a_new_installation_does_not_deliver_earlier_accounts() {
    let env = TestEnv::new();
    env.kratos
        .add_identities(3, "2026-11-01T00:00:00Z".parse().unwrap());
    let app = env.start().await;
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "checked").await, 6);
    assert_eq!(list_deliveries(&app).await, []);
}

#[tokio::test]
async fn since_delivers_earlier_accounts() {
    let env = TestEnv::new();
    // Longer ago than the retention of deliveries.
    let time = |text: &str| text.parse().unwrap();
    env.kratos
        .add_identity_with_id(Uuid::from_u128(1), time("2020-01-01T00:00:00Z"));
    env.kratos
        .add_identity_with_id(Uuid::from_u128(2), time("2026-10-31T23:59:59Z"));
    env.kratos
        .add_identity_with_id(Uuid::from_u128(3), time("2026-11-01T00:00:00Z"));
    let yaml = SETTINGS.replace("every: 1h", "every: 1h, since: 2026-11-01");
    let app = env.start_with(&yaml).await;
    wait_until_settled(&app).await;
    // Retention has run, but it cannot have deleted a delivery of these accounts yet.
    app.clock.advance(2 * MINUTE);
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(delivered_identities(&env.crm), [Uuid::from_u128(3)]);
    let (folder, now) = app.stop().await;

    let yaml = SETTINGS.replace("every: 1h", "every: 1h, since: 2020-01-01");
    let app = env.builder(&yaml).in_folder(&folder, now).start().await;
    run_next_round(&env, &app).await;
    assert_eq!(wait_until_settled(&app).await.len(), 3);
    assert_eq!(
        BTreeSet::from_iter(delivered_identities(&env.crm)),
        ids(1..=3)
    );
    assert_eq!(env.crm.received().len(), 3);
}

#[tokio::test]
async fn a_new_subscription_does_not_get_earlier_accounts() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.kratos
        .add_identity_with_id(Uuid::from_u128(1), a_minute_later(&app));
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    let (folder, now) = app.stop().await;

    let both = format!(
        "{SETTINGS}  ledger: {{events: [identity.created], send: {{service: erp, post: /accounts}}}}\n"
    );
    let app = env.builder(&both).in_folder(&folder, now).start().await;
    env.kratos
        .add_identity_with_id(Uuid::from_u128(2), a_minute_later(&app));
    run_next_round(&env, &app).await;
    assert_eq!(wait_until_settled(&app).await.len(), 3);
    assert_eq!(delivered_identities(&env.erp), [Uuid::from_u128(2)]);
    assert_eq!(delivered_identities(&env.crm), [1, 2].map(Uuid::from_u128));
}

#[tokio::test]
async fn an_account_is_not_delivered_again_after_retention_deletes_its_delivery() {
    let env = TestEnv::new();
    let yaml = SETTINGS.replace("every: 1h", "every: 1h, since: 2026-11-01");
    let app = env.start_with(&yaml).await;
    env.kratos
        .add_identity_with_id(Uuid::from_u128(1), a_minute_later(&app));
    env.kratos
        .add_identity_with_id(Uuid::from_u128(2), "2026-11-02T00:00:00Z".parse().unwrap());
    run_next_round(&env, &app).await;
    assert_eq!(wait_until_settled(&app).await.len(), 2);

    // Deliveries are kept for two days, and a round runs every hour.
    for _ in 0..50 {
        run_next_round(&env, &app).await;
    }
    eventually("every delivery is deleted", async || {
        (list_deliveries(&app).await.is_empty()).then_some(())
    })
    .await;
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await, []);
    assert_eq!(env.crm.received().len(), 2);
    // A new account is delivered as usual.
    env.kratos
        .add_identity_with_id(Uuid::from_u128(3), app.clock.now());
    run_next_round(&env, &app).await;
    wait_until_settled(&app).await;
    assert_eq!(
        delivered_identities(&env.crm).last(),
        Some(&Uuid::from_u128(3))
    );
}

#[tokio::test]
async fn a_deleted_identity_is_erased_and_its_pending_deliveries_are_discarded() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.crm.respond_with(503, &json!({"canary": true}));
    let (deleted, existing) = (Uuid::from_u128(1), Uuid::from_u128(2));
    env.kratos.add_identity_with_id(existing, app.clock.now());
    for id in [deleted, existing] {
        assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
        env.crm.next_call().await;
    }
    run_next_round(&env, &app).await;
    let delivery_of = async |id: Uuid| {
        let all = list_deliveries(&app).await;
        let one = all.into_iter().find(|one| one.identity_id == id).unwrap();
        app.app.store.show(one.id).await.unwrap().unwrap()
    };
    let erased = delivery_of(deleted).await;
    assert_eq!(erased.listed.state, State::Discarded);
    assert_eq!((erased.action, erased.tries), (None, Vec::new()));
    let kept = delivery_of(existing).await;
    assert_eq!(kept.listed.state, State::Pending);
    assert!(kept.action.is_some());
    assert_eq!(outcome_count(&app, "deleted").await, 1);
    assert_eq!(outcome_count(&app, "erased").await, 1);

    let before = env.crm.received().len();
    env.crm.respond_with(200, &json!({}));
    app.clock.advance(24 * HOUR);
    wait_until_settled(&app).await;
    let after = delivered_identities(&env.crm).split_off(before);
    assert!(
        after.contains(&existing) && !after.contains(&deleted),
        "{after:?}"
    );
}

#[tokio::test]
async fn an_interrupted_round_continues_at_its_checkpoint() {
    let env = TestEnv::new();
    let app = env.start().await;
    let last = last_round(&app).await.expect("a round");
    env.kratos.add_identities(250, a_minute_later(&app));
    let second = Uuid::from_u128(101).to_string().replace('-', "%2D");
    env.kratos.fail_on(&second, 503);
    app.clock.advance(HOUR);
    env.wait_until_stopped_after(&app, 3).await;
    assert_eq!(wait_until_settled(&app).await.len(), 100);
    // A minute later, and after a restart.
    app.clock.advance(MINUTE);
    env.wait_until_stopped_after(&app, 4).await;
    assert_eq!(env.kratos.requested_pages(), [0, 0, 101, 101]);
    let (folder, now) = app.stop().await;
    env.kratos.answer_normally();
    let before = Some(last.clone());
    let app = env.builder(SETTINGS).in_folder(&folder, now).start().await;
    env.advance_while(&app, async || last_round(&app).await == before)
        .await;
    assert_eq!(env.kratos.requested_pages(), [0, 0, 101, 101, 101, 201]);
    assert_eq!(wait_until_settled(&app).await.len(), 250);
    assert_eq!(env.crm.received().len(), 250);
    run_next_round(&env, &app).await;
    assert_eq!(env.kratos.requested_pages()[6..], [0, 101, 201]);
}

#[tokio::test]
async fn a_round_starts_again_if_kratos_rejects_its_page_token() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.kratos.add_identities(3, a_minute_later(&app));
    let now = app.clock.now();
    let checkpoint = json!({"began_at": now, "since": null, "next": {"page": "expired"}});
    let store = &app.app.store;
    store
        .set_property("reconcile:checkpoint", Some(&checkpoint.to_string()))
        .await
        .unwrap();
    env.kratos.fail_on("page_token=expired", 400);
    run_next_round(&env, &app).await;
    assert_eq!(wait_until_settled(&app).await.len(), 3);
    assert_eq!(
        store.get_property("reconcile:checkpoint").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn nothing_is_changed_while_the_admin_api_fails() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.crm.respond_with(503, &json!({}));
    let id = Uuid::from_u128(1);
    assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
    env.crm.next_call().await;
    // None of these is the response of Kratos for an unknown identity.
    let mut calls = env.kratos_calls();
    for behaviour in [
        Behaviour::Answers(503, String::new()),
        Behaviour::Answers(404, "<html>".to_owned()),
        Behaviour::Answers(401, "{}".to_owned()),
        Behaviour::Breaks,
    ] {
        env.kratos.service.set_behaviour(behaviour);
        app.clock.advance(HOUR);
        calls += 1;
        env.wait_until_stopped_after(&app, calls).await;
    }
    // The list of identities works, but each look-up fails or returns another identity.
    for (status, more) in [(500, 2), (200, 1)] {
        env.kratos.fail_on("/admin/identities/", status);
        app.clock.advance(HOUR);
        calls += more;
        env.wait_until_stopped_after(&app, calls).await;
    }
    assert_eq!(outcome_count(&app, "deleted").await, 0);
    assert_eq!(list_deliveries(&app).await[0].state, State::Pending);

    env.kratos.answer_normally();
    run_next_round(&env, &app).await;
    assert_eq!(list_deliveries(&app).await[0].state, State::Discarded);
    assert_eq!(outcome_count(&app, "deleted").await, 1);
}

#[tokio::test]
async fn no_identity_is_erased_if_kratos_has_none_of_the_known_ones() {
    let env = TestEnv::new();
    env.crm.respond_with(503, &json!({}));
    let app = env.start().await;
    for number in 1..=60 {
        let body = payload().saved_as(Uuid::from_u128(number));
        assert_eq!(app.post(&body).await.status, 204);
    }
    // Kratos has none of the identities. Each round reads a page and looks up fifty identities.
    let calls = env.kratos_calls();
    app.clock.advance(HOUR);
    env.wait_until_stopped_after(&app, calls + 51).await;
    app.clock.advance(HOUR);
    env.wait_until_stopped_after(&app, calls + 51 + 51).await;
    assert_eq!(outcome_count(&app, "deleted").await, 0);
    let all = list_deliveries(&app).await;
    assert_eq!(all.len(), 60);
    assert!(all.iter().all(|one| one.state == State::Pending));

    // One known identity is enough to trust this Kratos again.
    for number in [30, 60] {
        env.kratos
            .add_identity_with_id(Uuid::from_u128(number), app.clock.now());
    }
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "deleted").await, 58);
}

#[tokio::test]
async fn restarts_do_not_cause_additional_rounds() {
    let env = TestEnv::new();
    let app = env.start().await;
    let (folder, now) = app.stop().await;
    assert_eq!(env.kratos.requested_pages().len(), 1);
    let app = env.builder(SETTINGS).in_folder(&folder, now).start().await;
    run_next_round(&env, &app).await;
    assert_eq!(env.kratos.requested_pages().len(), 2);
}

#[tokio::test]
async fn an_account_created_just_now_is_left_to_its_hook() {
    let env = TestEnv::new();
    let app = env.start().await;
    let an_hour_later = app.clock.now() + TimeDelta::hours(1);
    env.kratos
        .add_identity_with_id(Uuid::from_u128(1), an_hour_later + TimeDelta::seconds(5));
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "checked").await, 1);
    assert_eq!(list_deliveries(&app).await, []);
    run_next_round(&env, &app).await;
    assert_eq!(wait_until_settled(&app).await.len(), 1);
}

#[tokio::test]
async fn a_delivery_that_needs_data_of_a_hook_becomes_a_dead_letter() {
    let env = TestEnv::new();
    let yaml = SETTINGS.replace(
        "post: /contacts",
        r#"post: /contacts, json: {note: "{flow.transient_payload.note}"}"#,
    );
    let app = env.start_with(&yaml).await;
    env.kratos
        .add_identity_with_id(Uuid::from_u128(1), a_minute_later(&app));
    run_next_round(&env, &app).await;
    let all = list_deliveries(&app).await;
    assert_eq!(all[0].state, State::Abandoned);
    let error = all[0].last_error.clone().unwrap_or_default();
    assert!(error.contains("could not be built"), "{error}");
    assert_eq!(outcome_count(&app, "unbuilt").await, 1);
}

#[tokio::test]
async fn a_subscription_whose_condition_needs_data_of_a_hook_is_skipped() {
    let env = TestEnv::new();
    let yaml = SETTINGS.replace(
        "post: /contacts}",
        "post: /contacts}, when: 'method != \"oidc\"'",
    );
    let app = env.start_with(&yaml).await;
    env.kratos
        .add_identity_with_id(Uuid::from_u128(1), a_minute_later(&app));
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "checked").await, 1);
    assert_eq!(list_deliveries(&app).await, []);
}

#[tokio::test]
async fn large_identities_are_read_in_smaller_pages() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.kratos.add_identities(30, a_minute_later(&app));
    env.kratos.set_note_of_all(&"x".repeat(100_000));
    run_next_round(&env, &app).await;
    assert_eq!(outcome_count(&app, "checked").await, 30);
    assert_eq!(wait_until_settled(&app).await.len(), 30);
}
