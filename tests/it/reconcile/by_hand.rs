//! The same as the command does.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::jobs::reconcile::{Deps, Error, Progress, Reconciler, Report, RoundOptions};
use vestibule::outbound::kratos_admin::{KratosAdmin, service};
use vestibule::outbound::services::client::Services;

use super::*;

/// Writes down what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn missing(&self, identity: Uuid, plan: &str, _: Option<&str>) {
        let note = format!("missing {} {plan}", identity.as_u128());
        self.0.lock().expect("a lock").push(note);
    }
    fn gone(&self, identity: Uuid) {
        let note = format!("gone {}", identity.as_u128());
        self.0.lock().expect("a lock").push(note);
    }
}

/// With the plans of the settings, at this moment.
fn reconciler(house: &House, app: &TestApp, dry_run: bool) -> Reconciler {
    let (clock, _) = Clock::manual(app.hand.now());
    reconciler_at(clock, house, app, dry_run)
}

fn reconciler_at(clock: Clock, house: &House, app: &TestApp, dry_run: bool) -> Reconciler {
    let metrics = Arc::new(Metrics::new());
    let kratos = house.kratos.service.url().parse().expect("a URL");
    let services = Services::new(
        vec![service(kratos, None)],
        clock.clone(),
        Arc::clone(&metrics),
    );
    let environment = vestibule::config::Environment::of(
        [
            ("CRM", house.crm.url()),
            ("ERP", house.erp.url()),
            ("KRATOS", house.kratos.service.url()),
            ("VESTIBULE_KEY", "long-enough-0123456789".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let settings = vestibule::config::read(
        SETTINGS,
        &app.folder.path().join("vestibule.yaml"),
        &environment,
    );
    let settings = settings.unwrap_or_else(|problems| panic!("{problems}"));
    let knows = Deps {
        store: Arc::clone(&app.app.store),
        identities: KratosAdmin::new(Arc::new(services.expect("a client")), clock.clone()),
        plans: settings.subscriptions,
        lists: settings.lists,
        stored: Arc::new(Notify::new()),
        clock,
        metrics,
    };
    let wishes = RoundOptions {
        since: None,
        per_second: 500,
        dry_run,
        believe_all_gone: false,
    };
    Reconciler::new(knows, wishes)
}

#[tokio::test]
async fn a_dry_run_tells_what_it_would_do_and_does_nothing() {
    let house = House::build();
    let app = house.open().await;
    house.crm.answers(503, &json!({}));
    assert_eq!(
        app.post(&payload().saved_as(Uuid::from_u128(9)))
            .await
            .status,
        204
    );
    house.crm.next().await;
    house.kratos.has_many(2, a_minute_after(&app));
    app.hand.advance(10 * MINUTE);
    let before = (deliveries(&app).await.len(), last_round(&app).await);
    let notes = Notes::default();
    let report = reconciler(&house, &app, true).round(&notes).await.unwrap();
    assert_eq!(
        report,
        Report {
            looked_at: 2,
            missing: 2,
            gone: 1,
            ..Report::default()
        }
    );
    assert_eq!(
        notes.0.into_inner().unwrap(),
        ["missing 1 contact", "missing 2 contact", "gone 9"]
    );
    assert_eq!(
        (deliveries(&app).await.len(), last_round(&app).await),
        before
    );
    let store = &app.app.store;
    assert_eq!(
        store.get_property("reconcile:checkpoint").await.unwrap(),
        None
    );
    let kept = store.identities_with_data(Uuid::nil(), 9).await.unwrap();
    assert_eq!(kept, [Uuid::from_u128(9)]);
}

#[tokio::test]
async fn two_do_not_reconcile_at_the_same_time() {
    let house = House::build();
    let app = house.open().await;
    let another = Uuid::from_u128(1);
    let now = app.hand.now();
    let until = now + TimeDelta::minutes(5);
    let store = &app.app.store;
    assert!(
        store
            .acquire_lock("reconcile", another, now, until)
            .await
            .unwrap()
    );
    let busy = reconciler(&house, &app, false).round(&()).await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    // Looking is free.
    assert!(reconciler(&house, &app, true).round(&()).await.is_ok());
    store.release_lock("reconcile", another).await.unwrap();
    let ours = reconciler(&house, &app, false);
    assert!(ours.round(&()).await.is_ok());
    assert!(
        reconciler(&house, &app, false).round(&()).await.is_ok(),
        "the turn was ended"
    );
}

#[tokio::test]
async fn pages_come_no_faster_than_wanted() {
    let house = House::build();
    let app = house.open().await;
    house.kratos.has_many(250, a_minute_after(&app));
    let (clock, hand) = Clock::manual(app.hand.now() + TimeDelta::hours(1));
    let reconciler = reconciler_at(clock, &house, &app, false);
    let round = tokio::spawn(async move { reconciler.round(&()).await });
    // 500 in a second: a page of 100 in 200 ms.
    for pages in 1..=2 {
        let next = Uuid::from_u128(pages * 100 + 1).to_string();
        let checkpoint = async || {
            let get_property = app.app.store.get_property("reconcile:checkpoint").await;
            get_property.expect("a database").unwrap_or_default()
        };
        while !checkpoint().await.contains(&next) {
            tokio::task::yield_now().await;
        }
        for pause in [0, 199] {
            hand.advance(Duration::from_millis(pause));
            app.metric("vestibule_reconciled_total").await;
            assert_eq!(house.kratos.pages_asked().len() as u128, 1 + pages);
        }
        hand.advance(Duration::from_millis(1));
    }
    while house.kratos.pages_asked() != [0, 0, 101, 201] {
        tokio::task::yield_now().await;
    }
    round.abort();
}
