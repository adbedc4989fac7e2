//! A database, a receiver and instances that share them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vestibule::app::{App, Overrides as Outside};
use vestibule::base::clock::{Clock, saturating_add};
use vestibule::config::{self, Environment};
use vestibule::store::Backlog;

use super::chance::Chance;
use super::instance::{Instance, Overrides, settings};
use super::load::{Answer, Callers, Load, Noted};
use super::receiver::Receiver;
use super::{eventually, port};

/// All that belongs to one scene.
pub struct House {
    pub instances: Vec<Instance>,
    pub receiver: Receiver,
    pub chance: Arc<Chance>,
    pub surroundings: Overrides,
    _folder: TempDir,
}

impl House {
    /// Instances on a database of this address; on a file of its own without one.
    pub async fn with(instances: usize, dsn: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let chance = Arc::new(Chance::new());
        let receiver = Receiver::start(Arc::clone(&chance));
        let file = || format!("sqlite://{}/vestibule.db", folder.path().display());
        let surroundings = Overrides {
            folder: folder.path().to_owned(),
            dsn: dsn.unwrap_or_else(file),
            receiver: receiver.url.clone(),
        };
        let mut running = Vec::new();
        for _ in 0..instances {
            running.push(Instance::start(surroundings.clone()).await);
        }
        Self {
            instances: running,
            receiver,
            chance,
            surroundings,
            _folder: folder,
        }
    }

    /// Begins to call all instances.
    pub fn load(&self, callers: Callers) -> Load {
        let urls = self.instances.iter().map(Instance::url).collect();
        Load::start(urls, callers, Arc::clone(&self.chance))
    }

    /// Waits until all that is owed has arrived.
    pub async fn all_has_arrived(&self, noted: &Noted, patience: Duration) {
        let owed = noted.owed();
        eventually("all that was acknowledged arrives", patience, async || {
            self.receiver.missing(&owed).is_empty().then_some(())
        })
        .await;
    }

    /// Instances are gone, and an hour later another is there: leases have ended, pauses are over. Returns what it
    /// leaves to be done once all that is owed has arrived.
    pub async fn an_hour_later(&mut self, noted: &Noted) -> Backlog {
        self.instances.clear();
        let environment = self.surroundings.environment((port::free(), port::free()));
        let settings = config::load(&settings(), &Environment::of(environment))
            .unwrap_or_else(|problems| panic!("{problems}"));
        let hour = Duration::from_hours(1);
        let (clock, _hand) = Clock::manual(saturating_add(Clock::system().now(), hour));
        let outside = Outside {
            clock,
            ..Outside::default()
        };
        let app = App::start(settings, outside).await.expect("a start");
        let patience = Duration::from_mins(1);
        self.all_has_arrived(noted, patience).await;
        let left = eventually("nothing is left to be done", patience, async || {
            let left = app.store.backlog().await.expect("a database");
            (left.pending == 0).then_some(left)
        })
        .await;
        app.stop().await;
        left
    }

    /// Prints what came of it, and asserts that nothing was lost and nothing has two names.
    pub fn account(&self, scene: &str, noted: &Noted) {
        let owed = noted.owed();
        let missing = self.receiver.missing(&owed).len();
        let arrived = self.receiver.arrived();
        let received = arrived.len();
        let arrivals: usize = arrived.values().map(Vec::len).sum();
        let renamed = arrived
            .values()
            .filter(|ids| ids.iter().any(|id| *id != ids[0]))
            .count();
        eprintln!(
            "{scene} (CRASH_SEED={}): identities acknowledged {}, deliveries owed {}, received {received}, \
             duplicates {}, under different webhook-ids {renamed}, missing {missing}; answers to post: {}; to pre: {}",
            self.chance.seed,
            noted.acknowledged.len(),
            owed.len(),
            arrivals - received,
            counts(&noted.post),
            counts(&noted.pre),
        );
        assert!(!owed.is_empty(), "nothing was acknowledged");
        assert_eq!((missing, renamed), (0, 0), "missing, renamed");
    }
}

fn counts(answers: &BTreeMap<Answer, u64>) -> String {
    let words: Vec<_> = answers
        .iter()
        .map(|(answer, times)| match answer {
            Answer::Status(status) => format!("{status} × {times}"),
            Answer::Cut => format!("connection cut × {times}"),
            Answer::Hangs => format!("none × {times}"),
        })
        .collect();
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}
