//! Build every part from the settings, in order; start them, stop them.

mod counter;
mod upkeep;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use actix_web::{App as Web, HttpServer};
use anyhow::Context as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::check::Checks;
use crate::clock::Clock;
use crate::config::settings::{Address, Dsn, Settings};
use crate::courier::{Knows, Porter};
use crate::delivery::backoff::random_jitter;
use crate::identities::Identities;
use crate::kratos::hooks::EXAMPLE_KEY;
use crate::reconcile;
use crate::secret::Secret;
use crate::server::answers::Answers;
use crate::server::{Door, Health, admin, hooks};
use crate::service::client::Services;
use crate::store::Store;
use crate::store::intake::intake;
use crate::store::postgres::Postgres;
use crate::store::recorder::recorder;
use crate::store::sqlite::Sqlite;
use crate::telemetry::Metrics;
use crate::worker::{Jitter, Pace, Worker};
use counter::Counter;

/// Kratos gives one attempt 30 s; after that nobody reads what the web framework says of a slow head.
const HEAD_IN: Duration = Duration::from_secs(35);
/// Longer than Kratos keeps an idle connection (90 s), so that never we are the one who closes it under a call.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
/// How long calls and attempts under way may still take when we stop.
const GRACE: Duration = Duration::from_secs(20);

/// What the program takes from its surroundings, so that a test may give it something else.
pub struct Surroundings {
    /// The time.
    pub clock: Clock,
    /// Chance, for the times of retries.
    pub jitter: Jitter,
    /// A store in place of the one that the settings name.
    pub store: Option<Arc<dyn Store>>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            jitter: Arc::new(random_jitter),
            store: None,
        }
    }
}

/// The program while it runs.
pub struct App {
    /// Where hooks are answered.
    pub hooks_address: SocketAddr,
    /// Where health, version and metrics are answered.
    pub admin_address: SocketAddr,
    /// Where deliveries are kept.
    pub store: Arc<dyn Store>,
    health: Data<Health>,
    servers: Vec<ServerHandle>,
    serving: Vec<JoinHandle<std::io::Result<()>>>,
    worker: JoinHandle<()>,
    writer: JoinHandle<()>,
    upkeep: Vec<JoinHandle<()>>,
    stop_work: watch::Sender<Phase>,
    shutdown_delay: Duration,
    clock: Clock,
}

/// Opens the store that the settings name.
pub async fn open_store(dsn: &Dsn) -> anyhow::Result<Arc<dyn Store>> {
    match dsn {
        Dsn::Sqlite(path) => {
            let store = Sqlite::open(path).await.with_context(|| {
                format!("`dsn`: the database {} could not be opened", path.display())
            })?;
            Ok(Arc::new(store))
        }
        Dsn::Postgres(url) => {
            let store = Postgres::open(url.expose())
                .await
                .context("`dsn`: the PostgreSQL database could not be opened")?;
            Ok(Arc::new(store))
        }
    }
}

impl App {
    /// Builds and starts everything. Returns once calls are answered.
    pub async fn start(settings: Settings, surroundings: Surroundings) -> anyhow::Result<Self> {
        let Surroundings {
            clock,
            jitter,
            store,
        } = surroundings;
        look_at_keys(&settings.hooks.keys)?;
        let metrics = Arc::new(Metrics::new());
        let store = match store {
            Some(store) => store,
            None => open_store(&settings.dsn).await?,
        };
        let named = settings
            .services
            .into_iter()
            .chain(settings.kratos.admin.clone());
        let services = Arc::new(
            Services::new(named.collect(), clock.clone(), Arc::clone(&metrics))
                .context("the HTTP client could not be built")?,
        );
        let identities = settings
            .kratos
            .admin
            .is_some()
            .then(|| Identities::new(Arc::clone(&services), clock.clone()));
        let stored = Arc::new(Notify::new());
        let dropped = metrics.decisions_dropped.clone();
        let (recorder, writer) = recorder(
            Arc::clone(&store),
            Arc::new(move |lost| {
                dropped.inc_by(lost);
            }),
        );
        let worker = Worker::new(
            Arc::clone(&store),
            Arc::new(Porter::new(Knows {
                plans: settings.deliveries.clone(),
                checks: settings.checks.clone(),
                lists: Arc::clone(&settings.lists),
                services: Arc::clone(&services),
                identities: identities.clone(),
                store: Arc::clone(&store),
                clock: clock.clone(),
            })),
            Arc::new(Counter(Arc::clone(&metrics))),
            Arc::clone(&stored),
            clock.clone(),
            jitter,
            Pace::default(),
        );
        upkeep::note_the_start(&*store, &clock, &settings.deliveries).await;
        let knows = identities.map(|identities| reconcile::Knows {
            store: Arc::clone(&store),
            identities,
            plans: settings.deliveries.clone(),
            lists: Arc::clone(&settings.lists),
            stored: Arc::clone(&stored),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
        });
        let checks = Checks::new(
            settings.checks,
            Arc::clone(&services),
            Arc::clone(&settings.lists),
            settings.builtin.clone(),
            settings.hooks.default_language.clone(),
            clock.clone(),
            Arc::clone(&metrics),
        );
        // Ends when the last call has been answered and the door is gone.
        let lost = metrics.journal_dropped.clone();
        let (intake, intake_writer) = intake(
            Arc::clone(&store),
            Arc::new(move |number| {
                lost.inc_by(number);
            }),
        );
        tokio::spawn(intake_writer.run());
        let door = Data::new(Door {
            keys: settings.hooks.keys,
            deadline: settings.hooks.deadline,
            client_ip_header: settings.hooks.client_ip_header,
            checks,
            plans: settings.deliveries,
            lists: settings.lists,
            intake,
            stored,
            recorder,
            answers: Arc::new(Answers::new(clock.clone())),
            builtin: settings.builtin,
            default_language: settings.hooks.default_language,
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
        });
        let health = Data::new(Health::new(metrics, Arc::clone(&store), clock.clone()));

        let hooks_listener = listen(settings.hooks_address, "serve.hooks")?;
        let admin_listener = listen(settings.admin_address, "serve.admin")?;
        let hooks_address = hooks_listener.local_addr()?;
        let admin_address = admin_listener.local_addr()?;
        let hooks_server = serve_hooks(hooks_listener, door, health.clone())?;
        let admin_server = serve_admin(admin_listener, health.clone())?;
        let servers = vec![hooks_server.handle(), admin_server.handle()];
        let serving = vec![tokio::spawn(hooks_server), tokio::spawn(admin_server)];
        let (stop_work, stopped) = watch::channel(Phase::Running);
        let worker = tokio::spawn(worker.run(reached(stopped.clone(), Phase::Carrying), GRACE));
        let carrying = || reached(stopped.clone(), Phase::Carrying);
        let retained = upkeep::retain(
            Arc::clone(&store),
            settings.retention,
            clock.clone(),
            carrying(),
        );
        let reconciled = upkeep::reconcile(knows, settings.reconcile, carrying());
        let upkeep = [retained].into_iter().chain(reconciled).collect();
        let writer = tokio::spawn(writer.run(reached(stopped, Phase::Writing)));
        tracing::info!(%hooks_address, %admin_address, version = env!("CARGO_PKG_VERSION"), "Vestibule is open");
        Ok(Self {
            hooks_address,
            admin_address,
            store,
            health,
            servers,
            serving,
            worker,
            writer,
            upkeep,
            stop_work,
            shutdown_delay: settings.shutdown_delay,
            clock,
        })
    }

    /// Stops accepting, finishes what runs, gives leases back, closes the store.
    pub async fn stop(self) {
        self.health.leaving.store(true, Ordering::Relaxed);
        if !self.shutdown_delay.is_zero() {
            tracing::info!(
                delay_ms = self.shutdown_delay.as_millis(),
                "Not ready any more; stopping after `serve.shutdown_delay`"
            );
            self.clock.sleep(self.shutdown_delay).await;
        }
        tracing::info!("Stopping: calls under way are finished");
        self.stop_work.send_replace(Phase::Carrying);
        for server in &self.servers {
            server.stop(true).await;
        }
        for serving in self.serving {
            let _ = serving.await;
        }
        let _ = self.worker.await;
        for upkeep in self.upkeep {
            let _ = upkeep.await;
        }
        // Every call has been answered, so every decision has been handed in.
        self.stop_work.send_replace(Phase::Writing);
        let _ = self.writer.await;
        self.store.close().await;
        tracing::info!("Stopped");
    }
}

/// How far stopping has come: what is to stop next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Carrying,
    Writing,
}

async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the app is gone without being stopped, which is a stop as well.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// There must be a key, and it should not be the one that stands in our example.
fn look_at_keys(keys: &[Secret]) -> anyhow::Result<()> {
    anyhow::ensure!(
        !keys.is_empty(),
        "there is no key for Kratos to call with; set the environment variable VESTIBULE_KEY or `hooks.keys` \
         (`vestibule keygen` makes one)"
    );
    if keys.iter().any(|key| key.matches(EXAMPLE_KEY.as_bytes())) {
        tracing::warn!(
            "`hooks.keys` holds the key of kratos-config/kratos.yml, which everybody knows; `vestibule keygen` makes one"
        );
    }
    Ok(())
}

fn serve_hooks(
    listener: TcpListener,
    door: Data<Door>,
    health: Data<Health>,
) -> std::io::Result<Server> {
    let server = HttpServer::new(move || Web::new().configure(hooks(door.clone(), health.clone())))
        .listen(listener)?
        .client_request_timeout(HEAD_IN)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(GRACE.as_secs())
        .disable_signals()
        .run();
    Ok(server)
}

fn serve_admin(listener: TcpListener, health: Data<Health>) -> std::io::Result<Server> {
    let server = HttpServer::new(move || Web::new().configure(admin(health.clone())))
        .workers(1)
        .listen(listener)?
        .shutdown_timeout(1)
        .disable_signals()
        .run();
    Ok(server)
}

fn listen(address: Address, key: &str) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(address.host, address.port);
    TcpListener::bind(address).with_context(|| {
        format!("`{key}`: {address} cannot be listened on; is something else running there? Choose another port")
    })
}
