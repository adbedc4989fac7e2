//! How a delivery leaves the house: by the service client, with the address and credentials of the settings in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::{Clock, Timestamp, later};
use crate::delivery::{Attempt, Claimed, Outcome, Plan, Unanswered};
use crate::service::client::{NoAnswer, Services};
use crate::telemetry::metrics::DeliveryLabels;
use crate::telemetry::{Metrics, Trace};
use crate::worker::{Courier, Observer};

/// The longest that a receiver may take, whatever its service's timeout.
const LONGEST: Duration = Duration::from_mins(1);

/// Carries deliveries over HTTP.
pub struct Porter {
    services_of_plans: BTreeMap<String, String>,
    services: Arc<Services>,
    clock: Clock,
}

impl Porter {
    /// For the deliveries of these plans.
    #[must_use]
    pub fn new(plans: &[Plan], services: Arc<Services>, clock: Clock) -> Self {
        let services_of_plans = plans
            .iter()
            .map(|plan| (plan.name.clone(), plan.send.service.clone()))
            .collect();
        Self {
            services_of_plans,
            services,
            clock,
        }
    }
}

#[async_trait]
impl Courier for Porter {
    fn service(&self, plan: &str) -> Option<String> {
        self.services_of_plans.get(plan).cloned()
    }

    async fn carry(&self, delivery: &Claimed) -> Attempt {
        let Some(service) = self.services_of_plans.get(&delivery.plan) else {
            return Attempt::Unanswered(Unanswered::NotSent);
        };
        let (now, id) = (self.clock.now(), delivery.id.to_string());
        let signature = self
            .services
            .signature(service, &id, now, &delivery.request);
        let mut extra = vec![
            ("idempotency-key", id.clone()),
            ("webhook-id", id),
            ("webhook-timestamp", now.timestamp().to_string()),
            ("traceparent", Trace::begin().child()),
        ];
        extra.extend(signature.map(|signature| ("webhook-signature", signature)));
        let until = later(now, LONGEST);
        match self
            .services
            .exchange(service, &delivery.request, &extra, until)
            .await
        {
            Ok(answer) => Attempt::Answered {
                status: answer.status,
                retry_after: answer
                    .retry_after
                    .as_deref()
                    .and_then(|header| pause(header, self.clock.now())),
            },
            Err(NoAnswer::Timeout) => Attempt::Unanswered(Unanswered::Timeout),
            Err(NoAnswer::UnknownService | NoAnswer::ForbiddenAddress) => {
                Attempt::Unanswered(Unanswered::NotSent)
            }
            Err(NoAnswer::Connection | NoAnswer::TooLarge) => {
                Attempt::Unanswered(Unanswered::Connection)
            }
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn pause(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        Some(Duration::from_secs(seconds))
    } else {
        let date = chrono::DateTime::parse_from_rfc2822(header).ok()?;
        (date.to_utc() - now).to_std().ok()
    }
}

/// Counts attempts.
pub struct Counter(pub Arc<Metrics>);

impl Observer for Counter {
    fn attempted(&self, delivery: &Claimed, _: &Attempt, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::RetryAt(_) => "retried",
            Outcome::Abandoned => "abandoned",
        };
        let labels = DeliveryLabels {
            plan: delivery.plan.clone(),
            outcome,
        };
        self.0.delivery_attempts.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        for (header, expected) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Mon, 23 Nov 2026 12:01:00 GMT", Some(60)),
            ("Mon, 23 Nov 2026 11:00:00 GMT", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(
                pause(header, now),
                expected.map(Duration::from_secs),
                "{header}"
            );
        }
    }
}
