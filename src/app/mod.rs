//! Build every part from the settings, in order; start them, stop them.

mod background;
mod components;
mod delivery_metrics;
mod signals;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use actix_web::{App as Web, HttpServer};
use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::config::settings::{Address, Dsn, Settings};
use crate::http::{AdminState, Health, HookState, admin, hooks};
use crate::jobs::dispatcher::Jitter;
use crate::kratos::snippet::EXAMPLE_KEY;
use crate::model::delivery::backoff::random_jitter;
use crate::model::pending::LookupTimes;
use crate::store::Store;
use crate::store::postgres::Postgres;
use crate::store::sqlite::Sqlite;
use components::Components;

pub use signals::shutdown_signal;

/// Kratos gives one attempt 30 s; after that nobody reads what the web framework says of a slow head.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(35);
/// Longer than Kratos keeps an idle connection (90 s), so that never we are the one who closes it under a call.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
/// How long calls and attempts under way may still take when we stop.
const GRACE: Duration = Duration::from_secs(20);

/// What the program takes from its surroundings, so that a test may give it something else.
pub struct Overrides {
    /// The time.
    pub clock: Clock,
    /// Chance, for the times of retries.
    pub jitter: Jitter,
    /// A store in place of the one that the settings name.
    pub store: Option<Arc<dyn Store>>,
    /// When sign-ups without a `post` are looked up.
    pub lookup_times: LookupTimes,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            jitter: Arc::new(random_jitter),
            store: None,
            lookup_times: LookupTimes::default(),
        }
    }
}

/// The program while it runs.
pub struct App {
    /// Where hooks are answered.
    pub hooks_address: SocketAddr,
    /// Where operators and their monitoring call.
    pub admin_address: SocketAddr,
    /// Where deliveries are kept.
    pub store: Arc<dyn Store>,
    health: Data<Health>,
    servers: Vec<ServerHandle>,
    serving: Vec<JoinHandle<std::io::Result<()>>>,
    worker: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
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
    pub async fn start(settings: Settings, surroundings: Overrides) -> anyhow::Result<Self> {
        let Overrides {
            clock,
            jitter,
            store,
            lookup_times,
        } = surroundings;
        check_keys(&settings.hooks.keys)?;
        let store = match store {
            Some(store) => store,
            None => open_store(&settings.dsn).await?,
        };
        let components = Components::new(&settings, store, clock.clone(), lookup_times)?;
        let hooks_listener = listen(settings.hooks_address, "serve.hooks")?;
        let admin_listener = listen(settings.admin_address, "serve.admin")?;
        let hooks_address = hooks_listener.local_addr()?;
        let admin_address = admin_listener.local_addr()?;
        background::record_first_start(&*components.store, &clock, &settings.subscriptions).await;
        let worker = components.worker(&settings, jitter);
        let sweeper = components.sweeper();
        let rules = components.follow_ups.holding_rules();
        let in_force = background::in_force(&*components.store, &clock, &rules).await;
        if let Err(error) = components.refused.reload().await {
            tracing::error!(
                error = %error.error_chain(),
                "ALARM: the identities that were refused late cannot be loaded; nobody can sign in until they are"
            );
        }
        let (activity, verifier) = components.verifier().unzip();
        let (door, writer) = components.door(&settings, in_force, activity);
        let health = Data::new(Health::new(
            Arc::clone(&components.metrics),
            Arc::clone(&components.store),
            clock.clone(),
        ));
        let hooks_server = serve_hooks(hooks_listener, Data::new(door), health.clone())?;
        let operator = Data::new(components.operator(&settings));
        let admin_server = serve_admin(admin_listener, health.clone(), operator)?;
        let servers = vec![hooks_server.handle(), admin_server.handle()];
        let serving = vec![tokio::spawn(hooks_server), tokio::spawn(admin_server)];
        let (stop_work, stopped) = watch::channel(Phase::Running);
        let carrying = reached(stopped.clone(), Phase::StopIntake);
        let worker = tokio::spawn(worker.run(carrying, GRACE));
        let carrying = || reached(stopped.clone(), Phase::StopIntake);
        let swept = tokio::spawn(sweeper.run(carrying()));
        let store = Arc::clone(&components.store);
        let retained = background::retain(store, settings.retention, clock.clone(), carrying());
        let knows = components.reconciles(&settings);
        let reconciled = background::reconcile(knows, settings.reconcile, carrying());
        let refused = Arc::clone(&components.refused).run(carrying());
        let verifying = verifier.map(|verifier| tokio::spawn(verifier.run(carrying())));
        let background = [swept, retained, tokio::spawn(refused)]
            .into_iter()
            .chain(reconciled)
            .chain(verifying)
            .collect();
        let writer = tokio::spawn(writer.run(reached(stopped, Phase::StopWriters)));
        tracing::info!(%hooks_address, %admin_address, version = env!("CARGO_PKG_VERSION"), "Vestibule is open");
        Ok(Self {
            hooks_address,
            admin_address,
            store: components.store,
            health,
            servers,
            serving,
            worker,
            background,
            writer,
            stop_work,
            shutdown_delay: settings.shutdown_delay,
            clock,
        })
    }

    /// Stops accepting, finishes what runs, gives leases back, closes the store.
    pub async fn stop(self) {
        self.health.draining.store(true, Ordering::Relaxed);
        if !self.shutdown_delay.is_zero() {
            tracing::info!(
                delay_ms = self.shutdown_delay.as_millis(),
                "Not ready any more; stopping after `serve.shutdown_delay`"
            );
            self.clock.sleep(self.shutdown_delay).await;
        }
        tracing::info!("Stopping: calls under way are finished");
        self.stop_work.send_replace(Phase::StopIntake);
        for server in &self.servers {
            server.stop(true).await;
        }
        for serving in self.serving {
            let _ = serving.await;
        }
        let _ = self.worker.await;
        for task in self.background {
            let _ = task.await;
        }
        // Every call has been answered, so every decision has been handed in.
        self.stop_work.send_replace(Phase::StopWriters);
        let _ = self.writer.await;
        self.store.close().await;
        tracing::info!("Stopped");
    }
}

/// How far stopping has come: what is to stop next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    StopIntake,
    StopWriters,
}

async fn reached(mut phases: watch::Receiver<Phase>, phase: Phase) {
    // An error means that the app is gone without being stopped, which is a stop as well.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// There must be a key, and it should not be the one that stands in our example.
fn check_keys(keys: &[Secret]) -> anyhow::Result<()> {
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
    door: Data<HookState>,
    health: Data<Health>,
) -> std::io::Result<Server> {
    let server = HttpServer::new(move || Web::new().configure(hooks(door.clone(), health.clone())))
        .listen(listener)?
        .client_request_timeout(REQUEST_HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(GRACE.as_secs())
        .disable_signals()
        .run();
    Ok(server)
}

fn serve_admin(
    listener: TcpListener,
    health: Data<Health>,
    operator: Data<AdminState>,
) -> std::io::Result<Server> {
    let server =
        HttpServer::new(move || Web::new().configure(admin(health.clone(), operator.clone())))
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
