//! Metrics for operators. `pre` never answers 5xx, so alerts use these.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counts the expressions of this process that exceeded their budget. An expression does not know the program's metrics, so
/// all [`Metrics`] of the process show this counter.
pub static EXPRESSIONS_OVER_BUDGET: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Labels of a call from Kratos.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HookLabels {
    /// `registration`, `settings`, …; empty if the path names no hook.
    pub flow: &'static str,
    /// `pre`, `post`; empty if the path names no hook.
    pub stage: &'static str,
    /// How Vestibule answered, such as `admitted`, `refused`, `stored`, `misconfigured`, `internal_error`.
    pub outcome: &'static str,
}

/// Labels of a check's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckLabels {
    /// The check's name.
    pub check: String,
    /// `accepted`, `refused`, `unavailable`, `not_applicable`, `skipped`.
    pub outcome: &'static str,
}

/// Labels of an unavailable check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// The check's name.
    pub check: String,
    /// How the service was unavailable.
    pub kind: &'static str,
}

/// Labels of a call to a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServiceLabels {
    /// The service's name.
    pub service: String,
    /// `2xx` … `5xx`, `timeout`, `connection`, `too_large`.
    pub outcome: String,
}

/// Label of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServiceName {
    /// The service's name.
    pub service: String,
}

/// Labels of an attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// The subscription's name, or the queue, such as `write-back:crm`.
    pub subscription: String,
    /// `delivered`, `retried`, `abandoned`.
    pub outcome: &'static str,
}

/// Label of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SubscriptionName {
    /// The subscription's name, or the queue, such as `confirm:invite`.
    pub subscription: String,
}

impl SubscriptionName {
    /// Returns the label of this subscription.
    #[must_use]
    pub fn of(subscription: &str) -> Self {
        Self {
            subscription: subscription.to_owned(),
        }
    }
}

/// Counts what a store does with deliveries. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct DeliveryCounters {
    /// Deliveries that were stored, wherever they come from.
    pub stored: Counter,
    /// Deliveries whose request could not be built, when the event happened or in a retry.
    pub not_built: Family<SubscriptionName, Counter>,
    /// Deliveries that a newer one superseded.
    pub superseded: Family<SubscriptionName, Counter>,
}

/// Label of a fault that an operator must correct.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// What is wrong.
    pub reason: &'static str,
}

/// Label of the result of a job's step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// The result.
    pub outcome: &'static str,
}

/// Label of the state that a record has reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// The state.
    pub state: &'static str,
}

/// Label of the end of a pending sign-up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndLabels {
    /// `created`, `never_created`, `undecided`.
    pub end: &'static str,
}

/// Label of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckName {
    /// The check's name.
    pub check: String,
}

/// A run of a background job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    /// The job's name.
    pub job: &'static str,
    /// `succeeded`, `failed`, `panicked`.
    pub outcome: &'static str,
}

/// A background job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobName {
    /// The job's name.
    pub job: &'static str,
}

/// The runtime of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RuntimeName {
    /// `main`, `http`.
    pub runtime: &'static str,
}

/// A gauge of seconds, with fractions.
pub type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of Vestibule.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls from Kratos by flow, stage and outcome.
    pub hook_requests: Family<HookLabels, Counter>,
    /// The duration of calls from Kratos.
    pub hook_seconds: Family<StageLabels, Histogram>,
    /// Calls from hooks that kratos.yml configures wrongly, by what is wrong.
    pub hook_misconfigurations: Family<ReasonLabels, Counter>,
    /// `post` calls whose deliveries could not be stored, by why.
    pub lost_posts: Family<ReasonLabels, Counter>,
    /// Checks by outcome.
    pub check_outcomes: Family<CheckLabels, Counter>,
    /// Checks in mode `observe` by outcome.
    pub observed_outcomes: Family<CheckLabels, Counter>,
    /// Sign-ups that were accepted although a check was unavailable, as the settings require.
    pub fail_open: Family<KindLabels, Counter>,
    /// Checks that were deferred until the account exists.
    pub deferred: Family<KindLabels, Counter>,
    /// Checks without a usable response, by kind.
    pub unavailable: Family<KindLabels, Counter>,
    /// Values of `set` that could not be evaluated.
    pub set_failures: Family<CheckName, Counter>,
    /// Calls to services by outcome.
    pub service_requests: Family<ServiceLabels, Counter>,
    /// Requests that were repeated on a new connection, by service.
    pub service_reconnects: Family<ServiceName, Counter>,
    /// Responses by which a service rejected Vestibule's credentials.
    pub rejected_credentials: Family<ServiceName, Counter>,
    /// The duration of calls to services.
    pub service_seconds: Family<ServiceName, Histogram>,
    /// What the store does with deliveries.
    pub deliveries: DeliveryCounters,
    /// Attempts at deliveries by outcome.
    pub delivery_attempts: Family<DeliveryLabels, Counter>,
    /// The age of the oldest pending delivery.
    pub oldest_pending: Seconds,
    /// Pending deliveries.
    pub pending: Gauge,
    /// Abandoned deliveries.
    pub abandoned: Gauge,
    /// 1 while Vestibule can reach the database, else 0.
    pub database_up: Gauge,
    /// Checks of the database that failed.
    pub database_failures: Counter,
    /// Decisions that could not be recorded.
    pub decisions_dropped: Counter,
    /// Accepted sign-ups that could not be recorded.
    pub pending_dropped: Counter,
    /// Pending sign-ups without a `post`, by how they ended.
    pub pending_ended: Family<EndLabels, Counter>,
    /// Reservations by the state they reached.
    pub reservations: Family<StateLabels, Counter>,
    /// Accounts whose reservation had been released, and could not be taken again.
    pub posts_after_release: Counter,
    /// Identities and deliveries that reconciliation handled, by outcome.
    pub reconciled: Family<OutcomeLabels, Counter>,
    /// Identities with a late refusal that deactivates.
    pub late_refused_identities: Gauge,
    /// When late refusals were last loaded, in seconds since 1970.
    pub late_refusals_loaded_at: Seconds,
    /// Failed loads of late refusals.
    pub late_refusals_load_failures: Counter,
    /// Verifications of writes into identities, by outcome.
    pub identity_writes: Family<OutcomeLabels, Counter>,
    /// Deferred checks without an answer after half of their time, or all of it.
    pub deferred_unanswered: Family<StateLabels, Counter>,
    /// How long a ready task waited for a thread, by runtime.
    pub thread_wait_seconds: Family<RuntimeName, Histogram>,
    /// Threads that have run no task for two seconds.
    pub blocked_threads: Gauge,
    /// Runs of background jobs by outcome.
    pub job_runs: Family<JobLabels, Counter>,
    /// When each job last succeeded, in seconds since 1970.
    pub job_succeeded_at: Family<JobName, Seconds>,
}

/// Labels of a flow and a stage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabels {
    /// `registration`, `settings`.
    pub flow: &'static str,
    /// `pre`, `post`.
    pub stage: &'static str,
}

fn duration_histogram() -> Histogram {
    // 1 ms … 16 s
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

impl Metrics {
    /// Creates all metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::with_deliveries(DeliveryCounters::default())
    }

    /// Creates all metrics, at zero, with the counters of the store.
    #[must_use]
    pub fn with_deliveries(deliveries: DeliveryCounters) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("vestibule"),
            hook_requests: Family::default(),
            hook_seconds: Family::new_with_constructor(duration_histogram),
            hook_misconfigurations: Family::default(),
            lost_posts: Family::default(),
            check_outcomes: Family::default(),
            observed_outcomes: Family::default(),
            fail_open: Family::default(),
            deferred: Family::default(),
            unavailable: Family::default(),
            set_failures: Family::default(),
            service_requests: Family::default(),
            service_reconnects: Family::default(),
            rejected_credentials: Family::default(),
            service_seconds: Family::new_with_constructor(duration_histogram),
            deliveries,
            delivery_attempts: Family::default(),
            oldest_pending: Seconds::default(),
            pending: Gauge::default(),
            abandoned: Gauge::default(),
            database_up: Gauge::default(),
            database_failures: Counter::default(),
            decisions_dropped: Counter::default(),
            pending_dropped: Counter::default(),
            pending_ended: Family::default(),
            reservations: Family::default(),
            posts_after_release: Counter::default(),
            reconciled: Family::default(),
            late_refused_identities: Gauge::default(),
            late_refusals_loaded_at: Seconds::default(),
            late_refusals_load_failures: Counter::default(),
            identity_writes: Family::default(),
            deferred_unanswered: Family::default(),
            thread_wait_seconds: Family::new_with_constructor(duration_histogram),
            blocked_threads: Gauge::default(),
            job_runs: Family::default(),
            job_succeeded_at: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry
            .register("build", "Version of Vestibule", build);
        self.register_hooks();
        self.register_deliveries();
        self.register_late_refusals();
        self.register_jobs();
    }

    fn register_jobs(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "thread_wait_seconds",
            "Time that a ready task waited for a thread, by runtime, measured ten times a second on each",
            self.thread_wait_seconds.clone(),
        );
        registry.register(
            "blocked_threads",
            "Threads of the main runtime and the hooks port that have run no task for two seconds",
            self.blocked_threads.clone(),
        );
        registry.register(
            "job_runs",
            "Runs of background jobs by outcome",
            self.job_runs.clone(),
        );
        registry.register(
            "job_last_success_timestamp_seconds",
            "Time of the last successful run of a background job, in seconds since 1970",
            self.job_succeeded_at.clone(),
        );
    }

    fn register_late_refusals(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "late_refused_identities",
            "Identities with a late refusal that deactivates",
            self.late_refused_identities.clone(),
        );
        registry.register(
            "late_refusals_last_load_timestamp_seconds",
            "Time of the last load of late refusals from the database, in seconds since 1970",
            self.late_refusals_loaded_at.clone(),
        );
        registry.register(
            "late_refusals_load_failures",
            "Failed loads of late refusals from the database",
            self.late_refusals_load_failures.clone(),
        );
        registry.register(
            "identity_writes",
            "Verifications of writes into identities, by outcome",
            self.identity_writes.clone(),
        );
        registry.register(
            "deferred_unanswered",
            "Deferred checks without an answer after half of their time, or at its end",
            self.deferred_unanswered.clone(),
        );
    }

    fn register_hooks(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "hook_requests",
            "Calls to the hooks port by flow, stage and outcome",
            self.hook_requests.clone(),
        );
        registry.register(
            "hook_duration_seconds",
            "Duration of hook calls, from the request head to the response",
            self.hook_seconds.clone(),
        );
        registry.register(
            "hook_misconfigurations",
            "Calls from hooks that kratos.yml configures wrongly, by reason",
            self.hook_misconfigurations.clone(),
        );
        registry.register(
            "lost_posts",
            "post calls whose deliveries could not be stored, by reason",
            self.lost_posts.clone(),
        );
        registry.register(
            "check_outcomes",
            "Checks by outcome",
            self.check_outcomes.clone(),
        );
        registry.register(
            "check_observed_outcomes",
            "Checks in mode observe by outcome",
            self.observed_outcomes.clone(),
        );
        registry.register(
            "fail_open",
            "Sign-ups accepted although a check was unavailable, as the settings require",
            self.fail_open.clone(),
        );
        registry.register(
            "deferred",
            "Checks that were unavailable and are repeated after sign-up",
            self.deferred.clone(),
        );
        registry.register(
            "check_unavailable",
            "Checks without a usable response, by kind",
            self.unavailable.clone(),
        );
        registry.register(
            "set_failures",
            "Values of set that could not be evaluated and were omitted",
            self.set_failures.clone(),
        );
        registry.register(
            "service_requests",
            "Calls to services by outcome",
            self.service_requests.clone(),
        );
        registry.register(
            "service_reconnects",
            "Requests repeated on a new connection, because the service closed a kept-alive connection",
            self.service_reconnects.clone(),
        );
        registry.register(
            "rejected_credentials",
            "Responses by which a service rejected Vestibule's credentials (401, 407)",
            self.rejected_credentials.clone(),
        );
        registry.register(
            "expressions_over_budget",
            "Evaluations of expressions that exceeded their budget, and so failed",
            EXPRESSIONS_OVER_BUDGET.clone(),
        );
        registry.register(
            "service_duration_seconds",
            "Duration of calls to services",
            self.service_seconds.clone(),
        );
    }

    fn register_deliveries(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "deliveries_stored",
            "Deliveries stored in the outbox",
            self.deliveries.stored.clone(),
        );
        registry.register(
            "deliveries_not_built",
            "Deliveries whose request could not be built, by subscription",
            self.deliveries.not_built.clone(),
        );
        registry.register(
            "deliveries_superseded",
            "Pending deliveries that a newer one of the same identity replaced, by subscription",
            self.deliveries.superseded.clone(),
        );
        registry.register(
            "delivery_attempts",
            "Delivery attempts by subscription and outcome",
            self.delivery_attempts.clone(),
        );
        registry.register(
            "delivery_oldest_pending_seconds",
            "Age of the oldest pending delivery",
            self.oldest_pending.clone(),
        );
        registry.register(
            "deliveries_pending",
            "Pending deliveries",
            self.pending.clone(),
        );
        registry.register(
            "deliveries_abandoned",
            "Abandoned deliveries, kept until an operator retries or discards them",
            self.abandoned.clone(),
        );
        registry.register(
            "database_up",
            "1 if the database can be reached and written to",
            self.database_up.clone(),
        );
        registry.register(
            "database_failures",
            "Times that the database became unreachable or unwritable, or lost its file",
            self.database_failures.clone(),
        );
        registry.register(
            "decisions_dropped",
            "Decisions that could not be recorded",
            self.decisions_dropped.clone(),
        );
        registry.register(
            "pending_dropped",
            "Accepted sign-ups that could not be recorded",
            self.pending_dropped.clone(),
        );
        registry.register(
            "pending_ended",
            "Pending sign-ups without a post, by how they ended",
            self.pending_ended.clone(),
        );
        registry.register(
            "reservations",
            "Reservations by the state they reached",
            self.reservations.clone(),
        );
        registry.register(
            "posts_after_release",
            "Accounts whose reservation had been released, and could not be taken again",
            self.posts_after_release.clone(),
        );
        registry.register(
            "reconciled",
            "Identities and deliveries that reconciliation handled, by outcome",
            self.reconciled.clone(),
        );
    }

    /// Encodes all metrics as `OpenMetrics` text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // A write to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
