//! Counts attempts of the dispatcher for the metrics.

use std::sync::Arc;

use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::DeliveryLabels;
use crate::jobs::dispatcher::AttemptObserver;
use crate::model::delivery::{Attempt, Claimed, Outcome};

/// Counts attempts by subscription and outcome.
pub struct DeliveryMetrics(pub Arc<Metrics>);

impl AttemptObserver for DeliveryMetrics {
    fn attempted(&self, delivery: &Claimed, _: &Attempt, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::RetryAt(_) => "retried",
            Outcome::Abandoned => "abandoned",
        };
        let labels = DeliveryLabels {
            subscription: delivery.subscription.clone(),
            outcome,
        };
        self.0.delivery_attempts.get_or_create(&labels).inc();
    }
}
