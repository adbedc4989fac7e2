//! A database, a receiver, and the instances of Vestibule that share them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vestibule::app::{App, Overrides};
use vestibule::base::clock::{Clock, saturating_add};
use vestibule::config::{self, Environment};
use vestibule::store::Backlog;
use vestibule_testing::bounded;

use super::instance::{Instance, InstanceOptions, settings};
use super::load::{CallResult, Callers, Load, LoadResults};
use super::receiver::Receiver;
use super::rng::Rng;
use super::{port, within};

/// Everything that one test case runs.
pub struct TestEnv {
    pub instances: Vec<Instance>,
    pub receiver: Receiver,
    pub rng: Arc<Rng>,
    pub options: InstanceOptions,
    _folder: TempDir,
}

impl TestEnv {
    /// Starts this number of instances on the database at `dsn`, or on a SQLite file of their own.
    pub async fn start(instances: usize, dsn: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rng = Arc::new(Rng::new());
        let receiver = Receiver::start(Arc::clone(&rng));
        let file = || format!("sqlite://{}/vestibule.db", folder.path().display());
        let options = InstanceOptions {
            folder: folder.path().to_owned(),
            dsn: dsn.unwrap_or_else(file),
            receiver: receiver.url.clone(),
        };
        let mut running = Vec::new();
        for _ in 0..instances {
            running.push(Instance::start(options.clone()).await);
        }
        Self {
            instances: running,
            receiver,
            rng,
            options,
            _folder: folder,
        }
    }

    /// Starts to call all instances.
    pub fn load(&self, callers: Callers) -> Load {
        let urls = self.instances.iter().map(Instance::url).collect();
        Load::start(urls, callers, Arc::clone(&self.rng))
    }

    /// Waits until the receiver has all expected deliveries.
    pub async fn wait_for_deliveries(&self, results: &LoadResults, timeout: Duration) {
        let expected = results.expected_deliveries();
        within(
            timeout,
            "the receiver gets every expected delivery",
            async || self.receiver.missing(&expected).is_empty().then_some(()),
        )
        .await;
    }

    /// Kills all instances and starts another with a clock one hour ahead, when leases and pauses have ended. Returns the backlog
    /// after all expected deliveries.
    pub async fn deliver_after_an_hour(&mut self, results: &LoadResults) -> Backlog {
        self.instances.clear();
        let environment = self.options.environment((port::free(), port::free()));
        let settings = config::load(&settings(), &Environment::of(environment))
            .unwrap_or_else(|problems| panic!("{problems}"));
        let hour = Duration::from_hours(1);
        let (clock, _manual) = Clock::manual(saturating_add(Clock::system().now(), hour));
        let overrides = Overrides {
            clock,
            ..Overrides::default()
        };
        let app = App::start(settings, overrides)
            .await
            .expect("Vestibule starts");
        let timeout = Duration::from_mins(1);
        self.wait_for_deliveries(results, timeout).await;
        let backlog = within(timeout, "Vestibule settles all deliveries", async || {
            let backlog = app.store.backlog().await.expect("the database answers");
            (backlog.pending == 0).then_some(backlog)
        })
        .await;
        bounded("Vestibule stops", app.stop()).await;
        backlog
    }

    /// Prints the results, and asserts that no delivery is missing and that no delivery arrived under two webhook ids.
    pub fn report(&self, name: &str, results: &LoadResults) {
        let expected = results.expected_deliveries();
        let missing = self.receiver.missing(&expected).len();
        let arrived = self.receiver.arrived();
        let received = arrived.len();
        let arrivals: usize = arrived.values().map(Vec::len).sum();
        let with_two_ids = arrived
            .values()
            .filter(|ids| ids.iter().any(|id| *id != ids[0]))
            .count();
        eprintln!(
            "{name} (CRASH_SEED={}): identities acknowledged {}, deliveries expected {}, received {received}, \
             duplicates {}, under different webhook-ids {with_two_ids}, missing {missing}; results of post: {}; of pre: {}",
            self.rng.seed,
            results.acknowledged.len(),
            expected.len(),
            arrivals - received,
            counts(&results.post),
            counts(&results.pre),
        );
        assert!(!expected.is_empty(), "Vestibule acknowledged no sign-up");
        assert_eq!(
            (missing, with_two_ids),
            (0, 0),
            "missing, with two webhook ids"
        );
    }
}

fn counts(results: &BTreeMap<CallResult, u64>) -> String {
    let counts: Vec<_> = results
        .iter()
        .map(|(result, times)| match result {
            CallResult::Status(status) => format!("{status} × {times}"),
            CallResult::ConnectionLost => format!("connection lost × {times}"),
            CallResult::TimedOut => format!("timeout × {times}"),
        })
        .collect();
    if counts.is_empty() {
        "none".to_owned()
    } else {
        counts.join(", ")
    }
}
