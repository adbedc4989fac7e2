//! Reconciliation as the command `vestibule reconcile` runs it.

use std::sync::Mutex;

use vestibule::app::identity_tracker;
use vestibule::base::clock::Clock;
use vestibule::base::telemetry::Metrics;
use vestibule::jobs::reconcile::{Deps, Error, Progress, Reconciler, Report, RoundOptions};
use vestibule::outbound::kratos_admin::{KratosAdmin, service};
use vestibule::outbound::services::client::Services;
use vestibule::store::outbox::outbox;

use super::*;

/// Records the progress.
#[derive(Default)]
pub(super) struct RecordedProgress(pub(super) Mutex<Vec<String>>);

impl Progress for RecordedProgress {
    fn missing(&self, identity: Uuid, subscription: &str, _: Option<&str>) {
        let line = format!("missing {} {subscription}", identity.as_u128());
        self.0.lock().expect("a lock").push(line);
    }
    fn changed(&self, identity: Uuid, subscription: &str, _: Option<&str>) {
        let line = format!("changed {} {subscription}", identity.as_u128());
        self.0.lock().expect("a lock").push(line);
    }
    fn deletion(&self, identity: Uuid, subscription: &str) {
        let line = format!("deletion {} {subscription}", identity.as_u128());
        self.0.lock().expect("a lock").push(line);
    }
    fn deleted(&self, identity: Uuid) {
        let line = format!("deleted {}", identity.as_u128());
        self.0.lock().expect("a lock").push(line);
    }
}

/// A reconciler with the subscriptions of the settings, at the current time.
fn reconciler(env: &TestEnv, app: &TestApp, dry_run: bool) -> Reconciler {
    let (clock, _) = Clock::manual(app.clock.now());
    reconciler_at(clock, env, app, dry_run)
}

fn reconciler_at(clock: Clock, env: &TestEnv, app: &TestApp, dry_run: bool) -> Reconciler {
    reconciler_with(SETTINGS, clock, env, app, dry_run)
}

/// A reconciler with the subscriptions of these settings.
pub(super) fn reconciler_with(
    yaml: &str,
    clock: Clock,
    env: &TestEnv,
    app: &TestApp,
    dry_run: bool,
) -> Reconciler {
    let metrics = Arc::new(Metrics::new());
    let kratos = env.kratos.service.url().parse().expect("a URL");
    let services = Services::new(
        vec![service(kratos, None)],
        clock.clone(),
        Arc::clone(&metrics),
    );
    let environment = vestibule::config::Environment::of(
        [
            ("CRM", env.crm.url()),
            ("ERP", env.erp.url()),
            ("KRATOS", env.kratos.service.url()),
            ("VESTIBULE_KEY", "long-enough-0123456789".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    let settings = vestibule::config::read(
        yaml,
        &app.folder.path().join("vestibule.yaml"),
        &environment,
    );
    let settings = settings.unwrap_or_else(|problems| panic!("{problems}"));
    let (outbox, writer) = outbox(app.app.store.clone(), Arc::clone(&metrics), Clock::system());
    tokio::spawn(writer.run());
    let deps = Deps {
        store: Arc::clone(&app.app.store),
        identities: KratosAdmin::new(Arc::new(services.expect("a client")), clock.clone()),
        rules: Arc::new(settings.rules()),
        outbox,
        tracker: identity_tracker(&settings, &app.app.store).expect("a random key"),
        clock,
        metrics,
    };
    let options = RoundOptions {
        since: None,
        per_second: 500,
        dry_run,
        allow_mass_erasure: false,
        reports_changes: true,
    };
    Reconciler::new(deps, options)
}

#[tokio::test]
async fn a_dry_run_reports_what_it_would_do_and_changes_nothing() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.crm.respond_with(503, &json!({}));
    assert_eq!(
        app.post(&payload().saved_as(Uuid::from_u128(9)))
            .await
            .status,
        204
    );
    env.crm.next_call().await;
    env.kratos.add_identities(2, a_minute_later(&app));
    app.clock.advance(10 * MINUTE);
    let before = (list_deliveries(&app).await.len(), last_round(&app).await);
    let progress = RecordedProgress::default();
    let report = reconciler(&env, &app, true).round(&progress).await.unwrap();
    assert_eq!(
        report,
        Report {
            checked: 2,
            missing: 2,
            deleted: 1,
            ..Report::default()
        }
    );
    assert_eq!(
        progress.0.into_inner().unwrap(),
        ["missing 1 contact", "missing 2 contact", "deleted 9"]
    );
    assert_eq!(
        (list_deliveries(&app).await.len(), last_round(&app).await),
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
async fn two_instances_do_not_reconcile_at_the_same_time() {
    let env = TestEnv::new();
    let app = env.start().await;
    let another = Uuid::from_u128(1);
    let now = app.clock.now();
    let until = now + TimeDelta::minutes(5);
    let store = &app.app.store;
    assert!(
        store
            .acquire_lock("reconcile", another, now, until)
            .await
            .unwrap()
    );
    let busy = reconciler(&env, &app, false).round(&()).await;
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    // A dry run needs no lock.
    assert!(reconciler(&env, &app, true).round(&()).await.is_ok());
    store.release_lock("reconcile", another).await.unwrap();
    let ours = reconciler(&env, &app, false);
    assert!(ours.round(&()).await.is_ok());
    assert!(
        reconciler(&env, &app, false).round(&()).await.is_ok(),
        "the lock was released"
    );
}

#[tokio::test]
async fn pages_are_read_no_faster_than_configured() {
    let env = TestEnv::new();
    let app = env.start().await;
    env.kratos.add_identities(250, a_minute_later(&app));
    let (clock, manual_clock) = Clock::manual(app.clock.now() + TimeDelta::hours(1));
    let reconciler = reconciler_at(clock, &env, &app, false);
    let round = tokio::spawn(async move { reconciler.round(&()).await });
    // 500 in a second: a page of 100 in 200 ms.
    for pages in 1..=2 {
        let next = Uuid::from_u128(pages * 100 + 1).to_string();
        let checkpoint = async || {
            let value = app.app.store.get_property("reconcile:checkpoint").await;
            value.expect("a database").unwrap_or_default()
        };
        eventually("the checkpoint is stored", async || {
            (checkpoint().await.contains(&next)).then_some(())
        })
        .await;
        for pause in [0, 199] {
            manual_clock.advance(Duration::from_millis(pause));
            app.metric("vestibule_reconciled_total").await;
            assert_eq!(env.kratos.requested_pages().len() as u128, 1 + pages);
        }
        manual_clock.advance(Duration::from_millis(1));
    }
    eventually("the third page is requested", async || {
        (env.kratos.requested_pages() == [0, 0, 101, 201]).then_some(())
    })
    .await;
    round.abort();
}
