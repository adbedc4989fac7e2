//! Builds all components from the settings, starts them in order, and stops them.

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

pub use signals::{ignore_hang_ups, shutdown_signal};

/// The limit for the head of a request. Kratos ends an attempt after 30 s, and then reads no error for a slow head.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(35);
/// How long an idle connection is kept. Kratos keeps one for 90 s, so Vestibule never closes a connection under a call
/// of Kratos.
const KEEP_ALIVE: Duration = Duration::from_mins(2);
/// How long running calls and attempts may take after the stop began.
const GRACE: Duration = Duration::from_secs(20);

/// The parts of the environment that a test can replace.
pub struct Overrides {
    /// The clock.
    pub clock: Clock,
    /// The source of randomness for the times of retries.
    pub jitter: Jitter,
    /// A store to use instead of the store in the settings.
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

/// The running program.
pub struct App {
    /// The address on which Kratos calls the hooks.
    pub hooks_address: SocketAddr,
    /// The address of the admin API, the metrics and the health checks.
    pub admin_address: SocketAddr,
    /// The store.
    pub store: Arc<dyn Store>,
    health: Data<Health>,
    servers: Vec<ServerHandle>,
    serving: Vec<JoinHandle<std::io::Result<()>>>,
    dispatcher: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
    stop_work: watch::Sender<ShutdownPhase>,
    shutdown_delay: Duration,
    clock: Clock,
}

/// Opens the store that the settings name, and applies pending migrations.
pub async fn open_store(dsn: &Dsn) -> anyhow::Result<Arc<dyn Store>> {
    match dsn {
        Dsn::Sqlite(path) => {
            let store = Sqlite::open(path)
                .await
                .with_context(|| format!("`dsn`: cannot open the database {}", path.display()))?;
            Ok(Arc::new(store))
        }
        Dsn::Postgres(url) => {
            let store = Postgres::open(url.expose())
                .await
                .context("`dsn`: cannot open the PostgreSQL database")?;
            Ok(Arc::new(store))
        }
    }
}

impl App {
    /// Builds and starts all components. Returns once calls are answered.
    pub async fn start(settings: Settings, overrides: Overrides) -> anyhow::Result<Self> {
        let Overrides {
            clock,
            jitter,
            store,
            lookup_times,
        } = overrides;
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
        let dispatcher = components.dispatcher(&settings, jitter);
        let sweeper = components.sweeper();
        let rules = components.follow_ups.holding_rules();
        let in_force = background::in_force(&*components.store, &clock, &rules).await;
        if let Err(error) = components.refused.reload().await {
            tracing::error!(
                error = %error.error_chain(),
                "ALARM: late refusals cannot be loaded; logins, recoveries and settings are refused until late refusals are loaded"
            );
        }
        let (activity, verifier) = components.verifier().unzip();
        let (hook_state, writer) = components.hook_state(&settings, in_force, activity);
        let health = Data::new(Health::new(
            Arc::clone(&components.metrics),
            Arc::clone(&components.store),
            clock.clone(),
        ));
        let hooks_server = serve_hooks(hooks_listener, Data::new(hook_state), health.clone())?;
        let admin_state = Data::new(components.admin_state(&settings));
        let admin_server = serve_admin(admin_listener, health.clone(), admin_state)?;
        let servers = vec![hooks_server.handle(), admin_server.handle()];
        let serving = vec![tokio::spawn(hooks_server), tokio::spawn(admin_server)];
        let (stop_work, stopped) = watch::channel(ShutdownPhase::Running);
        let stop_intake = || reached(stopped.clone(), ShutdownPhase::StopIntake);
        let dispatcher = tokio::spawn(dispatcher.run(stop_intake(), GRACE));
        let swept = tokio::spawn(sweeper.run(stop_intake()));
        let store = Arc::clone(&components.store);
        let retained = background::retain(store, settings.retention, clock.clone(), stop_intake());
        let deps = components.reconcile_deps(&settings);
        let reconciled = background::reconcile(deps, settings.reconcile, stop_intake());
        let refused = Arc::clone(&components.refused).run(stop_intake());
        let verifying = verifier.map(|verifier| tokio::spawn(verifier.run(stop_intake())));
        let background = [swept, retained, tokio::spawn(refused)]
            .into_iter()
            .chain(reconciled)
            .chain(verifying)
            .collect();
        let writer = tokio::spawn(writer.run(reached(stopped, ShutdownPhase::StopWriters)));
        tracing::info!(%hooks_address, %admin_address, version = env!("CARGO_PKG_VERSION"), "Vestibule has started");
        Ok(Self {
            hooks_address,
            admin_address,
            store: components.store,
            health,
            servers,
            serving,
            dispatcher,
            background,
            writer,
            stop_work,
            shutdown_delay: settings.shutdown_delay,
            clock,
        })
    }

    /// Stops accepting calls, completes running calls, returns leases, and closes the store.
    pub async fn stop(self) {
        self.health.draining.store(true, Ordering::Relaxed);
        if !self.shutdown_delay.is_zero() {
            tracing::info!(
                delay_ms = self.shutdown_delay.as_millis(),
                "Readiness now fails; stopping after `serve.shutdown_delay`"
            );
            self.clock.sleep(self.shutdown_delay).await;
        }
        tracing::info!("Stopping; waiting for running calls");
        self.stop_work.send_replace(ShutdownPhase::StopIntake);
        for server in &self.servers {
            server.stop(true).await;
        }
        for serving in self.serving {
            let _ = serving.await;
        }
        let _ = self.dispatcher.await;
        for task in self.background {
            let _ = task.await;
        }
        // Every call has been answered, so every decision is in the queue.
        self.stop_work.send_replace(ShutdownPhase::StopWriters);
        let _ = self.writer.await;
        self.store.close().await;
        tracing::info!("Stopped");
    }
}

/// The phase of the shutdown: which components stop next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ShutdownPhase {
    Running,
    StopIntake,
    StopWriters,
}

async fn reached(mut phases: watch::Receiver<ShutdownPhase>, phase: ShutdownPhase) {
    // An error means that the app was dropped, which also stops it.
    let _ = phases.wait_for(|now| *now >= phase).await;
}

/// Checks that there is a key, and warns if a key is the public example key.
fn check_keys(keys: &[Secret]) -> anyhow::Result<()> {
    anyhow::ensure!(
        !keys.is_empty(),
        "`hooks.keys` is empty, so no call of Kratos can be accepted\n  \
         help: set the environment variable VESTIBULE_KEY to the output of `vestibule keygen`"
    );
    if keys.iter().any(|key| key.matches(EXAMPLE_KEY.as_bytes())) {
        tracing::warn!(
            "`hooks.keys` holds the public example key of kratos-config/kratos.yml; replace it with the output of \
             `vestibule keygen`"
        );
    }
    Ok(())
}

fn serve_hooks(
    listener: TcpListener,
    hook_state: Data<HookState>,
    health: Data<Health>,
) -> std::io::Result<Server> {
    let server =
        HttpServer::new(move || Web::new().configure(hooks(hook_state.clone(), health.clone())))
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
    admin_state: Data<AdminState>,
) -> std::io::Result<Server> {
    let server =
        HttpServer::new(move || Web::new().configure(admin(health.clone(), admin_state.clone())))
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
        format!("`{key}`: cannot listen on {address}; if another program uses this port, choose another one")
    })
}
