//! Counts what the checks of sign-ups decide.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use serde_json::Value;

use super::{Kind, Mode, Policy, Rules};
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::{
    CheckLabels, CheckName, KindLabels, ServiceName, StateLabels,
};
use crate::model::request::Request;
use crate::outbound::services::client::CallError;

/// All outcomes of a check, in records, logs and metrics.
pub(super) const OUTCOMES: [&str; 5] = [
    "accepted",
    "refused",
    "unavailable",
    "not_applicable",
    "skipped",
];

/// Is notified of what happens while checks are evaluated.
pub trait CheckObserver: Send + Sync {
    /// The check with this index has this outcome. `unavailable` says why there was no usable answer.
    fn finished(&self, index: usize, outcome: &'static str, unavailable: Option<(Kind, Policy)>);
    /// The check of this name sends this request to its service.
    fn asks(&self, _check: &str, _request: &Request) {}
    /// The check of this name has an answer, which [`response_in`](super::response_in) reads, or none for this reason.
    fn answered(&self, _check: &str, _answer: Result<&Arc<Value>, CallError>) {}
    /// This entry of `refuse` of the check of this name refused.
    fn refused_by_entry(&self, _check: &str, _entry: usize) {}
    /// The check of this name refused a value on which an expression failed.
    fn refused_invalid(&self, _check: &str) {}
    /// The service rejects Vestibule's credentials.
    fn rejected_credentials(&self, service: &str);
    /// A value of the check's `set` was left out.
    fn set_failed(&self, check: &str);
    /// A reservation reached this state: `taken`, `refused`, `unclear`.
    fn reservation(&self, state: &'static str);
}

/// Counts nothing.
impl CheckObserver for () {
    fn finished(&self, _: usize, _: &'static str, _: Option<(Kind, Policy)>) {}
    fn rejected_credentials(&self, _: &str) {}
    fn set_failed(&self, _: &str) {}
    fn reservation(&self, _: &'static str) {}
}

/// Counts in the metrics.
pub struct CheckMetrics {
    rules: Arc<Rules>,
    /// The counters of each check, looked up once instead of with every sign-up.
    outcomes: Vec<[Counter; OUTCOMES.len()]>,
    metrics: Arc<Metrics>,
}

impl CheckMetrics {
    /// Counts the checks of these rules.
    #[must_use]
    pub fn new(rules: Arc<Rules>, metrics: Arc<Metrics>) -> Self {
        let counters = |check: &super::Check| {
            let family = match check.mode {
                Mode::Observe => &metrics.observed_outcomes,
                Mode::Enforce => &metrics.check_outcomes,
            };
            OUTCOMES.map(|outcome| {
                let labels = CheckLabels {
                    check: check.name.clone(),
                    outcome,
                };
                family.get_or_create(&labels).clone()
            })
        };
        Self {
            outcomes: rules.checks().map(counters).collect(),
            rules,
            metrics,
        }
    }
}

impl CheckObserver for CheckMetrics {
    fn finished(&self, index: usize, outcome: &'static str, unavailable: Option<(Kind, Policy)>) {
        let check = &self.rules.compiled()[index].check;
        if let Some(number) = OUTCOMES.iter().position(|name| *name == outcome) {
            self.outcomes[index][number].inc();
        }
        let Some((kind, policy)) = unavailable else {
            return;
        };
        let labels = KindLabels {
            check: check.name.clone(),
            kind: kind.as_str(),
        };
        self.metrics.unavailable.get_or_create(&labels).inc();
        let family = match policy {
            Policy::Accept => &self.metrics.fail_open,
            Policy::Defer => &self.metrics.deferred,
            Policy::Refuse => return,
        };
        if check.mode == Mode::Enforce {
            family.get_or_create(&labels).inc();
        }
    }

    fn rejected_credentials(&self, service: &str) {
        let service = service.to_owned();
        let label = ServiceName { service };
        self.metrics
            .rejected_credentials
            .get_or_create(&label)
            .inc();
    }

    fn set_failed(&self, check: &str) {
        let check = check.to_owned();
        self.metrics
            .set_failures
            .get_or_create(&CheckName { check })
            .inc();
    }

    fn reservation(&self, state: &'static str) {
        let labels = StateLabels { state };
        self.metrics.reservations.get_or_create(&labels).inc();
    }
}
