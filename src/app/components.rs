//! Builds the components of the program, and gives each component what it uses.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::delivery_metrics::DeliveryMetrics;
use crate::base::clock::Clock;
use crate::base::secret::random_key;
use crate::base::telemetry::Metrics;
use crate::base::telemetry::job_status::JobStatuses;
use crate::checks::account_lookup::Lookup;
use crate::checks::activity::ActivityLog;
use crate::checks::follow_up::InForce;
use crate::checks::observe::CheckMetrics;
use crate::checks::refused_identities::RefusedIdentities;
use crate::checks::{AskService, Evaluator, Reserver, Rules};
use crate::config::settings::{self, Settings};
use crate::expression::Variable;
use crate::http::hooks::idempotency::IdempotencyCache;
use crate::http::hooks::log_limits::LogLimits;
use crate::http::hooks::open_flow::MAX_CONCURRENT_CLOSES;
use crate::http::{AdminAccess, AdminState, Health, HookState, PendingPolicy};
use crate::jobs::database_watch::WatchDatabase;
use crate::jobs::dispatcher::{Dispatcher, DispatcherLimits, Jitter};
use crate::jobs::driver::Driver;
use crate::jobs::identity_verifier::{Verifier, verifier};
use crate::jobs::identity_writer::IdentityWriter;
use crate::jobs::late_refusals::ReloadLateRefusals;
use crate::jobs::reconcile::{self, Reconciler, Reconciliation, RoundOptions};
use crate::jobs::retention::Retention;
use crate::jobs::sweeper::{Sweeper, URGENT_CALLS_PER_SECOND};
use crate::jobs::transport::{HttpTransport, TransportDeps};
use crate::kratos::Flow;
use crate::model::delivery::Event;
use crate::model::pending::{FlowRecord, LookupTimes};
use crate::outbound::kratos_admin::KratosAdmin;
use crate::outbound::kratos_admin::call_limit::CallLimit;
use crate::outbound::services::client::Services;
use crate::store::admin::RetryWindows;
use crate::store::decision_log::{self, recorder};
use crate::store::flow_reader::{FlowReader, flow_reader};
use crate::store::guard::GuardProof;
use crate::store::known_identities::IdentityTracker;
use crate::store::outbox::{Outbox, Writer, outbox};
use crate::store::{Store, WriteSet};

/// Returns the tracker of identities, if the settings want changes or deletions that no hook reports.
pub fn identity_tracker(
    settings: &Settings,
    store: &Arc<dyn Store>,
) -> anyhow::Result<Option<Arc<IdentityTracker>>> {
    if !settings.tracks_identities() {
        return Ok(None);
    }
    let new_key = random_key().context("cannot create a random key")?;
    let tracker = IdentityTracker::new(Arc::clone(store), new_key);
    Ok(Some(Arc::new(tracker)))
}

/// The parts that several components share.
pub(super) struct Components {
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Arc<dyn Store>,
    services: Arc<Services>,
    identities: Option<KratosAdmin>,
    pub(super) refused: Arc<RefusedIdentities>,
    tracker: Option<Arc<IdentityTracker>>,
    writer: Option<Arc<IdentityWriter>>,
    pub(super) rules: Arc<Rules>,
    outbox: Outbox,
    pub(super) outbox_writer: Option<Writer<WriteSet, usize>>,
    flow_reader: FlowReader,
    pub(super) flow_queries: Option<Writer<Uuid, Option<FlowRecord>>>,
    pub(super) jobs: Arc<JobStatuses>,
    sweep_now: Arc<Notify>,
    clock: Clock,
    proof: Arc<GuardProof>,
    lookup: Option<Lookup>,
    lookup_times: LookupTimes,
}

impl Components {
    /// `clock` is the time of all decisions. `system` ends waits of milliseconds, which go on while a test stops `clock`.
    pub(super) fn new(
        settings: &Settings,
        store: Arc<dyn Store>,
        clock: Clock,
        system: &Clock,
        lookup_times: LookupTimes,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::with_deliveries(store.counters()));
        let named = settings.services.iter().chain(&settings.kratos.admin);
        let services = Services::new(
            named.cloned().collect(),
            clock.clone(),
            Arc::clone(&metrics),
        )
        .context("cannot build the HTTP client")?;
        let services = Arc::new(services);
        let identities = settings
            .kratos
            .admin
            .is_some()
            .then(|| KratosAdmin::new(Arc::clone(&services), clock.clone()));
        let refused = Arc::new(RefusedIdentities::new(
            Arc::clone(&store),
            clock.clone(),
            Arc::clone(&metrics),
        ));
        let tracker = identity_tracker(settings, &store)?;
        let writer = identities.clone().map(|identities| {
            Arc::new(IdentityWriter::new(
                identities,
                Arc::clone(&store),
                Arc::clone(&refused),
                tracker.clone(),
                clock.clone(),
                Arc::clone(&metrics),
            ))
        });
        let rules = Arc::new(settings.rules());
        let (flow_reader, flow_queries) = flow_reader(store.clone(), system.clone());
        let (outbox, outbox_writer) = outbox(store.clone(), Arc::clone(&metrics), system.clone());
        let proof = Arc::new(GuardProof::new(store.clone(), clock.clone()));
        let lookup = identities.clone().map(|identities| Lookup {
            identities,
            proof: Arc::clone(&proof),
        });
        Ok(Self {
            metrics,
            proof,
            lookup,
            lookup_times,
            store,
            services,
            identities,
            refused,
            tracker,
            writer,
            rules,
            outbox,
            outbox_writer: Some(outbox_writer),
            flow_reader,
            flow_queries: Some(flow_queries),
            jobs: Arc::default(),
            sweep_now: Arc::new(Notify::new()),
            clock,
        })
    }

    pub(super) fn dispatcher(&self, jitter: Jitter) -> Dispatcher {
        let transport = HttpTransport::new(TransportDeps {
            rules: Arc::clone(&self.rules),
            services: Arc::clone(&self.services),
            writer: self.writer.clone(),
            store: Arc::clone(&self.store),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
        });
        Dispatcher::new(
            self.store.clone(),
            Arc::new(transport),
            Arc::new(DeliveryMetrics(Arc::clone(&self.metrics))),
            self.outbox.clone(),
            self.clock.clone(),
            jitter,
            DispatcherLimits::default(),
        )
    }

    pub(super) fn sweeper(&self) -> Sweeper {
        let limit = Arc::new(CallLimit::new(URGENT_CALLS_PER_SECOND, self.clock.clone()));
        let lookup_by = |identities: KratosAdmin| Lookup {
            identities,
            proof: Arc::clone(&self.proof),
        };
        let identities = self.identities.as_ref();
        Sweeper {
            store: Arc::clone(&self.store),
            lookup: identities.map(|all| lookup_by(all.counted_by(&limit))),
            urgent_lookup: identities.map(|all| lookup_by(all.limited_by(&limit))),
            rules: Arc::clone(&self.rules),
            times: self.lookup_times.clone(),
            leased: Mutex::default(),
            is_unanswered: AtomicBool::new(false),
            outbox: self.outbox.clone(),
            tracker: self.tracker.clone(),
            sweep_now: Arc::clone(&self.sweep_now),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Returns the driver of the background jobs.
    pub(super) fn driver(&self) -> Driver {
        Driver {
            clock: self.clock.clone(),
            statuses: Arc::clone(&self.jobs),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Returns the job that deletes old records.
    pub(super) fn retention(&self, settings: settings::Retention) -> Retention {
        let settings::Retention {
            deliveries,
            decisions,
        } = settings;
        let store = Arc::clone(&self.store);
        let clock = self.clock.clone();
        Retention::new(store, deliveries, decisions, clock)
            .keeping_identities(self.tracker.is_some())
    }

    /// Returns the state of the health handlers.
    pub(super) fn health(&self) -> Health {
        Health::new(
            Arc::clone(&self.metrics),
            Arc::clone(&self.store),
            self.clock.clone(),
        )
    }

    /// Returns the job that watches the database.
    pub(super) fn database_watch(&self) -> WatchDatabase {
        WatchDatabase::new(
            Arc::clone(&self.store),
            self.clock.clone(),
            Arc::clone(&self.metrics),
        )
    }

    /// Returns the job that loads late refusals.
    pub(super) fn reload_late_refusals(&self) -> ReloadLateRefusals {
        ReloadLateRefusals::new(
            Arc::clone(&self.refused),
            self.clock.clone(),
            Arc::clone(&self.metrics),
        )
    }

    /// Returns the periodic reconciliation, if the settings ask for it.
    pub(super) fn reconciliation(&self, settings: settings::Reconcile) -> Option<Reconciliation> {
        let every = settings.every?;
        let options = RoundOptions {
            since: settings.since,
            per_second: settings.per_second,
            dry_run: false,
            allow_mass_erasure: false,
            reports_changes: true,
        };
        let reconciler = Reconciler::new(self.reconcile_deps()?, options);
        Some(Reconciliation::new(reconciler, every))
    }

    /// Returns what reconciliation needs, if the settings have Kratos's admin API.
    fn reconcile_deps(&self) -> Option<reconcile::Deps> {
        Some(reconcile::Deps {
            store: Arc::clone(&self.store),
            identities: self.identities.clone()?,
            rules: Arc::clone(&self.rules),
            outbox: self.outbox.clone(),
            tracker: self.tracker.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Returns the state of the admin API.
    pub(super) fn admin_state(&self, access: &settings::AdminAccess) -> AdminState {
        AdminState {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            keep_trying: RetryWindows::of(self.rules.subscriptions()),
            outbox: self.outbox.clone(),
            jobs: Arc::clone(&self.jobs),
            access: AdminAccess {
                allowed_hosts: access.allowed_hosts.clone(),
                token: access.token.clone(),
            },
        }
    }

    /// Returns the verifier of writes into identities, and the log in which hooks note identities that may have
    /// changed.
    pub(super) fn verifier(&self) -> Option<(ActivityLog, Verifier)> {
        let writer = Arc::clone(self.writer.as_ref()?);
        Some(verifier(writer, self.store.clone(), self.clock.clone()))
    }

    fn evaluator(&self) -> Evaluator {
        let services: Arc<dyn AskService> = Arc::<Services>::clone(&self.services);
        let reserver = Reserver {
            rules: Arc::clone(&self.rules),
            services: Arc::clone(&services),
            store: Arc::clone(&self.store),
            outbox: self.outbox.clone(),
            lookup: self.lookup.clone(),
            clock: self.clock.clone(),
        };
        let metrics = CheckMetrics::new(Arc::clone(&self.rules), Arc::clone(&self.metrics));
        Evaluator {
            rules: Arc::clone(&self.rules),
            services,
            reservations: Arc::new(reserver),
            observer: Arc::new(metrics),
            clock: self.clock.clone(),
        }
    }

    fn pending_policy(&self, settings: &Settings) -> PendingPolicy {
        let rules = &self.rules;
        PendingPolicy {
            looks_up: self.identities.is_some(),
            identifiers: settings.kratos.identifiers.clone(),
            external_id: settings.kratos.external_id,
            holds_registrations: rules.holds(Flow::Registration),
            wants_registrations: rules.wants(Event::IdentityCreated)
                || rules.wants(Event::RegistrationFailed),
            wants_updates: rules.wants(Event::IdentityUpdated),
            wants_failures: rules.wants(Event::RegistrationFailed),
            reads_flow: rules.deliveries_read(Variable::Flow),
            reads_request: rules.deliveries_read(Variable::Request),
            times: self.lookup_times.clone(),
        }
    }

    /// Returns the state of the hooks, and the writer of decisions.
    pub(super) fn hook_state(
        &self,
        settings: &Settings,
        in_force: InForce,
        activity: Option<ActivityLog>,
    ) -> (HookState, decision_log::Writer) {
        let dropped = self.metrics.decisions_dropped.clone();
        let on_loss = Arc::new(move |lost| {
            dropped.inc_by(lost);
        });
        let (recorder, writer) = recorder(
            self.store.clone(),
            self.clock.clone(),
            settings.decisions,
            on_loss,
        );
        let hook_state = HookState {
            keys: settings.hooks.keys.clone(),
            deadline: settings.hooks.deadline,
            client_ip: settings.hooks.client_ip.clone(),
            body_needs: settings.hooks.body_needs.clone(),
            rules: Arc::clone(&self.rules),
            evaluator: self.evaluator(),
            pending: self.pending_policy(settings),
            proof: Arc::clone(&self.proof),
            record_unreadable_until: Mutex::new(None),
            in_force,
            outbox: self.outbox.clone(),
            flow_reader: self.flow_reader.clone(),
            store: Arc::clone(&self.store),
            refused: Arc::clone(&self.refused),
            activity,
            writes_identities: settings.writes_identities(),
            tracker: self.tracker.clone(),
            sweep_now: Arc::clone(&self.sweep_now),
            log_limits: LogLimits::default(),
            recorder,
            idempotency: Arc::new(IdempotencyCache::new(self.clock.clone())),
            closings: Arc::new(Semaphore::new(MAX_CONCURRENT_CLOSES)),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        (hook_state, writer)
    }
}
