//! Builds all components from the settings, starts them in order, and stops them.

mod components;
mod delivery_metrics;
mod first_seen;
mod memory;
mod open_files;
mod servers;
mod signals;
mod tasks;
mod thread_watch;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web::Data;
use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::checks::follow_up::InForce;
use crate::config::settings::{Dsn, Settings};
use crate::http::{Connections, Health};
use crate::jobs::decision_log::StoreDecisions;
use crate::jobs::dispatcher::Jitter;
use crate::jobs::driver::{Driver, Job};
use crate::jobs::sweeper::Sweep;
use crate::kratos::snippet::EXAMPLE_KEY;
use crate::model::delivery::backoff::random_jitter;
use crate::model::pending::LookupTimes;
use crate::store::{Store, postgres, sqlite};
use components::Components;
use open_files::max_connections;
use servers::{listen, serve_admin, serve_hooks};
use tasks::TaskMonitor;
use thread_watch::ThreadWatch;

pub use components::identity_tracker;
pub use memory::MemoryKeeper;
pub use open_files::{max_connections_of_this_machine, raise_open_files_limit};
pub use signals::{ignore_hang_ups, shutdown_signal};

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
    /// The number of connections to the hooks port that may be open at the same time.
    pub max_connections: usize,
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            clock: system_clock(),
            jitter: Arc::new(random_jitter),
            store: None,
            lookup_times: LookupTimes::default(),
            max_connections: max_connections(),
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
    serving: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    writers: Vec<JoinHandle<()>>,
    monitor: TaskMonitor,
    stop_work: watch::Sender<ShutdownPhase>,
    shutdown_delay: Duration,
    clock: Clock,
}

/// Returns the clock of the program. No other place chooses a clock: commands and components take one as an argument.
#[must_use]
pub fn system_clock() -> Clock {
    Clock::system()
}

/// Opens the store that the settings name, and applies pending migrations.
pub async fn open_store(dsn: &Dsn) -> anyhow::Result<Arc<dyn Store>> {
    match dsn {
        Dsn::Sqlite(path) => {
            let store = sqlite::open(path)
                .await
                .with_context(|| format!("`dsn`: cannot open the database {}", path.display()))?;
            Ok(Arc::new(store))
        }
        Dsn::Postgres(url) => {
            let store = postgres::open(url.expose(), system_clock())
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
            max_connections,
        } = overrides;
        check_keys(&settings.hooks.keys)?;
        let store = match store {
            Some(store) => store,
            None => open_store(&settings.dsn).await?,
        };
        let mut components = Components::new(
            &settings,
            store,
            clock.clone(),
            &system_clock(),
            lookup_times,
        )?;
        let hooks_listener = listen(settings.hooks_address, "serve.hooks")?;
        let admin_listener = listen(settings.admin_address, "serve.admin")?;
        let hooks_address = hooks_listener.local_addr()?;
        let admin_address = admin_listener.local_addr()?;
        let in_force = prepare(&components, &settings, &clock).await;
        let monitor = TaskMonitor::new();
        let (stop_work, stopped) = watch::channel(ShutdownPhase::Running);
        let jobs = Jobs {
            monitor: &monitor,
            driver: components.driver(),
            stopped,
        };
        let (activity, verifier) = components.verifier().unzip();
        let (hook_state, decisions) = components.hook_state(&settings, in_force, activity);
        let health = Data::new(components.health());
        let thread_watch = ThreadWatch::start(system_clock(), Arc::clone(&components.metrics))
            .context("the thread that watches other threads cannot start")?;
        let connections = Connections::new(max_connections, clock.clone());
        let hook_state = Data::new(hook_state);
        let hooks_server = serve_hooks(
            hooks_listener,
            hook_state,
            health.clone(),
            connections,
            thread_watch.clone(),
        )?;
        let admin_state = Data::new(components.admin_state(&settings.admin_access));
        let admin_server = serve_admin(admin_listener, health.clone(), admin_state)?;
        let servers = vec![hooks_server.handle(), admin_server.handle()];
        let serving = vec![
            monitor.spawn("server of hooks", serve(hooks_server)),
            monitor.spawn("server of the admin API", serve(admin_server)),
        ];
        let outbox_writer = components.outbox_writer.take().map(|writer| {
            // The writer ends when nothing can be written any more.
            monitor.spawn("writer of the outbox", writer.run())
        });
        let flow_queries = components
            .flow_queries
            .take()
            .map(|queries| monitor.spawn("reader of flows", queries.run()));
        let mut background = vec![
            jobs.watch_threads(thread_watch),
            jobs.start(components.dispatcher(jitter), ShutdownPhase::StopIntake),
            jobs.start(Sweep::new(components.sweeper()), ShutdownPhase::StopIntake),
            jobs.start(
                components.retention(settings.retention),
                ShutdownPhase::StopIntake,
            ),
            jobs.start(components.reload_late_refusals(), ShutdownPhase::StopIntake),
            jobs.start(components.database_watch(), ShutdownPhase::StopIntake),
        ];
        background.extend(
            components
                .reconciliation(settings.reconcile)
                .map(|job| jobs.start(job, ShutdownPhase::StopIntake)),
        );
        background.extend(verifier.map(|job| jobs.start(job, ShutdownPhase::StopIntake)));
        let decision_log = jobs.start(StoreDecisions(decisions), ShutdownPhase::StopWriters);
        tracing::info!(%hooks_address, %admin_address, version = env!("CARGO_PKG_VERSION"), "Vestibule has started");
        Ok(Self {
            hooks_address,
            admin_address,
            store: Arc::clone(&components.store),
            health,
            servers,
            serving,
            background,
            writers: [decision_log]
                .into_iter()
                .chain(outbox_writer)
                .chain(flow_queries)
                .collect(),
            monitor,
            stop_work,
            shutdown_delay: settings.shutdown_delay,
            clock,
        })
    }

    /// Runs until `stop` completes, and stops. An error if a task of the program ended before.
    pub async fn run_until(
        mut self,
        stop: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let ended = tokio::select! {
            stopped = stop => {
                stopped?;
                None
            }
            name = self.monitor.task_ended() => Some(name),
        };
        if let Some(name) = ended {
            tracing::error!(
                task = name,
                "The {name} has ended unexpectedly; Vestibule stops"
            );
        }
        self.stop().await;
        match ended {
            None => Ok(()),
            Some(name) => anyhow::bail!("the {name} has ended unexpectedly; the log says why"),
        }
    }

    /// Returns the handles of the HTTP servers: for hooks, and for the admin API.
    #[must_use]
    pub fn servers(&self) -> &[ServerHandle] {
        &self.servers
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
        for task in self.serving.into_iter().chain(self.background) {
            let _ = task.await;
        }
        // Every call has been answered, so every decision and every write is in a queue.
        self.stop_work.send_replace(ShutdownPhase::StopWriters);
        let system = system_clock();
        let end = system.deadline(GRACE);
        let writers = futures_util::future::join_all(self.writers);
        if system.timeout_at(end, writers).await.is_none() {
            tracing::error!("Not everything that was queued could be written");
        }
        self.store.close().await;
        tracing::info!("Stopped");
    }
}

/// Records what this start sees for the first time, and loads the late refusals. Returns since when the rules are in
/// force.
async fn prepare(components: &Components, settings: &Settings, clock: &Clock) -> InForce {
    let rules = Arc::clone(&components.rules);
    first_seen::record_first_start(&*components.store, clock, rules.subscriptions()).await;
    if !settings.tracks_identities() {
        first_seen::record_untracked(&*components.store).await;
    }
    let in_force = first_seen::in_force(&*components.store, clock, &rules.holding_rules()).await;
    if let Err(error) = components.refused.reload().await {
        tracing::error!(
            error = %error.error_chain(),
            "ALARM: late refusals cannot be loaded; logins, recoveries and settings are refused until late refusals are loaded"
        );
    }
    in_force
}

/// Runs a server until it is stopped.
async fn serve(server: Server) {
    if let Err(error) = server.await {
        tracing::error!(%error, "An HTTP server failed");
    }
}

/// Starts background jobs.
struct Jobs<'a> {
    monitor: &'a TaskMonitor,
    driver: Driver,
    stopped: watch::Receiver<ShutdownPhase>,
}

impl Jobs<'_> {
    /// Starts to measure the waits on the main runtime.
    fn watch_threads(&self, watch: ThreadWatch) -> JoinHandle<()> {
        let stop = reached(self.stopped.clone(), ShutdownPhase::StopIntake);
        self.monitor.spawn("thread watch", async move {
            tokio::select! {
                () = watch.run("main") => {}
                () = stop => {}
            }
        })
    }

    /// Starts the job; it ends in this phase of the shutdown.
    fn start(&self, job: impl Job + 'static, phase: ShutdownPhase) -> JoinHandle<()> {
        let name = job.name();
        let stop = reached(self.stopped.clone(), phase);
        self.monitor
            .spawn(name, self.driver.clone().drive(job, stop))
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
