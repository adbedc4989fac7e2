//! Builds the components of the program, and gives each component what it uses.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use tokio::sync::{Notify, Semaphore};

use super::delivery_metrics::DeliveryMetrics;
use crate::base::clock::Clock;
use crate::base::telemetry::Metrics;
use crate::checks::account_lookup::Lookup;
use crate::checks::activity::ActivityLog;
use crate::checks::follow_up::{FollowUps, InForce};
use crate::checks::refused_identities::RefusedIdentities;
use crate::checks::{Checks, MessageCatalog, ReservationDeps};
use crate::config::settings::Settings;
use crate::expression::Variable;
use crate::http::hooks::idempotency::IdempotencyCache;
use crate::http::hooks::open_flow::MAX_CONCURRENT_CLOSES;
use crate::http::{AdminState, HookState, PendingPolicy};
use crate::jobs::dispatcher::{Dispatcher, DispatcherLimits, Jitter};
use crate::jobs::identity_verifier::{Verifier, verifier};
use crate::jobs::identity_writer::IdentityWriter;
use crate::jobs::reconcile;
use crate::jobs::sweeper::{Sweeper, URGENT_CALLS_PER_SECOND};
use crate::jobs::transport::{HttpTransport, TransportDeps};
use crate::kratos::Flow;
use crate::model::delivery::Event;
use crate::model::pending::LookupTimes;
use crate::outbound::kratos_admin::KratosAdmin;
use crate::outbound::kratos_admin::call_limit::CallLimit;
use crate::outbound::services::client::Services;
use crate::store::Store;
use crate::store::admin::RetryWindows;
use crate::store::decision_log::{self, recorder};
use crate::store::guard::GuardProof;
use crate::store::outbox::outbox;

/// The parts that several components share.
pub(super) struct Components {
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Arc<dyn Store>,
    services: Arc<Services>,
    identities: Option<KratosAdmin>,
    pub(super) refused: Arc<RefusedIdentities>,
    writer: Option<Arc<IdentityWriter>>,
    pub(super) follow_ups: Arc<FollowUps>,
    stored: Arc<Notify>,
    sweep_now: Arc<Notify>,
    clock: Clock,
    proof: Arc<GuardProof>,
    lookup: Option<Lookup>,
    lookup_times: LookupTimes,
}

impl Components {
    pub(super) fn new(
        settings: &Settings,
        store: Arc<dyn Store>,
        clock: Clock,
        lookup_times: LookupTimes,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::with_stored(store.deliveries_stored()));
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
        let writer = identities.clone().map(|identities| {
            Arc::new(IdentityWriter::new(
                identities,
                Arc::clone(&store),
                Arc::clone(&refused),
                clock.clone(),
                Arc::clone(&metrics),
            ))
        });
        let follow_ups = FollowUps::new(
            &settings.subscriptions,
            &settings.checks,
            Arc::clone(&settings.lists),
        );
        let proof = Arc::new(GuardProof::new(Arc::clone(&store), clock.clone()));
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
            writer,
            follow_ups: Arc::new(follow_ups),
            stored: Arc::new(Notify::new()),
            sweep_now: Arc::new(Notify::new()),
            clock,
        })
    }

    pub(super) fn dispatcher(&self, settings: &Settings, jitter: Jitter) -> Dispatcher {
        let transport = HttpTransport::new(TransportDeps {
            subscriptions: settings.subscriptions.clone(),
            checks: settings.checks.clone(),
            lists: Arc::clone(&settings.lists),
            services: Arc::clone(&self.services),
            writer: self.writer.clone(),
            store: Arc::clone(&self.store),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
        });
        Dispatcher::new(
            Arc::clone(&self.store),
            Arc::new(transport),
            Arc::new(DeliveryMetrics(Arc::clone(&self.metrics))),
            Arc::clone(&self.stored),
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
            follow_ups: Arc::clone(&self.follow_ups),
            times: self.lookup_times.clone(),
            is_unanswered: AtomicBool::new(false),
            stored: Arc::clone(&self.stored),
            sweep_now: Arc::clone(&self.sweep_now),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Returns what reconciliation needs, if the settings have Kratos's admin API.
    pub(super) fn reconcile_deps(&self, settings: &Settings) -> Option<reconcile::Deps> {
        Some(reconcile::Deps {
            store: Arc::clone(&self.store),
            identities: self.identities.clone()?,
            subscriptions: settings.subscriptions.clone(),
            lists: Arc::clone(&settings.lists),
            stored: Arc::clone(&self.stored),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Returns the state of the admin API.
    pub(super) fn admin_state(&self, settings: &Settings) -> AdminState {
        AdminState {
            store: Arc::clone(&self.store),
            clock: self.clock.clone(),
            keep_trying: RetryWindows::of(&settings.subscriptions),
            stored: Arc::clone(&self.stored),
        }
    }

    /// Returns the verifier of writes into identities, and the log in which hooks note identities that may have
    /// changed.
    pub(super) fn verifier(&self) -> Option<(ActivityLog, Verifier)> {
        let writer = Arc::clone(self.writer.as_ref()?);
        Some(verifier(
            writer,
            Arc::clone(&self.store),
            self.clock.clone(),
        ))
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
        let (recorder, writer) = recorder(Arc::clone(&self.store), on_loss);
        let lost = self.metrics.pending_dropped.clone();
        let on_loss = Arc::new(move |number| {
            lost.inc_by(number);
        });
        let (outbox, outbox_writer) = outbox(Arc::clone(&self.store), on_loss);
        // The writer ends after the last call is answered and the hooks' state is dropped.
        tokio::spawn(outbox_writer.run());
        let reads = |root| {
            settings
                .subscriptions
                .iter()
                .any(|subscription| subscription.reads(root))
        };
        let checks = Checks::new(
            settings.checks.clone(),
            Arc::clone(&self.services),
            Arc::clone(&settings.lists),
            MessageCatalog {
                builtin: settings.builtin.clone(),
                default_language: settings.hooks.default_language.clone(),
            },
            ReservationDeps {
                store: Arc::clone(&self.store),
                stored: Arc::clone(&self.stored),
                lookup: self.lookup.clone(),
            },
            self.clock.clone(),
            Arc::clone(&self.metrics),
        );
        let wants = |event| self.follow_ups.wants(event);
        let hook_state = HookState {
            keys: settings.hooks.keys.clone(),
            deadline: settings.hooks.deadline,
            client_ip_header: settings.hooks.client_ip_header.clone(),
            checks,
            follow_ups: Arc::clone(&self.follow_ups),
            lists: Arc::clone(&settings.lists),
            pending: PendingPolicy {
                looks_up: self.identities.is_some(),
                identifiers: settings.kratos.identifiers.clone(),
                external_id: settings.kratos.external_id,
                holds_registrations: self.follow_ups.holds(Flow::Registration),
                wants_registrations: wants(Event::IdentityCreated)
                    || wants(Event::RegistrationFailed),
                wants_updates: wants(Event::IdentityUpdated),
                wants_failures: wants(Event::RegistrationFailed),
                reads_flow: reads(Variable::Flow),
                reads_request: reads(Variable::Request),
                times: self.lookup_times.clone(),
            },
            proof: Arc::clone(&self.proof),
            record_unreadable_until: Mutex::new(None),
            in_force,
            outbox,
            store: Arc::clone(&self.store),
            refused: Arc::clone(&self.refused),
            activity,
            writes_identities: settings.writes_identities(),
            sweep_now: Arc::clone(&self.sweep_now),
            stored: Arc::clone(&self.stored),
            unknown_paths: Mutex::default(),
            recorder,
            idempotency: Arc::new(IdempotencyCache::new(self.clock.clone())),
            closings: Arc::new(Semaphore::new(MAX_CONCURRENT_CLOSES)),
            builtin: settings.builtin.clone(),
            default_language: settings.hooks.default_language.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        };
        (hook_state, writer)
    }
}
