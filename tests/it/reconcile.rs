//! Accounts that no hook told of are found, and those that are gone are forgotten.

mod by_hand;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::delivery::State;
use vestibule::store::{DeliverySummary, Filter};

use crate::support::service::Behaviour;
use crate::support::{FakeKratos, FakeService, TestApp, payload};

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

/// A Kratos, and the systems that are told of its accounts.
struct House {
    kratos: FakeKratos,
    crm: FakeService,
    erp: FakeService,
    /// For how many calls time has passed.
    passed_for: AtomicUsize,
}

impl House {
    fn build() -> Self {
        Self {
            kratos: FakeKratos::start(),
            crm: FakeService::start(),
            erp: FakeService::start(),
            passed_for: AtomicUsize::new(0),
        }
    }

    fn settings(&self, yaml: &str) -> crate::support::app::Builder {
        TestApp::with(yaml)
            .service("KRATOS", &self.kratos.service)
            .service("CRM", &self.crm)
            .service("ERP", &self.erp)
    }

    /// With the settings above, after its first round.
    async fn open(&self) -> TestApp {
        self.open_with(SETTINGS).await
    }

    async fn open_with(&self, yaml: &str) -> TestApp {
        let app = self.settings(yaml).start().await;
        first_round(self, &app).await;
        app
    }

    /// How often Kratos was asked for something.
    fn asked(&self) -> usize {
        self.kratos.service.received().len()
    }

    /// Waits as long as this holds. So much time passes for every call as the pause behind it takes, and it is counted from
    /// before the call; so nothing waits in vain, and no exchange under way is out of time.
    async fn while_pages_turn(&self, app: &TestApp, mut goes_on: impl AsyncFnMut() -> bool) {
        while goes_on().await {
            let asked = self.kratos.service.received();
            for call in &asked[self.passed_for.load(Ordering::SeqCst)..] {
                let is_a_page = call.target.contains("page_size");
                let identities = if is_a_page { 100 } else { 1 };
                app.hand.advance(identities * Duration::from_millis(2));
            }
            self.passed_for.store(asked.len(), Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    }

    /// Waits until Kratos has been asked so often, and the round has stopped at the answer.
    async fn stopped_after(&self, app: &TestApp, asked: usize) {
        self.while_pages_turn(app, async || self.asked() < asked)
            .await;
        assert_eq!(self.asked(), asked);
        at_rest(app).await;
    }
}

async fn last_round(app: &TestApp) -> Option<String> {
    let get_property = app.app.store.get_property("reconcile:last_round").await;
    get_property.expect("a database")
}

/// Waits until no round has its turn. One that has no length is in nobody's way.
async fn at_rest(app: &TestApp) {
    let (store, now) = (&app.app.store, app.hand.now());
    while !store
        .acquire_lock("reconcile", Uuid::nil(), now, now)
        .await
        .expect("a database")
    {
        tokio::task::yield_now().await;
    }
}

/// Waits until the first round is done.
async fn first_round(house: &House, app: &TestApp) {
    house
        .while_pages_turn(app, async || last_round(app).await.is_none())
        .await;
    at_rest(app).await;
}

/// The next round, an hour later.
async fn next_round(house: &House, app: &TestApp) {
    let before = last_round(app).await;
    app.hand.advance(HOUR);
    house
        .while_pages_turn(app, async || last_round(app).await == before)
        .await;
    at_rest(app).await;
}

async fn deliveries(app: &TestApp) -> Vec<DeliverySummary> {
    let all = app.app.store.list(&Filter::default(), 1000).await;
    all.expect("a list")
}

/// All of them, once none is pending.
async fn settled(app: &TestApp) -> Vec<DeliverySummary> {
    loop {
        let all = deliveries(app).await;
        if all.iter().all(|one| one.state != State::Pending) {
            return all;
        }
        tokio::task::yield_now().await;
    }
}

/// Whom a service was told of, each call once.
fn told_of(service: &FakeService) -> Vec<Uuid> {
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

async fn counted(app: &TestApp, reason: &str) -> u64 {
    let name = format!("vestibule_reconciled_total{{outcome=\"{reason}\"}}");
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let count = app.metric(&name).await as u64;
    count
}

fn a_minute_after(app: &TestApp) -> Timestamp {
    app.hand.now() + TimeDelta::minutes(1)
}

#[tokio::test]
async fn accounts_that_nobody_told_of_are_delivered_once_each() {
    let house = House::build();
    let app = house.open().await;
    house.kratos.has_many(250, a_minute_after(&app));
    // Of one the hook told.
    let of_a_hook = payload().saved_as(Uuid::from_u128(7));
    assert_eq!(app.post(&of_a_hook).await.status, 204);
    settled(&app).await;

    next_round(&house, &app).await;
    let all = settled(&app).await;
    assert!(all.iter().all(|one| one.state == State::Delivered));
    let told = told_of(&house.crm);
    assert_eq!(told.len(), 250, "each once");
    assert_eq!(BTreeSet::from_iter(told), ids(1..=250));
    assert_eq!(counted(&app, "looked_at").await, 250);
    assert_eq!(counted(&app, "stored").await, 249);

    next_round(&house, &app).await;
    assert_eq!(deliveries(&app).await.len(), 250);
    assert_eq!(house.crm.received().len(), 250);
    assert_eq!(counted(&app, "stored").await, 249);
    assert_eq!(house.kratos.pages_asked(), [0, 0, 101, 201, 0, 101, 201]);
}

#[tokio::test]
async fn an_account_is_told_of_in_the_words_of_a_hook() {
    let house = House::build();
    let app = house.open().await;
    let (id, at) = (Uuid::from_u128(1), a_minute_after(&app));
    house.kratos.has_with_id(id, at);
    next_round(&house, &app).await;
    let address = format!("canary-{id}@example.org");
    let told = house.crm.next().await.json();
    assert_eq!(told["type"], "identity.created");
    assert_eq!(
        told["data"]["identity"],
        json!({
            "id": id, "schema_id": "default", "state": "active", "created_at": at, "updated_at": at,
            "traits": {"email": address}, "metadata_public": {},
            "verifiable_addresses": [{"value": address, "via": "email", "verified": false, "status": "pending"}],
            "recovery_addresses": [],
        })
    );
}

#[tokio::test]
async fn a_new_installation_does_not_deliver_the_past() {
    let house = House::build();
    house
        .kratos
        .has_many(3, "2026-11-01T00:00:00Z".parse().unwrap());
    let app = house.open().await;
    next_round(&house, &app).await;
    assert_eq!(counted(&app, "looked_at").await, 6);
    assert_eq!(deliveries(&app).await, []);
}

#[tokio::test]
async fn the_past_is_delivered_when_told_to_and_how_far_back() {
    let house = House::build();
    // Longer ago than deliveries are kept.
    let at = |text: &str| text.parse().unwrap();
    house
        .kratos
        .has_with_id(Uuid::from_u128(1), at("2020-01-01T00:00:00Z"));
    house
        .kratos
        .has_with_id(Uuid::from_u128(2), at("2026-10-31T23:59:59Z"));
    house
        .kratos
        .has_with_id(Uuid::from_u128(3), at("2026-11-01T00:00:00Z"));
    let yaml = SETTINGS.replace("every: 1h", "every: 1h, since: 2026-11-01");
    let app = house.open_with(&yaml).await;
    settled(&app).await;
    // Retention has run, and nothing of it can have been forgotten yet.
    app.hand.advance(2 * MINUTE);
    next_round(&house, &app).await;
    settled(&app).await;
    assert_eq!(told_of(&house.crm), [Uuid::from_u128(3)]);
    let (folder, now) = (app.folder.clone(), app.hand.now());
    app.app.stop().await;

    let yaml = SETTINGS.replace("every: 1h", "every: 1h, since: 2020-01-01");
    let app = house.settings(&yaml).after(&folder, now).start().await;
    next_round(&house, &app).await;
    assert_eq!(settled(&app).await.len(), 3);
    assert_eq!(BTreeSet::from_iter(told_of(&house.crm)), ids(1..=3));
    assert_eq!(house.crm.received().len(), 3);
}

#[tokio::test]
async fn a_new_plan_does_not_get_the_past() {
    let house = House::build();
    let app = house.open().await;
    house
        .kratos
        .has_with_id(Uuid::from_u128(1), a_minute_after(&app));
    next_round(&house, &app).await;
    settled(&app).await;
    let (folder, now) = (app.folder.clone(), app.hand.now());
    app.app.stop().await;

    let both = format!(
        "{SETTINGS}  ledger: {{events: [identity.created], send: {{service: erp, post: /accounts}}}}\n"
    );
    let app = house.settings(&both).after(&folder, now).start().await;
    house
        .kratos
        .has_with_id(Uuid::from_u128(2), a_minute_after(&app));
    next_round(&house, &app).await;
    assert_eq!(settled(&app).await.len(), 3);
    assert_eq!(told_of(&house.erp), [Uuid::from_u128(2)]);
    assert_eq!(told_of(&house.crm), [1, 2].map(Uuid::from_u128));
}

#[tokio::test]
async fn what_was_delivered_is_not_delivered_again_when_it_is_forgotten() {
    let house = House::build();
    let yaml = SETTINGS.replace("every: 1h", "every: 1h, since: 2026-11-01");
    let app = house.open_with(&yaml).await;
    house
        .kratos
        .has_with_id(Uuid::from_u128(1), a_minute_after(&app));
    house
        .kratos
        .has_with_id(Uuid::from_u128(2), "2026-11-02T00:00:00Z".parse().unwrap());
    next_round(&house, &app).await;
    assert_eq!(settled(&app).await.len(), 2);

    // Kept for two days, looked for every hour.
    for _ in 0..50 {
        next_round(&house, &app).await;
    }
    while !deliveries(&app).await.is_empty() {
        tokio::task::yield_now().await;
    }
    next_round(&house, &app).await;
    assert_eq!(deliveries(&app).await, []);
    assert_eq!(house.crm.received().len(), 2);
    // Whoever comes now is delivered as ever.
    house.kratos.has_with_id(Uuid::from_u128(3), app.hand.now());
    next_round(&house, &app).await;
    settled(&app).await;
    assert_eq!(told_of(&house.crm).last(), Some(&Uuid::from_u128(3)));
}

#[tokio::test]
async fn whoever_is_gone_is_forgotten_and_what_was_pending_is_stopped() {
    let house = House::build();
    let app = house.open().await;
    house.crm.answers(503, &json!({"canary": true}));
    let (gone, there) = (Uuid::from_u128(1), Uuid::from_u128(2));
    house.kratos.has_with_id(there, app.hand.now());
    for id in [gone, there] {
        assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
        house.crm.next().await;
    }
    next_round(&house, &app).await;
    let about = async |id: Uuid| {
        let all = deliveries(&app).await;
        let one = all.into_iter().find(|one| one.identity_id == id).unwrap();
        app.app.store.show(one.id).await.unwrap().unwrap()
    };
    let forgotten = about(gone).await;
    assert_eq!(forgotten.listed.state, State::Discarded);
    assert_eq!((forgotten.action, forgotten.tries), (None, Vec::new()));
    let kept = about(there).await;
    assert_eq!(kept.listed.state, State::Pending);
    assert!(kept.action.is_some());
    assert_eq!(counted(&app, "gone").await, 1);
    assert_eq!(counted(&app, "forgotten").await, 1);

    let before = house.crm.received().len();
    house.crm.answers(200, &json!({}));
    app.hand.advance(24 * HOUR);
    settled(&app).await;
    let after = told_of(&house.crm).split_off(before);
    assert!(
        after.contains(&there) && !after.contains(&gone),
        "{after:?}"
    );
}

#[tokio::test]
async fn an_interrupted_round_goes_on_where_it_was() {
    let house = House::build();
    let app = house.open().await;
    let last = last_round(&app).await.expect("a round");
    house.kratos.has_many(250, a_minute_after(&app));
    let second = Uuid::from_u128(101).to_string().replace('-', "%2D");
    house.kratos.fails_at(&second, 503);
    app.hand.advance(HOUR);
    house.stopped_after(&app, 3).await;
    assert_eq!(settled(&app).await.len(), 100);
    // A minute later, and after a restart.
    app.hand.advance(MINUTE);
    house.stopped_after(&app, 4).await;
    assert_eq!(house.kratos.pages_asked(), [0, 0, 101, 101]);
    let (folder, now) = (app.folder.clone(), app.hand.now());
    app.app.stop().await;
    house.kratos.works();
    let before = Some(last.clone());
    let app = house.settings(SETTINGS).after(&folder, now).start().await;
    house
        .while_pages_turn(&app, async || last_round(&app).await == before)
        .await;
    assert_eq!(house.kratos.pages_asked(), [0, 0, 101, 101, 101, 201]);
    assert_eq!(settled(&app).await.len(), 250);
    assert_eq!(house.crm.received().len(), 250);
    next_round(&house, &app).await;
    assert_eq!(house.kratos.pages_asked()[6..], [0, 101, 201]);
}

#[tokio::test]
async fn a_page_that_kratos_does_not_know_any_more_makes_the_round_begin_anew() {
    let house = House::build();
    let app = house.open().await;
    house.kratos.has_many(3, a_minute_after(&app));
    let now = app.hand.now();
    let checkpoint = json!({"began_at": now, "since": null, "place": {"page": "gone"}});
    let store = &app.app.store;
    store
        .set_property("reconcile:checkpoint", Some(&checkpoint.to_string()))
        .await
        .unwrap();
    house.kratos.fails_at("page_token=gone", 400);
    next_round(&house, &app).await;
    assert_eq!(settled(&app).await.len(), 3);
    assert_eq!(
        store.get_property("reconcile:checkpoint").await.unwrap(),
        None
    );
}

#[tokio::test]
async fn while_the_admin_api_gives_no_answer_everything_is_left_as_it_is() {
    let house = House::build();
    let app = house.open().await;
    house.crm.answers(503, &json!({}));
    let id = Uuid::from_u128(1);
    assert_eq!(app.post(&payload().saved_as(id)).await.status, 204);
    house.crm.next().await;
    // None of these is Kratos's "there is no such identity".
    let mut asked = house.asked();
    for behaviour in [
        Behaviour::Answers(503, String::new()),
        Behaviour::Answers(404, "<html>".to_owned()),
        Behaviour::Answers(401, "{}".to_owned()),
        Behaviour::Breaks,
    ] {
        house.kratos.service.does(behaviour);
        app.hand.advance(HOUR);
        asked += 1;
        house.stopped_after(&app, asked).await;
    }
    // The pages are there, the identities are not; another time they are somebody else's.
    for (status, more) in [(500, 2), (200, 1)] {
        house.kratos.fails_at("/admin/identities/", status);
        app.hand.advance(HOUR);
        asked += more;
        house.stopped_after(&app, asked).await;
    }
    assert_eq!(counted(&app, "gone").await, 0);
    assert_eq!(deliveries(&app).await[0].state, State::Pending);

    house.kratos.works();
    next_round(&house, &app).await;
    assert_eq!(deliveries(&app).await[0].state, State::Discarded);
    assert_eq!(counted(&app, "gone").await, 1);
}

#[tokio::test]
async fn another_kratos_makes_nobody_forgotten() {
    let house = House::build();
    house.crm.answers(503, &json!({}));
    let app = house.open().await;
    for number in 1..=60 {
        let body = payload().saved_as(Uuid::from_u128(number));
        assert_eq!(app.post(&body).await.status, 204);
    }
    // It has none of them. A page, and fifty identities; then again.
    let asked = house.asked();
    app.hand.advance(HOUR);
    house.stopped_after(&app, asked + 51).await;
    app.hand.advance(HOUR);
    house.stopped_after(&app, asked + 51 + 51).await;
    assert_eq!(counted(&app, "gone").await, 0);
    let all = deliveries(&app).await;
    assert_eq!(all.len(), 60);
    assert!(all.iter().all(|one| one.state == State::Pending));

    // One of them is enough to know it again.
    for number in [30, 60] {
        house
            .kratos
            .has_with_id(Uuid::from_u128(number), app.hand.now());
    }
    next_round(&house, &app).await;
    assert_eq!(counted(&app, "gone").await, 58);
}

#[tokio::test]
async fn rounds_are_not_multiplied_by_restarts() {
    let house = House::build();
    let app = house.open().await;
    let (folder, now) = (app.folder.clone(), app.hand.now());
    app.app.stop().await;
    assert_eq!(house.kratos.pages_asked().len(), 1);
    let app = house.settings(SETTINGS).after(&folder, now).start().await;
    next_round(&house, &app).await;
    assert_eq!(house.kratos.pages_asked().len(), 2);
}

#[tokio::test]
async fn somebody_made_just_now_is_left_to_their_hook() {
    let house = House::build();
    let app = house.open().await;
    let an_hour_later = app.hand.now() + TimeDelta::hours(1);
    house
        .kratos
        .has_with_id(Uuid::from_u128(1), an_hour_later + TimeDelta::seconds(5));
    next_round(&house, &app).await;
    assert_eq!(counted(&app, "looked_at").await, 1);
    assert_eq!(deliveries(&app).await, []);
    next_round(&house, &app).await;
    assert_eq!(settled(&app).await.len(), 1);
}

#[tokio::test]
async fn a_plan_that_asks_for_what_only_a_hook_knows_is_kept_to_be_looked_at() {
    let house = House::build();
    let yaml = SETTINGS.replace(
        "post: /contacts",
        r#"post: /contacts, json: {note: "{flow.transient_payload.note}"}"#,
    );
    let app = house.open_with(&yaml).await;
    house
        .kratos
        .has_with_id(Uuid::from_u128(1), a_minute_after(&app));
    next_round(&house, &app).await;
    let all = deliveries(&app).await;
    assert_eq!(all[0].state, State::Abandoned);
    let why = all[0].last_error.clone().unwrap_or_default();
    assert!(why.contains("could not be built"), "{why}");
    assert_eq!(counted(&app, "unbuilt").await, 1);
}

#[tokio::test]
async fn a_plan_that_only_a_hook_can_decide_about_is_left_out() {
    let house = House::build();
    let yaml = SETTINGS.replace(
        "post: /contacts}",
        "post: /contacts}, when: 'method != \"oidc\"'",
    );
    let app = house.open_with(&yaml).await;
    house
        .kratos
        .has_with_id(Uuid::from_u128(1), a_minute_after(&app));
    next_round(&house, &app).await;
    assert_eq!(counted(&app, "looked_at").await, 1);
    assert_eq!(deliveries(&app).await, []);
}

#[tokio::test]
async fn large_identities_come_in_smaller_pages() {
    let house = House::build();
    let app = house.open().await;
    house.kratos.has_many(30, a_minute_after(&app));
    house.kratos.writes_each_of(&"x".repeat(100_000));
    next_round(&house, &app).await;
    assert_eq!(counted(&app, "looked_at").await, 30);
    assert_eq!(settled(&app).await.len(), 30);
}
