//! Metrics for the operator. `pre` never answers 5xx, so alerts must use these metrics.

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

/// Labels of a call from Kratos.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HookLabels {
    /// `registration`, `settings`.
    pub flow: &'static str,
    /// `pre`, `post`.
    pub stage: &'static str,
    /// The outcome of the call.
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

/// Labels of a check and a kind of unavailability.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// The check's name.
    pub check: String,
    /// In which way the service was unavailable.
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

/// Labels of an attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// The subscription's name.
    pub plan: String,
    /// `delivered`, `retried`, `abandoned`.
    pub outcome: &'static str,
}

/// Label of a metric that counts by reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// The reason, in one word.
    pub reason: &'static str,
}

/// Label of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckName {
    /// The check's name.
    pub check: String,
}

/// A gauge of seconds, with fractions.
pub type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of Vestibule.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls from Kratos by outcome.
    pub hook_requests: Family<HookLabels, Counter>,
    /// Durations of calls from Kratos, in seconds.
    pub hook_seconds: Family<StageLabels, Histogram>,
    /// Calls from hooks that are misconfigured in kratos.yml, by reason.
    pub wiring_problems: Family<ReasonLabels, Counter>,
    /// `post` calls that Vestibule could not read. Kratos created accounts that Vestibule does not know.
    pub unread_posts: Family<ReasonLabels, Counter>,
    /// Results of checks.
    pub check_outcomes: Family<CheckLabels, Counter>,
    /// Results of checks in mode `observe`.
    pub observed_outcomes: Family<CheckLabels, Counter>,
    /// Sign-ups that were accepted without a check, because the operator chose fail open.
    pub fail_open: Family<KindLabels, Counter>,
    /// Sign-ups that were accepted without an answer, with a deferred check.
    pub deferred: Family<KindLabels, Counter>,
    /// Checks without a usable answer, by kind.
    pub unavailable: Family<KindLabels, Counter>,
    /// Values of `set` that could not be evaluated.
    pub set_failures: Family<CheckName, Counter>,
    /// Calls to services by outcome.
    pub service_requests: Family<ServiceLabels, Counter>,
    /// Answers with which a service rejected Vestibule's credentials.
    pub rejected_credentials: Family<ServiceName, Counter>,
    /// Durations of calls to services, in seconds.
    pub service_seconds: Family<ServiceName, Histogram>,
    /// Deliveries that were stored.
    pub deliveries_stored: Counter,
    /// Attempts of deliveries by outcome.
    pub delivery_attempts: Family<DeliveryLabels, Counter>,
    /// The age of the oldest pending delivery, in seconds.
    pub oldest_pending: Seconds,
    /// Pending deliveries.
    pub pending: Gauge,
    /// Abandoned deliveries.
    pub abandoned: Gauge,
    /// 1 while Vestibule can reach the database, else 0.
    pub database_up: Gauge,
    /// Decisions that could not be stored.
    pub decisions_dropped: Counter,
    /// Accepted sign-ups that could not be stored as pending sign-ups.
    pub journal_dropped: Counter,
    /// Pending sign-ups that ended, by their end.
    pub journal_ended: Family<ReasonLabels, Counter>,
    /// Reservations by outcome.
    pub reservations: Family<ReasonLabels, Counter>,
    /// Accounts that became known after the release of their reservation, and could not be reserved again.
    pub late_posts: Counter,
    /// Identities that reconciliation checked, by result.
    pub reconciled: Family<ReasonLabels, Counter>,
    /// Identities with a late refusal that is enforced.
    pub late_refused_identities: Gauge,
    /// When Vestibule last loaded the late refusals, in seconds since 1970.
    pub late_refusals_loaded_at: Seconds,
    /// How often Vestibule could not load the late refusals.
    pub late_refusals_load_failures: Counter,
    /// Verified writes into identities by result.
    pub identity_writes: Family<ReasonLabels, Counter>,
    /// Deferred checks without an answer after half of their time, or after all of it.
    pub deferred_unanswered: Family<ReasonLabels, Counter>,
    /// 1 if the settings in use are those of the file.
    pub settings_loaded: Gauge,
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
    /// Creates all metrics with the value zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("vestibule"),
            hook_requests: Family::default(),
            hook_seconds: Family::new_with_constructor(duration_histogram),
            wiring_problems: Family::default(),
            unread_posts: Family::default(),
            check_outcomes: Family::default(),
            observed_outcomes: Family::default(),
            fail_open: Family::default(),
            deferred: Family::default(),
            unavailable: Family::default(),
            set_failures: Family::default(),
            service_requests: Family::default(),
            rejected_credentials: Family::default(),
            service_seconds: Family::new_with_constructor(duration_histogram),
            deliveries_stored: Counter::default(),
            delivery_attempts: Family::default(),
            oldest_pending: Seconds::default(),
            pending: Gauge::default(),
            abandoned: Gauge::default(),
            database_up: Gauge::default(),
            decisions_dropped: Counter::default(),
            journal_dropped: Counter::default(),
            journal_ended: Family::default(),
            reservations: Family::default(),
            late_posts: Counter::default(),
            reconciled: Family::default(),
            late_refused_identities: Gauge::default(),
            late_refusals_loaded_at: Seconds::default(),
            late_refusals_load_failures: Counter::default(),
            identity_writes: Family::default(),
            deferred_unanswered: Family::default(),
            settings_loaded: Gauge::default(),
        };
        metrics.register();
        metrics.settings_loaded.set(1);
        metrics
    }

    fn register(&mut self) {
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry
            .register("build", "Which Vestibule this is", build);
        self.register_hooks();
        self.register_deliveries();
        self.register_late_refusals();
    }

    fn register_late_refusals(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "late_refused_identities",
            "Identities that a late refusal keeps out",
            self.late_refused_identities.clone(),
        );
        registry.register(
            "late_refusals_last_load_timestamp_seconds",
            "When the identities that were refused late were last loaded from the database",
            self.late_refusals_loaded_at.clone(),
        );
        registry.register(
            "late_refusals_load_failures",
            "How often the identities that were refused late could not be loaded",
            self.late_refusals_load_failures.clone(),
        );
        registry.register(
            "identity_writes",
            "Verified writes into identities, by what was found",
            self.identity_writes.clone(),
        );
        registry.register(
            "deferred_unanswered",
            "Deferred questions without an answer after half of their time, or after all of it",
            self.deferred_unanswered.clone(),
        );
    }

    fn register_hooks(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "hook_requests",
            "Calls from Kratos by flow, stage and what came of them",
            self.hook_requests.clone(),
        );
        registry.register(
            "hook_duration_seconds",
            "Time from a call's first byte to its answer",
            self.hook_seconds.clone(),
        );
        registry.register(
            "wiring_problems",
            "Calls from hooks that are wired wrongly in kratos.yml",
            self.wiring_problems.clone(),
        );
        registry.register(
            "unread_posts",
            "post calls that could not be read: an account was made of which nothing is known",
            self.unread_posts.clone(),
        );
        registry.register(
            "check_outcomes",
            "What the checks came to",
            self.check_outcomes.clone(),
        );
        registry.register(
            "check_observed_outcomes",
            "What checks in mode observe would have come to",
            self.observed_outcomes.clone(),
        );
        registry.register(
            "fail_open",
            "Sign-ups let pass without an answer, as the settings say",
            self.fail_open.clone(),
        );
        registry.register(
            "deferred",
            "Checks without an answer that are asked again once the account exists",
            self.deferred.clone(),
        );
        registry.register(
            "check_unavailable",
            "Checks without a usable answer, by kind",
            self.unavailable.clone(),
        );
        registry.register(
            "set_failures",
            "Values of set that could not be made and were left out",
            self.set_failures.clone(),
        );
        registry.register(
            "service_requests",
            "Exchanges with services by outcome",
            self.service_requests.clone(),
        );
        registry.register(
            "rejected_credentials",
            "Answers by which a service rejected Vestibule's credentials (401, 407)",
            self.rejected_credentials.clone(),
        );
        registry.register(
            "service_duration_seconds",
            "Time of one exchange with a service",
            self.service_seconds.clone(),
        );
    }

    fn register_deliveries(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "deliveries_stored",
            "Deliveries stored",
            self.deliveries_stored.clone(),
        );
        registry.register(
            "delivery_attempts",
            "Tries at deliveries by outcome",
            self.delivery_attempts.clone(),
        );
        registry.register(
            "delivery_oldest_pending_seconds",
            "How long the oldest pending delivery has waited",
            self.oldest_pending.clone(),
        );
        registry.register(
            "deliveries_pending",
            "Deliveries waiting to be carried",
            self.pending.clone(),
        );
        registry.register(
            "deliveries_abandoned",
            "Deliveries given up, kept to be looked at",
            self.abandoned.clone(),
        );
        registry.register(
            "database_up",
            "1 while the database can be reached and written to",
            self.database_up.clone(),
        );
        registry.register(
            "decisions_dropped",
            "Decisions that could not be written down",
            self.decisions_dropped.clone(),
        );
        registry.register(
            "journal_dropped",
            "Sign-ups that passed and could not be written into the journal in time",
            self.journal_dropped.clone(),
        );
        registry.register(
            "journal_ended",
            "Sign-ups of which no post told, by what a look at Kratos's identities showed",
            self.journal_ended.clone(),
        );
        registry.register(
            "reservations",
            "Reservations by what happened to them",
            self.reservations.clone(),
        );
        registry.register(
            "late_posts",
            "Accounts whose reservation had been released before the account was known, and that could not be reserved again",
            self.late_posts.clone(),
        );
        registry.register(
            "reconciled",
            "Identities looked at by reconciliation, by what was found",
            self.reconciled.clone(),
        );
        registry.register(
            "config_last_reload_successful",
            "1 if the settings in force are those of the file",
            self.settings_loaded.clone(),
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
